"""The dataset that networks are trained and measured on: the frames of a drive, their labels and their split."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pilotnet_sdnn.dataset.sequences import Sequences, frames_of_segments, repair_zero_labels
from pilotnet_sdnn.dataset.split import Split, Stretch, cut, split_drive
from pilotnet_sdnn.dataset.store import Frames, read_frames

CHUNK = 64  # frames of a stream computed together; changes no result


class Dataset(NamedTuple):
    """N frames of a drive, split into road for training and road for testing."""

    drive: Frames
    angles: np.ndarray  # (N,) float32 radians, drop-outs repaired
    split: Split

    def sequences(self, stretches: list[Stretch], length: int) -> tuple[Sequences, np.ndarray]:
        """Stretches cut into S sequences: frames (S, length, 33, 100, 3), still in the file, and angles (S, length)."""
        videos = Sequences(self.drive.frames, cut(stretches, length), length)
        return videos, self.angles[videos.frame_numbers()].reshape(-1, length)

    def chunks(self, stretch: Stretch, length: int = CHUNK) -> Iterator[np.ndarray]:
        """The frames of a stretch, (length, 33, 100, 3) uint8 at a time; the last chunk may be shorter."""
        for first in range(stretch.start, stretch.stop, length):
            yield self.drive.frames[first : min(first + length, stretch.stop)]


def open_dataset(path: Path, sequence: int, split: str) -> Dataset:
    """Open data/frames, repair its labels and split it.

    Args:
        path: the folder that stage resize writes.
        sequence: frames in a sequence.
        split: "blocked" or "random". With "random", lava-dl's split, the first label of a sequence is never repaired.

    Raises:
        UserError: the file is missing or damaged, or the drive is too short to split.
    """
    drive = read_frames(path)
    period = sequence if split == "random" else len(drive.angles)
    segments = frames_of_segments(drive.segments)
    angles = np.concatenate([repair_zero_labels(drive.angles[frames], period) for frames in segments])
    for start, stop in ((part.start, part.stop) for part in drive.drives if not part.repairs_zeros):
        angles[start:stop] = drive.angles[start:stop]
    return Dataset(drive, angles, split_drive(drive.segments, sequence, split))
