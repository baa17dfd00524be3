"""The split of a drive into sequences for training and for testing."""

from typing import NamedTuple

import numpy as np

from pilotnet_sdnn.dataset.sequences import frames_of_segments
from pilotnet_sdnn.errors import UserError

BLOCKS = 5  # of the drive, in the blocked split; each holds out its last fifth


class Split(NamedTuple):
    """Indices of the sequences to train on and to test on."""

    train: np.ndarray
    test: np.ndarray


def split_sequences(segments: np.ndarray, sequence: int, split: str) -> Split:
    """Split the sequences of a drive.

    Args:
        segments: (N,) of the drive's frames.
        sequence: frames in a sequence.
        split: "random" is the permutation and 80/20 cut of lava-dl's PilotNet dataset, index for index.
            "blocked" holds out the last fifth of each of five blocks of the drive and leaves a gap of one
            sequence on either side, so that no test frame has a neighbour in training.

    Raises:
        UserError: the drive is too short for a training and a test sequence.
    """
    lengths = [len(stretch) for stretch in frames_of_segments(segments)]
    count = sum(length // sequence for length in lengths)
    # lava-dl's cut also depends on the frames left over at the end of its one segment
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
    for block in np.array_split(np.arange(count), BLOCKS):
        held_out[block[len(block) - max(1, len(block) // 5) :]] = True
    near = held_out.copy()
    near[:-1] |= held_out[1:]
    near[1:] |= held_out[:-1]
    return np.flatnonzero(~near), np.flatnonzero(held_out)


def stretch_with_most(chosen: np.ndarray, segments: np.ndarray, length: int) -> np.ndarray:
    """The run of consecutive sequences, or frames, within one segment that holds most of the chosen ones.

    Args:
        chosen: indices of the sequences wanted.
        segments: (S,) segments of all sequences, in the order of time.
        length: length of the run; shorter if no segment is as long.
    """
    length = min(length, int(np.bincount(segments).max()))
    held = np.convolve(np.isin(np.arange(len(segments)), chosen), np.ones(length), "valid")
    held[segments[: len(held)] != segments[length - 1 :]] = -1
    start = int(held.argmax())
    return np.arange(start, start + length)
