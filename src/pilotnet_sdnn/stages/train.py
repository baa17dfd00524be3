"""Train the sigma-delta network and keep the best one of the run."""

import numpy as np
import torch

from pilotnet_sdnn.errors import reported
from pilotnet_sdnn.files import write_csv
from pilotnet_sdnn.frames import read_frames, sequences, split_sequences
from pilotnet_sdnn.network import LAYERS, Network, event_rate_loss, save_network
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import FRAMES, NETWORK, TRAINING_LOG
from pilotnet_sdnn.progress import progress
from pilotnet_sdnn.training import (
    Statistics,
    batches,
    gradient_norms,
    learning_rate_milestones,
    test_epoch,
    train_epoch,
)

LOG_COLUMNS = ("epoch", "lr", "train_mse", "test_mse", "train_events", "test_events", *LAYERS[1:])


def main() -> None:
    params = load_params()
    torch.manual_seed(params.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    # data: sequences of packed frames, shuffled anew for every epoch
    drive = read_frames(FRAMES)
    videos, angles = sequences(drive, params.sequence)
    split = split_sequences(len(drive.angles), params.sequence, params.split)
    shuffle = np.random.default_rng(params.seed)
    print(
        f"{drive.origin}: {len(split.train)} training and {len(split.test)} test sequences of {params.sequence} frames"
    )

    # model
    network = Network(
        threshold=params.threshold,
        tau_grad=params.tau_grad,
        scale_grad=params.scale_grad,
        dropout=params.dropout,
        weight_scale=params.weight_scale,
    ).to(device)
    print(f"training on {device} for {params.epochs} epochs")

    # optimizer
    optimizer = torch.optim.RAdam(network.parameters(), lr=params.lr, weight_decay=params.weight_decay)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, learning_rate_milestones(params.epochs), gamma=0.3)

    def penalty(rates: torch.Tensor) -> torch.Tensor:
        return params.lam * event_rate_loss(rates, params.max_rate, params.event_loss)

    # loop
    steps_per_epoch = -(-len(split.train) // params.batch) + -(-len(split.test) // params.batch)
    bar = progress(total=params.epochs * steps_per_epoch, desc="train", unit="step")

    def show(statistics: Statistics) -> None:
        bar.set_postfix(mse=f"{statistics.mse:.5f}", events=f"{statistics.events_per_frame:.0f}/frame", refresh=False)
        bar.update()

    best_mse = float("inf")
    log = []
    for epoch in range(params.epochs):
        bar.set_description(f"epoch {epoch + 1}/{params.epochs}", refresh=False)
        lr = optimizer.param_groups[0]["lr"]
        order = shuffle.permutation(split.train)
        train = train_epoch(network, optimizer, batches(videos, angles, order, params.batch, device), penalty, show)
        test = test_epoch(network, batches(videos, angles, split.test, params.batch, device), show)

        best = test.mse < best_mse
        if best:
            best_mse = test.mse
            save_network(NETWORK, network)
        log.append(
            (
                epoch + 1,
                lr,
                train.mse,
                test.mse,
                train.events_per_frame,
                test.events_per_frame,
                *gradient_norms(network),
            )
        )
        write_csv(TRAINING_LOG, LOG_COLUMNS, log)
        bar.write(
            f"epoch {epoch + 1:3d}  lr {lr:.1e}  train mse {train.mse:.5f}  test mse {test.mse:.5f}  "
            f"events/frame {test.events_per_frame:7.1f}" + ("  best" if best else "")
        )
        schedule.step()
    bar.close()
    print(f"{NETWORK}: test mse {best_mse:.5f} sq. radians; curves in {TRAINING_LOG}")


if __name__ == "__main__":
    with reported():
        main()
