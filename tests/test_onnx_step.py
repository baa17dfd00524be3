"""The network as a step in ONNX: in ONNX Runtime it computes the integers of fixed_point.py."""

import sys
import tempfile
from pathlib import Path

import networks
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_runtime import film, shapes

from pilotnet_sdnn.commands import onnx as command
from pilotnet_sdnn.loihi.fixed_point import encode, read_network, run, start_state, zero_state
from pilotnet_sdnn.loihi.runtime import Network

onnxruntime = pytest.importorskip("onnxruntime", reason="install it with uv sync --group benchmark")
from pilotnet_sdnn.loihi.onnx_step import write_onnx  # noqa: E402


def step_through(path: Path, frames: np.ndarray, state: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """All outputs, frame by frame."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    steps = []
    for frame in frames:
        outputs = dict(zip(names, session.run(None, {"frame": frame, **state}), strict=True))
        state = {name.removeprefix("next_"): value for name, value in outputs.items() if name != "angle"}
        steps.append(outputs)
    return steps


@given(shapes(), st.booleans(), st.sampled_from(["zero", "hardware"]))
@settings(max_examples=20)
@example(networks.PILOTNET, True, "hardware")
@example(networks.PILOTNET, False, "zero")
@example(networks.WRAPPING, True, "hardware")
def test_it_is_what_fixed_point_computes(shape, corrected, start):
    with tempfile.TemporaryDirectory() as folder:
        exported, path = Path(folder) / "network.net", Path(folder) / "network.onnx"
        networks.write(exported, shape)
        integers = read_network(exported)
        write_onnx(Network(exported, corrected), path)
        frames, given_state = film(shape.image, shape.seed), {}
        states = zero_state(integers, 1) if start == "zero" else start_state(integers, 1, corrected)
        if start == "zero":
            for n, state in enumerate(states):
                given_state |= {f"sigma_{n}": state.sigma[0].numpy()} if n else {}
                given_state |= {f"sent_{n}": state.sent[0].numpy()} if n < len(states) - 1 else {}
        steps = step_through(path, frames, given_state)
    for t, outputs in enumerate(steps):
        messages, states = run(integers, encode(frames[None, t : t + 1]), states, corrected)
        assert np.array_equal(outputs["angle"], messages[-1][0, 0].numpy() / 2**18), t
        for n, state in enumerate(states):
            assert n == 0 or np.array_equal(outputs[f"next_sigma_{n}"], state.sigma[0].numpy()), (t, n)
            assert n == len(states) - 1 or np.array_equal(outputs[f"next_sent_{n}"], state.sent[0].numpy()), (t, n)


def sdnn_onnx(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["sdnn-onnx", *map(str, arguments)])
    command.main()


def test_command(desk, monkeypatch, capsys):
    sdnn_onnx(monkeypatch)
    first = Path("network.onnx").read_bytes()
    assert "network.onnx: " in capsys.readouterr().out
    sdnn_onnx(monkeypatch, "again.onnx", "--network", "models/network.net")
    assert Path("again.onnx").read_bytes() == first


def test_without_onnx(desk, monkeypatch):
    monkeypatch.setitem(sys.modules, "pilotnet_sdnn.loihi.onnx_step", None)
    with pytest.raises(SystemExit, match=r"error: .*run `uv run --group benchmark sdnn-onnx`"):
        sdnn_onnx(monkeypatch)


def test_without_a_network(desk, monkeypatch):
    Path("models/network.net").unlink()
    with pytest.raises(SystemExit, match=r"error: models/network\.net is not in this clone"):
        sdnn_onnx(monkeypatch)
