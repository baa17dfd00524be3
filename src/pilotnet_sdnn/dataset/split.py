"""The split of a drive into road for training and road for testing.

A split consists of stretches of frames, so that the same held-out road can be measured as streams, in which a network
carries its state, and as sequences that each start from rest.
"""

from typing import NamedTuple

import numpy as np

from pilotnet_sdnn.dataset.sequences import frames_of_segments
from pilotnet_sdnn.errors import UserError, counted

BLOCKS = 5  # of the drive, in the blocked split; each holds out its last fifth
MIN_HELD_OUT = 200  # frames of a held-out stretch, 10 seconds at 20 Hz; shorter drives have fewer blocks
GAP = 32  # frames between training and test, on either side


class Stretch(NamedTuple):
    """Consecutive frames of one segment: those with indices start to stop - 1."""

    start: int
    stop: int

    @property
    def frames(self) -> int:
        """How many they are."""
        return self.stop - self.start


class Split(NamedTuple):
    """The road to train on and the road to test on, in the order of time."""

    train: list[Stretch]
    test: list[Stretch]


def split_drive(segments: np.ndarray, sequence: int, split: str) -> Split:
    """Split a drive.

    Args:
        segments: (N,) of the drive's frames.
        sequence: frames in a sequence.
        split: "blocked" holds out the last fifth of each of five blocks of the drive, with a gap of `GAP` frames
            on either side, whatever `sequence`. Segments cut held-out road into several stretches.
            "random" is the permutation and 80/20 cut of sequences in lava-dl's PilotNet dataset: `cut` returns
            exactly these sequences. Neighbouring sequences of one part are one stretch.

    Raises:
        UserError: the drive is too short for a training and a test sequence.
    """
    parts = _random_split(segments, sequence) if split == "random" else _blocked_split(segments)
    if not all(len(cut(part, sequence)) for part in parts):
        raise UserError(_too_short(segments, sequence, split))
    return parts


def _too_short(segments: np.ndarray, sequence: int, split: str) -> str:
    """Why a drive has no training or no test sequence, and what can help."""
    lengths = [len(frames) for frames in frames_of_segments(segments)]
    count = sum(length // sequence for length in lengths)
    found = (
        f"the drive has {counted(len(segments), 'frame')}, {counted(count, 'sequence')} of {sequence}: too few for a "
        f"{split} split into training and test; "
    )
    if max(lengths) < len(segments) and count < 0.5 * (len(segments) // sequence):
        return (
            f"{found}they are in {counted(len(lengths), 'segment')} of at most {counted(max(lengths), 'frame')}: if "
            "the road has no such gaps, raise gap_frames or gap_seconds, or choose one camera (csv_columns.camera)"
        )
    return f"{found}use a longer drive or a smaller `sequence`"


def cut(stretches: list[Stretch], sequence: int) -> np.ndarray:
    """(S,) index of the first frame of each complete sequence, cut from the start of each stretch."""
    starts = [np.arange(start, stop - sequence + 1, sequence) for start, stop in stretches]
    return np.concatenate([np.empty(0, int), *starts])


def _blocked_split(segments: np.ndarray) -> Split:
    blocks = min(max(len(segments) // (5 * MIN_HELD_OUT), 1), BLOCKS)
    held_out, near = np.zeros((2, len(segments)), bool)
    for block in np.array_split(np.arange(len(segments)), blocks):
        start, stop = int(block[-1]) + 1 - len(block) // 5, int(block[-1]) + 1
        held_out[start:stop] = True
        near[max(start - GAP, 0) : stop + GAP] = True
    return Split(_stretches(~near, segments), _stretches(held_out, segments))


def _stretches(chosen: np.ndarray, segments: np.ndarray) -> list[Stretch]:
    """The runs of chosen frames (N,) within segments."""
    changes = (np.diff(chosen.astype(int)) != 0) | (np.diff(segments) != 0)
    runs = np.split(np.arange(len(chosen)), np.flatnonzero(changes) + 1)
    return [Stretch(int(run[0]), int(run[-1]) + 1) for run in runs if chosen[run[0]]]


def _random_split(segments: np.ndarray, sequence: int) -> Split:
    starts = cut(_stretches(np.ones(len(segments), bool), segments), sequence)
    # lava-dl's cut also depends on the frames left over at the end of its one segment
    frames = len(starts) * sequence + len(frames_of_segments(segments)[-1]) % sequence
    order = np.random.RandomState(42).permutation(len(starts))
    train, test = int(frames / sequence * 0.8), int(frames / sequence * 0.2)
    parts = order[:train], order[len(order) - test :]
    return Split(*(_merged(np.sort(starts[part]), segments, sequence) for part in parts))


def _merged(starts: np.ndarray, segments: np.ndarray, sequence: int) -> list[Stretch]:
    """Sequences as stretches, neighbours in one segment merged."""
    chosen = np.zeros(len(segments), bool)
    chosen[(starts[:, None] + np.arange(sequence)).ravel()] = True
    return _stretches(chosen, segments)
