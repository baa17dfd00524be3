"""Thresholds raised after training, each where it saves most for the least.

Training finds weights; how much a neuron may hold back is decided afterwards. One training then gives a whole trade-off
between error and operations, and thresholds that are small in training cost less accuracy than those that grew in it.
"""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pilotnet_sdnn.sdnn import kernels
from pilotnet_sdnn.sdnn.geometry import fan_out, layer_geometries
from pilotnet_sdnn.sdnn.network import Network

FACTOR = 2**0.25  # by which a threshold rises in one step


class Calibration(NamedTuple):
    """Thresholds, and what they do on the streams of the calibration."""

    thresholds: list[float]  # of layer-0, layer-1, ...
    mse: float  # sq. radians
    sparsity: float  # MACs of the ANN baseline over synaptic operations


class Calibrator:
    """Tries thresholds of a network on streams of training road."""

    def __init__(self, network: Network, streams: list[tuple[Tensor, Tensor]], kernel: str, layers: int) -> None:
        """Args:
        network: in evaluation mode; its thresholds are changed.
        streams: frames (1, T, 33, 100, 3) uint8 and angles (1, T) in radians of each.
        kernel: "native" or "torch".
        layers: how many thresholds, from layer-0 on, may rise.
        """
        self.network, self.streams, self.kernel = network, streams, kernel
        geometry = layer_geometries(network)
        self.fan_outs = [fan_out(source, target).flatten() for source, target in pairwise(geometry)]
        self.macs = sum(layer.macs for layer in geometry)
        self.parameters = [block.neuron.delta.threshold for block in network.layers[:layers]]

    def thresholds(self) -> list[float]:
        """The network's, as they are."""
        return [parameter.item() for parameter in self.parameters]

    def set(self, thresholds: list[float]) -> None:
        """Give the network other thresholds."""
        for parameter, threshold in zip(self.parameters, thresholds, strict=True):
            parameter.data.fill_(threshold)

    @torch.no_grad()
    def measure(self, thresholds: list[float]) -> Calibration:
        """What thresholds do. Operations count from the second frame of each stream on: a camera starts once."""
        self.set(thresholds)
        squared_error, synops, frames = 0.0, 0.0, 0
        for stream, angles in self.streams:
            output, messages, _ = kernels.stream(self.network, stream, self.kernel, None)
            squared_error += F.mse_loss(output.angles, angles, reduction="sum").item()
            sent = [(message[0, 1:] != 0).sum(0).flatten() for message in messages]
            synops += float(sum((s * f).sum() for s, f in zip(sent, self.fan_outs, strict=True)))
            frames += angles.numel()
        counted = frames - len(self.streams)
        return Calibration(thresholds, squared_error / frames, self.macs * counted / max(synops, 1))


def calibrate(calibrator: Calibrator, sparsity: float) -> Iterator[Calibration]:
    """Raise one threshold after another until the streams need `sparsity` times fewer operations than the ANN baseline.

    Each step raises the threshold that adds least error for the operations it saves.

    Yields:
        The calibration at the start and after each step; the network is left with the thresholds of the last one.
    """
    now = calibrator.measure(calibrator.thresholds())
    yield now
    while now.sparsity < sparsity:
        raised = [
            calibrator.measure([t * FACTOR if i == layer else t for i, t in enumerate(now.thresholds)])
            for layer in range(len(now.thresholds))
        ]
        useful = [other for other in raised if other.sparsity > now.sparsity]
        if not useful:
            break
        now = min(useful, key=partial(price, now))
        calibrator.set(now.thresholds)
        yield now


def price(now: Calibration, other: Calibration) -> float:
    """Error added for the share of the ANN baseline's operations that is saved."""
    return (other.mse - now.mse) / (1 / now.sparsity - 1 / other.sparsity)
