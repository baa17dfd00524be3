"""A training run: its state, an epoch of training and one of testing."""

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pilotnet_sdnn.dataset.batches import Batches
from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.sdnn.network import Network, NetworkOutput

Forward = Callable[[Network, Tensor], NetworkOutput]


@dataclass
class Statistics:
    """Sums over the batches of an epoch; every frame weighs the same, also those of a short last batch."""

    squared_error: float = 0.0
    frames: int = 0
    events: int = 0  # all layers', after the first frame of each sequence
    event_frames: int = 0

    def add(self, mse: float, outcome: NetworkOutput) -> None:
        """Count one batch in."""
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


class FlatRAdam(torch.optim.RAdam):
    """torch.optim.RAdam on parameters laid end to end: the same bits, without a dozen small kernels for each.

    Every parameter must have a gradient at every step.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float, weight_decay: float) -> None:
        self.parameters = list(parameters)
        self.flat = torch.nn.Parameter(torch.cat([parameter.detach().flatten() for parameter in self.parameters]))
        parts = self.flat.data.split([parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.data = part.view_as(parameter)
        super().__init__([self.flat], lr=lr, weight_decay=weight_decay)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step."""
        self.flat.grad = torch.cat([parameter.grad.flatten() for parameter in self.parameters])  # type: ignore[union-attr]
        super().step()


@dataclass
class Training:
    """Everything a run has come to: saved after any step and restored, it goes on to the same bits."""

    network: Network
    optimizer: torch.optim.Optimizer
    epoch: int = 0  # that runs
    step: int = 0  # of it that are done
    statistics: Statistics = field(default_factory=Statistics)  # of these steps
    gradients: list[float] = field(default_factory=list)  # norm of each layer's at the last of them
    log: list[list[float]] = field(default_factory=list)  # a row for each epoch done
    best_mse: float = math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def end_epoch(self, lr: float, test: Statistics) -> str:
        """Log the epoch, keep its weights if they are the best, and make ready for the next; what to tell."""
        train = self.statistics
        row = [self.epoch + 1, lr, train.mse, test.mse, train.events_per_frame, test.events_per_frame]
        self.log.append([*row, *self.gradients])
        best = test.mse < self.best_mse
        if best:
            self.best_mse = test.mse
            self.best_weights = {name: value.cpu().clone() for name, value in self.network.state_dict().items()}
        self.epoch, self.step, self.statistics = self.epoch + 1, 0, Statistics()
        return (
            f"epoch {self.epoch:3d}  lr {lr:.1e}  train mse {train.mse:.5f}  test mse {test.mse:.5f}  "
            f"events/frame {test.events_per_frame:7.1f}" + ("  best" if best else "")
        )

    def state_dict(self) -> dict[str, Any]:
        """As plain types and tensors, which `torch.load(weights_only=True)` reads."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all(),
            "statistics": asdict(self.statistics),
            **{name: getattr(self, name) for name in ("epoch", "step", "gradients", "log", "best_mse", "best_weights")},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.network.load_state_dict(state.pop("network"))
        self.optimizer.load_state_dict(state.pop("optimizer"))
        torch.set_rng_state(state.pop("random"))
        torch.cuda.set_rng_state_all(state.pop("random_cuda"))
        self.statistics = Statistics(**state.pop("statistics"))
        for name, value in state.items():
            setattr(self, name, value)


def train_epoch(
    training: Training,
    data: Batches,
    forward: Forward,
    penalty: Callable[[Tensor], Tensor],
    on_step: Callable[[Statistics], None],
) -> None:
    """Take one optimizer step per batch on the MSE plus the penalty on the layers' rates.

    Raises:
        UserError: the loss is no longer a number.
    """
    training.network.train()
    for frames, angles in data:
        outcome = forward(training.network, frames)
        mse = F.mse_loss(outcome.angles, angles)
        loss = mse + penalty(outcome.rates)
        if not math.isfinite(loss.item()):
            raise UserError(
                f"training diverged: the loss is {loss.item()} at epoch {training.epoch + 1}, "
                f"step {training.step + 1}; the last good checkpoint, after epoch {training.epoch}, is kept in "
                f"models/checkpoints; try a lower `lr`"
            )
        training.optimizer.zero_grad()
        loss.backward()
        training.optimizer.step()
        training.step += 1
        training.gradients = gradient_norms(training.network)
        training.statistics.add(mse.item(), outcome)
        on_step(training.statistics)


@torch.no_grad()
def measure_epoch(
    network: Network, data: Batches, forward: Forward, on_step: Callable[[Statistics], None]
) -> Statistics:
    """MSE and events of the network in evaluation mode."""
    network.eval()
    statistics = Statistics()
    for frames, angles in data:
        outcome = forward(network, frames)
        statistics.add(F.mse_loss(outcome.angles, angles).item(), outcome)
        on_step(statistics)
    return statistics


def gradient_norms(network: Network) -> list[float]:
    """lava-dl's measure of gradient flow for layer-1 to layer-8, of the last step taken."""
    return [block.synapse.grad_norm for block in network.layers[1:]]


def learning_rate(initial: float, epoch: int, epochs: int) -> float:
    """That of an epoch, counted from 0: divided by 10/3 at 30 %, 60 % and 80 % of all, 60, 120 and 160 of 200."""
    falls = sum(epoch * 10 >= epochs * tenths for tenths in (3, 6, 8))
    return initial / (10 / 3) ** falls
