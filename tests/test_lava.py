"""The door to lava: the stack reproduces what lava-dl's authors shipped."""

import multiprocessing

import numpy as np

from pilotnet_sdnn.sdnn.lava import simulate_fixed_point


def test_netx_reproduces_the_shipped_pilotnet_exactly(ground_truth):
    frame, expected = np.load(ground_truth / "input.npy"), np.load(ground_truth / "output.npy")
    steps = simulate_fixed_point(ground_truth / "network.net", frame, steps=expected.shape[-1])
    assert np.array_equal(np.stack([layers[-1] for layers in steps], -1), expected)


def test_a_simulation_that_is_left_early_leaves_no_process(ground_truth):
    steps = simulate_fixed_point(ground_truth / "network.net", np.load(ground_truth / "input.npy"), steps=100)
    next(steps)
    assert len(multiprocessing.active_children()) > 10
    steps.close()
    assert multiprocessing.active_children() == []
