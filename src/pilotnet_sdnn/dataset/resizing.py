"""Every frame of a drive as the network sees it, 33x100 RGB, resized on all cores.

Workers are processes: threads reach 80 % of the throughput of two cores, although nearly all of the work is C that
releases Python's lock. They come from a server that has imported everything once, so they share most of their
memory. A task tells its worker where in the zip the frames are, so that no worker reads the list of files.
"""

import io
import logging
import multiprocessing
import os
import signal
import threading
import time
import zipfile
from bisect import bisect_left
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import groupby, pairwise
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pilotnet_sdnn.dataset.prefetch import prefetch
from pilotnet_sdnn.dataset.store import FRAME_SHAPE, Block
from pilotnet_sdnn.drive.archives import read_member
from pilotnet_sdnn.drive.drive_zip import frame_member, video_of
from pilotnet_sdnn.drive.images import decode_frame
from pilotnet_sdnn.drive.labels import BadLabels, Label
from pilotnet_sdnn.drive.videos import Index, Video, frames, index
from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.interrupts import INTERRUPTS, interrupts_held

logger = logging.getLogger(__name__)

FRAMES_PER_TASK = 32
START_SECONDS = 10.0  # maximum wait for a worker to start
FRAME_SECONDS = 60.0  # a worker that needs longer for one frame is killed
RETAINED_HEAP = 30 * 2**20  # bytes; glibc retains no more than 32 MB
MAX_WARNINGS = 5  # bad frames that are logged one by one


class Piece(NamedTuple):
    """Frames of a video that one worker decodes: from a keyframe to before another, or to the end."""

    video: Video
    known: Index
    first: int
    stop: int
    threads: int


class Task(NamedTuple):
    """Labels whose frames one worker resizes."""

    first: int  # index of the first of them among the drive's labels
    labels: list[Label]
    entries: list[zipfile.ZipInfo]  # where in the zip their frames are, if they are images
    piece: Piece | None = None  # where in a video they are


class Resized(NamedTuple):
    """The result of a task."""

    block: Block
    problems: list[tuple[int, str]]  # lines and messages of the labels whose frames cannot be read


def resize(image: Image.Image) -> np.ndarray:
    """(33, 100, 3) uint8: bilinear with antialiasing, as torchvision's Resize([33, 100]) on a PIL image."""
    height, width, _ = FRAME_SHAPE
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def resized_frames(drive: zipfile.ZipFile, labels: list[Label], bad: BadLabels) -> Generator[Block, None, None]:
    """The labelled frames of a drive in blocks, in the order of the labels.

    Args:
        drive: an open zip in a file.
        labels: its labels.
        bad: says whether unreadable frames may be left out, and counts them.

    Raises:
        UserError: a frame cannot be read and must not be left out, or a worker was killed.
    """
    logged = 0
    for block, problems in _on_all_cores(drive, labels):
        for line, problem in problems:
            if bad.on_bad_frame == "error":
                raise UserError(f"{problem}, or set on_bad_frame: skip to leave such frames out")
            bad.add(line, problem)
            logged += 1
            if logged <= MAX_WARNINGS:
                logger.warning("left out: %s%s", problem, "; more follow silently" * (logged == MAX_WARNINGS))
        yield block


def _on_all_cores(drive: zipfile.ZipFile, labels: list[Label]) -> Iterator[Resized]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe()
    ready = context.Semaphore(0)
    arguments = (str(drive.filename), theirs, ready)
    try:
        with theirs, ProcessPoolExecutor(cores, context, initializer=_initialise, initargs=arguments) as pool:
            try:
                with interrupts_held():  # a pool that is interrupted while its workers start loses track of them
                    started = [pool.submit(os.getpid) for _ in range(cores)]  # a worker for each
                    for _ in started:
                        ready.acquire(timeout=START_SECONDS)
                yield from prefetch(pool, _resize_frames, _tasks(drive, labels, cores), max_pending=3 * cores)
            except BrokenProcessPool:
                if ours.poll():
                    raise UserError(ours.recv()) from None
                raise
            except BaseException:
                ours.close()  # ends the workers, whatever they are doing
                raise
    except RuntimeError as error:  # BrokenProcessPool, or no thread can start
        if not isinstance(error, BrokenProcessPool) and "thread" not in str(error):
            raise
        raise UserError(
            "a worker was killed or could not start, perhaps because memory ran out; run the stage again"
        ) from None


