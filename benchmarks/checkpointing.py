"""What checkpointing costs: seconds for one checkpoint against those for one training step and one epoch.

uv run python benchmarks/checkpointing.py, after `dvc repro resize`. Prints the share of the training time
at the default of one checkpoint an epoch, on the drive at hand and on the tutorial's (284 steps an epoch).
"""

import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pilotnet_sdnn.dataset.batches import Batch, batches
from pilotnet_sdnn.dataset.road import open_dataset
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import FRAMES
from pilotnet_sdnn.sdnn import kernels
from pilotnet_sdnn.sdnn.checkpoint import save_checkpoint
from pilotnet_sdnn.sdnn.losses import event_rate_loss
from pilotnet_sdnn.sdnn.network import Network, NetworkOutput
from pilotnet_sdnn.sdnn.optimizer import FlatRAdam
from pilotnet_sdnn.sdnn.training import Training, train_epoch

ROUNDS = 15
STEPS = 8
TUTORIAL_STEPS = 284


def main() -> None:
    params = load_params()
    torch.set_num_threads(params.threads)
    network = Network()
    training = Training(network, FlatRAdam(network.trainable_parameters(), params.lr, params.weight_decay))
    kernel = kernels.choose(params.kernels, torch.device("cpu"))

    def forward(batch: Batch) -> NetworkOutput:
        return kernels.run(network, batch.frames, kernel)

    dataset = open_dataset(FRAMES, params.sequence, params.split)
    train = batches(*dataset.sequences(dataset.split.train, params.sequence), params.batch, torch.device("cpu"))

    step_seconds, checkpoint_seconds = [], []
    with tempfile.TemporaryDirectory(dir=FRAMES.parent) as folder:
        for _ in range(ROUNDS):
            data = replace(train, order=np.resize(train.order, STEPS * params.batch))
            start = time.perf_counter()
            train_epoch(training, data, forward, lambda r: 0.01 * event_rate_loss(r, 0.01), lambda statistics: None)
            step_seconds.append((time.perf_counter() - start) / STEPS)
            training.kept_weights = network.state_dict()
            start = time.perf_counter()
            save_checkpoint(Path(folder) / "run.pt", training.state_dict())
            checkpoint_seconds.append(time.perf_counter() - start)

    step, checkpoint = statistics.median(step_seconds), statistics.median(checkpoint_seconds)
    print(f"training step {1000 * step:.1f} ms, checkpoint {1000 * checkpoint:.1f} ms (medians of {ROUNDS})")
    for name, steps in ((dataset.drive.origin, len(train)), ("the tutorial's drive", TUTORIAL_STEPS)):
        print(
            f"one checkpoint an epoch of {steps} steps, {name}: {checkpoint / (steps * step):.1%} of the training time"
        )


if __name__ == "__main__":
    main()
