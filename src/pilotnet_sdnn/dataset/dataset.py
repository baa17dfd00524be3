"""The dataset that networks are trained and measured on: sequences, their labels and their split."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pilotnet_sdnn.dataset.sequences import Sequences, cut_sequences
from pilotnet_sdnn.dataset.split import SequenceSplit, split_sequences
from pilotnet_sdnn.dataset.store import Frames, read_frames


class Dataset(NamedTuple):
    """A drive cut into S sequences of T frames."""

    drive: Frames
    sequences: Sequences  # (S, T, 33, 100, 3) uint8, still in the file
    angles: np.ndarray  # (S, T) float32 radians, drop-outs repaired
    split: SequenceSplit  # numbers of the sequences to train on and to test on


def open_dataset(path: Path, sequence: int, split: str) -> Dataset:
    """Open data/frames.h5, cut it into sequences and split them.

    Args:
        path: the file that stage resize writes.
        sequence: T, frames in a sequence.
        split: "random" or "blocked".

    Raises:
        UserError: the file is missing or damaged, or the drive is too short to split.
    """
    drive = read_frames(path)
    sequences, angles = cut_sequences(drive, sequence)
    return Dataset(drive, sequences, angles, split_sequences(drive.segments, sequence, split))
