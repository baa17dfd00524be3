"""How long a frame takes: the event-driven SDNN against the ANN baseline in ONNX Runtime and OpenVINO, batch 1.

    uv run --group benchmark python benchmarks/inference.py [--rounds 9] [--frames 600] [--netx 20]

after `dvc repro`. The frames are the beginning of the longest held-out stretch. In every round, each side in turn sees
all of them, as a stream that begins anew. The time of a frame is its median over the rounds: what else the machine does
hits single rounds, what the frame needs returns in all of them. The ANN gets its images normalised in advance, the SDNN
camera bytes. Pinned to one core, then to two; the SDNN uses one of them.

The curve runs the same drive faster and faster: a frame repeated, every frame, every second one and so on, frames in
no order, noise. Dense time does not depend on it.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import openvino
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quant_pre_process, quantize_static
from PIL import Image

from pilotnet_sdnn.dataset.resizing import resize
from pilotnet_sdnn.dataset.road import Dataset, open_dataset
from pilotnet_sdnn.loihi.fixed_point import encode
from pilotnet_sdnn.loihi.runtime import Network
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import ANN, EXPORTED_NETWORK, FRAMES
from pilotnet_sdnn.sdnn.ann import images, load_ann
from pilotnet_sdnn.sdnn.lava import simulate_fixed_point

WARM_UP = 32  # frames, at the start of every round, that do not count
CALIBRATION = 200  # frames of training road, for int8
SPEEDS = (1, 2, 4, 8, 16, 32)  # of the curve
ORT, INT8, OPENVINO, EVENTS = "ONNX Runtime fp32", "ONNX Runtime int8", "OpenVINO fp32", "event-driven"

Side = Callable[[int], object]  # runs a frame, by its number


class Timed(NamedTuple):
    """Nanoseconds of each frame, (F,): median over the rounds; and of single runs, (rounds, F)."""

    frames: np.ndarray
    runs: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--netx", type=int, default=20, help="steps of netx, about 10 a second; 0: leave it out")
    arguments = parser.parse_args()
    params = load_params()
    dataset = open_dataset(FRAMES, params.sequence, params.split)
    first, stop = max(dataset.split.test, key=lambda stretch: stretch.frames)
    frames = dataset.drive.frames[first : min(first + arguments.frames, stop)]
    network = Network(EXPORTED_NETWORK, params.corrected_neurons)
    print(f"{dataset.drive.origin}: frames {first} to {first + len(frames) - 1}, {arguments.rounds} rounds; "
          f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        models = write_models(Path(folder), dataset)
        medians = {}
        for cores in (1, 2):
            if cores <= len(os.sched_getaffinity(0)):
                with pinned(cores):
                    medians[cores] = compare(network, models, frames, arguments.rounds, cores)
        with pinned(1):
            curve(network, frames, medians[1][ORT], medians[1][INT8])
            if arguments.netx:
                netx(frames, medians[1][EVENTS], arguments.netx)


def compare(network: Network, models: dict[str, Path], frames: np.ndarray, rounds: int, cores: int) -> dict[str, float]:
    """Print the time of a frame on every side; the medians in microseconds, with warm caches."""
    inputs = images(torch.from_numpy(frames)[None]).contiguous().numpy()[:, None]
    sides: dict[str, Side] = {name: dense(name, path, inputs, cores) for name, path in models.items()}
    stream = network.stream()

    def event_driven(number: int) -> None:
        nonlocal stream
        if number == 0:
            stream = network.stream()
        stream.step(frames[number])

    sides[EVENTS] = event_driven
    camera = Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8))
    medians = table(f"{cores} core{'s' * (cores > 1)}, nothing else", timings(sides, len(frames), rounds))
    table("the same, after a camera's frame of 640x480 was resized", timings(sides, len(frames), rounds, camera))

    counted = []
    for number in range(len(frames)):
        event_driven(number)
        counted.append((stream.events[:-1].sum(), stream.synops.sum()))
    events, synops = np.mean(counted[warm_up(len(frames)) :], 0)
    print(f"operations: {network.macs:,} MACs / {synops:,.0f} synops  {network.macs / synops:.2f} x; "
          f"{events:,.0f} events a frame; a stream has {stream.nbytes / 1e6:.2f} MB")  # fmt: skip
    return medians


def table(title: str, timed: dict[str, Timed]) -> dict[str, float]:
    """Print times and ratios; the medians in microseconds."""
    print(f"\n{title}: microseconds a frame")
    print(f"{'':20}{'median':>8}{'p99':>8}{'p99 / median':>14}{'p99 of single runs':>20}")
    medians = {name: float(np.median(side.frames)) / 1e3 for name, side in timed.items()}
    for name, side in timed.items():
        p99, single = np.percentile(side.frames, 99) / 1e3, np.percentile(side.runs, 99) / 1e3
        print(f"{name:20}{medians[name]:8.1f}{p99:8.1f}{p99 / medians[name]:14.2f}{single:20.1f}")
    for name in list(medians)[:-1]:
        print(f"{name} / {EVENTS}  {medians[name] / medians[EVENTS]:.2f} x")
    return medians


def timings(sides: dict[str, Side], count: int, rounds: int, camera: Image.Image | None = None) -> dict[str, Timed]:
    """Run all sides over frames 0 to `count` - 1, in turns.

    With an image, it is resized before each frame, which is not timed: caches then hold what a camera leaves in them.
    """
    taken = {name: np.zeros((rounds, count)) for name in sides}
    for done in range(rounds):
        for name, side in sides.items():
            for number in range(count):
                if camera:
                    resize(camera)
                start = time.perf_counter_ns()
                side(number)
                taken[name][done, number] = time.perf_counter_ns() - start
    counted = {name: runs[:, warm_up(count) :] for name, runs in taken.items()}
    return {name: Timed(np.median(runs, 0), runs) for name, runs in counted.items()}


def warm_up(count: int) -> int:
    """How many of the first frames do not count."""
    return min(WARM_UP, count // 2)


def curve(network: Network, frames: np.ndarray, dense: float, int8: float) -> None:
    """Print time against events, from nothing moves to everything moves."""
    random = np.random.default_rng(1)
    drives = {"nothing moves": np.repeat(frames[:1], len(frames), 0)}
    for speed in SPEEDS:
        back_and_forth = np.concatenate([frames[::speed], frames[::-speed]])
        drives[f"{speed} x as fast"] = np.resize(back_and_forth, frames.shape)
    drives["frames in no order"] = frames[random.permutation(len(frames))]
    drives["noise"] = random.integers(0, 256, (min(len(frames), 100), *frames.shape[1:]), np.uint8)
    print(f"\n1 core: time against what moves\n{'':20}{'events':>8}{'synops':>10}{'us a frame':>12}"
          f"{'fp32 / it':>11}{'int8 / it':>11}")  # fmt: skip
    for name, drive in drives.items():
        stream = network.stream()
        taken, events, synops = [], [], []
        for frame in drive:
            start = time.perf_counter_ns()
            stream.step(frame)
            taken.append(time.perf_counter_ns() - start)
            events.append(stream.events[:-1].sum())
            synops.append(stream.synops.sum())
        steady = slice(warm_up(len(drive)), None)
        microseconds = statistics.median(taken[steady]) / 1e3
        print(f"{name:20}{np.mean(events[steady]):8,.0f}{np.mean(synops[steady]):10,.0f}{microseconds:12.1f}"
              f"{dense / microseconds:10.2f}x{int8 / microseconds:10.2f}x")  # fmt: skip


def netx(frames: np.ndarray, event_driven: float, steps: int) -> None:
    """Print how long lava's own simulation takes, without its start."""
    inputs = encode(frames[None, :steps])[0].permute(3, 2, 1, 0).numpy()
    running = simulate_fixed_point(EXPORTED_NETWORK, inputs, steps)
    next(running)
    start = time.perf_counter()
    count = sum(1 for _ in running)
    taken = (time.perf_counter() - start) / count
    print(f"\nnetx / {EVENTS}  {taken * 1e6 / event_driven:,.0f} x  ({taken * 1e3:.0f} ms a step)")


