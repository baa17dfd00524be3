"""One loop that trains a network, the SDNN and the ANN baseline alike."""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pilotnet_sdnn.dataset.batches import Batch, Batches
from pilotnet_sdnn.dataset.road import CHUNK, Dataset
from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.interrupts import StopRequest, stop_on_request
from pilotnet_sdnn.progress import progress
from pilotnet_sdnn.sdnn import kernels, processes
from pilotnet_sdnn.sdnn.checkpoint import load_checkpoint, save_checkpoint
from pilotnet_sdnn.sdnn.lava import slayer
from pilotnet_sdnn.sdnn.losses import no_penalty
from pilotnet_sdnn.sdnn.network import Network, NetworkOutput
from pilotnet_sdnn.sdnn.statistics import Statistics

Forward = Callable[[Batch], NetworkOutput]
Penalty = Callable[[Tensor], Tensor]


@dataclass
class Training:
    """Resumable training state: saved after any step and restored, it trains to the same bits."""

    network: torch.nn.Module
    optimizer: torch.optim.Optimizer
    epoch: int = 0  # current epoch, counted from 0
    step: int = 0  # steps done in this epoch
    statistics: Statistics = field(default_factory=Statistics)  # over these steps
    gradients: list[float] = field(default_factory=list)  # gradient norm of each layer at the last of them
    lanes: kernels.State | None = None  # the network's state in each lane of this process, after the last of them
    log: list[list[float]] = field(default_factory=list)  # a row for each epoch done
    kept_mse: float = math.inf
    kept_weights: dict[str, Tensor] = field(default_factory=dict)

    def end_epoch(self, lr: float, test: Statistics, keep_best: bool) -> str:
        """Log the epoch, keep its weights (with `keep_best`, only if they are better) and start the next.

        Returns:
            The line to print.
        """
        train = self.statistics
        row = [self.epoch + 1, lr, train.mse, test.mse, train.events_per_frame, test.events_per_frame]
        self.log.append([*row, *self.gradients])
        if not keep_best or test.mse < self.kept_mse:
            self.kept_mse = test.mse
            self.kept_weights = {name: value.cpu().clone() for name, value in self.network.state_dict().items()}
        self.epoch, self.step, self.statistics, self.lanes = self.epoch + 1, 0, Statistics(), None
        return f"epoch {self.epoch:3d}  lr {lr:.1e}  train mse {train.mse:.5f}  test mse {test.mse:.5f}" + (
            f"  events/frame {test.events_per_frame:7.1f}" if test.events else ""
        )

    def state_dict(self) -> dict[str, Any]:
        """As plain types and tensors, which `torch.load(weights_only=True)` reads; with the lanes of all processes."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
            "statistics": asdict(self.statistics),
            "lanes": kernels.all_lanes(self.lanes),
            **{name: getattr(self, name) for name in ("epoch", "step", "gradients", "log", "kept_mse", "kept_weights")},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state`."""
        self.network.load_state_dict(state.pop("network"))
        self.optimizer.load_state_dict(state.pop("optimizer"))
        torch.set_rng_state(state.pop("random"))
        if (random_cuda := state.pop("random_cuda")) is not None:
            torch.cuda.set_rng_state(random_cuda)
        self.statistics = Statistics(**state.pop("statistics"))
        self.lanes = kernels.own_lanes(state.pop("lanes"))
        for name, value in state.items():
            setattr(self, name, value)


