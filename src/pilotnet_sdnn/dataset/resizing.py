"""Every frame of a drive as the network sees it, 33x100 RGB, by all cores.

Processes do it: threads, though nearly all of the work is C that leaves Python's lock alone, come to 80 %
of what two cores can do. They start from a server that has imported everything once, so they share most of
their memory, and are told where in the zip their frames are instead of each reading its list of files.
"""

import io
import logging
import multiprocessing
import os
import signal
import threading
import zipfile
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from pilotnet_sdnn.dataset.prefetch import prefetch
from pilotnet_sdnn.dataset.store import FRAME_SHAPE, Block
from pilotnet_sdnn.drive.archives import read_member
from pilotnet_sdnn.drive.drive_zip import frame_member
from pilotnet_sdnn.drive.images import MAX_PIXELS, decode_frame
from pilotnet_sdnn.drive.labels import BadLabels, Label
from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.interrupts import INTERRUPTS, interrupts_held

logger = logging.getLogger(__name__)

FRAMES_PER_TASK = 32
RETAINED_HEAP = 30 * 2**20  # bytes; glibc retains no more than 32 MB
MAX_WARNINGS = 5  # bad frames that are logged one by one


class Task(NamedTuple):
    """Some labels whose frames one process makes small."""

    first: int  # number of the first of them among the drive's labels
    labels: list[Label]
    entries: list[zipfile.ZipInfo]  # where in the zip their frames are


class Done(NamedTuple):
    """What comes of a task."""

    block: Block
    problems: list[tuple[int, str]]  # lines and messages of the labels whose frames cannot be read


def resize(image: Image.Image) -> np.ndarray:
    """(33, 100, 3) uint8: bilinear with antialiasing, as torchvision's Resize([33, 100]) on a PIL image."""
    height, width, _ = FRAME_SHAPE
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def decode(data: bytes, where: str) -> Image.Image:
    """The image that `drive.decode_frame` makes of the bytes, an ordinary JPEG by simplejpeg, which is faster.

    It has the same libjpeg-turbo as Pillow and gives the same bytes (proved by a test and, on a real drive,
    by benchmarks/resize.py). What is not ordinary, or fails, is left to `decode_frame`.

    Raises:
        UserError: they are no image.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours in ("YCbCr", "Gray") and height * width <= MAX_PIXELS and not _may_be_turned(data):
            return Image.fromarray(simplejpeg.decode_jpeg(data))
    except (ValueError, IndexError):
        pass
    return decode_frame(data, where)


def _may_be_turned(jpeg: bytes) -> bool:
    """Whether there is EXIF or XMP before the image, segments of the kind APP1."""
    at = 2
    while jpeg[at + 1] not in (0xE1, 0xDA):  # APP1 and the start of the image
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return jpeg[at + 1] == 0xE1


def resized_frames(drive: zipfile.ZipFile, labels: list[Label], bad: BadLabels) -> Generator[Block, None, None]:
    """The labelled frames of a drive, in the order of the labels, some at a time.

    Args:
        drive: an open zip in a file.
        labels: its labels.
        bad: counts the frames that cannot be read and are left out, and says whether they may be.

    Raises:
        UserError: a frame cannot be read and must not be left out, or a process was killed.
    """
    logged = 0
    for block, problems in _by_all_cores(drive, labels):
        for line, problem in problems:
            if bad.on_bad_frame == "error":
                raise UserError(f"{problem}, or set on_bad_frame: skip to leave such frames out")
            bad.add(line, problem)
            logged += 1
            if logged <= MAX_WARNINGS:
                logger.warning("left out: %s%s", problem, "; more follow silently" * (logged == MAX_WARNINGS))
        yield block


def _by_all_cores(drive: zipfile.ZipFile, labels: list[Label]) -> Iterator[Done]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    try:
        with ProcessPoolExecutor(cores, context, initializer=_open, initargs=(str(drive.filename),)) as pool:
            with interrupts_held():  # a pool that is interrupted while its processes start loses sight of them
                pool.submit(os.getpid)
            yield from prefetch(pool, _do, _tasks(drive, labels), max_pending=3 * cores)
    except BrokenProcessPool:
        raise UserError(
            "a process that made frames small was killed, maybe because memory ran out; run the stage again"
        ) from None


def _tasks(drive: zipfile.ZipFile, labels: list[Label]) -> Iterator[Task]:
    for first in range(0, len(labels), FRAMES_PER_TASK):
        some = labels[first : first + FRAMES_PER_TASK]
        yield Task(first, some, [drive.getinfo(frame_member(label)) for label in some])


_drive: zipfile.ZipFile  # of a worker


def _open(path: str) -> None:
    """Make a worker ready: the zip without its list of files, which the tasks bring as far as it is needed."""
    global _drive
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's to handle
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    bytes(RETAINED_HEAP)  # freed at once, it makes glibc keep what images free; page faults cost a fifth more
    _drive = zipfile.ZipFile(io.BytesIO(b"PK\5\6" + bytes(18)))  # an empty one
    _drive.fp = Path(path).open("rb")  # noqa: SIM115, as long as the worker lives
    _drive.filename = path


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _do(task: Task) -> Done:
    """In a worker: read, decode and resize the frames of a task."""
    _drive.NameToInfo = {entry.filename: entry for entry in task.entries}
    good: list[int] = []
    frames = np.empty((len(task.labels), *FRAME_SHAPE), np.uint8)
    problems = []
    for number, label in enumerate(task.labels, task.first):
        member = frame_member(label)
        try:
            data = read_member(_drive, member)
            frames[len(good)] = resize(decode(data, f"{_drive.filename}: {member} (data.txt line {label.line})"))
            good.append(number)
        except UserError as problem:
            problems.append((label.line, str(problem)))
    return Done((np.array(good, int), frames[: len(good)]), problems)
