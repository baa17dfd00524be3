"""The packed 33x100 frames of a drive: the store, its sequences and their split.

data/frames.h5 holds, of the N frames that could be read, in the order of time:
    frames    uint8 (N, 33, 100, 3), contiguous, so that a sequence is one read
    angles    float32 (N,), radians as labelled
    segments  int32 (N,), which uninterrupted stretch of road each is of; another one begins where it changes
    numbers   int32 (N,), which of the drive's labels each has, counted from 0; bad frames leave holes
and as attributes `skipped`, how many bad frames were left out, and what says which drive it is.
"""

import math
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.files import atomic_write

FRAME_SHAPE = (33, 100, 3)  # height, width, RGB
STRETCHES = 5  # parts of the drive that each hold out their end, in the blocked split
BLOCK = 1024  # frames copied at a time, 10 MB

Block = tuple[np.ndarray, np.ndarray]  # numbers (n,) of some labels, their frames (n, 33, 100, 3) uint8


class Frames(NamedTuple):
    """A drive as data/frames.h5 holds it."""

    frames: h5py.Dataset  # (N, 33, 100, 3) uint8, in the file: what is indexed is read
    angles: np.ndarray  # (N,) float32 radians, as labelled
    segments: np.ndarray  # (N,) int32
    numbers: np.ndarray  # (N,) int32
    origin: str  # which drive this is
    skipped: int  # bad frames that were left out


class Split(NamedTuple):
    """Numbers of the sequences to train on and to test on."""

    train: np.ndarray
    test: np.ndarray


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


def write_frames(
    path: Path,
    blocks: Iterable[Block],
    labels: int,
    describe: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    skipped: int = 0,
    **attributes: str,
) -> None:
    """Write data/frames.h5, a block at a time.

    Args:
        path: the file.
        blocks: the frames in the order of time and the numbers of their labels; bad ones are left out.
        labels: how many frames there would be without bad ones.
        describe: the angles (N,) in radians and the segments (N,) of the labels with these numbers (N,).
        skipped: frames that were left out before.
        attributes: where the frames are from; `origin` is read back by `read_frames`.

    Raises:
        UserError: all frames are bad.
    """
    with atomic_write(path) as temporary:
        numbers = _pack(temporary, blocks, labels)
        if len(numbers) == 0:
            raise UserError(f"{path}: none of the {labels} frames can be read; get the drive again")
        if len(numbers) < labels:
            _shorten(temporary, len(numbers))
        angles, segments = describe(numbers)
        with h5py.File(temporary, "r+") as store:
            store.attrs.update(attributes, skipped=skipped + labels - len(numbers))
            store["angles"] = angles.astype(np.float32)
            store["segments"] = segments.astype(np.int32)
            store["numbers"] = numbers.astype(np.int32)


def _pack(path: Path, blocks: Iterable[Block], room: int) -> np.ndarray:
    """Write the blocks one after the other; the numbers of all."""
    packed = 0
    numbers = [np.empty(0, int)]
    with h5py.File(path, "w") as store:
        frames = store.create_dataset("frames", (room, *FRAME_SHAPE), np.uint8)
        for some, block in blocks:
            frames[packed : packed + len(block)] = block
            packed += len(block)
            numbers.append(some)
    return np.concatenate(numbers)


def _shorten(path: Path, length: int) -> None:
    """Keep the first frames only. A contiguous dataset cannot shrink, so they are copied."""
    with atomic_write(path) as shorter, h5py.File(path) as store:
        frames = store["frames"]
        starts = range(0, length, BLOCK)
        _pack(shorter, ((np.empty(0), frames[at : min(at + BLOCK, length)]) for at in starts), length)


def read_frames(path: Path) -> Frames:
    """Open data/frames.h5 without reading its frames.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        store = h5py.File(path)
        angles, segments, numbers = (store[name][:] for name in ("angles", "segments", "numbers"))
        return Frames(store["frames"], angles, segments, numbers, store.attrs["origin"], int(store.attrs["skipped"]))
    except (OSError, KeyError) as error:
        raise UserError(f"{path}: not a readable frames file ({error}); `dvc repro resize` makes it") from None


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


def _stretches(segments: np.ndarray) -> list[np.ndarray]:
    """The numbers of the frames of each segment."""
    return np.split(np.arange(len(segments)), np.flatnonzero(np.diff(segments)) + 1)


def sequences(drive: Frames, sequence: int) -> tuple[Sequences, np.ndarray]:
    """A drive cut into sequences, each segment for itself; frames after its last whole one are left out.

    Returns:
        S sequences of T frames (33, 100, 3), still in the file, and (S, T) float32 repaired angles in radians.
    """
    stretches = _stretches(drive.segments)
    starts = np.concatenate([stretch[: len(stretch) // sequence * sequence : sequence] for stretch in stretches])
    angles = np.concatenate([repair_zero_labels(drive.angles[stretch], sequence) for stretch in stretches])
    videos = Sequences(drive.frames, starts, sequence)
    return videos, angles[videos.frame_numbers()].reshape(-1, sequence)


def split_sequences(segments: np.ndarray, sequence: int, split: str) -> Split:
    """Which sequences of a drive train and which test.

    Args:
        segments: (N,) of the drive's frames.
        sequence: frames in a sequence.
        split: "random" is the permutation and the 80/20 cut of lava-dl's PilotNet dataset, index for
            index. "blocked" holds out the last fifth of each of five stretches of the drive and leaves
            a gap of one sequence on either side, so that no test frame has a training neighbour.

    Raises:
        UserError: the drive is too short to leave a sequence on both sides.
    """
    lengths = [len(stretch) for stretch in _stretches(segments)]
    count = sum(length // sequence for length in lengths)
    # lava-dl's cut depends also on the frames that are left at the end of its one segment
    frames = count * sequence + lengths[-1] % sequence
    train, test = _random_split(frames, sequence) if split == "random" else _blocked_split(count)
    if len(train) == 0 or len(test) == 0:
        raise UserError(
            f"the drive has {len(segments)} frames, {count} sequences of {sequence}: too few for a {split} "
            f"split into training and test; use a longer drive or a smaller `sequence`"
        )
    return Split(train, test)


def _random_split(frames: int, sequence: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.random.RandomState(42).permutation(frames // sequence)
    train, test = int(frames / sequence * 0.8), int(frames / sequence * 0.2)
    return order[:train], order[len(order) - test :]


def _blocked_split(count: int) -> tuple[np.ndarray, np.ndarray]:
    held_out = np.zeros(count, bool)
    for stretch in np.array_split(np.arange(count), STRETCHES):
        held_out[stretch[len(stretch) - max(1, len(stretch) // 5) :]] = True
    near = held_out.copy()
    near[:-1] |= held_out[1:]
    near[1:] |= held_out[:-1]
    return np.flatnonzero(~near), np.flatnonzero(held_out)


def stretch_with_most(chosen: np.ndarray, segments: np.ndarray, length: int) -> np.ndarray:
    """The consecutive sequences, or frames, of one segment that hold the most of the chosen ones.

    Args:
        chosen: numbers of the sequences wanted.
        segments: (S,) of all sequences, in the order of time.
        length: how many there should be; fewer if no segment is as long.
    """
    length = min(length, int(np.bincount(segments).max()))
    held = np.convolve(np.isin(np.arange(len(segments)), chosen), np.ones(length), "valid")
    held[segments[: len(held)] != segments[length - 1 :]] = -1
    start = int(held.argmax())
    return np.arange(start, start + length)
