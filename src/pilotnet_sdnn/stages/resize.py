"""Turn the drives into data/frames: every labelled frame as the network sees it, 33x100 RGB, a file for each drive."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from tqdm.contrib.logging import logging_redirect_tqdm

from pilotnet_sdnn.dataset.resizing import resized_frames
from pilotnet_sdnn.dataset.sequences import said_of_zeros
from pilotnet_sdnn.dataset.store import Block, read_frames, write_frames
from pilotnet_sdnn.drive.drive_zip import (
    content_digest,
    labels_name,
    labels_sha256,
    open_drive,
    origin,
    read_labels,
    repairs_zeros,
)
from pilotnet_sdnn.drive.labels import BadLabels, radians, segments
from pilotnet_sdnn.drive_files import drive_files, drive_folder, inputs_of, key_of
from pilotnet_sdnn.errors import counted, exit_on_error
from pilotnet_sdnn.params import Params, load_params
from pilotnet_sdnn.paths import DRIVES, FRAMES
from pilotnet_sdnn.progress import progress


def main() -> None:
    params = load_params()
    inputs = inputs_of("resize")
    with drive_folder(FRAMES) as folder, logging_redirect_tqdm():
        for position, drive in enumerate(drive_files(DRIVES, "download"), 1):
            path = folder.path(position, name := f"{key_of(content_digest(drive), inputs)}.h5")
            if not folder.restore(name, path):
                resize_drive(drive, path, params)
                folder.keep()
    written = read_frames(FRAMES)
    segment_count = len(np.unique(written.segments))
    print(f"{FRAMES}: {counted(len(written.angles), 'frame')} in {counted(segment_count, 'segment')}")


def resize_drive(drive_zip: Path, path: Path, params: Params) -> None:
    """Write the resized frames of one drive."""
    with open_drive(drive_zip) as drive:
        bad = BadLabels(labels_name(drive), params.on_bad_frame)
        labels = read_labels(drive, bad)

        def describe(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            kept = [labels[number] for number in numbers]
            return radians(kept), segments(kept, params.gap_frames, params.gap_seconds)

        blocks = with_progress(resized_frames(drive, labels, bad), len(labels))
        repairs = repairs_zeros(drive) if params.zero_labels == "auto" else params.zero_labels == "repair"
        write_frames(
            path,
            blocks,
            len(labels),
            describe,
            skipped=bad.count,
            names=[unquote(label.frame) for label in labels],
            lines=[label.line for label in labels],
            origin=origin(drive),
            labels_sha256=labels_sha256(drive),
            repairs_zeros=repairs,
        )
        zeros = sum(label.degrees == 0 for label in labels)
        print(f"{origin(drive)}: {said_of_zeros(zeros, repairs)}")
    if bad.count:
        print(f"warning: {bad}")


def with_progress(blocks: Iterable[Block], total: int) -> Iterator[Block]:
    """The blocks, with a progress bar of their frames."""
    with progress(total=total, desc="resize", unit="frame") as bar:
        for numbers, frames in blocks:
            yield numbers, frames
            bar.update(len(numbers))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with exit_on_error():
        main()