def _tasks(drive: zipfile.ZipFile, labels: list[Label], cores: int) -> Iterator[Task]:
    first = 0
    for _, group in groupby(labels, lambda label: label.drive):
        run = list(group)
        if video := video_of(drive, run[0]):
            yield from _video_tasks(video, run, first, cores)
        else:
            for start in range(0, len(run), FRAMES_PER_TASK):
                part = run[start : start + FRAMES_PER_TASK]
                yield Task(first + start, part, [drive.getinfo(frame_member(label)) for label in part])
        first += len(run)


def _video_tasks(video: Video, labels: list[Label], first: int, cores: int) -> Iterator[Task]:
    """The labelled frames of a video, cut at keyframes into pieces of at least `FRAMES_PER_TASK` frames."""
    known = index(video)
    cuts = [0]
    for keyframe in known.keyframes:
        if keyframe >= cuts[-1] + FRAMES_PER_TASK:
            cuts.append(keyframe)
    threads = cores if len(cuts) == 1 else 1
    numbers = [label.number for label in labels]
    for start, stop in pairwise([*cuts, max(known.total, numbers[-1] + 1)]):
        begin, end = bisect_left(numbers, start), bisect_left(numbers, stop)
        if begin < end:
            yield Task(first + begin, labels[begin:end], [], Piece(video, known, start, numbers[end - 1] + 1, threads))


class _Worker:
    """The state of a worker process."""

    drive: zipfile.ZipFile
    frame = ""  # being decoded
    started = 0.0  # when, of time.monotonic(); 0 between frames


def _initialise(path: str, parent: Connection, ready: Semaphore) -> None:
    """Set up a worker: open the zip without reading its list of files; each task brings the entries it needs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    try:
        bytes(RETAINED_HEAP)  # freed at once: glibc then keeps images' memory, which saves a fifth of the time
    except MemoryError:
        os._exit(1)  # without the traceback that the pool would print
    _Worker.drive = zipfile.ZipFile(io.BytesIO(b"PK\5\6" + bytes(18)))  # an empty one
    _Worker.drive.fp = Path(path).open("rb")  # noqa: SIM115, open as long as the worker lives
    _Worker.drive.filename = path
    ready.release()


def _watch(parent: Connection) -> None:
    """End this worker when the parent closes its end, or dies, or a frame takes too long."""
    while not parent.poll(1):
        if _Worker.started and time.monotonic() - _Worker.started > FRAME_SECONDS:
            parent.send(f"{_Worker.frame}: more than {FRAME_SECONDS:g} s of decoding; remove its label")
            break
    os._exit(1)


def _resize_frames(task: Task) -> Resized:
    """In a worker: read, decode and resize the frames of a task."""
    if task.piece:
        return _resize_piece(task, task.piece)
    drive = _Worker.drive
    drive.NameToInfo = {entry.filename: entry for entry in task.entries}
    good: list[int] = []
    frames = np.empty((len(task.labels), *FRAME_SHAPE), np.uint8)
    problems = []
    for number, label in enumerate(task.labels, task.first):
        member = frame_member(label)
        _Worker.frame, _Worker.started = f"{drive.filename}: {member} (data.txt line {label.line})", time.monotonic()
        try:
            frames[len(good)] = resize(decode_frame(read_member(drive, member), _Worker.frame))
            good.append(number)
        except UserError as problem:
            problems.append((label.line, str(problem)))
    _Worker.started = 0.0
    return Resized((np.array(good, int), frames[: len(good)]), problems)


def _resize_piece(task: Task, piece: Piece) -> Resized:
    """In a worker: decode a piece of a video and resize its labelled frames."""
    wanted = {label.number: at for at, label in enumerate(task.labels)}
    resized: dict[int, np.ndarray] = {}
    _Worker.frame, _Worker.started = f"{piece.video.where}: frame {piece.first}", time.monotonic()
    for number, image in frames(piece.video, piece.known, piece.first, piece.stop, piece.threads):
        _Worker.frame, _Worker.started = f"{piece.video.where}: frame {number + 1}", time.monotonic()
        if number in wanted:
            resized[wanted[number]] = resize(image)
    _Worker.started = 0.0
    problems = [
        (label.line, f"{piece.video.where}: frame {label.number} cannot be decoded (data.txt line {label.line})")
        for at, label in enumerate(task.labels)
        if at not in resized
    ]
    good = sorted(resized)
    block = np.stack([resized[at] for at in good]) if good else np.empty((0, *FRAME_SHAPE), np.uint8)
    return Resized((task.first + np.array(good, int), block), problems)
