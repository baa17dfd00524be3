"""Batches of sequences on the device that trains, loaded and augmented one step ahead."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from pilotnet_sdnn.dataset.prefetch import prefetch
from pilotnet_sdnn.dataset.sequences import Sequences

Batches = Iterator[tuple[Tensor, Tensor]]
Change = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def batches(
    videos: Sequences | np.ndarray,
    angles: np.ndarray,
    order: np.ndarray,
    size: int,
    device: torch.device,
    change: Change | None = None,
) -> Batches:
    """Sequences in the given order, `size` at a time; the last batch has what is left.

    While a batch is used, a thread gets the next two ready.

    Args:
        videos: (S, T, 33, 100, 3) uint8.
        angles: (S, T) float32 radians.
        order: numbers of the sequences wanted.
        size: sequences in a batch.
        device: that gets them.
        change: what a batch's frames, angles and numbers become, as frames and angles.

    Yields:
        (n, T, 33, 100, 3) uint8 frames and (n, T) float32 angles in radians, on the device.
    """

    def load(chosen: np.ndarray) -> tuple[Tensor, Tensor]:
        frames, labels = videos[chosen], angles[chosen]
        if change is not None:
            frames, labels = change(frames, labels, chosen)
        return torch.from_numpy(frames).to(device), torch.from_numpy(labels).to(device)

    chosen = (order[start : start + size] for start in range(0, len(order), size))
    with ThreadPoolExecutor(1) as pool:
        yield from prefetch(pool, load, chosen, max_pending=2)
