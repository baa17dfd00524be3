"""Every benchmark runs, on little input: what it measures then means nothing."""

import sys

import pytest
from clone import ROOT

SMALL = {
    "checkpointing": (),
    "drive_list": ("--drives", "2", "--frames", "20", "--rounds", "1"),
    "fixed_point": (),
    "inference": ("--rounds", "1", "--frames", "40", "--netx", "3"),
    "loader": ("--frames", "3000", "--rounds", "1", "--threads", "1"),
    "processes": ("--rounds", "1"),
    "resize": ("--drive", "synthetic", "--frames", "300", "--rounds", "1"),
    "road": (),
    "sweep_queue": ("--runs", "4"),
    "sweep_throughput": ("--runs", "2", "--seconds", "0", "--rounds", "1"),
    "ten_minutes": ("--frames", "320"),
    "training_speed": ("--rounds", "1", "--threads", "1"),
    "videos": ("--frames", "60", "--rounds", "1", "--memory", "900"),
}


def test_all_are_here():
    assert SMALL.keys() == {path.stem for path in (ROOT / "benchmarks").glob("*.py")}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_runs(tiny_pipeline, name):
    if name == "inference":
        pytest.importorskip("openvino", reason="install it with uv sync --group benchmark")
    printed = tiny_pipeline.run(sys.executable, f"benchmarks/{name}.py", *SMALL[name])
    assert any(character.isdigit() for character in printed)
