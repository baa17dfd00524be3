"""The packed 33x100 frames of a drive in one file.

data/frames.h5 holds, of the N frames that could be read, in the order of time:
    frames    uint8 (N, 33, 100, 3), contiguous, so that a sequence is one read
    angles    float32 (N,), radians as labelled
    segments  int32 (N,), which uninterrupted stretch of road each is of; another one begins where it changes
    numbers   int32 (N,), which of the drive's labels each has, counted from 0; bad frames leave holes
and as attributes `skipped`, how many bad frames were left out, and what says which drive it is.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.files import atomic_write

FRAME_SHAPE = (33, 100, 3)  # height, width, RGB
BLOCK = 1024  # frames copied at a time, 10 MB

Block = tuple[np.ndarray, np.ndarray]  # numbers (n,) of some labels, their frames (n, 33, 100, 3) uint8


class Frames(NamedTuple):
    """A drive as data/frames.h5 holds it."""

    frames: h5py.Dataset  # (N, 33, 100, 3) uint8, in the file: what is indexed is read
    angles: np.ndarray  # (N,) float32 radians, as labelled
    segments: np.ndarray  # (N,) int32
    numbers: np.ndarray  # (N,) int32
    origin: str  # which drive this is
    skipped: int  # bad frames that were left out


def write_frames(
    path: Path,
    blocks: Iterable[Block],
    labels: int,
    describe: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    skipped: int = 0,
    **attributes: str,
) -> None:
    """Write data/frames.h5, a block at a time.

    Args:
        path: the file.
        blocks: the frames in the order of time and the numbers of their labels; bad ones are left out.
        labels: how many frames there would be without bad ones.
        describe: the angles (N,) in radians and the segments (N,) of the labels with these numbers (N,).
        skipped: frames that were left out before.
        attributes: where the frames are from; `origin` is read back by `read_frames`.

    Raises:
        UserError: all frames are bad.
    """
    with atomic_write(path) as temporary:
        numbers = _pack(temporary, blocks, labels)
        if len(numbers) == 0:
            raise UserError(f"{path}: none of the {labels} frames can be read; get the drive again")
        if len(numbers) < labels:
            _shorten(temporary, len(numbers))
        angles, segments = describe(numbers)
        with h5py.File(temporary, "r+") as store:
            store.attrs.update(attributes, skipped=skipped + labels - len(numbers))
            store["angles"] = angles.astype(np.float32)
            store["segments"] = segments.astype(np.int32)
            store["numbers"] = numbers.astype(np.int32)


def _pack(path: Path, blocks: Iterable[Block], room: int) -> np.ndarray:
    """Write the blocks one after the other; the numbers of all."""
    packed = 0
    numbers = [np.empty(0, int)]
    with h5py.File(path, "w") as store:
        frames = store.create_dataset("frames", (room, *FRAME_SHAPE), np.uint8)
        for some, block in blocks:
            frames[packed : packed + len(block)] = block
            packed += len(block)
            numbers.append(some)
    return np.concatenate(numbers)


def _shorten(path: Path, length: int) -> None:
    """Keep the first frames only. A contiguous dataset cannot shrink, so they are copied."""
    with atomic_write(path) as shorter, h5py.File(path) as store:
        frames = store["frames"]
        starts = range(0, length, BLOCK)
        _pack(shorter, ((np.empty(0), frames[at : min(at + BLOCK, length)]) for at in starts), length)


def read_frames(path: Path) -> Frames:
    """Open data/frames.h5 without reading its frames.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        store = h5py.File(path)
        angles, segments, numbers = (store[name][:] for name in ("angles", "segments", "numbers"))
        return Frames(store["frames"], angles, segments, numbers, store.attrs["origin"], int(store.attrs["skipped"]))
    except (OSError, KeyError) as error:
        raise UserError(f"{path}: not a readable frames file ({error}); `dvc repro resize` makes it") from None
