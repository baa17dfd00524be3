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
from itertools import groupby, islice, pairwise
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
MAX_PIECE = 600  # frames of a video, 6 MB of results, that a worker keeps in memory
START_SECONDS = 10.0  # maximum wait for a worker to start
FRAME_SECONDS = 60.0  # a worker that needs longer for one frame is killed
RETAINED_HEAP = 30 * 2**20  # bytes; glibc retains no more than 32 MB
MAX_WARNINGS = 5  # bad frames that are logged one by one


class Piece(NamedTuple):
    """Frames of a video that are decoded together: from a keyframe to before another, or to the end."""

    video: Video
    first: int
    stop: int


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
                for in_one_go, tasks in groupby(_tasks(drive, labels), _is_long):
                    if in_one_go:
                        yield from (part for task in tasks for part in _resize_in_one_go(task, cores))
                    else:
                        yield from prefetch(pool, _resize_frames, tasks, max_pending=3 * cores)
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


def _tasks(drive: zipfile.ZipFile, labels: list[Label]) -> Iterator[Task]:
    first = 0
    for _, group in groupby(labels, lambda label: label.drive):
        run = list(group)
        if video := video_of(drive, run[0]):
            yield from _video_tasks(video, run, first)
        else:
            for start in range(0, len(run), FRAMES_PER_TASK):
                part = run[start : start + FRAMES_PER_TASK]
                yield Task(first + start, part, [drive.getinfo(frame_member(label)) for label in part])
        first += len(run)


def _video_tasks(video: Video, labels: list[Label], first: int) -> Iterator[Task]:
    """The labelled frames of a video, cut at keyframes into pieces of at least `FRAMES_PER_TASK` frames."""
    known = index(video)
    cuts = [0]
    for keyframe in known.keyframes:
        if keyframe >= cuts[-1] + FRAMES_PER_TASK:
            cuts.append(keyframe)
    numbers = [label.number for label in labels]
    for start, stop in pairwise([*cuts, max(known.total, numbers[-1] + 1)]):
        begin, end = bisect_left(numbers, start), bisect_left(numbers, stop)
        if begin < end:
            yield Task(first + begin, labels[begin:end], [], Piece(video, start, numbers[end - 1] + 1))


class _Worker:
    """The state of a worker process."""

    drive: zipfile.ZipFile
    video: Video | None = None  # of which it knows the index
    known: Index
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
    _Worker.frame, _Worker.started = f"{piece.video.where}: frame {piece.first}", time.monotonic()
    if piece.video != _Worker.video:
        _Worker.video, _Worker.known = piece.video, index(piece.video)
    good, images, bad = [], [], []
    for at, image in _labelled(task, piece, _Worker.known, threads=1):
        label = task.labels[at]
        _Worker.frame, _Worker.started = f"{piece.video.where}: frame {label.number + 1}", time.monotonic()
        if image is None:
            bad.append(_undecodable(label, piece))
        else:
            good.append(task.first + at)
            images.append(resize(image))
    _Worker.started = 0.0
    return Resized((np.array(good, int), np.array(images, np.uint8).reshape(-1, *FRAME_SHAPE)), bad)


def _is_long(task: Task) -> bool:
    """Whether a piece has more frames than are kept in memory for each worker."""
    return task.piece is not None and task.piece.stop - task.piece.first > MAX_PIECE


def _resize_in_one_go(task: Task, cores: int) -> Iterator[Resized]:
    """In this process, with the decoder's own threads: a long piece, a few frames at a time."""
    piece = task.piece
    assert piece
    labelled = _labelled(task, piece, index(piece.video), cores)
    while batch := list(islice(labelled, FRAMES_PER_TASK)):
        good = [(at, resize(image)) for at, image in batch if image]
        block = np.array([frame for _, frame in good], np.uint8).reshape(-1, *FRAME_SHAPE)
        bad = [_undecodable(task.labels[at], piece) for at, image in batch if not image]
        yield Resized((np.array([task.first + at for at, _ in good], int), block), bad)


def _labelled(task: Task, piece: Piece, known: Index, threads: int) -> Iterator[tuple[int, Image.Image | None]]:
    """The index of each label of a task, with the image of its frame; None if that cannot be decoded."""
    at = 0
    for number, image in frames(piece.video, known, piece.first, piece.stop, threads):
        while at < len(task.labels) and task.labels[at].number < number:
            yield at, None
            at += 1
        if at < len(task.labels) and task.labels[at].number == number:
            yield at, image
            at += 1
    yield from ((missing, None) for missing in range(at, len(task.labels)))


def _undecodable(label: Label, piece: Piece) -> tuple[int, str]:
    return label.line, f"{piece.video.where}: frame {label.number} cannot be decoded (data.txt line {label.line})"
