"""Every frame of a drive as the network sees it, 33x100 RGB, by all cores.

One decode and one resample are nearly all of the work, in C that leaves Python's lock alone, so threads do
it: 1,050 microseconds a frame of 455x256, some 80 of them in Python, which would keep a dozen cores busy.
"""

import logging
import os
import zipfile
from collections.abc import Iterator

import numpy as np
import simplejpeg
from PIL import Image

from pilotnet_sdnn.archive import read_member
from pilotnet_sdnn.drive import MAX_PIXELS, BadLabels, Label, decode_frame, frame_member
from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.frames import FRAME_SHAPE, Block
from pilotnet_sdnn.threads import ahead

logger = logging.getLogger(__name__)

TASK = 32  # frames that a thread is given at a time
TOLD = 5  # bad frames that are told one by one


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
        turned = b"Exif" in data or b"Orientation" in data  # in EXIF or XMP; maybe
        if colours in ("YCbCr", "Gray") and height * width <= MAX_PIXELS and not turned:
            return Image.fromarray(simplejpeg.decode_jpeg(data))
    except ValueError:
        pass
    return decode_frame(data, where)


def resized_frames(drive: zipfile.ZipFile, labels: list[Label], bad: BadLabels) -> Iterator[Block]:
    """The labelled frames of a drive, in the order of the labels, some at a time.

    Args:
        drive: an open one.
        labels: its labels.
        bad: counts the frames that cannot be read and are left out, and says whether they may be.

    Raises:
        UserError: a frame cannot be read and must not be left out.
    """

    def task(numbers: range) -> tuple[Block, list[tuple[Label, UserError]]]:
        good: list[int] = []
        frames = np.empty((len(numbers), *FRAME_SHAPE), np.uint8)
        problems = []
        for number in numbers:
            try:
                frames[len(good)] = _resized(drive, labels[number])
                good.append(number)
            except UserError as problem:
                problems.append((labels[number], problem))
        return (np.array(good, int), frames[: len(good)]), problems

    tasks = (range(start, min(start + TASK, len(labels))) for start in range(0, len(labels), TASK))
    told = 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for block, problems in ahead(task, tasks, cores):
        for label, problem in problems:
            if bad.on_bad_frame == "error":
                raise UserError(f"{problem}, or set on_bad_frame: skip to leave such frames out")
            bad.add(label.line, str(problem))
            told += 1
            if told <= TOLD:
                logger.warning("left out: %s%s", problem, "; more follow silently" * (told == TOLD))
        yield block


def _resized(drive: zipfile.ZipFile, label: Label) -> np.ndarray:
    member = frame_member(label)
    where = f"{drive.filename}: {member} (data.txt line {label.line})"
    return resize(decode(read_member(drive, member), where))
