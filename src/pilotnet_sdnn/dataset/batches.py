"""Batches of sequences on the device that trains, loaded and augmented in advance."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pilotnet_sdnn.dataset.augmentation import Augmentation, augment
from pilotnet_sdnn.dataset.prefetch import prefetch
from pilotnet_sdnn.dataset.road import Dataset
from pilotnet_sdnn.dataset.sequences import Sequences

FRAMES_PER_STEP = 128  # in training on single frames

Change = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Batches:
    """Sequences in a given order, `size` at a time; the last batch may be smaller.

    While a batch is used, a thread loads the next two.

    Yields:
        (n, T, 33, 100, 3) uint8 frames and (n, T) float32 angles in radians, on the device.
    """

    videos: Sequences | np.ndarray  # (S, T, 33, 100, 3) uint8
    angles: np.ndarray  # (S, T) float32 radians
    order: np.ndarray  # numbers of the sequences
    size: int
    device: torch.device
    change: Change | None = None  # maps frames, angles and numbers of a batch to frames and angles

    def __len__(self) -> int:
        return -(-len(self.order) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        numbers = (self.order[start : start + self.size] for start in range(0, len(self.order), self.size))
        with ThreadPoolExecutor(1) as pool:
            yield from prefetch(pool, self._load, numbers, max_pending=2)

    def after(self, steps: int) -> "Batches":
        """The batches that follow the first `steps`."""
        return replace(self, order=self.order[steps * self.size :])

    def _load(self, numbers: np.ndarray) -> tuple[Tensor, Tensor]:
        frames, labels = self.videos[numbers], self.angles[numbers]
        if self.change is not None:
            frames, labels = self.change(frames, labels, numbers)
        return torch.from_numpy(frames).to(self.device), torch.from_numpy(labels).to(self.device)


def batches(videos: Sequences | np.ndarray, angles: np.ndarray, size: int, device: torch.device) -> Batches:
    """All sequences, in the order of time."""
    return Batches(videos, angles, np.arange(len(angles)), size, device)


def train_and_test(
    dataset: Dataset, length: int, size: int, augmentation: Augmentation, seed: int, device: torch.device
) -> tuple[Callable[[int], Batches], Batches]:
    """The batches of each epoch, counted from 0, and those of held-out road in the order of time.

    Args:
        dataset: split into road to train on and road to test on.
        length: frames in a sequence.
        size: sequences in a batch.
        augmentation: limits of the changes of training sequences.
        seed: of the run.
        device: where the batches go.
    """
    train, test = (batches(*dataset.sequences(part, length), size, device) for part in dataset.split)
    return partial(training_batches, train, augmentation, seed), test


def training_batches(train: Batches, augmentation: Augmentation, seed: int, epoch: int) -> Batches:
    """The training sequences, shuffled and augmented anew in each epoch.

    Order and augmentation follow from seed and epoch alone, so a resumed run sees the same batches.

    Args:
        train: the training sequences in the order of time.
        augmentation: limits of the changes.
        seed: of the run.
        epoch: counted from 0.
    """
    order = np.random.default_rng((seed, epoch)).permutation(train.order)
    return replace(train, order=order, change=partial(augment, augmentation, seed=seed, epoch=epoch))
