"""The event-driven runtime against fixed_point.py, which defines it: every message of every layer, of any network."""

import multiprocessing
import platform
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F
from conftest import drifting_noise
from hypothesis import example, given, settings
from hypothesis import strategies as st
from networks import PILOTNET, WRAPPING, Convolution, Shape, write

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.loihi import native, runtime
from pilotnet_sdnn.loihi.fixed_point import encode, read_network, run, start_state, zero_state
from pilotnet_sdnn.loihi.runtime import Network
from pilotnet_sdnn.sdnn.kernels.library import load


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    small = st.integers(1, 3)
    image = draw(st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9)))
    convolutions, shape = [], image
    for _ in range(draw(st.integers(0, 3))):
        groups = draw(st.sampled_from([n for n in range(1, 4) if shape[0] % n == 0]))
        outputs = groups * draw(st.integers(1, 12) | st.sampled_from([16, 17, 33, 64, 150]))
        pairs = [draw(st.tuples(some, some)) for some in (small, small, st.integers(0, 2), st.integers(1, 2))]
        convolution = Convolution(outputs, *pairs, groups=groups)
        if min(convolution.size(shape)) < 1:
            continue
        convolutions.append(convolution)
        shape = convolution.size(shape)
    dense = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    low, high = draw(st.sampled_from([(-256, 254), (-20, 20), (0, 254), (-256, -1), (0, 0), (-1, 1)]))
    bias, threshold = draw(st.sampled_from([0, 50, 2**19])), draw(st.sampled_from([0, 1, 6, 2**12, 2**19]))
    return Shape(image, convolutions, dense, low, high, bias, threshold, draw(st.integers(0, 2**32 - 1)))


def film(shape: tuple[int, int, int], seed: int, count: int = 6) -> np.ndarray:
    """(T, H, W, C) uint8: noise, the same again, little changes, black, white, noise."""
    random = np.random.default_rng(seed)
    channels, height, width = shape
    noise = random.integers(0, 256, (height, width, channels), np.uint8)
    little = np.where(random.random(noise.shape) < 0.1, 255 - noise, noise)
    frames = [noise, noise, little, np.zeros_like(noise), np.full_like(noise, 255), noise]
    return np.stack([frames[n % len(frames)] for n in range(count)])


