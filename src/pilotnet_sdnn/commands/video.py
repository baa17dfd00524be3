"""Render a stretch of the drive as a video, with the steering and the events of the trained network: sdnn-video"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from pilotnet_sdnn.archive import read_member
from pilotnet_sdnn.drive import BadLabels, decode_frame, frame_member, labels_name, open_drive, read_labels
from pilotnet_sdnn.errors import UserError, reported
from pilotnet_sdnn.events import layers
from pilotnet_sdnn.frames import Frames, Split, read_frames, repair_zero_labels, split_sequences, stretch_with_most
from pilotnet_sdnn.network import load_network
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import DRIVE, FRAMES, NETWORK
from pilotnet_sdnn.progress import progress
from pilotnet_sdnn.road import FRAME_RATE
from pilotnet_sdnn.video import KINDS, Moment, Scene, pictures, watch, write_video


def main() -> None:
    parser = argparse.ArgumentParser(prog="sdnn-video", description=__doc__.partition(":")[0])
    parser.add_argument("file", nargs="?", type=Path, default=Path("drive.mp4"), help="an .mp4, or a .gif (drive.mp4)")
    parser.add_argument("--start", type=float, help="second of the drive (where most of the frames are test frames)")
    parser.add_argument("--seconds", type=float, default=30, help="length (30)")
    parser.add_argument("--running", action="store_true", help="state goes on, as behind a camera, over all sequences")
    arguments = parser.parse_args()
    with reported():
        if arguments.file.suffix not in KINDS:
            raise UserError(f"{arguments.file}: a video ends with {' or '.join(KINDS)}")
        params = load_params()
        network, drive = load_network(NETWORK), read_frames(FRAMES)
        split = split_sequences(len(drive.angles), params.sequence, params.split)
        shown = stretch(len(drive.angles), split, params.sequence, arguments.start, arguments.seconds)
        moments = watch(network, drive.frames[shown], params.sequence, arguments.running)
        macs = sum(layer.macs for layer in layers(network))
        note = "state goes on from frame to frame" if arguments.running else f"new start every {params.sequence} frames"
        with open_drive(DRIVE) as camera:
            labels = read_labels(camera, BadLabels(labels_name(camera), params.on_bad_frame))  # as resize reads them
            files = [frame_member(label) for label in labels]
            scenes = film(camera, files, drive, split, params.sequence, shown, moments)
            video = pictures(scenes, macs, drive.origin, note)
            write_video(arguments.file, progress(video, total=len(shown), desc=str(arguments.file), unit="frame"))
    print(f"{arguments.file}: seconds {shown[0] / FRAME_RATE:g} to {(shown[-1] + 1) / FRAME_RATE:g} of {drive.origin}")


def stretch(frames: int, split: Split, sequence: int, start: float | None, seconds: float) -> np.ndarray:
    """The numbers of the frames to show, from the start of a sequence; fewer than asked for where the drive ends.

    Raises:
        UserError: there are none.
    """
    if not seconds * FRAME_RATE >= 1:  # nor NaN
        raise UserError(f"--seconds {seconds:g}: expected {1 / FRAME_RATE:g}, one frame, or more")
    count = round(min(seconds * FRAME_RATE, frames))
    if start is None:
        first = stretch_with_most(split.test, frames // sequence, -(-count // sequence))[0] * sequence
    elif 0 <= start < frames / FRAME_RATE:
        first = int(start * FRAME_RATE) // sequence * sequence
    else:
        raise UserError(f"--start {start:g}: the drive is {frames / FRAME_RATE:g} seconds long")
    return np.arange(first, min(first + count, frames))


def film(
    camera: ZipFile,
    files: list[str],
    drive: Frames,
    split: Split,
    sequence: int,
    shown: np.ndarray,
    moments: Iterator[Moment],
) -> Iterator[Scene]:
    """What the camera saw in the frames shown, and what the network made of them."""
    angles = repair_zero_labels(drive.angles, sequence)
    for number, moment in zip(shown, moments, strict=True):
        seen = decode_frame(read_member(camera, files[number]), f"{camera.filename}: {files[number]}")
        yield Scene(seen, float(angles[number]), part(number // sequence, split), number / FRAME_RATE, moment)


def part(sequence: int, split: Split) -> str:
    """What a sequence was used for."""
    if sequence in split.test:
        return "test"
    return "training" if sequence in split.train else "unused"


if __name__ == "__main__":
    main()
