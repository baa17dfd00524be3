"""What training costs: the fast path against stock lava-dl, against the ANN baseline, and its limits.

    python benchmarks/training_speed.py [--threads 2] [--frames data/frames] [--rounds 15]

One iteration is 8 sequences of 16 frames, as in the tutorial. All sides take turns in every round, so
what else the machine does hits them alike; printed are medians, and their ratios, beside the targets.
Without --frames the drive is a made one (`road`); events, and so times, depend a little on the drive.
"""

import argparse
import io
import multiprocessing
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from pilotnet_sdnn.dataset import store
from pilotnet_sdnn.dataset.resizing import resize
from pilotnet_sdnn.drive import synthetic
from pilotnet_sdnn.sdnn import kernels
from pilotnet_sdnn.sdnn.ann import CONVOLUTIONS, ann_baseline, images
from pilotnet_sdnn.sdnn.losses import event_rate_loss
from pilotnet_sdnn.sdnn.network import Network, normalise
from pilotnet_sdnn.sdnn.optimizer import FlatRAdam

BATCH, SEQUENCE = 8, 16
NOTEBOOK_FRAMES, NOTEBOOK_EPOCHS = 45_406, 200
LOOP = 4  # iterations of a whole loop that are timed together
PICTURES = 96  # frames of the drive that the tutorial's loader is given as JPEG files
Side = Callable[[Tensor], Callable[[], object]]  # given sequences of frames, sets up what is timed


