"""The door to lava: the stack reproduces what lava-dl's authors shipped."""

from importlib.metadata import files
from pathlib import Path

import numpy as np
import pytest

from pilotnet_sdnn.lava import simulate_fixed_point


@pytest.fixture(scope="module")
def ground_truth() -> Path:
    """A PilotNet SDNN with input and output, part of lava-dl's own tests, in its wheel."""
    (network,) = [file for file in files("lava-dl") or [] if file.match("gts/pilotnet_sdnn/network.net")]
    return Path(str(network.locate())).parent


def test_netx_reproduces_the_shipped_pilotnet_exactly(ground_truth):
    frame, expected = np.load(ground_truth / "input.npy"), np.load(ground_truth / "output.npy")
    output = simulate_fixed_point(ground_truth / "network.net", frame, steps=expected.shape[-1])
    assert np.abs(output - expected).sum() == 0
