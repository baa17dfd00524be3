"""Frames made small: by which decoder, with bad ones among them, and when it is interrupted."""

import contextlib
import io
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import psutil
import pytest
import simplejpeg
from drives import encoded, one_line
from PIL import Image, ImageOps

from pilotnet_sdnn.dataset.store import read_frames
from pilotnet_sdnn.drive.drive_zip import pack_drive
from pilotnet_sdnn.drive.images import decode_frame
from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.paths import DRIVES, FRAMES
from pilotnet_sdnn.stages import resize as stage

ROOT = Path(__file__).parents[1]
DRIVE = DRIVES / "1-0123456789abcdef.zip"
RESIZE = [sys.executable, "-m", "pilotnet_sdnn.stages.resize"]


def picture(width: int = 455, height: int = 256, seed: int = 0) -> Image.Image:
    """Smooth colours with noise on them."""
    random = np.random.default_rng(seed)
    smooth = Image.fromarray(random.integers(0, 256, (6, 9, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(smooth) + random.normal(0, 20, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    return encoded(picture(), exif=exif)


IMAGES = {
    **{f"{kind}, quality {quality}": simplejpeg.encode_jpeg(np.asarray(picture()), quality, colorsubsampling=kind)
       for kind in ("444", "422", "420", "440", "411") for quality in (5, 90, 100)},
    "progressive": encoded(picture(), progressive=True),
    "optimised, restart markers": encoded(picture(), optimize=True, restart_marker_rows=2),
    "grey": encoded(picture().convert("L")),
    "CMYK": encoded(picture().convert("CMYK")),
    "RGB inside": encoded(picture(), keep_rgb=True),
    **{f"{w}x{h}": encoded(picture(w, h)) for w, h in ((1, 1), (17, 33), (101, 7), (640, 480), (1281, 721))},
    "EXIF rotation": rotated(),
    "with bytes behind it": encoded(picture()) + b"more",
    "PNG": encoded(picture(), "PNG"),
}  # fmt: skip


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


@pytest.mark.parametrize("name", IMAGES)
def test_fast_decoder_gives_pillows_bytes(name):
    image = decode_frame(IMAGES[name], "frame")
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), by_pillow(IMAGES[name]))


def test_fast_decoder_gives_pillows_bytes_on_a_real_drive(real_drive):
    with ZipFile(real_drive) as drive:
        for number in range(0, 5614, 100):
            data = drive.read(f"driving_dataset/{number}.jpg")
            np.testing.assert_array_equal(np.asarray(decode_frame(data, "")), by_pillow(data))


def progressive_with(scans: int) -> bytes:
    """A JPEG whose last scan comes again and again."""
    data = encoded(Image.new("RGB", (1600, 1200)), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + b"\xff\xd9"


HALF = len(encoded(picture())) // 2
HOSTILE_IMAGES = {
    "cut off": (encoded(picture())[:HALF], "not a readable image"),
    "empty": (b"", "not a readable image"),
    "header only": (b"\xff\xd8\xff", "not a readable image"),
    "cut to 5 %, with a proper end": (encoded(picture())[: 600 + HALF // 10] + b"\xff\xd9", "Corrupt JPEG data"),
    "the same, progressive": (encoded(picture(), progressive=True)[:HALF] + b"\xff\xd9", "Corrupt JPEG data"),
    "the same, CMYK": (encoded(picture().convert("CMYK"))[:HALF] + b"\xff\xd9", "Corrupt JPEG data"),
    "the same, rotated": (rotated()[:HALF] + b"\xff\xd9", "Corrupt JPEG data"),
    "zeros inside": (encoded(picture())[:HALF] + bytes(300) + encoded(picture())[HALF + 300 :], "Corrupt JPEG data"),
    "40,000 scans": (progressive_with(40_000), "scans, more than allowed"),
    "fill bytes": (b"\xff\xd8" + b"\xff" * 30_000_000 + encoded(picture())[3:], "fill bytes"),
    "empty segments": (b"\xff\xd8" + b"\xff\xfe\0\2" * 5_000_000 + encoded(picture())[2:], "segments before"),
    "100 megapixels": (encoded(Image.new("1", (10_000, 10_000)), "PNG"), "10000x10000 pixels, more than"),
    "100 megapixels in a JPEG": (encoded(Image.new("L", (10_000, 10_000))), "10000x10000 pixels, more than"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE_IMAGES)
def test_hostile_image_is_refused_at_once(name):
    data, reason = HOSTILE_IMAGES[name]
    start = time.process_time()
    one_line(lambda: decode_frame(data, "x.zip: 3.jpg"), "x.zip: 3.jpg", reason)
    assert time.process_time() - start < 1


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """A repository with parameters and nothing else, which the stage runs in."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    DRIVES.mkdir(parents=True)
    return tmp_path


def on_bad_frame(value: str) -> None:
    params = Path("params.yaml")
    params.write_text(re.sub("(?m)^on_bad_frame: error", f"on_bad_frame: {value}", params.read_text()))


def drive_of(count: int, bad: set[int]) -> list[np.ndarray]:
    """Write a drive whose frame N is of a grey of its own and steers N degrees; the bad ones are cut off."""
    data = [encoded(Image.new("RGB", (455, 256), (number % 256,) * 3)) for number in range(count)]
    frames = ((f"{n}.jpg", jpeg[:200] if n in bad else jpeg, float(n)) for n, jpeg in enumerate(data))
    pack_drive(DRIVE, frames)
    return [np.full((33, 100, 3), number % 256, np.uint8) for number in range(count)]


def test_frames_come_out_in_the_order_of_the_labels(workspace):
    expected = drive_of(200, bad=set())
    stage.main()
    written = read_frames(FRAMES)
    np.testing.assert_array_equal(written.frames[:], expected)
    np.testing.assert_allclose(np.degrees(written.angles), range(200), rtol=1e-6)
    assert not written.segments.any() and list(written.numbers) == list(range(200)) and written.skipped == 0


def test_bad_frame_is_one_line_with_file_and_line(workspace):
    drive_of(100, bad={70, 90})
    with pytest.raises(UserError) as error:
        stage.main()
    message = str(error.value)
    assert f"{DRIVE}: driving_dataset/70.jpg (data.txt line 71)" in message and "on_bad_frame: skip" in message
    assert "\n" not in message and not list(FRAMES.iterdir())


def test_hostile_images_are_skipped_as_bad_frames(workspace):
    """Also those that a decoder completes with invented pixels, such as a JPEG cut to 5 % with a proper end."""
    on_bad_frame("skip")
    frames = [data for bad, _ in HOSTILE_IMAGES.values() for data in (encoded(picture()), bad)]
    pack_drive(DRIVE, ((f"{n}.jpg", data, float(n)) for n, data in enumerate(frames)))
    stage.main()
    written = read_frames(FRAMES)
    assert list(written.numbers) == list(range(0, len(frames), 2)) and written.skipped == len(HOSTILE_IMAGES)


def test_skipped_frames_are_told_and_counted_and_end_a_segment(workspace, caplog, capsys):
    on_bad_frame("skip")
    bad = {0, 40, 41, 42, 99, 150, 151, 199}
    expected = drive_of(200, bad)
    with caplog.at_level(logging.WARNING):
        stage.main()
    written = read_frames(FRAMES)
    good = [number for number in range(200) if number not in bad]
    assert list(written.numbers) == good and written.skipped == 8
    np.testing.assert_array_equal(written.frames[:], [expected[number] for number in good])
    np.testing.assert_allclose(np.degrees(written.angles), good, rtol=1e-6)
    assert [len(part) for part in np.split(good, np.flatnonzero(np.diff(written.segments)) + 1)] == [39, 56, 50, 47]
    assert [record.getMessage().count(".jpg") for record in caplog.records] == [1] * 5  # and the others not
    assert "8 labels left out" in capsys.readouterr().out


def test_skipping_has_the_same_bytes_every_time(workspace):
    on_bad_frame("skip")
    drive_of(100, bad={5})
    stage.main()
    first = [path.read_bytes() for path in FRAMES.iterdir()]
    stage.main()
    assert [path.read_bytes() for path in FRAMES.iterdir()] == first


def test_drive_with_only_bad_frames(workspace):
    on_bad_frame("skip")
    drive_of(40, bad=set(range(40)))
    with pytest.raises(UserError, match="40 frames, none of them readable"):
        stage.main()
    assert not list(FRAMES.iterdir())


LINUX = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes as on Linux")


def workers(process: int) -> list[int]:
    """The processes that resize frames for this one: forks of its one server that stay.

    The server also runs `uname` for a moment, which is such a fork until it is `uname`.
    """

    def children(parent: int) -> list[int]:
        return [int(child) for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]

    def command(number: int) -> bytes:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{number}/cmdline").read_bytes()
        return b""

    def forks() -> set[int]:
        servers = [child for child in children(process) if b"forkserver" in command(child)]
        return {worker for server in servers for worker in children(server) if b"forkserver" in command(worker)}

    before = forks()
    time.sleep(0.1)
    return sorted(before & forks())


@pytest.fixture
def running(workspace):
    """The stage at work on a drive that takes it a while."""
    jpeg = encoded(Image.new("RGB", (4000, 3000)))
    pack_drive(DRIVE, ((f"{n}.jpg", jpeg, 0.0) for n in range(1000)))
    process = subprocess.Popen(RESIZE, stderr=subprocess.PIPE, text=True)
    while not workers(process.pid):
        time.sleep(0.02)
    yield process
    process.kill()


@LINUX
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0, 2])  # while its processes start, and while they work
def test_interrupted_it_ends_at_once_and_leaves_nothing(running, number, seconds):
    time.sleep(seconds)
    started = workers(running.pid)
    running.send_signal(number)
    told = time.monotonic()
    _, printed = running.communicate(timeout=60)
    assert time.monotonic() - told < 20  # on a busy machine; alone it is half a second
    assert running.returncode == 1
    assert printed.rstrip().endswith("stopped") and "Traceback" not in printed
    assert not list(Path("data/frames").glob("*"))
    assert not any(Path(f"/proc/{worker}").exists() for worker in started)


@LINUX
def test_interrupted_it_does_not_wait_for_a_slow_frame(workspace):
    """Pillow walks over the chunks of a PNG in Python; this one takes it a minute."""
    chunk = b"\0\0\0\0prVt" + zlib.crc32(b"prVt").to_bytes(4, "big")
    head, rest = (png := encoded(Image.new("L", (4, 4)), "PNG"))[:33], png[33:]
    pack_drive(DRIVE, [(f"{n}.jpg", head + chunk * 5_000_000 + rest, 0.0) for n in range(2)])
    process = subprocess.Popen(RESIZE, stderr=subprocess.PIPE, text=True)
    while not workers(process.pid):
        time.sleep(0.02)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    interrupted = time.monotonic()
    _, printed = process.communicate(timeout=60)
    assert time.monotonic() - interrupted < 20  # on a busy machine; alone it is half a second
    assert process.returncode == 1 and printed.rstrip().endswith("stopped")


def test_worker_tells_which_frame_takes_too_long(tmp_path):
    program = """
import multiprocessing, os, time
from pilotnet_sdnn.dataset import resizing
ours, theirs = multiprocessing.Pipe()
if not os.fork():
    resizing.FRAME_SECONDS = 0.1
    resizing._Worker.frame, resizing._Worker.started = "x.zip: 3.jpg", time.monotonic()
    resizing._watch(theirs)
print(ours.recv())
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.splitlines() == ["x.zip: 3.jpg: more than 0.1 s of decoding; remove its label", "1"]


@LINUX
def test_low_memory_is_one_line(workspace):
    jpeg = encoded(Image.new("RGB", (6000, 5000)))
    pack_drive(DRIVE, ((f"{n}.jpg", jpeg, 0.0) for n in range(20)))
    limited = ["bash", "-c", 'ulimit -v 320000; exec "$@"', "bash", *RESIZE]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "memory" in last and len(last) <= 300
    assert not list(Path("data/frames").glob("*"))


@LINUX
def test_worker_that_is_killed_is_one_line(running):
    os.kill(workers(running.pid)[0], signal.SIGKILL)
    _, printed = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "error: a worker was killed" in printed and "Traceback" not in printed
    assert not list(Path("data/frames").glob("*"))


@LINUX
def test_workers_end_when_the_stage_is_killed(running):
    started = workers(running.pid)
    running.kill()
    running.communicate()
    gone = time.monotonic() + 20
    while any(Path(f"/proc/{worker}").exists() for worker in started):
        assert time.monotonic() < gone
        time.sleep(0.05)


@pytest.mark.slow
@LINUX
def test_memory_does_not_grow_with_the_drive(workspace):
    jpeg = encoded(picture(), quality=20)
    peaks = []
    for count in (1000, 20_000):
        pack_drive(DRIVE, ((f"{n}.jpg", jpeg, 0.0) for n in range(count)))
        stage = psutil.Popen([sys.executable, "-m", "pilotnet_sdnn.stages.resize"], stderr=subprocess.DEVNULL)
        peaks.append(0.0)
        while stage.poll() is None:
            with contextlib.suppress(psutil.Error):
                together = [stage, *stage.children(recursive=True)]
                peaks[-1] = max(peaks[-1], sum(process.memory_full_info().pss for process in together) / 1e6)
            time.sleep(0.1)
        assert stage.returncode == 0
    assert peaks[1] < 500
    assert peaks[1] - peaks[0] < 60  # MB, of the labels and the names in the zip; the frames are 188 MB
