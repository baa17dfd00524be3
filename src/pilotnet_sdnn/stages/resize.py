"""Turn the drive into data/frames.h5: every labelled frame as the network sees it, 33x100 RGB."""

import logging
from collections.abc import Iterable, Iterator

import numpy as np
from tqdm.contrib.logging import logging_redirect_tqdm

from pilotnet_sdnn.dataset.resizing import resized_frames
from pilotnet_sdnn.dataset.store import Block, read_frames, write_frames
from pilotnet_sdnn.drive.drive_zip import labels_name, labels_sha256, open_drive, origin, read_labels
from pilotnet_sdnn.drive.labels import BadLabels, radians, segments
from pilotnet_sdnn.errors import counted, exit_on_error
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import DRIVE, FRAMES
from pilotnet_sdnn.progress import progress


def main() -> None:
    params = load_params()
    with open_drive(DRIVE) as drive, logging_redirect_tqdm():
        bad = BadLabels(labels_name(drive), params.on_bad_frame)
        labels = read_labels(drive, bad)

        def describe(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            kept = [labels[number] for number in numbers]
            return radians(kept), segments(kept, params.gap_frames, params.gap_seconds)

        blocks = with_progress(resized_frames(drive, labels, bad), len(labels))
        names = {"origin": origin(drive), "labels_sha256": labels_sha256(drive)}
        write_frames(FRAMES, blocks, len(labels), describe, skipped=bad.count, **names)
    written = read_frames(FRAMES)
    segment_count = len(np.unique(written.segments))
    print(f"{FRAMES}: {counted(len(written.angles), 'frame')} in {counted(segment_count, 'segment')}")
    if written.skipped:
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
