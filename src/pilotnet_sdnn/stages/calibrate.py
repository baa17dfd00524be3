"""Raise thresholds until training road needs `sparsity` times fewer operations."""

import logging

import numpy as np
import torch

from pilotnet_sdnn.dataset.road import Dataset, open_dataset
from pilotnet_sdnn.errors import exit_on_error
from pilotnet_sdnn.files import write_csv
from pilotnet_sdnn.measure.calibration import Calibrator, calibrate
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import CALIBRATION_PLOT, FRAMES, NETWORK, TRAINED
from pilotnet_sdnn.sdnn import kernels
from pilotnet_sdnn.sdnn.network import load_network, write_tensors

STREAMS = 10  # of training road, at most
LENGTH = 256  # frames of each, at most
LAYERS_RAISED = 5  # layer-0 to layer-4: the others' events cause 0.1 % of the operations


def main() -> None:
    params = load_params()
    torch.set_num_threads(params.threads)
    dataset = open_dataset(FRAMES, params.sequence, params.split)
    network = load_network(TRAINED, "train", params.corrected_neurons)
    kernel = kernels.choose(params.kernels, torch.device("cpu"))

    calibrator = Calibrator(network, *training_streams(dataset), kernel, LAYERS_RAISED)
    log = []
    for step in calibrate(calibrator, params.sparsity):
        log.append([round(step.sparsity, 3), round(step.mse, 6), *(round(t, 4) for t in step.thresholds)])
        print(f"training road: {step.sparsity:.1f}x, mse {step.mse:.5f}", flush=True)
    thresholds = [f"threshold_{i}" for i in range(LAYERS_RAISED)]
    write_csv(CALIBRATION_PLOT, ("sparsity", "mse", *thresholds), log)
    write_tensors(NETWORK, network.state_dict())
    if step.sparsity < params.sparsity:
        print(f"warning: sparsity: {params.sparsity} is out of reach; {step.sparsity:.1f} is the highest")


def training_streams(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Streams spread evenly over the training road: frames (S, T, 33, 100, 3) and angles (S, T)."""
    length = min(LENGTH, max(stretch.frames for stretch in dataset.split.train))
    frames, angles = dataset.sequences(dataset.split.train, length)
    chosen = np.unique(np.linspace(0, len(frames) - 1, STREAMS).round().astype(int))
    return frames[chosen], angles[chosen]


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with exit_on_error():
        main()
