"""Where the stages of dvc.yaml find and leave their files, relative to the root of the repository."""

import os
from pathlib import Path

PARAMS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")
LOCK = Path("dvc.lock")

ENVIRONMENT = Path("data/environment.yaml")
SOURCES = Path("data/sources.json")
DRIVES = Path("data/raw")  # a zip for each drive
FRAMES = Path("data/frames")  # a file for each drive
ACTIVITY = Path("data/activity.npz")

PRETRAINED = Path("models/pretrained.pt")
TRAINED = Path("models/trained.pt")
NETWORK = Path("models/network.pt")
TRAINING_LOG = Path("models/training.csv")
ANN = Path("models/ann.pt")
EXPORTED_NETWORK = Path("models/network.net")

DRIVE_METRICS = Path("metrics/drive.json")
TRAIN_METRICS = Path("metrics/train.json")
EVALUATION_METRICS = Path("metrics/evaluation.json")
ANN_METRICS = Path("metrics/ann.json")
OPERATIONS_METRICS = Path("metrics/operations.json")
DEPLOYMENT_METRICS = Path("metrics/deployment.json")

DRIVE_PICTURE = Path("plots/drive.png")
DRIVE_PLOT = Path("plots/drive.csv")
TRAINING_PLOT = Path("plots/training.csv")
EVENTS_PLOT = Path("plots/events.csv")
STEERING_PLOT = Path("plots/steering.csv")
CALIBRATION_PLOT = Path("plots/calibration.csv")
DRIFT_PLOT = Path("plots/drift.csv")
DEPLOYMENT_PLOT = Path("plots/deployment.csv")
OPERATIONS_PLOT = Path("plots/operations.csv")
OPERATIONS_TABLE = Path("plots/operations.md")
CHECKPOINTS = Path("models/checkpoints")


def repository() -> Path:
    """The root of the repository, also from the copy of it that an experiment runs in.

    `dvc exp run --temp` and queued experiments run in such a copy in .dvc/tmp/exps of the repository.
    """
    here = Path.cwd()
    for folder in here.parents:
        if folder.parts[-3:] == (".dvc", "tmp", "exps"):
            return folder.parents[2]
    return here


def user_cache() -> Path:
    """Per-user cache for expensive files, shared by all checkouts and experiments."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pilotnet-sdnn"
