"""Train the sigma-delta network on streams: to follow the road with few events."""

import logging
from functools import partial

import torch

from pilotnet_sdnn.dataset.augmentation import Augmentation
from pilotnet_sdnn.dataset.batches import Batch, train_and_test
from pilotnet_sdnn.dataset.road import open_dataset
from pilotnet_sdnn.dataset.split import cut
from pilotnet_sdnn.errors import counted, exit_on_error
from pilotnet_sdnn.files import write_csv
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import FRAMES, PRETRAINED, TRAINED, TRAINING_LOG
from pilotnet_sdnn.sdnn import kernels
from pilotnet_sdnn.sdnn.checkpoint import checkpoint_path, only_trainer
from pilotnet_sdnn.sdnn.geometry import layer_geometries
from pilotnet_sdnn.sdnn.losses import event_rate_loss, synops_loss
from pilotnet_sdnn.sdnn.network import LAYERS, Network, NetworkOutput, read_tensors, write_tensors
from pilotnet_sdnn.sdnn.optimizer import FlatRAdam
from pilotnet_sdnn.sdnn.processes import rank, started
from pilotnet_sdnn.sdnn.training import Training, fit, measure_batches, measure_streams, seeded_device

LOG_COLUMNS = ("epoch", "lr", "train_mse", "test_mse", "train_events", "test_events", *LAYERS[1:])


def main() -> None:
    params = load_params()
    if started(params.processes, main):
        return
    device = seeded_device(params.seed, params.threads)

    # data
    dataset = open_dataset(FRAMES, params.sequence, params.split)
    augmentation = Augmentation(params.mirror, params.brightness, params.contrast, params.shift, params.shift_degrees)
    train, test = train_and_test(
        dataset, params.sequence, params.batch, params.carry, augmentation, params.seed, device
    )
    print(
        f"{dataset.drive.origin}: {counted(len(cut(dataset.split.train, params.sequence)), 'training sequence')} of "
        f"{counted(params.sequence, 'frame')}, {counted(len(dataset.split.test), 'held-out stretch')}"
    )

    # network
    network = Network(
        threshold=params.threshold,
        dense_threshold=params.dense_threshold,
        tau_grad=params.tau_grad,
        scale_grad=params.scale_grad,
        dropout=params.dropout,
        weight_scale=params.weight_scale,
        corrected=params.corrected_neurons,
    ).to(device)
    if pretrained := read_tensors(PRETRAINED, "pretrain"):
        network.start_from(pretrained)
    kernel = kernels.choose(params.kernels, device)
    optimizer = FlatRAdam(network.trainable_parameters(), lr=params.lr, weight_decay=params.weight_decay)
    training = Training(network, optimizer)

    def forward(batch: Batch) -> NetworkOutput:
        before = kernels.continued(network, training.lanes, batch.continues, batch.sequences)
        output, _, training.lanes = kernels.stream(network, batch.frames, kernel, before, batch.sequences)
        return output

    # loss
    macs = torch.tensor([float(layer.macs) for layer in layer_geometries(network)[1:]], device=device)
    macs *= torch.tensor(network.learns_threshold, device=device)

    def penalty(rates: torch.Tensor) -> torch.Tensor:
        if params.event_loss == "published":
            return params.lam * event_rate_loss(rates, params.max_rate)
        return params.lam * synops_loss(rates, network.thresholds, macs)

    # test: a running camera on held-out road, or the published protocol
    if params.split == "random":
        measure = partial(measure_batches, network, lambda batch: kernels.run(network, batch.frames, kernel), test)
    else:
        measure = partial(measure_streams, network, kernel, dataset, device)

    # loop
    with only_trainer(checkpoint_path("train", {"device": device.type, "kernels": kernel})) as checkpoint:
        fit(
            training,
            forward,
            train,
            measure=measure,
            epochs=params.epochs,
            keep_best=params.split == "random",
            checkpoint=checkpoint,
            checkpoint_minutes=params.checkpoint_minutes,
            penalty=penalty,
            on_epoch=write_outputs,
        )
        if rank() == 0:
            write_outputs(training)
    print(f"{TRAINED}: test mse {training.kept_mse:.5f} sq. radians; curves in {TRAINING_LOG}")


def write_outputs(training: Training) -> None:
    write_tensors(TRAINED, training.kept_weights)
    write_csv(TRAINING_LOG, LOG_COLUMNS, training.log)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with exit_on_error():
        main()
