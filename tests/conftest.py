"""Drives to test with: a short synthetic one, and real ones where they are at hand."""

import fcntl
import os
import shutil
from collections.abc import Callable
from importlib.metadata import files
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from clone import ROOT, TINY, Clone, clone_of_working_tree
from hypothesis import settings
from recording_pipeline import recording_pipeline

from pilotnet_sdnn.drive import sources
from pilotnet_sdnn.sdnn.network import Network, NetworkOutput, normalise

settings.register_profile("suite", derandomize=True, max_examples=150, deadline=None)  # the same examples every time
settings.load_profile("suite")
torch.set_num_threads(1)  # small tensors gain nothing from more, and tests run side by side

REAL_DATA = Path(os.environ.get("PILOTNET_TEST_DATA", Path(__file__).parents[2] / "shared/data"))


@pytest.fixture(scope="session")
def tiny_drive(tmp_path_factory) -> Path:
    """A zip with 160 synthetic frames, ten sequences of 16."""
    path = tmp_path_factory.mktemp("drive") / "tiny.zip"
    sources.fetch("synthetic", path, frames=160, seed=1)
    return path


@pytest.fixture(scope="session")
def tiny_pipelines(tmp_path_factory, worker_id) -> Path:
    """A folder with two clones on a tiny drive, `untrained` and `finished`, made by one worker for all: copy them."""
    folder = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        folder = folder.parent  # that of all workers
    with (folder / "tiny.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "untrained").exists():
            untrained = clone_of_working_tree(folder / "untrained", **TINY)
            untrained.run("dvc", "repro", "pretrain")
            shutil.rmtree(untrained.path / "models/checkpoints")
            finished = untrained.copy(folder / "finished")
            finished.run("dvc", "repro")
            finished.commit("The tiny pipeline has run")
    return folder


@pytest.fixture(scope="session")
def tiny_pipeline(tiny_pipelines, tmp_path_factory) -> Clone:
    """A clone whose pipeline ran once, on a tiny drive, and is committed; tests leave its workspace as it is."""
    return Clone(tiny_pipelines / "finished").copy(tmp_path_factory.mktemp("tiny") / "clone")


@pytest.fixture(scope="session")
def recording(tmp_path_factory) -> Clone:
    """A small pipeline that records which stages ran, for tests of sweeps: they copy it."""
    return recording_pipeline(tmp_path_factory.mktemp("recording"))


@pytest.fixture(scope="session")
def ground_truth() -> Path:
    """A PilotNet SDNN with input and output, part of lava-dl's own tests, in its wheel."""
    (network,) = [file for file in files("lava-dl") or [] if file.match("gts/pilotnet_sdnn/network.net")]
    return Path(str(network.locate())).parent


@pytest.fixture
def desk(tmp_path, monkeypatch, ground_truth) -> Path:
    """A folder with parameters and a network, in which the command runs."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "models").mkdir()
    shutil.copy(ground_truth / "network.net", tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def drifting_noise(sequences: int, frames: int) -> torch.Tensor:
    """(S, T, 33, 100, 3) uint8: noise that changes so little that most of it stays as it was."""
    noise = torch.Generator().manual_seed(0)
    first = torch.randint(0, 200, (sequences, 1, 33, 100, 3), generator=noise)
    change = torch.randint(0, 12, (sequences, frames, 33, 100, 3), generator=noise).cumsum(1)
    return (first + change).clamp(max=255).to(torch.uint8)


def trained_network(videos: torch.Tensor, penalty: Callable[[Network, NetworkOutput], torch.Tensor]) -> Network:
    """A network after a few optimizer steps on angles of one radian and a penalty of what it sends."""
    torch.manual_seed(1)
    network = Network()
    optimizer = torch.optim.RAdam(network.parameters(), lr=0.01)
    for _ in range(8):
        outcome = network(normalise(videos))
        loss = F.mse_loss(outcome.angles, torch.ones(videos.shape[:2])) + penalty(network, outcome)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def real(name: str) -> Path:
    path = REAL_DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not at hand")
    return path


@pytest.fixture
def real_drive() -> Path:
    """5,614 frames of a public road, Udacity CH2_001."""
    return real("udacity_ch2_001.zip")


@pytest.fixture
def real_labels() -> Path:
    """The 45,406 labels of Sully Chen's drive of 2017."""
    return real("sullychen_2017_data.txt")
