"""Sequences of frames that stay in the file, and labels repaired as in lava-dl's PilotNet dataset."""

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np

from pilotnet_sdnn.dataset.store import FRAME_SHAPE, StoredFrames
from pilotnet_sdnn.errors import UserError, counted


class Sequences:
    """S sequences of T frames, indexed like an array (S, T, 33, 100, 3).

    Indexing reads only the sequences asked for, so a drive may exceed memory. Reading beats memory-mapping: touched
    pages of a map count as memory in use, and one call per sequence is faster than a page fault every few frames.
    """

    def __init__(self, frames: StoredFrames, starts: np.ndarray, length: int) -> None:
        """Args:
        frames: `Frames.frames`.
        starts: (S,) index of each sequence's first frame. A sequence stays within a drive.
        length: T, frames in a sequence.
        """
        self.starts = starts
        self.length = length
        self._frames = frames
        self._files = [Path(drive.file.filename).open("rb", buffering=0) for drive in frames.files]  # noqa: SIM115
        self._offsets = [drive.id.get_offset() for drive in frames.files]
        self._lock = threading.Lock()  # guards the positions in the files

    def __len__(self) -> int:
        return len(self.starts)

    def frame_numbers(self, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(n * T,) indices, in the drive, of the frames of n sequences."""
        return (self.starts[chosen, None] + np.arange(self.length)).ravel()

    def __getitem__(self, chosen: Any) -> np.ndarray:
        """(..., T, 33, 100, 3) uint8, a copy.

        Args:
            chosen: an index, a slice or an array (...) of indices.

        Raises:
            UserError: the file was truncated.
        """
        starts = self.starts[chosen]
        frames = np.empty((*np.shape(starts), self.length, *FRAME_SHAPE), np.uint8)
        with self._lock:
            for start, into in zip(np.ravel(starts), frames.reshape(-1, self.length, *FRAME_SHAPE), strict=True):
                drive, first = self._frames.place(start)
                file = self._files[drive]
                file.seek(self._offsets[drive] + first * math.prod(FRAME_SHAPE))
                if file.readinto(into) != into.nbytes:
                    raise UserError(f"{file.name}: the file was truncated; `dvc repro resize` rebuilds it")
        return frames


def repair_zero_labels(angles: np.ndarray, sequence: int) -> np.ndarray:
    """Replace zero labels as lava-dl's PilotNet dataset does.

    A label of exactly zero counts as a missing reading and becomes the mean of the two original labels around it.
    Two labels are kept: the first of a sequence, because the original never looks back across its start (it does
    look forward past its end), and the last of the drive, where the original stops with an IndexError.

    Args:
        angles: (N,) float32 radians as labelled.
        sequence: frames in a sequence.
    """
    inside = np.arange(1, len(angles) - 1)
    missing = inside[(np.abs(angles[inside]) < np.radians(1e-5)) & (inside % sequence != 0)]
    repaired = angles.copy()
    repaired[missing] = (angles[missing - 1].astype(float) + angles[missing + 1]) / 2
    return repaired


def said_of_zeros(zeros: int, repaired: bool) -> str:
    """What a log says about the labels of a drive that are exactly zero."""
    if repaired:
        return f"{counted(zeros, 'label')} of exactly 0, taken for drop-outs and interpolated (zero_labels)"
    return f"{counted(zeros, 'label')} of exactly 0, kept (zero_labels)"


def frames_of_segments(segments: np.ndarray) -> list[np.ndarray]:
    """The frame indices of each segment."""
    return np.split(np.arange(len(segments)), np.flatnonzero(np.diff(segments)) + 1)