def seeded_device(seed: int, threads: int) -> torch.device:
    """The GPU, or the CPU where there is none, with torch's random numbers and threads set for a run."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(
    training: Training,
    forward: Forward,
    train: Callable[[int], Batches],
    measure: Callable[[], Statistics],
    epochs: int,
    keep_best: bool,
    checkpoint: Path,
    checkpoint_minutes: float,
    penalty: Penalty = no_penalty,
    on_epoch: Callable[[Training], None] = lambda training: None,
) -> None:
    """Train to the last epoch, and keep its weights or those of the epoch with the lowest test MSE.

    Over several processes, each has its part of every batch and of the held-out road, and process 0 saves the state.

    An unfinished run resumes from its checkpoint. Its state is saved after each epoch, every
    `checkpoint_minutes` and on Ctrl-C or SIGTERM, which end the run after the step it is in.

    Args:
        training: at its start.
        forward: the network's output for a batch.
        train: the batches of an epoch, counted from 0.
        measure: the network on held-out road.
        epochs: how many there are.
        keep_best: as published: held-out road chooses the epoch, so its MSE is optimistic.
        checkpoint: the file of the state.
        checkpoint_minutes: the most that a killed run loses.
        penalty: what is added to the MSE, from the rates of `NetworkOutput`.
        on_epoch: called after each epoch.

    Raises:
        UserError: the training diverges, or another process trains something else.
        KeyboardInterrupt: the run was asked to stop.
    """
    initial_lr = training.optimizer.defaults["lr"]
    steps = len(train(0))
    run, state = processes.from_first((checkpoint.name, load_checkpoint(checkpoint)))
    if run != checkpoint.name:
        raise UserError(
            f"process {processes.rank()} of the training has other code, data, packages or parameters than process 0; "
            "give all machines the same commit and the same data/frames"
        )
    if state:
        training.load_state_dict(state)
        at = f"at epoch {training.epoch + 1}, step {training.step + 1}," if training.epoch < epochs else "at its end"
        print(f"resuming {at} from {checkpoint}")
    done = training.epoch * steps + training.step
    with (
        stop_on_request() as stop,
        progress(total=epochs * steps, initial=done, desc="train", unit="step", disable=processes.rank() > 0) as bar,
    ):
        saver = StateSaver(training, checkpoint, checkpoint_minutes, stop)

        def after_step(statistics: Statistics) -> None:
            bar.set_postfix(statistics.figures(), refresh=False)
            bar.update()
            saver.after_step()

        while training.epoch < epochs:
            lr = learning_rate(initial_lr, training.epoch, epochs)
            for group in training.optimizer.param_groups:
                group["lr"] = lr
            data = replace(train(training.epoch).after(training.step), part=processes.part())
            train_epoch(training, data, forward, penalty, after_step)
            bar.write(training.end_epoch(lr, measure().total(), keep_best))
            saver.save()
            if processes.rank() == 0:
                on_epoch(training)


class StateSaver:
    """Saves the state of a run when it is due or when the run is asked to stop."""

    def __init__(self, training: Training, path: Path, minutes: float, stop: StopRequest) -> None:
        self.training, self.path, self.seconds, self.stop = training, path, 60 * minutes, stop
        self.saved_at = time.monotonic()

    def save(self) -> None:
        """Save now."""
        state = self.training.state_dict()
        if processes.rank() == 0:
            save_checkpoint(self.path, state)
        self.saved_at = time.monotonic()

    def after_step(self) -> None:
        """Save if it is due.

        Raises:
            KeyboardInterrupt: the run was asked to stop; its state is saved.
        """
        due = time.monotonic() - self.saved_at > self.seconds
        stop, due = processes.anywhere(bool(self.stop), due)
        if stop or due:
            self.save()
        if stop:
            by = f" by {self.stop.name}" if self.stop else ""
            raise KeyboardInterrupt(f"stopped{by}; the same command resumes from {self.path}")


def train_epoch(
    training: Training, data: Iterable[Batch], forward: Forward, penalty: Penalty, on_step: Callable[[Statistics], None]
) -> None:
    """Take one optimizer step per batch on the MSE plus the penalty on the layers' rates.

    Raises:
        UserError: the loss is no longer a number.
    """
    training.network.train()
    for batch in data:
        output = forward(batch)
        length = batch.angles.shape[1]
        mse = F.mse_loss(output.angles, batch.angles, reduction="sum") / (batch.sequences * length)
        mse, rates, events = processes.totals(mse, output.rates, output.events.sum())
        loss = mse + penalty(rates)
        if not math.isfinite(loss.item()):
            raise UserError(
                f"training diverged: the loss is {loss.item()} at epoch {training.epoch + 1}, "
                f"step {training.step + 1}; the last good checkpoint, after epoch {training.epoch}, is kept in "
                f"models/checkpoints; try a lower `lr`"
            )
        training.optimizer.zero_grad()
        loss.backward()
        processes.average_gradients(training.network.parameters())
        training.optimizer.step()
        training.step += 1
        training.gradients = gradient_norms(training.network)
        frames, sequences = batch.sequences * length, batch.sequences
        training.statistics.add_frames(mse.item(), frames, int(events), frames - sequences)
        on_step(training.statistics)


@torch.no_grad()
def measure_batches(network: torch.nn.Module, forward: Forward, data: Batches) -> Statistics:
    """MSE and events of the network in evaluation mode, over this process's sequences, each from rest."""
    network.eval()
    statistics = Statistics()
    for batch in replace(data, order=data.order[processes.part()]):
        output = forward(batch)
        statistics.add(F.mse_loss(output.angles, batch.angles).item(), output)
    return statistics


@torch.no_grad()
def measure_streams(network: Network, kernel: str, dataset: Dataset, device: torch.device) -> Statistics:
    """MSE and events of the network on held-out road: each stretch is one stream, and every frame of it counts.

    A process has its part of the stretches.
    """
    network.eval()
    statistics = Statistics()
    for stretch in dataset.split.test[processes.part()]:
        state, angles = None, torch.from_numpy(dataset.angles[stretch.start : stretch.stop]).to(device).split(CHUNK)
        for frames, labels in zip(dataset.chunks(stretch), angles, strict=True):
            output, messages, state = kernels.stream(network, torch.from_numpy(frames)[None].to(device), kernel, state)
            events = sum(int(message.count_nonzero()) for message in messages)
            mse = F.mse_loss(output.angles[0], labels).item()
            statistics.add_frames(mse, len(frames), events, len(frames))
    return statistics


def gradient_norms(network: torch.nn.Module) -> list[float]:
    """lava-dl's measure of gradient flow for each of its synapses, of the last step; the ANN baseline has none."""
    return [module.grad_norm for module in network.modules() if isinstance(module, slayer.synapse.layer.GenericLayer)]


def learning_rate(initial: float, epoch: int, epochs: int) -> float:
    """The rate in an epoch, counted from 0: divided by 10/3 at 30 %, 60 % and 80 % of all (at 60, 120, 160 of 200)."""
    falls = sum(epoch * 10 >= epochs * tenths for tenths in (3, 6, 8))
    return initial / (10 / 3) ** falls