def fan_outs(shape: Shape) -> Iterator[torch.Tensor]:
    """Connections that leave each neuron, counted by sending a one through weights of one."""
    size: tuple[int, ...] = shape.image
    for convolution in shape.convolutions:
        outputs, kernel, stride, padding, dilation, groups = convolution
        ones = torch.ones(1, *size, requires_grad=True)
        weight = torch.ones(outputs, size[0] // groups, *kernel)
        F.conv2d(ones, weight, None, stride, padding, dilation, groups).sum().backward()
        assert ones.grad is not None
        yield ones.grad[0]
        size = convolution.size(size)
    for neurons in shape.dense:
        yield torch.full(size, neurons)
        size = (neurons,)
    yield torch.zeros(size)


def assert_equal(shape: Shape, corrected: bool, start: str) -> None:
    """The runtime sends what fixed_point.run sends, and counts it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.net"
        write(path, shape)
        integers, network = read_network(path), Network(path, corrected)
    states = zero_state(integers, 1) if start == "zero" else start_state(integers, 1, corrected)
    frames = film(shape.image, shape.seed)
    expected, _ = run(integers, encode(frames[None]), states, corrected)
    stream, silent = network.stream(states), network.stream(states)
    for t, frame in enumerate(frames):
        sent = stream.messages(frame)
        for number, (ours, layer, fan_out) in enumerate(zip(sent, expected, fan_outs(shape), strict=True)):
            theirs = layer[0, t]
            assert np.array_equal(ours, theirs.numpy()), f"frame {t}, layer-{number}"
            if number < len(sent) - 1:
                assert stream.events[number] == theirs.count_nonzero()
                assert stream.synops[number] == ((theirs != 0) * fan_out).sum()
        assert silent.step(frame) == expected[-1][0, t].flatten()[0] / 2**18


corrected_or_not = st.booleans()
starts = st.sampled_from(["zero", "hardware"])


@given(shapes(), corrected_or_not, starts)
@settings(max_examples=100)
@example(PILOTNET, True, "hardware")
@example(PILOTNET, False, "hardware")
@example(WRAPPING, True, "zero")
def test_any_network_sends_what_its_definition_sends(shape, corrected, start):
    assert_equal(shape, corrected, start)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are of x86-64")
@pytest.mark.parametrize("flag", ["-mno-avx512vnni", "-mno-avx512f", "-march=x86-64"])
def test_whatever_instructions_the_processor_has(flag, monkeypatch):
    portable = load(native.SOURCE._replace(flags=[*native.SOURCE.flags, flag, "-O1"]))  # compiled in half the time
    monkeypatch.setattr(runtime, "library", lambda: portable)
    for shape in (PILOTNET, WRAPPING):
        assert_equal(shape, True, "hardware")


def test_messages_that_are_no_16_bit_integers(tmp_path):
    """What the two cases above are about: the second one has such messages, the first one has none."""
    for shape, expected in ((PILOTNET, False), (WRAPPING, True)):
        write(tmp_path / "network.net", shape)
        stream = Network(tmp_path / "network.net", corrected=True).stream()
        hidden = [sent for frame in film(shape.image, 1) for sent in stream.messages(frame)[:-1]]
        assert (max(abs(sent).max() for sent in hidden) > 2**15) is np.bool_(expected)


@pytest.mark.parametrize("corrected", [False, True])
def test_a_network_that_somebody_else_trained(ground_truth, corrected):
    path, frames = ground_truth / "network.net", drifting_noise(1, 20).numpy()
    integers, stream = read_network(path), Network(path, corrected).stream()
    expected, _ = run(integers, encode(frames), start_state(integers, 1, corrected), corrected)
    for t, frame in enumerate(frames[0]):
        for ours, theirs in zip(stream.messages(frame), expected, strict=True):
            assert np.array_equal(ours, theirs[0, t].numpy())


def test_a_stream_takes_less_than_a_megabyte(ground_truth):
    assert Network(ground_truth / "network.net", True).stream().nbytes < 1_000_000


@pytest.mark.parametrize(
    "frame", [np.zeros((33, 100), np.uint8), np.zeros((33, 100, 3)), np.zeros((100, 33, 3), np.uint8)]
)
def test_other_frames_are_refused(ground_truth, frame):
    stream = Network(ground_truth / "network.net", True).stream()
    with pytest.raises(ValueError, match="expected a frame of 33x100x3 uint8, got"):
        stream.step(frame)


def test_frames_that_are_views(ground_truth):
    frames = drifting_noise(1, 4).numpy()[0]
    network = Network(ground_truth / "network.net", True)
    one, other = network.stream(), network.stream()
    for frame in frames:
        assert one.step(np.ascontiguousarray(frame[:, ::-1])) == other.step(frame[:, ::-1])


def angles_of(network: Network | Path, frames: np.ndarray) -> list[float]:
    stream = (Network(network, True) if isinstance(network, Path) else network).stream()
    return [stream.step(frame) for frame in frames]


def test_eight_threads_with_a_stream_each(ground_truth):
    films = drifting_noise(8, 30).numpy()
    network = Network(ground_truth / "network.net", True)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda frames: angles_of(network, frames), films))
    assert together == [angles_of(network, frames) for frames in films]


def test_two_processes(ground_truth):
    films = drifting_noise(2, 30).numpy()
    path = ground_truth / "network.net"
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        together = [pool.submit(angles_of, path, frames) for frames in films]
        assert [done.result() for done in together] == [angles_of(path, frames) for frames in films]


def test_without_a_compiler(ground_truth, monkeypatch):
    monkeypatch.setenv("PATH", "")
    native.library.cache_clear()
    with pytest.raises(UserError, match=r"the runtime cannot be compiled: there is no C\+\+ compiler: install one"):
        Network(ground_truth / "network.net", True)


def test_a_network_without_images(tmp_path):
    write(tmp_path / "network.net", PILOTNET)
    with h5py.File(tmp_path / "network.net", "r+") as file:
        del file["layer/0"]
        for number in range(1, 9):
            file.move(f"layer/{number}", f"layer/{number - 1}")
    with pytest.raises(UserError, match="it has no layer that takes images"):
        Network(tmp_path / "network.net", True)


ODD = st.sampled_from([-(2**31), -1, 0, 1, 2, 3, 5, 40, 1000, 2**20, 2**31 - 1])


@settings(max_examples=60)
@given(
    st.sampled_from(["layer/0/shape", "layer/1/shape", "layer/1/stride", "layer/1/padding", "layer/1/dilation"]),
    st.lists(ODD, min_size=2, max_size=3),
)
@example("layer/1/stride", [2**31 - 1, 2**31 - 1])  # one output; weights would take the whole memory
def test_network_files_with_odd_numbers(name, values):
    """They are refused in one line, or run as they are defined."""
    shape = Shape((2, 5, 6), [Convolution(3, padding=(1, 1))], [4, 1], -9, 9, 5, 1, seed=2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "odd.net"
        write(path, shape)
        with h5py.File(path, "r+") as file:
            del file[name]
            file[name] = values
        try:
            stream = Network(path, True).stream()
        except UserError as error:
            assert len(str(error).splitlines()) == 1
            return
        integers = read_network(path)
    frames = np.random.default_rng(1).integers(0, 256, (3, *stream.network.frame_shape), np.uint8)
    expected, _ = run(integers, encode(frames[None]), start_state(integers, 1, True), True)
    for t, frame in enumerate(frames):
        assert all(
            np.array_equal(ours, theirs[0, t].numpy())
            for ours, theirs in zip(stream.messages(frame), expected, strict=True)
        )


@pytest.mark.slow
def test_ten_minutes_of_stream_in_constant_memory(ground_truth):
    """12,000 frames at 20 a second; every message of some of them, and the last angle, are those of the definition."""
    path, corrected = ground_truth / "network.net", True
    integers, stream = read_network(path), Network(path, corrected).stream()
    states, memory = start_state(integers, 1, corrected), []
    random = np.random.default_rng(3)
    frame = random.integers(0, 256, (33, 100, 3)).astype(np.int16)
    for _ in range(120):
        frames = []
        for _ in range(100):
            frame = np.clip(frame + random.integers(-9, 10, frame.shape) * (random.random(frame.shape) < 0.2), 0, 255)
            frames.append(frame.astype(np.uint8))
        expected, states = run(integers, encode(np.stack(frames)[None]), states, corrected)
        for t, seen in enumerate(frames[:-1]):
            assert stream.step(seen) == expected[-1][0, t].item() / 2**18
        for ours, theirs in zip(stream.messages(frames[-1]), expected, strict=True):
            assert np.array_equal(ours, theirs[0, -1].numpy())
        memory.append(psutil.Process().memory_info().rss)
    assert max(memory[20:]) - memory[20] < 20 * 2**20  # what torch and the allocator keep varies
