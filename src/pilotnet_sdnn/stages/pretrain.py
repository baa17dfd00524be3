"""Train the network on single frames, without thresholds: stage train starts from it.

Shuffled frames make diverse batches; long sequences of road do not. On a real drive a network that starts from here
follows the road better. One pretraining serves all experiments with thresholds and the event loss.
"""

import logging
from functools import partial

from pilotnet_sdnn.dataset.augmentation import Augmentation
from pilotnet_sdnn.dataset.batches import FRAMES_PER_STEP, Batch, train_and_test
from pilotnet_sdnn.dataset.road import open_dataset
from pilotnet_sdnn.errors import counted, exit_on_error
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import FRAMES, PRETRAINED
from pilotnet_sdnn.sdnn import kernels
from pilotnet_sdnn.sdnn.checkpoint import checkpoint_path, only_trainer
from pilotnet_sdnn.sdnn.network import Network, NetworkOutput, write_tensors
from pilotnet_sdnn.sdnn.optimizer import FlatRAdam
from pilotnet_sdnn.sdnn.processes import rank, started
from pilotnet_sdnn.sdnn.training import Training, fit, measure_batches, seeded_device


def main() -> None:
    params = load_params()
    if not params.pretrain_epochs:
        write_tensors(PRETRAINED, {})
        print("pretrain_epochs: 0, so training starts from random weights")
        return
    if started(params.processes, main):
        return
    device = seeded_device(params.seed, params.threads)

    # data: sequences of one frame
    dataset = open_dataset(FRAMES, params.sequence, params.split)
    augmentation = Augmentation(params.mirror, params.brightness, params.contrast, params.shift, params.shift_degrees)
    train, test = train_and_test(dataset, 1, FRAMES_PER_STEP, 1, augmentation, params.seed, device)
    training_frames, held_out = (sum(road.frames for road in part) for part in dataset.split)
    print(f"{dataset.drive.origin}: {training_frames:,} training and {counted(held_out, 'held-out frame')}")

    # network
    network = Network(threshold=0, dense_threshold=0, dropout=params.dropout, weight_scale=params.weight_scale)
    network.to(device)
    kernel = kernels.choose(params.kernels, device)

    def forward(batch: Batch) -> NetworkOutput:
        return kernels.run(network, batch.frames, kernel, batch.sequences)

    # loop
    optimizer = FlatRAdam(
        network.trainable_parameters(), lr=params.pretrain_lr, weight_decay=params.pretrain_weight_decay
    )
    training = Training(network, optimizer)
    with only_trainer(checkpoint_path("pretrain", {"device": device.type, "kernels": kernel})) as checkpoint:
        fit(
            training,
            forward,
            train,
            measure=partial(measure_batches, network, forward, test),
            epochs=params.pretrain_epochs,
            keep_best=params.split == "random",
            checkpoint=checkpoint,
            checkpoint_minutes=params.checkpoint_minutes,
        )
        if rank() == 0:
            write_tensors(PRETRAINED, training.kept_weights)
    print(f"{PRETRAINED}: test mse {training.kept_mse:.5f} sq. radians, frame by frame")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with exit_on_error():
        main()
