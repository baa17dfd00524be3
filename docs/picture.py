"""Draw the README's picture from the outputs of the last `dvc repro`: uv run python docs/picture.py"""

import csv
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from pilotnet_sdnn.dataset.store import read_frames
from pilotnet_sdnn.drive.drive_zip import camera_images, open_drive, read_labels
from pilotnet_sdnn.drive.synthetic_world import FRAME_RATE
from pilotnet_sdnn.drive_files import drive_files
from pilotnet_sdnn.paths import ACTIVITY, DRIVES, EVALUATION_METRICS, FRAMES, OPERATIONS_METRICS, OPERATIONS_PLOT

PICTURE = Path(__file__).with_name("picture.png")
PHOTOS = (0.15, 0.35, 0.55, 0.85)  # of the minute that is shown
SHOWN = 60 * FRAME_RATE  # held-out frames


def columns(path: Path) -> dict[str, list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


def draw_frame(ax: Axes, number: int, degrees: float) -> None:
    frames = read_frames(FRAMES)
    with open_drive(drive_files(DRIVES, "download")[frames.frames.place(number)[0]]) as drive:
        ax.imshow(next(camera_images(drive, [read_labels(drive)[frames.numbers[number]]])))
    ax.set_title(f"{degrees:+.0f}°", fontsize=10)
    ax.axis("off")


def draw_steering(ax: Axes, activity: dict[str, np.ndarray]) -> None:
    """Labels and predictions; a line where the next stretch of held-out road begins."""
    seconds = np.arange(len(activity["labels"])) / FRAME_RATE
    ax.plot(seconds, np.degrees(activity["labels"]), color="0.6", lw=3, label="label")
    ax.plot(seconds, np.degrees(activity["angles"]), color="tab:blue", lw=1, label="SDNN")
    for start in seconds[activity["is_start"]][1:]:
        ax.axvline(start, color="0.85", lw=0.8, zorder=0)
    ax.margins(x=0)
    ax.set(xlabel="seconds of unseen road, one stretch after another", ylabel="steering wheel, degrees")
    ax.set_title(f"r2 {json.loads(EVALUATION_METRICS.read_text())['r2']:.2f} as a running camera", fontsize=10)
    ax.legend(frameon=False, loc="upper right", ncols=2, fontsize=9)


def draw_operations(ax: Axes, operations: dict[str, list[str]]) -> None:
    layers = np.arange(1, len(operations["layer"]))
    ax.bar(layers - 0.2, np.array(operations["macs"], float)[1:], 0.4, color="0.6", label="ANN, MACs")
    ax.bar(layers + 0.2, np.array(operations["synops"], float)[1:], 0.4, color="tab:blue", label="SDNN, synops")
    ax.set(yscale="log", ylim=(0.5, None), xlabel="layer", ylabel="per frame")
    ax.set_title(f"{json.loads(OPERATIONS_METRICS.read_text())['synops_sparsity']:.1f}x fewer operations", fontsize=10)
    ax.legend(frameon=False)


def main() -> None:
    stored = np.load(ACTIVITY)
    activity = {name: stored[name][:SHOWN] for name in ("frames", "labels", "angles", "is_start")}
    figure = plt.figure(figsize=(10, 5), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(2, 3))
    top, bottom = parts
    for ax, share in zip(top.subplots(1, len(PHOTOS)), PHOTOS, strict=True):
        i = int(share * len(activity["frames"]))
        draw_frame(ax, activity["frames"][i], float(np.degrees(activity["labels"][i])))
    left, right = bottom.subplots(1, 2, width_ratios=(3, 2))
    draw_steering(left, activity)
    draw_operations(right, columns(OPERATIONS_PLOT))
    figure.suptitle(read_frames(FRAMES).origin, fontsize=10)
    figure.savefig(PICTURE, dpi=120)


if __name__ == "__main__":
    main()
