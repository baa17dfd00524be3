"""Train the sigma-delta network and keep the best one of the run."""

import logging
import sys
import time
from functools import partial

import numpy as np
import torch

from pilotnet_sdnn.dataset.augmentation import Augmentation, augment
from pilotnet_sdnn.dataset.batches import batches
from pilotnet_sdnn.dataset.dataset import open_dataset
from pilotnet_sdnn.errors import exit_on_error
from pilotnet_sdnn.files import write_csv
from pilotnet_sdnn.interrupts import StopRequest
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import FRAMES, NETWORK, TRAINING_LOG
from pilotnet_sdnn.progress import progress
from pilotnet_sdnn.sdnn import kernels
from pilotnet_sdnn.sdnn.checkpoint import checkpoint_path, load_checkpoint, only_trainer, save_checkpoint
from pilotnet_sdnn.sdnn.geometry import layer_geometries
from pilotnet_sdnn.sdnn.losses import event_rate_loss, synops_loss
from pilotnet_sdnn.sdnn.network import LAYERS, Network, write_tensors
from pilotnet_sdnn.sdnn.training import FlatRAdam, Statistics, Training, learning_rate, measure_epoch, train_epoch

LOG_COLUMNS = ("epoch", "lr", "train_mse", "test_mse", "train_events", "test_events", *LAYERS[1:])


def main() -> None:
    stop = StopRequest()
    params = load_params()
    torch.manual_seed(params.seed)
    torch.set_num_threads(params.threads)

    # data: sequences of packed frames
    drive, videos, angles, split = open_dataset(FRAMES, params.sequence, params.split)
    print(
        f"{drive.origin}: {len(split.train)} training and {len(split.test)} test sequences of {params.sequence} frames"
    )

    # model, the way it is computed, and optimizer
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = kernels.choose(params.kernels, device)
    forward = partial(kernels.run, kernels=chosen)
    network = Network(
        threshold=params.threshold,
        tau_grad=params.tau_grad,
        scale_grad=params.scale_grad,
        dropout=params.dropout,
        weight_scale=params.weight_scale,
    ).to(device)
    optimizer = FlatRAdam(network.trainable_parameters(), lr=params.lr, weight_decay=params.weight_decay)
    training = Training(network, optimizer)

    macs = torch.tensor([float(layer.macs) for layer in layer_geometries(network)[1:]], device=device)

    def penalty(rates: torch.Tensor) -> torch.Tensor:
        if params.event_loss == "published":
            return params.lam * event_rate_loss(rates, params.max_rate)
        return params.lam * synops_loss(rates, network.thresholds, macs)

    amounts = Augmentation(params.mirror, params.brightness, params.contrast, params.shift, params.shift_degrees)

    # an unfinished run goes on where it was
    environment = {"stage": "train", "torch": torch.__version__, "device": device.type, "kernels": chosen}
    checkpoint = checkpoint_path(params, environment, FRAMES)
    with only_trainer(checkpoint):
        if state := load_checkpoint(checkpoint):
            training.load_state_dict(state)
            print(f"going on at epoch {training.epoch + 1}, step {training.step + 1}, from {checkpoint}")
        saved_at = time.monotonic()

        def save() -> None:
            nonlocal saved_at
            save_checkpoint(checkpoint, training.state_dict())
            saved_at = time.monotonic()

        def on_step(statistics: Statistics) -> None:
            bar.set_postfix(mse=f"{statistics.mse:.5f}", events=f"{statistics.events_per_frame:.0f}", refresh=False)
            bar.update()
            if stop:
                save()
                bar.close()
                sys.exit(f"stopped by {stop.name}; the same command goes on from {checkpoint}")
            if time.monotonic() - saved_at > 60 * params.checkpoint_minutes:
                save()

        # loop
        steps, test_steps = (-(-len(part) // params.batch) for part in split)
        bar = progress(total=params.epochs * (steps + test_steps), desc="train", unit="step")
        bar.update(training.epoch * (steps + test_steps) + training.step)
        while training.epoch < params.epochs:
            lr = learning_rate(params.lr, training.epoch, params.epochs)
            for group in optimizer.param_groups:
                group["lr"] = lr
            shuffled = np.random.default_rng((params.seed, training.epoch)).permutation(split.train)
            change = partial(augment, amounts, seed=params.seed, epoch=training.epoch)
            to_train = batches(videos, angles, shuffled[training.step * params.batch :], params.batch, device, change)
            to_test = batches(videos, angles, split.test, params.batch, device)
            train_epoch(training, to_train, forward, penalty, on_step)
            test = measure_epoch(network, to_test, forward, on_step)
            bar.write(training.end_epoch(lr, test))
            write_outputs(training)
            save()
        bar.close()
        write_outputs(training)
        checkpoint.unlink(missing_ok=True)
    print(f"{NETWORK}: test mse {training.best_mse:.5f} sq. radians; curves in {TRAINING_LOG}")


def write_outputs(training: Training) -> None:
    write_tensors(NETWORK, training.best_weights)
    write_csv(TRAINING_LOG, LOG_COLUMNS, training.log)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with exit_on_error():
        main()
