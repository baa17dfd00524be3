"""The ANN baseline: PilotNet's layers as plain convolutions with ReLU, each frame by itself."""

import itertools
from pathlib import Path

import torch
from torch import Tensor

from pilotnet_sdnn.errors import damaged
from pilotnet_sdnn.sdnn.network import NetworkOutput, normalise, read_tensors

CONVOLUTIONS = ((3, 24, (2, 2), (0, 0)), (24, 36, (2, 2), (0, 0)), (36, 64, (2, 1), (1, 0)), (64, 64, (1, 1), (0, 0)))
DENSE = (64 * 2 * 20, 100, 50, 10)


def ann_baseline(dropout: float = 0.0) -> torch.nn.Sequential:
    """From (N, 3, 33, 100) images in [-1, 1], channels last, to (N, 1) angles in radians."""
    layers: list[torch.nn.Module] = []
    for inputs, outputs, stride, padding in CONVOLUTIONS:
        layers += [torch.nn.Conv2d(inputs, outputs, 3, stride, padding), torch.nn.ReLU()]
    layers.append(torch.nn.Flatten())
    for inputs, outputs in itertools.pairwise(DENSE):
        layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU(), torch.nn.Dropout(dropout)]
    return torch.nn.Sequential(*layers, torch.nn.Linear(DENSE[-1], 1)).to(memory_format=torch.channels_last)


def load_ann(path: Path) -> torch.nn.Sequential:
    """The baseline that stage train_ann saved at `path`, in evaluation mode.

    Raises:
        UserError: the file is missing or damaged, or no baseline was trained (`ann: false`).
    """
    network = ann_baseline()
    try:
        network.load_state_dict(read_tensors(path, "train_ann"))
    except RuntimeError as error:
        raise damaged(path, error, "train_ann") from None
    return network.eval()


def images(frames: Tensor) -> Tensor:
    """(N, T, 33, 100, 3) uint8 sequences as (N * T, 3, 33, 100) images in [-1, 1], channels last."""
    return normalise(frames).permute(0, 4, 1, 2, 3).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def predict(network: torch.nn.Module, frames: Tensor) -> NetworkOutput:
    """The output for (N, T, 33, 100, 3) uint8 frames; no layer sends events, so rates and events are empty."""
    angles = network(images(frames)).view(frames.shape[:2])
    return NetworkOutput(angles, rates=angles.new_empty(0), events=angles.new_empty(0))
