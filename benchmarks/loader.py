"""Whether training waits for its frames: steps fed by the loader against the same batches lying in memory.

    uv run python benchmarks/loader.py [--frames 100000] [--rounds 15] [--threads 2]

The drive is a made one (`road`), repeated up to that many frames, 10 kB each, in a frames.h5 of its own.
A round takes 16 steps of 8 x 16 frames from memory and 16 from the loader, in turn, on the same network
and the same sequences, drawn from all over the file; the ratio is that of a round, the median of all is
printed. "From disk" drops the file from the system's cache before the round, as when it is larger than
memory (Linux). The last line is the peak memory of a process that only loads: the file is never in it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pilotnet_sdnn.dataset.augmentation import Augmentation, augment
from pilotnet_sdnn.dataset.batches import Batch, Batches
from pilotnet_sdnn.dataset.resizing import resize
from pilotnet_sdnn.dataset.road import Dataset
from pilotnet_sdnn.dataset.sequences import Sequences
from pilotnet_sdnn.dataset.split import Split, Stretch
from pilotnet_sdnn.dataset.store import FRAMES_PER_READ, read_frames, write_frames
from pilotnet_sdnn.drive import synthetic
from pilotnet_sdnn.sdnn import kernels
from pilotnet_sdnn.sdnn.losses import event_rate_loss
from pilotnet_sdnn.sdnn.network import Network, NetworkOutput
from pilotnet_sdnn.sdnn.optimizer import FlatRAdam
from pilotnet_sdnn.sdnn.training import Training, train_epoch

BATCH, SEQUENCE, STEPS = 8, 16, 16
CPU = torch.device("cpu")
CHANGES = {
    "as they are": Augmentation(0, 0, 0, 0, 0),
    "augmented": Augmentation(0.5, 0.15, 0.3, 8, 1),
}


def write_drive(path: Path, count: int) -> None:
    """A frames.h5 of `count` frames in which those of the made drive come again and again."""
    made = np.stack([resize(Image.fromarray(image)) for image, _ in synthetic.drive(FRAMES_PER_READ, seed=0)])
    numbers = np.arange(count)
    blocks = (
        (some, made[some % FRAMES_PER_READ])
        for some in np.array_split(numbers, range(FRAMES_PER_READ, count, FRAMES_PER_READ))
    )
    write_frames(path, blocks, count, lambda kept: (np.sin(kept / 50), np.zeros(count)), origin="synthetic")


def drop_from_cache(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def all_sequences(path: Path) -> tuple[Sequences, np.ndarray]:
    drive = read_frames(path)
    return Dataset(drive, drive.angles, Split([], [])).sequences([Stretch(0, len(drive.angles))], SEQUENCE)


def seconds(network: Network, training: Training, data: Iterable[Batch]) -> float:
    """A step's, the loading of its batch included."""
    kernel = kernels.choose("auto", CPU)

    def forward(batch: Batch) -> NetworkOutput:
        return kernels.run(network, batch.frames, kernel)

    start = time.perf_counter()
    train_epoch(training, data, forward, lambda rates: 0.01 * event_rate_loss(rates, 0.01), lambda _: None)
    return (time.perf_counter() - start) / STEPS


def compare(path: Path, rounds: int) -> None:
    videos, angles = all_sequences(path)
    network = Network()
    training = Training(
        network, FlatRAdam(network.trainable_parameters(), 0, 0)
    )  # that learns nothing: events stay as many
    random = np.random.default_rng(0)
    for name, amounts in CHANGES.items():
        for cold in (False, True):
            times = []
            for _ in range(rounds + 2):
                order = random.integers(len(videos), size=STEPS * BATCH)
                loaded_batches = Batches(videos, angles, order, BATCH, CPU, partial(augment, amounts, seed=0, epoch=0))
                lying = list(loaded_batches)
                if cold:
                    drop_from_cache(path)
                times.append((seconds(network, training, lying), seconds(network, training, loaded_batches)))
            fixed, loaded = zip(*times[2:], strict=True)
            ratio = statistics.median(b / a for a, b in times[2:])
            print(
                f"{name + ', from disk' * cold:22} step {1000 * statistics.median(fixed):6.1f} ms in memory, "
                f"{1000 * statistics.median(loaded):6.1f} ms loaded, ratio {ratio:.3f}, "
                f"at most 1.03: {'reached' if ratio <= 1.03 else 'MISSED'}",
                flush=True,
            )


def peak_memory(path: Path) -> None:
    """Print the megabytes by which reading all sequences once raises the process's peak (Linux)."""

    def peak() -> int:
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

    videos, angles = all_sequences(path)
    before = peak()
    for _ in Batches(videos, angles, np.random.default_rng(0).permutation(len(videos)), BATCH, CPU):
        pass
    print((peak() - before) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peak-memory-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak_memory_of:
        peak_memory(arguments.peak_memory_of)
        return
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder) / "frames.h5"
        write_drive(path, arguments.frames)
        print(f"{arguments.frames} frames, {path.stat().st_size / 1e6:.0f} MB, {arguments.threads} threads")
        compare(path, arguments.rounds)
        command = [sys.executable, __file__, "--peak-memory-of", str(path)]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        print(f"peak memory of reading all of it once: {float(printed):.0f} MB more than before")


if __name__ == "__main__":
    main()
