"""Thresholds raised where it costs least."""

from itertools import pairwise

import numpy as np
import pytest
from conftest import drifting_noise
from test_kernels import new_network

from pilotnet_sdnn.measure.activity import EventCounter
from pilotnet_sdnn.measure.calibration import FACTOR, Calibration, Calibrator, calibrate, price
from pilotnet_sdnn.sdnn.geometry import layer_geometries
from pilotnet_sdnn.sdnn.network import Network

LAYERS = 5


@pytest.fixture
def network() -> Network:
    return new_network(threshold=0.02).eval()


@pytest.fixture
def calibrator(network) -> Calibrator:
    return Calibrator(network, drifting_noise(2, 6).numpy(), np.zeros((2, 6)), "native", LAYERS)


def test_operations_and_error_are_those_that_are_measured(network, calibrator):
    """Counted anew by `measure`, the first frames left out."""
    found = calibrator.measure(calibrator.thresholds())
    counted = EventCounter(network, "torch").sequences(calibrator.frames)
    synops = counted.synops[~counted.is_start].sum()
    macs = sum(layer.macs for layer in layer_geometries(network))
    assert found.sparsity == pytest.approx(macs * 10 / synops)
    assert found.mse == pytest.approx((counted.angles.astype(float) ** 2).mean())


def test_one_threshold_rises_at_a_time_until_the_target(network, calibrator):
    before = calibrator.measure(calibrator.thresholds())
    steps = list(calibrate(calibrator, 1.2 * before.sparsity))
    assert steps[0] == before and steps[-1].sparsity >= 1.2 * before.sparsity > steps[-2].sparsity
    for one, other in pairwise(steps):
        ratios = [new / old for new, old in zip(other.thresholds, one.thresholds, strict=True)]
        assert sorted(ratios) == pytest.approx([1] * (LAYERS - 1) + [FACTOR])
    assert network.thresholds[:LAYERS].tolist() == pytest.approx(steps[-1].thresholds)
    assert network.thresholds[LAYERS:].tolist() == new_network(threshold=0.02).thresholds[LAYERS:].tolist()


def test_each_step_is_the_cheapest(calibrator):
    now, chosen = list(calibrate(calibrator, 1.01 * calibrator.measure(calibrator.thresholds()).sparsity))[:2]
    others = [
        calibrator.measure([t * FACTOR if i == layer else t for i, t in enumerate(now.thresholds)])
        for layer in range(LAYERS)
    ]
    useful = [price(now, other) for other in others if other.sparsity > now.sparsity]
    assert price(now, chosen) == min(useful)


def test_price_by_hand():
    """From 10x to 20x saves a twentieth of the ANN baseline's operations; the error grows by 0.001."""
    now, other = Calibration([0.1], 0.004, 10.0), Calibration([0.2], 0.005, 20.0)
    assert price(now, other) == pytest.approx(0.001 / 0.05)


def test_a_network_that_is_sparse_enough_stays_as_it_was_trained(network, calibrator):
    trained = network.thresholds.tolist()
    assert len(list(calibrate(calibrator, 0.5))) == 1
    assert network.thresholds.tolist() == trained
