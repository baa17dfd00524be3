"""A drive cut into sequences of frames, with the labels of lava-dl's PilotNet dataset."""

import math
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pilotnet_sdnn.dataset.store import FRAME_SHAPE, Frames
from pilotnet_sdnn.errors import UserError


class Sequences:
    """The frames of S sequences, indexed by their numbers as an array (S, T, 33, 100, 3) is.

    Nothing but the sequences asked for is read, so a drive may be longer than memory: read, not
    memory-mapped, because mapped pages that were touched count as memory in use. It is also faster, one
    call for each sequence instead of a page fault for every few frames.
    """

    def __init__(self, frames: h5py.Dataset, starts: np.ndarray, length: int) -> None:
        """Args:
        frames: `Frames.frames`.
        starts: (S,) number of each sequence's first frame.
        length: T, frames in a sequence.
        """
        self.starts = starts
        self.length = length
        self._file = Path(frames.file.filename).open("rb", buffering=0)  # noqa: SIM115, as long as it is needed
        self._offset = frames.id.get_offset()
        self._lock = threading.Lock()  # of the position in the file

    def __len__(self) -> int:
        return len(self.starts)

    def frame_numbers(self, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(n * T,) numbers, in the drive, of the frames of n sequences."""
        return (self.starts[chosen, None] + np.arange(self.length)).ravel()

    def __getitem__(self, chosen: Any) -> np.ndarray:
        """(..., T, 33, 100, 3) uint8, a copy.

        Args:
            chosen: a number, a slice or an array (...) of numbers.

        Raises:
            UserError: the file has become shorter.
        """
        starts = self.starts[chosen]
        frames = np.empty((*np.shape(starts), self.length, *FRAME_SHAPE), np.uint8)
        with self._lock:
            for start, into in zip(np.ravel(starts), frames.reshape(-1, self.length, *FRAME_SHAPE), strict=True):
                self._file.seek(self._offset + int(start) * math.prod(FRAME_SHAPE))
                if self._file.readinto(into) != into.nbytes:
                    raise UserError(f"{self._file.name}: it has become shorter; `dvc repro resize` makes it again")
        return frames


def repair_zero_labels(angles: np.ndarray, sequence: int) -> np.ndarray:
    """The angles with the drive's drop-outs mended, as lava-dl's PilotNet dataset mends them.

    A label of exactly zero is taken for a missing reading and becomes the mean of the labels before
    and after it, as labelled. The first label of a sequence is kept, because the original never looks
    back across it (it does look forward, past the sequence's end), and so is the last of the drive,
    where the original runs out of labels and stops with an IndexError.

    Args:
        angles: (N,) float32 radians as labelled.
        sequence: frames in a sequence.
    """
    inside = np.arange(1, len(angles) - 1)
    missing = inside[(np.abs(angles[inside]) < np.radians(1e-5)) & (inside % sequence != 0)]
    repaired = angles.copy()
    repaired[missing] = (angles[missing - 1].astype(float) + angles[missing + 1]) / 2
    return repaired


def frames_of_segments(segments: np.ndarray) -> list[np.ndarray]:
    """The numbers of the frames of each segment."""
    return np.split(np.arange(len(segments)), np.flatnonzero(np.diff(segments)) + 1)


def cut_sequences(drive: Frames, sequence: int) -> tuple[Sequences, np.ndarray]:
    """A drive cut into sequences, each segment for itself; frames after its last whole one are left out.

    Returns:
        S sequences of T frames (33, 100, 3), still in the file, and (S, T) float32 repaired angles in radians.
    """
    stretches = frames_of_segments(drive.segments)
    starts = np.concatenate([stretch[: len(stretch) // sequence * sequence : sequence] for stretch in stretches])
    angles = np.concatenate([repair_zero_labels(drive.angles[stretch], sequence) for stretch in stretches])
    videos = Sequences(drive.frames, starts, sequence)
    return videos, angles[videos.frame_numbers()].reshape(-1, sequence)
