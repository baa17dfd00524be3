"""Draw the picture of docs/streams.md: networks on the same unseen road, each as a running camera.

After the experiments `tutorial` and `sixteen` of docs/streams.md: uv run python docs/stream_picture.py tutorial sixteen
"""

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import dvc.api
import matplotlib.pyplot as plt
import numpy as np
import torch

from pilotnet_sdnn.dataset.road import Dataset, open_dataset
from pilotnet_sdnn.dataset.split import Stretch
from pilotnet_sdnn.drive.synthetic_world import FRAME_RATE
from pilotnet_sdnn.measure.activity import EventCounter, concatenated
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import ANN, FRAMES, NETWORK
from pilotnet_sdnn.sdnn.accuracy import steering_metrics
from pilotnet_sdnn.sdnn.ann import load_ann, predict
from pilotnet_sdnn.sdnn.geometry import layer_geometries
from pilotnet_sdnn.sdnn.network import load_network

PICTURE = Path(__file__).with_name("streams.png")
SECONDS = 60
NAMES = {"tutorial": "the tutorial's recipe", "sixteen": "the 16-frame recipe"}


class Drive(NamedTuple):
    """What one network did on all held-out road."""

    name: str
    angles: np.ndarray  # (F,) radians
    saving: float | None  # MACs of the ANN baseline over synaptic operations


def drive_sdnn(dataset: Dataset, path: Path, name: str, corrected: bool) -> Drive:
    network = load_network(path, corrected=corrected)
    counter = EventCounter(network, "torch")
    activity = concatenated([counter.stream(dataset.chunks(stretch)) for stretch in dataset.split.test])
    macs = sum(layer.macs for layer in layer_geometries(network)[1:])
    return Drive(name, activity.angles, macs / activity.synops.sum(1).mean())


@torch.no_grad()
def drive_ann(dataset: Dataset) -> Drive:
    network = load_ann(ANN)
    chunks = [chunk for stretch in dataset.split.test for chunk in dataset.chunks(stretch)]
    angles = [predict(network, torch.from_numpy(chunk[None])).angles[0].numpy() for chunk in chunks]
    return Drive("ANN baseline", np.concatenate(angles), None)


def shown(stretches: list[Stretch]) -> tuple[np.ndarray, np.ndarray]:
    """Indices, in all held-out frames, of the beginnings of the stretches, a minute in all; where a new one begins."""
    each = SECONDS * FRAME_RATE // len(stretches)
    lengths = [stretch.frames for stretch in stretches]
    begins = np.cumsum([0, *lengths[:-1]])
    pieces = [begin + np.arange(min(each, length)) for begin, length in zip(begins, lengths, strict=True)]
    return np.concatenate(pieces), np.cumsum([len(piece) for piece in pieces])[:-1]


def main() -> None:
    params = load_params()
    torch.set_num_threads(params.threads)
    dataset = open_dataset(FRAMES, params.sequence, "blocked")
    labels = np.concatenate([dataset.angles[start:stop] for start, stop in dataset.split.test])

    drives = [drive_ann(dataset)]
    for revision in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, NETWORK.name)
            path.write_bytes(dvc.api.read(str(NETWORK), rev=revision, mode="rb"))
            corrected = dvc.api.params_show(rev=revision).get("corrected_neurons", False)
            drives.append(drive_sdnn(dataset, path, f"SDNN, {NAMES.get(revision, revision)}", corrected))
    drives.append(drive_sdnn(dataset, NETWORK, "SDNN, this default", params.corrected_neurons))

    frames, borders = shown(dataset.split.test)
    seconds = np.arange(len(frames)) / FRAME_RATE
    figure, axes = plt.subplots(len(drives), 1, figsize=(10, 1.7 * len(drives)), sharex=True, layout="constrained")
    for ax, drive in zip(axes, drives, strict=True):
        ax.plot(seconds, np.degrees(labels[frames]), color="0.7", lw=3, label="label")
        ax.plot(seconds, np.degrees(drive.angles[frames]), color="tab:blue", lw=1, label="predicted")
        for border in borders:
            ax.axvline(seconds[border], color="0.85", lw=0.8)
        saving = f", {drive.saving:.1f}x fewer operations" if drive.saving else ""
        ax.set_title(
            f"{drive.name}: MSE {steering_metrics(labels, drive.angles)['mse']:.4f}{saving}", fontsize=10, loc="left"
        )
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(x=0)
    axes[0].legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=9)
    figure.supylabel("steering wheel, degrees", fontsize=10)
    axes[-1].set_xlabel("seconds of unseen road, one stretch after another")
    figure.suptitle(dataset.drive.origin, fontsize=10)
    figure.savefig(PICTURE, dpi=120)


if __name__ == "__main__":
    main()
