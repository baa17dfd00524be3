"""What several processes gain in one training, where they share a machine: 2 processes x 1 thread, and others.

    python benchmarks/processes.py [--cores 2] [--rounds 15]

One step of the loop, with all that processes tell each other in it, on a made drive and an untrained network. All sides
take turns in every round, so what else the machine does hits them alike; printed are medians, and their ratios.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch
from training_speed import drive

from pilotnet_sdnn.dataset.batches import Batch
from pilotnet_sdnn.sdnn import kernels, processes
from pilotnet_sdnn.sdnn.losses import event_rate_loss
from pilotnet_sdnn.sdnn.network import Network, NetworkOutput
from pilotnet_sdnn.sdnn.optimizer import FlatRAdam
from pilotnet_sdnn.sdnn.statistics import Statistics
from pilotnet_sdnn.sdnn.training import Training, train_epoch

RECIPES = {"train": (2, 32), "train, larger batch": (8, 32), "pretrain": (128, 1)}  # sequences, frames of each
WARM_UP = 3  # rounds


class Side(NamedTuple):
    ranks: int  # processes
    threads: int  # of each

    def __str__(self) -> str:
        return f"{self.ranks} x {self.threads}"


def trainer(sequences: int, length: int) -> partial[None]:
    """A step on this process's part of a batch; streams carry their state on, single frames have none."""
    frames = drive(None).flatten(0, 1)[: sequences * length].unflatten(0, (sequences, length))[processes.part()]
    network = Network(threshold=0.1 if length > 1 else 0, dense_threshold=0, dropout=0, corrected=True)
    training = Training(network, FlatRAdam(network.trainable_parameters(), lr=0.0001, weight_decay=1e-5))
    kernels.choose("native", torch.device("cpu"))
    batch = Batch(frames, torch.zeros(frames.shape[:2]), torch.ones(len(frames), dtype=torch.bool), sequences)

    def forward(batch: Batch) -> NetworkOutput:
        if length == 1:
            return kernels.run(network, batch.frames, "native", batch.sequences)
        before = kernels.continued(network, training.lanes, batch.continues, batch.sequences)
        output, _, training.lanes = kernels.stream(network, batch.frames, "native", before, batch.sequences)
        return output

    def on_step(_: Statistics) -> None:
        processes.anywhere(False, False)

    def penalty(rates: torch.Tensor) -> torch.Tensor:
        return 0.01 * event_rate_loss(rates, 0.01)

    return partial(train_epoch, training, [batch], forward, penalty, on_step)


def serve(connection: Connection, number: int, side: Side, folder: Path, recipe: tuple[int, int]) -> None:
    """Be one of a side's processes: time a step whenever asked to."""
    torch.set_num_threads(side.threads)
    torch.manual_seed(4205)
    if side.ranks > 1:
        place = {"RANK": str(number), "WORLD_SIZE": str(side.ranks), "GLOO_SOCKET_IFNAME": processes.LOOPBACK}
        os.environ.update({**place, processes.STORE: f"file://{folder}/{side}"})
        processes.started(side.ranks, main=lambda: None)
    step = trainer(*recipe)
    while connection.recv():
        start = time.perf_counter()
        step()
        connection.send(1000 * (time.perf_counter() - start))


def interleaved(sides: list[Side], recipe: tuple[int, int], rounds: int) -> dict[Side, float]:
    """Median milliseconds of a step of each side's slowest process, all sides taking turns."""
    context = multiprocessing.get_context("spawn")
    connections: dict[Side, list[Connection]] = {side: [] for side in sides}
    times: dict[Side, list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        for side in sides:
            for number in range(side.ranks):
                ours, theirs = context.Pipe()
                context.Process(target=serve, args=(theirs, number, side, Path(folder), recipe)).start()
                connections[side].append(ours)
        for _ in range(rounds + WARM_UP):
            for side, own in connections.items():
                for connection in own:
                    connection.send(True)
                times[side].append(max(connection.recv() for connection in own))
        for own in connections.values():
            for connection in own:
                connection.send(False)
    return {side: statistics.median(values[WARM_UP:]) for side, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    cores = arguments.cores
    sides = list(dict.fromkeys([Side(1, cores), Side(cores, 1), Side(1, 1)]))
    for name, (sequences, length) in RECIPES.items():
        if sequences < cores:
            continue
        times = interleaved(sides, (sequences, length), arguments.rounds)
        print(f"{name}, {sequences} x {length} frames; milliseconds, processes x threads: ", end="")
        print(", ".join(f"{side} {value:.1f}" for side, value in times.items()), end="; ")
        print(f"{sides[0]} / {sides[1]}: {times[sides[0]] / times[sides[1]]:.2f}")


if __name__ == "__main__":
    main()
