"""How messages put numbers and names."""

import pytest

from pilotnet_sdnn.errors import counted
from pilotnet_sdnn.params import synthetic_name


@pytest.mark.parametrize(
    ("number", "thing", "text"),
    [
        (0, "frame", "0 frames"),
        (1, "frame", "1 frame"),
        (6000, "frame", "6,000 frames"),
        (1, "held-out stretch", "1 held-out stretch"),
        (5, "held-out stretch", "5 held-out stretches"),
        (20, "epoch", "20 epochs"),
    ],
)
def test_one_thing_is_singular(number, thing, text):
    assert counted(number, thing) == text


def test_name_of_a_synthetic_drive():
    assert synthetic_name(6000, 4205) == "synthetic road, seed 4205, 6000 frames"  # without a comma: dvc.lock has it
    assert synthetic_name(1, 4205) == "synthetic road, seed 4205, 1 frame"
