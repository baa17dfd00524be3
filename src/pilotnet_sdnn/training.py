"""One epoch of training, one of testing, and what they count."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.network import Network, Outcome, normalise

Batches = Iterator[tuple[Tensor, Tensor]]


@dataclass
class Statistics:
    """Sums over the batches of an epoch; every frame weighs the same, also those of a short last batch."""

    squared_error: float = 0.0
    frames: int = 0
    events: int = 0  # all layers', after the first frame of each sequence
    event_frames: int = 0

    def add(self, mse: float, outcome: Outcome) -> None:
        count, length = outcome.angles.shape
        self.squared_error += mse * count * length
        self.frames += count * length
        self.events += int(outcome.events.sum())
        self.event_frames += count * (length - 1)

    @property
    def mse(self) -> float:
        """Mean squared error, sq. radians."""
        return self.squared_error / self.frames

    @property
    def events_per_frame(self) -> float:
        """Events of all layers per frame, first frames of sequences left out."""
        return self.events / self.event_frames


def batches(videos: np.ndarray, angles: np.ndarray, order: np.ndarray, size: int, device: torch.device) -> Batches:
    """Sequences in the given order, `size` at a time; the last batch has what is left.

    Yields:
        (n, T, 33, 100, 3) uint8 frames and (n, T) float32 angles in radians, on the device.
    """
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield torch.from_numpy(videos[chosen]).to(device), torch.from_numpy(angles[chosen]).to(device)


def train_epoch(
    network: Network,
    optimizer: torch.optim.Optimizer,
    data: Batches,
    penalty: Callable[[Tensor], Tensor],
    on_step: Callable[[Statistics], None],
) -> Statistics:
    """Take one optimizer step per batch on the MSE plus the penalty on the layers' rates.

    Raises:
        UserError: the loss is no longer a number.
    """
    network.train()
    statistics = Statistics()
    for frames, angles in data:
        outcome = network(normalise(frames))
        mse = F.mse_loss(outcome.angles, angles)
        loss = mse + penalty(outcome.rates)
        if not math.isfinite(loss.item()):
            raise UserError(
                f"training diverged: the loss is {loss.item()}; the best network so far is kept; try a lower `lr`"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        statistics.add(mse.item(), outcome)
        on_step(statistics)
    return statistics


@torch.no_grad()
def test_epoch(network: Network, data: Batches, on_step: Callable[[Statistics], None]) -> Statistics:
    """MSE and events of the network in evaluation mode."""
    network.eval()
    statistics = Statistics()
    for frames, angles in data:
        outcome = network(normalise(frames))
        statistics.add(F.mse_loss(outcome.angles, angles).item(), outcome)
        on_step(statistics)
    return statistics


def gradient_norms(network: Network) -> list[float]:
    """lava-dl's measure of gradient flow for layer-1 to layer-8, of the last step taken."""
    return [block.synapse.grad_norm for block in network.layers[1:]]


def learning_rate_milestones(epochs: int) -> list[int]:
    """Epochs before which the learning rate falls: 30 %, 60 % and 80 % of them, 60, 120 and 160 of 200."""
    return [math.ceil(epochs * tenths / 10) for tenths in (3, 6, 8)]
