"""Train the ANN baseline on the same road: what sparsity costs in accuracy.

It sees as many epochs as the sigma-delta network in its two trainings, all of them of shuffled single frames.
"""

from functools import partial

import numpy as np
import torch

from pilotnet_sdnn.dataset.augmentation import Augmentation
from pilotnet_sdnn.dataset.batches import FRAMES_PER_STEP, Batch, Batches, train_and_test
from pilotnet_sdnn.dataset.road import open_dataset
from pilotnet_sdnn.errors import exit_on_error
from pilotnet_sdnn.files import write_metrics
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import ANN, ANN_METRICS, FRAMES
from pilotnet_sdnn.sdnn.accuracy import steering_metrics
from pilotnet_sdnn.sdnn.ann import ann_baseline, predict
from pilotnet_sdnn.sdnn.checkpoint import checkpoint_path, only_trainer
from pilotnet_sdnn.sdnn.network import NetworkOutput, write_tensors
from pilotnet_sdnn.sdnn.optimizer import FlatRAdam
from pilotnet_sdnn.sdnn.training import Training, fit, measure_batches, seeded_device


def main() -> None:
    params = load_params()
    if not params.ann:
        write_tensors(ANN, {})
        write_metrics(ANN_METRICS, {})
        print("ann: false, so no ANN baseline is trained")
        return
    device = seeded_device(params.seed, params.threads)

    # data: sequences of one frame
    dataset = open_dataset(FRAMES, params.sequence, params.split)
    augmentation = Augmentation(params.mirror, params.brightness, params.contrast, params.shift, params.shift_degrees)
    train, test = train_and_test(dataset, 1, FRAMES_PER_STEP, 1, augmentation, params.seed, device)

    # network
    network = ann_baseline(params.dropout).to(device)

    def forward(batch: Batch) -> NetworkOutput:
        return predict(network, batch.frames)

    # loop
    optimizer = FlatRAdam(network.parameters(), lr=params.pretrain_lr, weight_decay=params.weight_decay)
    training = Training(network, optimizer)
    with only_trainer(checkpoint_path("train_ann", {"device": device.type})) as checkpoint:
        fit(
            training,
            forward,
            train,
            measure=partial(measure_batches, network, forward, test),
            epochs=params.pretrain_epochs + params.epochs,
            keep_best=params.split == "random",
            checkpoint=checkpoint,
            checkpoint_minutes=params.checkpoint_minutes,
        )
        network.load_state_dict(training.kept_weights)
        steering = steering_metrics(test.angles, predictions(network, test))
        write_tensors(ANN, training.kept_weights)
        write_metrics(ANN_METRICS, {f"ann_{name}": steering[name] for name in ("mse", "mae_degrees", "r2")})
    print(f"{dataset.drive.origin}: ANN baseline, mse {steering['mse']:.5f} sq. radians, r2 {steering['r2']:.3f}")


@torch.no_grad()
def predictions(network: torch.nn.Module, data: Batches) -> np.ndarray:
    """Angles (S, T) in radians."""
    network.eval()
    return np.concatenate([predict(network, batch.frames).angles.cpu().numpy() for batch in data])


if __name__ == "__main__":
    with exit_on_error():
        main()
