"""A drive: camera frames and steering labels in the layout of Sully Chen's dataset.

A drive is a zip with `driving_dataset/data.txt`, one `N.jpg degrees` a line in the order of time, and
the frames beside it. Degrees are of the steering wheel, + to the right.
"""

import hashlib
import io
import math
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.frames import FRAME_SHAPE

FOLDER = "driving_dataset"
LABELS = f"{FOLDER}/data.txt"
READ_AHEAD = 256  # frames decoded at a time, which bounds the memory of the resize stage
PILOTNET_LABELS_SHA256 = "235c70454d460b86edf1ddb4afba4354529687ad9ca08cb5d7ddfd8f8d4a8bb7"


class Label(NamedTuple):
    """One line of data.txt."""

    frame: str  # file name of the frame
    degrees: float  # of the steering wheel, + to the right
    line: int  # of data.txt, counted from 1


def parse_labels(text: str, where: str) -> list[Label]:
    """The labels of a data.txt.

    Args:
        text: its content.
        where: its name for error messages.

    Raises:
        UserError: a line is not `N.jpg degrees`, or there is none.
    """
    labels = [_parse_line(line, number, where) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not labels:
        raise UserError(f"{where}: no labels in it; expected a line 'N.jpg degrees' for each frame")
    return labels


def _parse_line(line: str, number: int, where: str) -> Label:
    fields = line.split()
    if len(fields) != 2:
        raise UserError(f"{where} line {number}: expected 'N.jpg degrees', found {line.strip()[:80]!r}")
    frame, angle = fields
    try:
        degrees = float(angle)
    except ValueError:
        degrees = math.nan
    if not math.isfinite(degrees):
        raise UserError(f"{where} line {number}: expected an angle in degrees, found {angle[:80]!r}")
    return Label(frame, degrees, number)


def open_drive(path: Path) -> zipfile.ZipFile:
    """The zip at `path`.

    Raises:
        UserError: there is none, or it is not a zip.
    """
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `dvc repro download` makes it") from None
    except (zipfile.BadZipFile, IsADirectoryError):
        raise UserError(f"{path}: not a readable zip file; get it again") from None


def read_labels(drive: zipfile.ZipFile) -> list[Label]:
    """The labels of a drive, every one of which has its frame in the zip.

    Raises:
        UserError: data.txt is missing or malformed, or a labelled frame is not there.
    """
    members = set(drive.namelist())
    if LABELS not in members:
        raise UserError(f"{drive.filename}: no {LABELS} in it; expected the files {LABELS}, {FOLDER}/0.jpg, ...")
    labels = parse_labels(read_member(drive, LABELS).decode("utf-8", "replace"), f"{drive.filename}: {LABELS}")
    for label in labels:
        if frame_member(label) not in members:
            raise UserError(
                f"{drive.filename}: {LABELS} line {label.line}: no {frame_member(label)} in the zip; "
                "add the frame or remove the line"
            )
    return labels


def frame_member(label: Label) -> str:
    """Where in the zip a label's frame is."""
    return f"{FOLDER}/{label.frame}"


def read_member(drive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of one file of the drive.

    Raises:
        UserError: they are damaged.
    """
    try:
        return drive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise UserError(f"{drive.filename}: {name} is damaged ({error}); get the drive again") from None


def decode_frame(data: bytes, where: str) -> Image.Image:
    """The RGB image in the bytes of a JPEG.

    Raises:
        UserError: they are no image.
    """
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise UserError(f"{where}: not a readable image; mend the frame or remove its label") from None


def resize(image: Image.Image) -> np.ndarray:
    """(33, 100, 3) uint8: bilinear with antialiasing, as torchvision's Resize([33, 100]) on a PIL image."""
    height, width, _ = FRAME_SHAPE
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def resized_frames(drive: zipfile.ZipFile, labels: list[Label]) -> Iterator[np.ndarray]:
    """Every labelled frame of a drive, (33, 100, 3) uint8 each, decoded on all cores.

    Raises:
        UserError: a frame cannot be decoded.
    """

    def decode(label: Label, jpeg: bytes) -> np.ndarray:
        where = f"{drive.filename}: {frame_member(label)} (data.txt line {label.line})"
        return resize(decode_frame(jpeg, where))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(labels), READ_AHEAD):
            ahead = labels[start : start + READ_AHEAD]
            yield from pool.map(decode, ahead, [read_member(drive, frame_member(label)) for label in ahead])


def pack_drive(path: Path, frames: Iterable[tuple[str, bytes, float]], origin: str = "") -> None:
    """Write a drive.

    The same frames give the same bytes: members carry no time stamp, and JPEGs are stored as they are.

    Args:
        path: the zip to write.
        frames: (file name, JPEG, degrees) in the order of time.
        origin: what the drive is, for those who look at its figures later.
    """
    lines = []
    with zipfile.ZipFile(path, "w") as drive:
        drive.comment = origin.encode()
        for name, jpeg, degrees in frames:
            drive.writestr(zipfile.ZipInfo(f"{FOLDER}/{name}"), jpeg)
            lines.append(f"{name} {degrees:.6f}\n")
        drive.writestr(zipfile.ZipInfo(LABELS), "".join(lines))


def labels_sha256(drive: zipfile.ZipFile) -> str:
    """The checksum of data.txt, which tells one drive from another."""
    return hashlib.sha256(read_member(drive, LABELS)).hexdigest()


def origin(drive: zipfile.ZipFile) -> str:
    """What the drive is: as its zip says, or else as its labels show."""
    checksum = labels_sha256(drive)
    if checksum == PILOTNET_LABELS_SHA256:
        return "Sully Chen's drive of 2017"
    return drive.comment.decode("utf-8", "replace") or f"drive with labels sha256:{checksum[:12]}"


def radians(labels: list[Label]) -> np.ndarray:
    """(N,) float32 angles."""
    return (np.array([label.degrees for label in labels]) * np.pi / 180).astype(np.float32)