def drive(path: Path | None) -> Tensor:
    """Sequences of frames (N, 16, 33, 100, 3), uint8."""
    if path is None:
        frames = np.stack([resize(Image.fromarray(image)) for image, _ in synthetic.drive(40 * SEQUENCE, seed=0)])
    else:
        frames = store.read_frames(path).frames[: 320 * SEQUENCE]
    return torch.from_numpy(frames[: len(frames) // SEQUENCE * SEQUENCE]).view(-1, SEQUENCE, *store.FRAME_SHAPE)


def stock_forward(network: Network, x: Tensor) -> tuple[Tensor, Tensor]:
    """Angles and event-rate loss as the tutorial's `Network.forward` computes them, its counts included."""
    event_cost: Tensor | int = 0
    counts = []
    for message in network.messages(x):
        mean = torch.mean(torch.abs(message))
        event_cost = event_cost + F.mse_loss(F.relu(mean - 0.01), torch.zeros_like(mean))
        counts.append(torch.sum((torch.abs(message[..., 1:]) > 0).to(message.dtype)).item())
    return message.flatten(1), torch.as_tensor(event_cost)


def fast_forward(network: Network, kind: str, frames: Tensor) -> tuple[Tensor, Tensor]:
    outcome = kernels.run(network, frames, kind)
    return outcome.angles, event_rate_loss(outcome.rates, 0.01)


def trainer(
    forward: Callable[[Tensor], tuple[Tensor, Tensor]], optimizer: torch.optim.Optimizer
) -> Callable[[Tensor], None]:
    """One training iteration on a batch."""

    def step(x: Tensor) -> None:
        angles, penalty = forward(x)
        loss = F.mse_loss(angles, torch.zeros_like(angles)) + 0.01 * penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def stock_radam(module: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.RAdam(module.parameters(), lr=0.001, weight_decay=1e-5)


def convolutions_alone(videos: Tensor) -> Callable[[], None]:
    """Every convolution forward and both ways back, except to the frames."""
    x = images(videos[:BATCH])
    work = []
    for number, (inputs, outputs, stride, padding) in enumerate(CONVOLUTIONS):
        weight = torch.randn(outputs, inputs, 3, 3).contiguous(memory_format=torch.channels_last)
        y = F.conv2d(x, weight, None, stride, padding)
        work.append((x, weight, torch.randn_like(y), stride, padding, (number > 0, True, False)))
        x = y

    def run() -> None:
        for x, weight, gradient, stride, padding, wanted in work:
            F.conv2d(x, weight, None, stride, padding)
            torch.ops.aten.convolution_backward(
                gradient, x, weight, None, stride, padding, (1, 1), False, (0, 0), 1, wanted
            )

    return run


class TutorialDataset(Dataset):
    """Sequences as the tutorial's dataset reads them: each frame a JPEG file, decoded and resized every time."""

    def __init__(self) -> None:
        self.pictures = []
        for image, _ in synthetic.drive(PICTURES, seed=0):
            self.pictures.append(io.BytesIO())
            Image.fromarray(image).save(self.pictures[-1], "JPEG", quality=90)
        self.transform = transforms.Compose([
            transforms.Resize([33, 100]),
            transforms.ToTensor(),
            transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ])  # fmt: skip

    def __len__(self) -> int:
        return LOOP * BATCH

    def __getitem__(self, index: int) -> Tensor:
        chosen = (self.pictures[(index * SEQUENCE + t) % PICTURES] for t in range(SEQUENCE))
        return torch.stack([self.transform(Image.open(picture)) for picture in chosen], dim=-1)


def serve(connection: Connection, side: Side, videos: Tensor, threads: int) -> None:
    """In a process of its own: time the side's function whenever asked to."""
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch's, for the weight norm that lava-dl uses
    torch.set_num_threads(threads)
    torch.manual_seed(4205)
    function = side(videos)
    while connection.recv():
        start = time.perf_counter()
        function()
        connection.send(1000 * (time.perf_counter() - start))


def interleaved(sides: dict[str, Side], videos: Tensor, threads: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of each side, all taking turns. The first three rounds warm up.

    Every side has its process, so that none profits from how another one sets up memory and threads.
    """
    context = multiprocessing.get_context("spawn")
    connections = {}
    for name, side in sides.items():
        connections[name], theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, side, videos, threads)).start()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 3):
        for name, connection in connections.items():
            connection.send(True)
            times[name].append(connection.recv())
    for connection in connections.values():
        connection.send(False)
    return {name: statistics.median(values[3:]) for name, values in times.items()}


def train_stock(videos: Tensor) -> Callable[[], None]:
    network = Network()
    step, x = trainer(partial(stock_forward, network), stock_radam(network)), normalise(videos[:BATCH])
    return lambda: step(x)


def train_fast(videos: Tensor, kind: str) -> Callable[[], None]:
    network = Network()
    kernels.choose(kind, torch.device("cpu"))
    step = trainer(partial(fast_forward, network, kind), FlatRAdam(network.trainable_parameters(), 0.001, 1e-5))
    return lambda: step(videos[:BATCH])


def train_stream(videos: Tensor) -> Callable[[], None]:
    """Corrected neurons that carry their state from iteration to iteration."""
    network = Network(corrected=True)
    kernels.choose("native", torch.device("cpu"))
    state: kernels.State | None = None

    def forward(frames: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal state
        before = kernels.continued(network, state, torch.ones(len(frames), dtype=torch.bool))
        output, _, state = kernels.stream(network, frames, "native", before)
        return output.angles, event_rate_loss(output.rates, 0.01)

    step = trainer(forward, FlatRAdam(network.trainable_parameters(), 0.001, 1e-5))
    return lambda: step(videos[:BATCH])


def train_ordinary(videos: Tensor) -> Callable[[], None]:
    network = ann_baseline()
    step, x = trainer(lambda x: (network(x), torch.zeros(())), stock_radam(network)), images(videos[:BATCH])
    return lambda: step(x)


def test_stock(videos: Tensor) -> Callable[[], object]:
    network, x = Network().eval(), normalise(videos[:BATCH])
    return torch.no_grad()(lambda: stock_forward(network, x))


def test_fast(videos: Tensor) -> Callable[[], object]:
    network = Network().eval()
    return torch.no_grad()(lambda: fast_forward(network, "native", videos[:BATCH]))


def gemm(videos: Tensor) -> Callable[[], object]:
    matrix = torch.randn(1024, 1024)
    return lambda: matrix @ matrix


def loop_stock(videos: Tensor, workers: int) -> Callable[[], None]:
    """Iterations of the tutorial's whole loop, its loader included."""
    network = Network()
    step = trainer(partial(stock_forward, network), stock_radam(network))
    loader = DataLoader(TutorialDataset(), BATCH, num_workers=workers, persistent_workers=workers > 0)

    def epoch() -> None:
        for x in loader:
            step(x)

    return epoch


def loop_fast(videos: Tensor) -> Callable[[], None]:
    """As many iterations, from packed frames."""
    network = Network()
    step = trainer(partial(fast_forward, network, "native"), FlatRAdam(network.trainable_parameters(), 0.001, 1e-5))

    def epoch() -> None:
        for _ in range(LOOP):
            step(videos[torch.randint(len(videos), (BATCH,))])

    return epoch


MODEL: dict[str, Side] = {
    "stock": train_stock,
    "native": partial(train_fast, kind="native"),
    "native, carried": train_stream,
    "torch": partial(train_fast, kind="torch"),
    "ann": train_ordinary,
    "stock test": test_stock,
    "native test": test_fast,
    "convolutions": convolutions_alone,
    "gemm": gemm,
}
WHOLE_LOOP: dict[str, Side] = {
    "ours": loop_fast,
    **{f"stock, {workers} workers": partial(loop_stock, workers=workers) for workers in (0, 1, 2)},
}


def peak_memory(side: str) -> None:
    """Print the megabytes by which five training iterations raise the process's peak (Linux only)."""
    torch.set_num_threads(1)
    step = MODEL[side](torch.randint(256, (BATCH, SEQUENCE, *store.FRAME_SHAPE), dtype=torch.uint8))

    def peak() -> int:
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

    Path("/proc/self/clear_refs").write_text("5")  # the peak is now what is in use
    before = peak()
    for _ in range(5):
        step()
    print((peak() - before) / 1024)


def measured_memory(side: str) -> float:
    command = [sys.executable, __file__, "--peak-memory-of", side]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def report(name: str, value: float, must: float, goal: float, unit: str = "x", least: bool = True) -> None:
    def reached(limit: float) -> bool:
        return value >= limit if least else value <= limit

    verdict = "goal" if reached(goal) else "must" if reached(must) else "MISSED"
    print(f"{name:52}{value:9.2f} {unit:4} must {must:g}, goal {goal:g}: {verdict}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--frames", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peak-memory-of", choices=["stock", "native"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_memory_of:
        peak_memory(arguments.peak_memory_of)
        return

    videos = drive(arguments.frames)
    for threads in arguments.threads:
        times = interleaved(MODEL, videos, threads, arguments.rounds)
        print(f"\n{threads} threads: milliseconds for {BATCH} x {SEQUENCE} frames, median of {arguments.rounds}")
        print(", ".join(f"{name} {value:.1f}" for name, value in times.items()))
        print(f"GEMM: {2 * 1024**3 / times['gemm'] / 1e6:.0f} GFLOP/s")
        report("training iteration, stock / native", times["stock"] / times["native"], 4, 5.5)
        report("training iteration, native / ANN", times["native"] / times["ann"], 1.5, 1, least=False)
        report("test pass, stock / native", times["stock test"] / times["native test"], 6, 8)
        carried = times["native, carried"] / times["native"]
        print(f"{'training iteration, state carried / from rest':52}{carried:9.2f} x")
        print(f"{'training iteration, native / dense convolutions':52}{times['native'] / times['convolutions']:9.2f} x")
        print(f"{'training iteration, stock / torch':52}{times['stock'] / times['torch']:9.2f} x")
        if threads == max(arguments.threads):
            loop = interleaved(WHOLE_LOOP, videos, threads, max(3, arguments.rounds // 3))
            ours = loop.pop("ours") / LOOP
            best = min(loop, key=lambda name: loop[name])
            print(f"\nwhole loop, milliseconds per iteration: {best} {loop[best] / LOOP:.1f}, ours {ours:.1f}")
            report("whole loop, stock / ours", loop[best] / LOOP / ours, 7, 10)
            sequences = NOTEBOOK_FRAMES // SEQUENCE
            epoch = (0.8 * ours + 0.2 * times["native test"]) * sequences / BATCH
            report("the tutorial's full job", NOTEBOOK_EPOCHS * epoch / 60_000, 60, 35, "min", least=False)
    memory = {side: measured_memory(side) for side in ("stock", "native")}
    print(f"\npeak memory of training: stock {memory['stock']:.0f} MB, native {memory['native']:.0f} MB")


if __name__ == "__main__":
    main()
