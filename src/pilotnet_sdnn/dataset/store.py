"""The packed 33x100 frames of the drives, a file for each in data/frames.

A file holds the N readable frames of its drive in the order of time:
    frames    uint8 (N, 33, 100, 3), contiguous, so that a sequence is one read
    angles    float32 (N,), radians as labelled
    segments  int32 (N,), number of the frame's segment: a piece of the drive without a gap
    numbers   int32 (N,), index of the frame's label in the drive, from 0; bad frames leave gaps
    lines     int32 (N,), line of the label in the drive's own table
    names     text (N,), file name of the frame in the drive
The attributes are `skipped`, the number of bad frames left out, `repairs_zeros`, whether labels of exactly zero are
drop-outs, and `origin` and `labels_sha256`, which name the drive.
"""

import re
import resource
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from pilotnet_sdnn.drive_files import drive_files
from pilotnet_sdnn.errors import UserError, check_present, counted, one_line, printable, shortened
from pilotnet_sdnn.files import atomic_write
from pilotnet_sdnn.params import joint_name

FRAME_SHAPE = (33, 100, 3)  # height, width, RGB
FRAMES_PER_READ = 1024  # 10 MB
FILES_PER_DRIVE = 4  # open at once: the frames, and `Sequences` of training and of testing
OTHER_FILES = 256
DATASETS: dict[str, tuple[type, tuple[int, ...]]] = {  # dtype, and shape of an item
    "frames": (np.uint8, FRAME_SHAPE),
    "angles": (np.float32, ()),
    "segments": (np.int32, ()),
    "numbers": (np.int32, ()),
    "lines": (np.int32, ()),
}

Block = tuple[np.ndarray, np.ndarray]  # label numbers (n,) and their frames (n, 33, 100, 3) uint8