@contextmanager
def pinned(cores: int) -> Iterator[None]:
    """Run a block on the first cores that this process may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def write_models(folder: Path, dataset: Dataset) -> dict[str, Path]:
    """The ANN baseline as ONNX files, as it is and quantised."""
    paths = {ORT: folder / "ann.onnx", INT8: folder / "int8.onnx", OPENVINO: folder / "ann.onnx"}
    onnx.save(as_onnx(load_ann(ANN)), paths[ORT])
    quant_pre_process(paths[ORT], folder / "prepared.onnx", skip_symbolic_shape=True)
    first, _ = dataset.split.train[0]
    seen = images(torch.from_numpy(dataset.drive.frames[first : first + CALIBRATION])[None]).contiguous().numpy()
    with contextlib.redirect_stdout(None):
        quantize_static(folder / "prepared.onnx", paths[INT8], Samples(seen), per_channel=True)
    return paths


def as_onnx(ann: torch.nn.Sequential) -> onnx.ModelProto:
    """The ANN baseline for one image (1, 3, 33, 100)."""
    nodes, weights, value = [], [], "image"
    for number, layer in enumerate(ann):
        if isinstance(layer, torch.nn.Dropout):  # does nothing after training
            continue
        inputs, kind = [value], type(layer).__name__
        attributes: dict = {}
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            for name, tensor in layer.named_parameters():
                weights.append(numpy_helper.from_array(tensor.detach().contiguous().numpy(), f"{number}.{name}"))
                inputs.append(f"{number}.{name}")
        if isinstance(layer, torch.nn.Conv2d):
            kind, attributes = "Conv", {"strides": layer.stride, "pads": [*layer.padding, *layer.padding]}
        elif isinstance(layer, torch.nn.Linear):
            kind, attributes = "Gemm", {"transB": 1}
        elif isinstance(layer, torch.nn.ReLU):
            kind = "Relu"
        value = f"value {number}"
        nodes.append(helper.make_node(kind, inputs, [value], name=f"{kind} {number}", **attributes))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, (1, 3, 33, 100))
    angle = helper.make_tensor_value_info(value, TensorProto.FLOAT, (1, 1))
    graph = helper.make_graph(nodes, "ANN baseline", [image], [angle], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Samples(CalibrationDataReader):
    """The images that int8's ranges are taken from."""

    def __init__(self, samples: np.ndarray) -> None:
        self.samples = iter(samples[:, None])

    def get_next(self) -> dict[str, np.ndarray] | None:
        sample = next(self.samples, None)
        return None if sample is None else {"image": sample}


def dense(name: str, path: Path, inputs: np.ndarray, threads: int) -> Side:
    """The ANN baseline in a runtime, for inputs (F, 1, 3, 33, 100)."""
    if name == OPENVINO:
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
        return lambda number: request.infer([inputs[number]])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda number: session.run(None, {"image": inputs[number]})


if __name__ == "__main__":
    main()
