"""How fast frames are made small, with which decoders they come out the same, and in how much memory.

    uv run python benchmarks/resize.py [--drive ../shared/data/udacity_ch2_001.zip] [--rounds 15]

Speed is that of the resize stage's work, from the zip to blocks of frames on all cores, as a share of
(cores x a bare Pillow loop that decodes and resizes the same JPEGs in one thread); the two take turns
and the median of the rounds is printed. Without the drive it is a synthetic one.

Decoders: for each of them, decoded by it and resized by Pillow, how many frames have the bytes that
Pillow's decoder gives, and how long one takes in one thread. All have libjpeg-turbo inside and give the
same bytes on all 5,614 frames of Udacity CH2_001 (PyTurboJPEG, which wants a library of the system and is
not installed with this project, on the 94 that were tried). simplejpeg is the fastest: it decodes as fast
as PyTurboJPEG or faster and does not turn BGR or planes into RGB afterwards. Pillow's draft mode, and
resizing by anything else, give another image.

Memory is the peak of the resize stage and its processes for 100,000 frames (--frames), looked at five
times a second.
"""

import argparse
import contextlib
import io
import os
import shutil
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import psutil
import simplejpeg
import torch
from PIL import Image
from torchvision.io import decode_jpeg

from pilotnet_sdnn.dataset.resizing import resize, resized_frames
from pilotnet_sdnn.drive import synthetic
from pilotnet_sdnn.drive.drive_zip import frame_member, open_drive, pack_drive, read_labels
from pilotnet_sdnn.drive.labels import BadLabels, Label
from pilotnet_sdnn.paths import DRIVES, PARAMS

REAL = Path("../shared/data/udacity_ch2_001.zip")
ROUND = 640  # frames


def pillow(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


def opencv(data: bytes) -> Image.Image:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return Image.fromarray(image)


def torchvision(data: bytes) -> Image.Image:
    image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


DECODERS: dict[str, Callable[[bytes], Image.Image]] = {
    "Pillow": pillow,
    "simplejpeg": lambda data: Image.fromarray(simplejpeg.decode_jpeg(data)),
    "opencv": opencv,
    "torchvision": torchvision,
}


def jpeg(image: np.ndarray, quality: int = 90) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=quality)
    return data.getvalue()


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def compare_decoders(frames: list[bytes]) -> None:
    same = dict.fromkeys(DECODERS, 0)
    times: dict[str, list[float]] = {name: [] for name in DECODERS}
    for data in frames:
        expected = resize(pillow(data))
        for name, decode in DECODERS.items():
            start = time.perf_counter()
            small = resize(decode(data))
            times[name].append(time.perf_counter() - start)
            same[name] += np.array_equal(small, expected)
    for name in DECODERS:
        print(
            f"{name:12} {1e6 * statistics.median(times[name]):5.0f} us a frame, {same[name]} of {len(frames)} the same"
        )


def compare_speed(drive: zipfile.ZipFile, labels: list[Label], rounds: int) -> None:
    cores = len(os.sched_getaffinity(0))
    data = [drive.read(frame_member(label)) for label in labels[:ROUND]]
    blocks = resized_frames(drive, labels[:ROUND] * (2 * rounds + 4), BadLabels(""))

    def take(frames: int) -> None:
        while frames > 0:
            frames -= len(next(blocks)[0])

    shares, rates = [], []
    take(ROUND)  # until all processes have started
    for _ in range(rounds):
        time.sleep(0.5)  # the processes rest when some blocks wait
        bare = seconds(lambda: [resize(pillow(frame)) for frame in data])
        take(ROUND)  # those, and what comes until they all work again
        ours = seconds(lambda: take(ROUND))
        shares.append(bare / ours / cores)
        rates.append((ROUND / bare, ROUND / ours))
    blocks.close()
    bare, ours = (statistics.median(rate) for rate in zip(*rates, strict=True))
    share = statistics.median(shares)
    print(
        f"{cores} cores: {ours:.0f} frames/s; a bare Pillow loop {bare:.0f} frames/s; "
        f"{share:.0%} of (cores x bare loop), at least 90 %: {'reached' if share >= 0.9 else 'MISSED'}"
    )


def peak_memory(count: int) -> None:
    """Linux only."""
    images = [jpeg(image, quality=20) for image, _ in synthetic.drive(100, seed=0)]
    with tempfile.TemporaryDirectory(dir=".") as folder:
        (path := Path(folder) / DRIVES / "1-0000000000000000.zip").parent.mkdir(parents=True)
        pack_drive(path, ((f"{number}.jpg", images[number % 100], 0.0) for number in range(count)), "synthetic")
        shutil.copy(PARAMS, folder)
        peaks = [0.0, 0.0]
        stage = psutil.Popen([sys.executable, "-m", "pilotnet_sdnn.stages.resize"], cwd=folder)
        while stage.poll() is None:
            with contextlib.suppress(psutil.Error):  # one of them has ended
                memory = [process.memory_full_info() for process in (stage, *stage.children(recursive=True))]
                now = sum(each.pss for each in memory) / 1e6, sum(each.rss for each in memory) / 1e6
                peaks = [max(pair) for pair in zip(peaks, now, strict=True)]
            time.sleep(0.2)
    shared, each = peaks
    print(
        f"{count} frames: peak {shared:.0f} MB of all processes together, {each:.0f} MB with what they share counted "
        f"for each; at most 500: {'reached' if each <= 500 else 'MISSED'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drive", type=Path, default=REAL)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--every", type=int, default=10, help="of how many frames one is compared between decoders")
    parser.add_argument("--frames", type=int, default=100_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = arguments.drive
        if not path.exists():
            path = Path(folder) / "drive.zip"
            made = enumerate(synthetic.drive(1000, seed=0))
            pack_drive(
                path, ((f"{number}.jpg", jpeg(image), degrees) for number, (image, degrees) in made), "synthetic"
            )
        with open_drive(path) as drive:
            labels = read_labels(drive)
            print(f"{path}: {len(labels)} frames")
            compare_speed(drive, labels, arguments.rounds)
            compare_decoders([drive.read(frame_member(label)) for label in labels[:: arguments.every]])
    peak_memory(arguments.frames)


if __name__ == "__main__":
    main()
