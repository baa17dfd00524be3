"""How fast the frames of a video are decoded and shrunk, and in how much memory.

    uv run python benchmarks/videos.py [--frames 3000] [--rounds 7] [--memory 100000]

Speed is that of the resize stage's work, from the zip to blocks of frames on all cores, once its processes run.
It takes turns with two loops of PyAV that decode and shrink the same frames: one in which the decoder has a thread for
each core, and one in a single thread, of which (cores x its speed) is what the cores can do at most. Medians of the
rounds are printed.

The video is 1280x720 H.264, synthetic road with noise. Memory is the peak of all processes for --memory frames, with
what they share counted once; the video for it is small, and has one keyframe.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
from PIL import Image

from pilotnet_sdnn.dataset.resizing import resize, resized_frames
from pilotnet_sdnn.drive import sources, synthetic
from pilotnet_sdnn.drive.drive_zip import open_drive, read_labels
from pilotnet_sdnn.drive.labels import BadLabels
from pilotnet_sdnn.drive.reading import Reading

SIZE = (1280, 720)
SMALL = (160, 90)


def write_video(path: Path, count: int, size: tuple[int, int], group: int) -> None:
    """A video of `count` frames with a csv of labels beside it; the road goes back and forth."""
    noise = np.random.default_rng(0).integers(0, 24, (*size[::-1], 3), np.uint8)
    made = [Image.fromarray(image).resize(size) for image, _ in synthetic.drive(min(count, 300), seed=0)]
    road = [np.asarray(image) // 12 * 11 + np.roll(noise, 7 * at, (0, 1)) for at, image in enumerate(made)]
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "g": str(group)})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(road[abs(number % (2 * len(road)) - len(road) + 1) % len(road)])
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    labels = "".join(f"{number},{number % 90}\n" for number in range(count))
    path.with_suffix(".csv").write_text(f"frame,angle_degrees\n{labels}")


def bare_loop(path: Path, threads: int) -> int:
    with av.open(str(path)) as container:
        stream: Any = container.streams.video[0]
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "AUTO"
        return len([resize(frame.to_image()) for frame in container.decode(stream)])


def loop_rate(path: Path, threads: int) -> float:
    start = time.perf_counter()
    return bare_loop(path, threads) / (time.perf_counter() - start)


def our_rate(packed: Path) -> float:
    """Frames per second after the first tenth."""
    with open_drive(packed) as drive:
        labels = read_labels(drive)
        done = first = 0
        start = 0.0
        for numbers, _ in resized_frames(drive, labels, BadLabels("")):
            done += len(numbers)
            if not first and done >= len(labels) / 10:
                first, start = done, time.perf_counter()
        return (done - first) / (time.perf_counter() - start)


def compare_speed(folder: Path, frames: int, rounds: int) -> None:
    cores = len(os.sched_getaffinity(0))
    write_video(folder / "drive.mp4", frames, SIZE, group=60)
    sources.fetch(str(folder / "drive.mp4"), folder / "drive.zip", 1, 1, Reading())
    measured = []
    for _ in range(rounds):
        one, threaded = (loop_rate(folder / "drive.mp4", threads) for threads in (1, cores))
        measured.append((one, threaded, our_rate(folder / "drive.zip")))
    one, threaded, whole = (statistics.median(values) for values in zip(*measured, strict=True))
    share = statistics.median(whole / max(loops) for *loops, whole in measured)
    of_all = statistics.median(whole / (cores * one) for one, _, whole in measured)
    reached = "reached" if share >= 0.9 else "MISSED"
    print(f"{cores} cores: {whole:.0f} frames/s, {share:.0%} of the faster bare loop, at least 90 %: {reached}")
    print(
        f"bare loops of PyAV: {threaded:.0f} frames/s with a thread for each core, {one:.0f} with one; "
        f"{of_all:.0%} of (cores x one)"
    )


@contextlib.contextmanager
def peak_memory(process: psutil.Popen) -> Iterator[list[float]]:
    """The peak in MB of a process and its children, in a list of one."""
    peak = [0.0]

    def look() -> None:
        while process.poll() is None:
            with contextlib.suppress(psutil.Error):  # one of them has ended
                together = [process, *process.children(recursive=True)]
                peak[0] = max(peak[0], sum(each.memory_full_info().pss for each in together) / 1e6)
            time.sleep(0.2)

    thread = threading.Thread(target=look)
    thread.start()
    yield peak
    thread.join()


def measure_memory(folder: Path, count: int) -> None:
    write_video(folder / "long.mp4", count, SMALL, group=10 * count)
    sources.fetch(str(folder / "long.mp4"), folder / "long.zip", 1, 1, Reading())
    command = [sys.executable, __file__, "--only", str(folder / "long.zip")]
    with peak_memory(psutil.Popen(command, stdout=subprocess.DEVNULL)) as peak:
        pass
    print(f"{count} frames: peak {peak[0]:.0f} MB; at most 500: {'reached' if peak[0] <= 500 else 'MISSED'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", type=int, default=100_000)
    parser.add_argument("--only", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        our_rate(arguments.only)
        return
    with tempfile.TemporaryDirectory(dir=".") as folder:
        compare_speed(Path(folder), arguments.frames, arguments.rounds)
        measure_memory(Path(folder), arguments.memory)


if __name__ == "__main__":
    main()
