"""The packed 33x100 frames of a drive: the store, its sequences and their split.

data/frames.h5 holds `frames` uint8 (N, 33, 100, 3), contiguous so that it can be memory-mapped,
`angles` float32 (N,), radians as labelled, and attributes that say which drive they are of.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.files import whole

FRAME_SHAPE = (33, 100, 3)  # height, width, RGB
STRETCHES = 5  # parts of the drive that each hold out their end, in the blocked split


class Frames(NamedTuple):
    """A drive as data/frames.h5 holds it."""

    frames: np.ndarray  # (N, 33, 100, 3) uint8, memory-mapped
    angles: np.ndarray  # (N,) float32 radians, as labelled
    origin: str  # which drive this is


class Split(NamedTuple):
    """Numbers of the sequences to train on and to test on."""

    train: np.ndarray
    test: np.ndarray


def write_frames(path: Path, frames: Iterable[np.ndarray], angles: np.ndarray, **attributes: str) -> None:
    """Write data/frames.h5.

    Args:
        path: the file.
        frames: N arrays (33, 100, 3) uint8.
        angles: (N,) float32 radians.
        attributes: where the frames are from; `origin` is read back by `read_frames`.
    """
    with whole(path) as temporary, h5py.File(temporary, "w") as store:
        store.attrs.update(attributes)
        store["angles"] = angles
        packed = store.create_dataset("frames", (len(angles), *FRAME_SHAPE), np.uint8)
        for number, frame in enumerate(frames):
            packed[number] = frame


def read_frames(path: Path) -> Frames:
    """Open data/frames.h5 without reading its frames.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        with h5py.File(path) as store:
            packed = store["frames"]
            frames = np.memmap(path, packed.dtype, "r", packed.id.get_offset(), packed.shape)
            return Frames(frames, store["angles"][:], store.attrs["origin"])
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


def sequences(drive: Frames, sequence: int) -> tuple[np.ndarray, np.ndarray]:
    """A drive cut into sequences; frames after the last whole one are left out.

    Returns:
        (S, T, 33, 100, 3) uint8 frames, still memory-mapped, and (S, T) float32 repaired angles in radians.
    """
    count = len(drive.angles) // sequence
    angles = repair_zero_labels(drive.angles, sequence)[: count * sequence]
    frames = drive.frames[: count * sequence]
    return frames.reshape(count, sequence, *FRAME_SHAPE), angles.reshape(count, sequence)


def split_sequences(frames: int, sequence: int, split: str) -> Split:
    """Which sequences of a drive train and which test.

    Args:
        frames: length of the drive.
        sequence: frames in a sequence.
        split: "random" is the permutation and the 80/20 cut of lava-dl's PilotNet dataset, index for
            index. "blocked" holds out the last fifth of each of five stretches of the drive and leaves
            a gap of one sequence on either side, so that no test frame has a training neighbour.

    Raises:
        UserError: the drive is too short to leave a sequence on both sides.
    """
    train, test = _random_split(frames, sequence) if split == "random" else _blocked_split(frames // sequence)
    if len(train) == 0 or len(test) == 0:
        raise UserError(
            f"the drive has {frames} frames, {frames // sequence} sequences of {sequence}: too few for a {split} "
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


def stretch_with_most(chosen: np.ndarray, count: int, length: int) -> np.ndarray:
    """The `length` consecutive sequences, of `count`, that hold the most of the chosen ones."""
    held = np.isin(np.arange(count), chosen).astype(int)
    start = np.convolve(held, np.ones(min(length, count), int), "valid").argmax()
    return np.arange(start, start + min(length, count))
