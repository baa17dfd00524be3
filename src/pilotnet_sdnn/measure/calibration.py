"""Raise thresholds after training, step by step, where that saves most operations for the least error.

Training finds the weights; calibration then decides how much change a neuron may hold back. So one training gives a
whole trade-off between error and operations.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from pilotnet_sdnn.measure.activity import EventCounter, concatenated
from pilotnet_sdnn.sdnn.geometry import layer_geometries
from pilotnet_sdnn.sdnn.network import Network

FACTOR = 2**0.25  # by which a threshold rises in one step


class Calibration(NamedTuple):
    """Thresholds, and their effect on the calibration streams."""

    thresholds: list[float]  # of layer-0, layer-1, ...
    mse: float  # sq. radians
    sparsity: float  # MACs of the ANN baseline over synaptic operations


class Calibrator:
    """Tries thresholds of a network on streams of training road."""

    def __init__(self, network: Network, frames: np.ndarray, angles: np.ndarray, kernel: str, layers: int) -> None:
        """Args:
        network: its thresholds are changed.
        frames: (S, T, 33, 100, 3) uint8, S streams.
        angles: (S, T) radians, their labels.
        kernel: "native" or "torch".
        layers: how many thresholds, from layer-0 on, may rise.
        """
        self.frames, self.angles = frames, angles
        self.counter = EventCounter(network, kernel)
        self.macs = sum(layer.macs for layer in layer_geometries(network))
        self.parameters = [block.neuron.delta.threshold for block in network.layers[:layers]]

    def thresholds(self) -> list[float]:
        """The network's present thresholds."""
        return [parameter.item() for parameter in self.parameters]

    def set(self, thresholds: list[float]) -> None:
        """Set the network's thresholds."""
        for parameter, threshold in zip(self.parameters, thresholds, strict=True):
            parameter.data.fill_(threshold)

    def measure(self, thresholds: list[float]) -> Calibration:
        """Measure thresholds. Operations count from the second frame of each stream on: a camera starts once."""
        self.set(thresholds)
        activity = concatenated([self.counter.sequences(stream[None]) for stream in self.frames])
        mse = float(np.mean((activity.angles.astype(float) - self.angles.ravel()) ** 2))
        synops = activity.synops[~activity.is_start].sum(1).mean()
        return Calibration(thresholds, mse, self.macs / max(float(synops), 1.0))


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
    """Error added per operation saved, as a share of the ANN baseline's."""
    return (other.mse - now.mse) / (1 / now.sparsity - 1 / other.sparsity)