class StoredFrames:
    """The frames of all drives, one after another, indexed as one array (N, 33, 100, 3) uint8; each index reads."""

    def __init__(self, files: list[h5py.Dataset]) -> None:
        """
        Args:
            files: the frames of each drive, as stored.
        """
        self.files = files
        self.starts = np.cumsum([0, *map(len, files)])  # of each drive, and the end

    def __len__(self) -> int:
        return int(self.starts[-1])

    def place(self, frame: int) -> tuple[int, int]:
        """The index of a frame's drive, and the frame's index in it."""
        drive = int(np.searchsorted(self.starts, frame, "right")) - 1
        return drive, int(frame - self.starts[drive])

    def __getitem__(self, key: Any) -> np.ndarray:
        """
        Args:
            key: a frame or a slice of frames, alone or followed by indices of rows, columns and colours.
        """
        chosen, *rest = key if isinstance(key, tuple) else (key,)
        if not isinstance(chosen, slice):
            drive, frame = self.place(range(len(self))[chosen])
            return self.files[drive][(frame, *rest)]
        first, last, step = chosen.indices(len(self))
        if step != 1:
            raise IndexError("frames are read in steps of 1")
        parts = []
        for start, file in zip(self.starts[:-1], self.files, strict=True):
            begin, end = np.clip((first - start, last - start), 0, len(file))
            if begin < end:
                parts.append(file[(slice(begin, end), *rest)])
        if not parts:
            return self.files[0][(slice(0, 0), *rest)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class DriveRange(NamedTuple):
    """The frames of one drive among those of all."""

    origin: str  # name of the drive
    start: int
    stop: int  # the frame after its last
    repairs_zeros: bool = True  # labels of exactly zero are drop-outs


class Frames(NamedTuple):
    """The content of data/frames: N frames of all drives, in the order of `source`."""

    frames: StoredFrames
    angles: np.ndarray  # (N,) float32 radians, as labelled
    segments: np.ndarray  # (N,) int32, counted through all drives
    numbers: np.ndarray  # (N,) int32, of each frame's label in its drive
    origin: str  # names of the drives
    skipped: int  # bad frames left out
    drives: list[DriveRange]
    lines: np.ndarray  # (N,) int32, of each frame's label in its drive's own table
    names: np.ndarray  # (N,) file name of each frame in its drive, UTF-8

    def name(self, frame: int | np.integer) -> str:
        """The file name of a frame in its drive."""
        return printable(self.names[frame].decode("utf-8", "replace"))

    def named(self, frames: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """Numbers and file names of frames of one drive, for a table."""
        return self.own_numbers(frames), [self.name(frame) for frame in frames]

    def own_numbers(self, frames: np.ndarray) -> np.ndarray:
        """The number in the name of each frame, or, if it has none or a time, the line of its label."""
        stems = [self.name(frame).rpartition("/")[2].partition(".")[0] for frame in frames]
        numeric = all(re.fullmatch("[0-9]{1,9}", stem) for stem in stems)
        return np.array([int(stem) for stem in stems], int) if numeric else self.lines[frames]


def write_frames(
    path: Path,
    blocks: Iterable[Block],
    labels: int,
    describe: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    skipped: int = 0,
    names: Sequence[str] = (),
    lines: Sequence[int] = (),
    **attributes: str | bool,
) -> None:
    """Write the file of one drive, a block at a time.

    Args:
        path: the file.
        blocks: label numbers and frames in the order of time, without bad frames.
        labels: number of labels, good and bad.
        describe: maps label numbers (N,) to angles (N,) in radians and segments (N,).
        skipped: labels that were already left out.
        names: of the frames of all labels, good and bad; empty: their numbers.
        lines: of all labels in the drive's own table; empty: from 1.
        attributes: identify the drive; `read_frames` returns `origin` and `repairs_zeros`.

    Raises:
        UserError: every frame is bad.
    """
    with atomic_write(path) as temporary:
        numbers = _pack(temporary, blocks, labels)
        if len(numbers) == 0:
            raise UserError(f"{path}: {counted(labels, 'frame')}, none of them readable; get the drive again")
        if len(numbers) < labels:
            _shorten(temporary, len(numbers))
        angles, segments = describe(numbers)
        with h5py.File(temporary, "r+") as store:
            store.attrs.update({"repairs_zeros": True} | attributes, skipped=skipped + labels - len(numbers))
            store["angles"] = angles.astype(np.float32)
            store["segments"] = segments.astype(np.int32)
            store["numbers"] = numbers.astype(np.int32)
            store["lines"] = np.array([lines[number] for number in numbers] if lines else numbers + 1, np.int32)
            texts = [names[number] for number in numbers] if names else map(str, numbers)
            store["names"] = np.array([text.encode() for text in texts])


def _pack(path: Path, blocks: Iterable[Block], capacity: int) -> np.ndarray:
    """Write the blocks one after another and return their label numbers."""
    packed = 0
    numbers = [np.empty(0, int)]
    with h5py.File(path, "w") as store:
        frames = store.create_dataset("frames", (capacity, *FRAME_SHAPE), np.uint8)
        for block_numbers, block in blocks:
            frames[packed : packed + len(block)] = block
            packed += len(block)
            numbers.append(block_numbers)
    return np.concatenate(numbers)


def _shorten(path: Path, length: int) -> None:
    """Keep the first `length` frames. A contiguous dataset cannot shrink, so they are copied."""
    with atomic_write(path) as shorter, h5py.File(path) as store:
        frames = store["frames"]
        starts = range(0, length, FRAMES_PER_READ)
        _pack(shorter, ((np.empty(0), frames[at : min(at + FRAMES_PER_READ, length)]) for at in starts), length)


def read_frames(path: Path) -> Frames:
    """Open data/frames, or the file of one drive, without reading the frames.

    What a file declares is checked before anything of that size is allocated.

    Raises:
        UserError: a file is missing or damaged, or not what `write_frames` writes.
    """
    check_present(path, "resize")
    files = drive_files(path, "resize") if path.is_dir() else [path]
    _allow_open_files(FILES_PER_DRIVE * len(files) + OTHER_FILES)
    drives = [_read_drive(file) for file in files]
    counts = [len(drive.angles) for drive in drives]
    starts = np.cumsum([0, *counts[:-1]]).tolist()
    segments_before = np.cumsum([0, *(drive.segments[-1] + 1 for drive in drives[:-1])]).astype(np.int32)
    ranges = [drive.drives[0] for drive in drives]
    return Frames(
        StoredFrames([drive.frames.files[0] for drive in drives]),
        np.concatenate([drive.angles for drive in drives]),
        np.concatenate([drive.segments for drive in drives]) + np.repeat(segments_before, counts),
        np.concatenate([drive.numbers for drive in drives]),
        joint_name([drive.origin for drive in drives]),
        sum(drive.skipped for drive in drives),
        [r._replace(start=start, stop=start + r.stop) for r, start in zip(ranges, starts, strict=True)],
        np.concatenate([drive.lines for drive in drives]),
        np.concatenate([drive.names for drive in drives]),
    )


def _allow_open_files(count: int) -> None:
    """Raise the limit of this process for open files, if the system lets it: often it is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _read_drive(path: Path) -> Frames:
    """The content of the file of one drive."""
    try:
        store = h5py.File(path)
        frames, *labels = (_dataset(store, path, name, *expected) for name, expected in DATASETS.items())
        names = _dataset(store, path, "names", store["names"].dtype, ())
        if names.dtype.kind != "S":
            raise ValueError("its names are no texts")
        if len({len(dataset) for dataset in (frames, names, *labels)}) != 1:
            raise ValueError("its datasets differ in length")
        angles, segments, numbers, lines, texts = (dataset[:] for dataset in (*labels, names))
        if not np.isfinite(angles).all():
            raise ValueError("an angle is not finite")
        if segments[0] < 0 or segments[-1] > len(segments) or (np.diff(segments) < 0).any():
            raise ValueError("its segments are out of order")
        if numbers[0] < 0 or (np.diff(numbers) < 1).any():
            raise ValueError("its label numbers are out of order")
        origin, skipped, repairs = (store.attrs[name] for name in ("origin", "skipped", "repairs_zeros"))
        if not isinstance(origin, str) or not isinstance(skipped, np.integer) or skipped < 0:
            raise ValueError("expected the attributes origin, a text, and skipped, a count")
        if not isinstance(repairs, np.bool_):
            raise ValueError("expected the attribute repairs_zeros, true or false")
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes make h5py raise any of a dozen exceptions
        reason = shortened(one_line(error), 120)
        raise UserError(f"{path}: not a readable frames file ({reason}); `dvc repro resize` rebuilds it") from None
    name = printable(origin[:200])
    whole = DriveRange(name, 0, len(angles), bool(repairs))
    return Frames(StoredFrames([frames]), angles, segments, numbers, name, int(skipped), [whole], lines, texts)


def _dataset(store: h5py.File, path: Path, name: str, dtype: type | np.dtype, shape: tuple[int, ...]) -> h5py.Dataset:
    """A dataset stored in the file itself, in one piece.

    Raises:
        ValueError, KeyError: it is not.
    """
    if not isinstance(store.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is missing, or a link")
    dataset = store[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype != dtype or dataset.shape[1:] != shape:
        raise ValueError(f"{name} is not {np.dtype(dtype)} {('N', *shape)}".replace("'", ""))
    if len(dataset) == 0:
        raise ValueError(f"{name} is empty")
    offset = dataset.id.get_offset()
    if dataset.external or dataset.is_virtual or offset is None or offset + dataset.nbytes > path.stat().st_size:
        raise ValueError(f"{name} is not stored in the file in one piece")
    return dataset
