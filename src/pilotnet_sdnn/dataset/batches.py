"""Batches of sequences on the device that trains, loaded and augmented in advance.

In training, a lane is one place in the batch, followed from batch to batch. It stays on the road for up to `carry`
sequences, a stream, then it jumps elsewhere. So the network sees long streams, and yet every batch is diverse.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pilotnet_sdnn.dataset.augmentation import Augmentation, augment
from pilotnet_sdnn.dataset.prefetch import prefetch
from pilotnet_sdnn.dataset.road import Dataset
from pilotnet_sdnn.dataset.sequences import Sequences

FRAMES_PER_STEP = 128  # in training on single frames

Change = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Batch(NamedTuple):
    """n sequences of T frames, on the device that trains; other processes may have the rest of the batch."""

    frames: Tensor  # (n, T, 33, 100, 3) uint8
    angles: Tensor  # (n, T) float32 radians
    continues: Tensor  # (n,) bool: it follows the sequence in the same place of the batch before
    sequences: int  # of the whole batch


@dataclass(frozen=True)
class Batches:
    """Sequences in a given order, `size` at a time; the last batch may be smaller.

    While a batch is used, a thread loads the next two.
    """

    videos: Sequences | np.ndarray  # (S, T, 33, 100, 3) uint8
    angles: np.ndarray  # (S, T) float32 radians
    order: np.ndarray  # numbers of the sequences
    size: int
    device: torch.device
    change: Change | None = None  # maps frames, angles and stream numbers of a batch to frames and angles
    streams: np.ndarray | None = None  # number of each sequence's stream, in this order; None: each is one of its own
    done: int = 0  # batches to leave out
    part: slice = field(default_factory=lambda: slice(None))  # of each batch: the sequences to load

    def __len__(self) -> int:
        return -(-len(self.order) // self.size) - self.done

    def __iter__(self) -> Iterator[Batch]:
        with ThreadPoolExecutor(1) as pool:
            starts = range(self.done * self.size, len(self.order), self.size)
            yield from prefetch(pool, self._load, starts, max_pending=2)

    def after(self, steps: int) -> "Batches":
        """The batches that follow the first `steps`."""
        return replace(self, done=self.done + steps)

    def _load(self, start: int) -> Batch:
        numbers = streams = self.order[start : start + self.size]
        continues = np.zeros(len(numbers), bool)
        if self.streams is not None:
            streams = self.streams[start : start + self.size]
            if start:
                continues = streams == self.streams[start - self.size : start][: len(streams)]
        sequences = len(numbers)
        numbers, streams, continues = numbers[self.part], streams[self.part], continues[self.part]
        frames, labels = self.videos[numbers], self.angles[numbers]
        if self.change is not None:
            frames, labels = self.change(frames, labels, streams)
        tensors = [torch.from_numpy(values).to(self.device) for values in (frames, labels, continues)]
        return Batch._make([*tensors, sequences])


def batches(videos: Sequences | np.ndarray, angles: np.ndarray, size: int, device: torch.device) -> Batches:
    """All sequences, in the order of time."""
    return Batches(videos, angles, np.arange(len(angles)), size, device)


def train_and_test(
    dataset: Dataset, length: int, size: int, carry: int, augmentation: Augmentation, seed: int, device: torch.device
) -> tuple[Callable[[int], Batches], Batches]:
    """The batches of each epoch, counted from 0, and those of held-out road in the order of time.

    Args:
        dataset: split into road to train on and road to test on.
        length: frames in a sequence.
        size: sequences in a batch.
        carry: consecutive sequences in a training stream, at most.
        augmentation: limits of the changes of training streams.
        seed: of the run.
        device: where the batches go.
    """
    (videos, angles), held_out = (dataset.sequences(part, length) for part in dataset.split)
    train, test = batches(videos, angles, size, device), batches(*held_out, size, device)
    follows = following(videos.starts, length, dataset.drive.segments)
    return partial(training_batches, train, follows, carry, augmentation, seed), test


def following(starts: np.ndarray, length: int, segments: np.ndarray) -> np.ndarray:
    """(S,) bool, the sequences that begin where the one before them ends, in the same segment.

    Args:
        starts: (S,) index of each sequence's first frame.
        length: frames in a sequence.
        segments: (N,) of the drive's frames.
    """
    return np.append(False, (np.diff(starts) == length) & (np.diff(segments[starts]) == 0))


def training_batches(
    train: Batches, follows: np.ndarray, carry: int, augmentation: Augmentation, seed: int, epoch: int
) -> Batches:
    """The training road, cut into streams that are shuffled and augmented anew in each epoch.

    Order and augmentation follow from seed and epoch alone, so a resumed run sees the same batches.

    Args:
        train: the training sequences in the order of time.
        follows: from `following`.
        carry: consecutive sequences in a stream, at most.
        augmentation: limits of the changes.
        seed: of the run.
        epoch: counted from 0.
    """
    random = np.random.default_rng((seed, epoch))
    order, streams = lanes(streams_of(follows, carry, int(random.integers(carry))), train.size, random)
    return replace(train, order=order, streams=streams, change=partial(augment, augmentation, seed=seed, epoch=epoch))


def streams_of(follows: np.ndarray, carry: int, phase: int) -> list[np.ndarray]:
    """Consecutive sequences, at most `carry` each; the first stream of each stretch is `phase` sequences shorter."""
    numbers = np.arange(len(follows))
    place = numbers - np.maximum.accumulate(np.where(follows, 0, numbers))  # in its stretch
    return np.split(numbers, np.flatnonzero(~follows | ((place + phase) % carry == 0))[1:])


def lanes(streams: list[np.ndarray], count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Shuffle streams and lay them out in lanes, side by side.

    Returns:
        Sequences and the number of each one's stream, both (S,): first those of all lanes' first step, then those of
        the second. Lanes are equally long, or the last ones a step shorter.
    """
    shuffled = [streams[number] for number in random.permutation(len(streams))]
    road = np.stack([np.concatenate(shuffled), np.concatenate([np.full(len(s), s[0]) for s in shuffled])])
    step = np.concatenate([np.arange(len(lane)) for lane in np.array_split(road[0], count)])
    order, numbers = road[:, np.argsort(step, kind="stable")]
    return order, numbers
