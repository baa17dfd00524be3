"""Render held-out road as a video, with the steering and the events of the trained network: sdnn-video"""

import argparse
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pilotnet_sdnn.dataset.road import open_dataset
from pilotnet_sdnn.dataset.split import Split, Stretch
from pilotnet_sdnn.drive.drive_zip import camera_images, labels_name, open_drive, read_labels
from pilotnet_sdnn.drive.labels import BadLabels
from pilotnet_sdnn.drive.synthetic_world import FRAME_RATE
from pilotnet_sdnn.drive_files import drive_files
from pilotnet_sdnn.errors import UserError, exit_on_error
from pilotnet_sdnn.measure.activity import TUTORIAL_SEQUENCE
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import DRIVES, FRAMES, NETWORK
from pilotnet_sdnn.progress import progress
from pilotnet_sdnn.sdnn import kernels
from pilotnet_sdnn.sdnn.geometry import layer_geometries
from pilotnet_sdnn.sdnn.network import load_network
from pilotnet_sdnn.video.scenes import KINDS, Moment, Scene, pictures, watch, write_video


def main() -> None:
    parser = argparse.ArgumentParser(prog="sdnn-video", description=__doc__.partition(":")[0])
    parser.add_argument(
        "file", nargs="?", type=Path, default=Path("drive.mp4"), help=".mp4 or .gif; default: drive.mp4"
    )
    parser.add_argument("--start", type=float, help="in seconds of the drive; default: the longest held-out stretch")
    parser.add_argument("--seconds", type=float, default=30, help="maximum length; default: 30")
    parser.add_argument(
        "--restarted",
        action="store_true",
        help=f"restart the network every {TUTORIAL_SEQUENCE} frames, as the tutorial does",
    )
    arguments = parser.parse_args()
    with exit_on_error():
        if arguments.file.suffix not in KINDS:
            raise UserError(f"{arguments.file}: expected a file name that ends with {' or '.join(KINDS)}")
        params = load_params()
        torch.set_num_threads(params.threads)
        network = load_network(NETWORK, corrected=params.corrected_neurons)
        dataset = open_dataset(FRAMES, params.sequence, params.split)
        drive, segments = dataset.drive, dataset.drive.segments
        shown = stretch(dataset.split.test, segments, arguments.start, frames_in(arguments.seconds))
        frames = np.arange(*shown)
        kernel = kernels.choose(params.kernels, torch.device("cpu"))
        moments = watch(network, dataset.chunks(shown, TUTORIAL_SEQUENCE), kernel, arguments.restarted)
        macs = sum(layer.macs for layer in layer_geometries(network))
        note = (
            f"restarted every {TUTORIAL_SEQUENCE} frames"
            if arguments.restarted
            else "state carried from frame to frame"
        )
        parts = [part(frame, dataset.split) for frame in range(*shown)]
        with open_drive(drive_files(DRIVES, "download")[drive.frames.place(shown.start)[0]]) as camera:
            labels = read_labels(camera, BadLabels(labels_name(camera), params.on_bad_frame))  # as resize reads them
            images = camera_images(camera, [labels[drive.numbers[frame]] for frame in range(*shown)])
            _, names = drive.named(frames)
            scenes = film(images, dataset.angles[frames], parts, names, moments)
            video = pictures(scenes, macs, drive.origin, note)
            write_video(arguments.file, progress(video, total=len(frames), desc=str(arguments.file), unit="frame"))
    print(
        f"{arguments.file}: frames {names[0]} to {names[-1]}, seconds {frames[0] / FRAME_RATE:g} to "
        f"{(frames[-1] + 1) / FRAME_RATE:g} of {drive.origin}, {note}"
    )


def frames_in(seconds: float) -> int:
    """The number of frames in a video of this length.

    Raises:
        UserError: it is shorter than a frame, or not finite.
    """
    if not 1 <= seconds * FRAME_RATE < math.inf:  # nor NaN
        raise UserError(f"--seconds {seconds:g}: expected {1 / FRAME_RATE:g}, one frame, or more")
    return round(seconds * FRAME_RATE)


def stretch(held_out: list[Stretch], segments: np.ndarray, start: float | None, count: int) -> Stretch:
    """The stretch of one segment to show; it ends early where the held-out stretch or the segment ends.

    Args:
        held_out: the stretches to test on.
        segments: (N,) of the drive's frames.
        start: second of the drive, or None for the beginning of the longest held-out stretch.
        count: frames to show.

    Raises:
        UserError: the drive ends before `start`.
    """
    if start is None:
        longest = max(held_out, key=lambda stretch: stretch.frames)
        return Stretch(longest.start, min(longest.start + count, longest.stop))
    if not 0 <= start < len(segments) / FRAME_RATE:
        raise UserError(f"--start {start:g}: the drive is {len(segments) / FRAME_RATE:g} s long")
    first = int(start * FRAME_RATE)
    return Stretch(first, first + int((segments[first : first + count] == segments[first]).sum()))


def film(
    images: Iterable[Image.Image],
    angles: np.ndarray,
    parts: list[str],
    names: list[str],
    moments: Iterable[Moment],
) -> Iterator[Scene]:
    """Each image together with what the network did in that frame."""
    for seen, angle, where, name, moment in zip(images, angles, parts, names, moments, strict=True):
        yield Scene(seen, float(angle), where, name, moment)


def part(frame: int, split: Split) -> str:
    """The part of the split that a frame belongs to: test, training or unused."""
    for name, stretches in (("test", split.test), ("training", split.train)):
        if any(start <= frame < stop for start, stop in stretches):
            return name
    return "unused"


if __name__ == "__main__":
    main()
