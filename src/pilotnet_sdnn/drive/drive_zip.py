"""The zip that stage download writes and later stages read: `driving_dataset/` with data.txt and the frames."""

import hashlib
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path

from pilotnet_sdnn.drive.archives import open_zip, quoted, read_member
from pilotnet_sdnn.drive.images import decode_frame
from pilotnet_sdnn.drive.labels import BadLabels, Label, decode_text, format_label, parse_labels
from pilotnet_sdnn.errors import UserError, printable

FOLDER = "driving_dataset"
LABELS = f"{FOLDER}/data.txt"
PILOTNET_FRAMES = 45_406
PILOTNET_LABELS_SHA256 = "235c70454d460b86edf1ddb4afba4354529687ad9ca08cb5d7ddfd8f8d4a8bb7"

# File name, JPEG, degrees and, optionally, seconds since 1970 and, where JPEG is None and degrees nan, the problem.
Shot = (
    tuple[str, bytes | None, float]
    | tuple[str, bytes | None, float, float | None]
    | tuple[str, bytes | None, float, float | None, str]
)

SHAPE = 455 / 256  # width over height of Sully Chen's frames


def open_drive(path: Path) -> zipfile.ZipFile:
    """The zip at `path`.

    Raises:
        UserError: it is missing, or not a zip.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; `dvc repro download` creates it")
    return open_zip(path)


def read_labels(drive: zipfile.ZipFile, bad: BadLabels | None = None) -> list[Label]:
    """The labels of a drive. Each has its frame in the zip.

    Args:
        drive: the zip.
        bad: collects invalid lines and lines without a frame; they are then left out.

    Raises:
        UserError: data.txt is missing, or a line is invalid or has no frame and `bad` does not skip it.
    """
    members = set(drive.namelist())
    where = labels_name(drive)
    if LABELS not in members:
        raise UserError(f"{drive.filename}: no {LABELS} in it; expected {LABELS}, {FOLDER}/0.jpg, ...")
    bad = bad or BadLabels(where)
    labels = []
    for label in parse_labels(decode_text(read_member(drive, LABELS), where), where, bad, packed=True):
        if math.isnan(label.degrees):
            continue
        if frame_member(label) not in members:
            bad.add(label.line, f"no {quoted(frame_member(label))} in the zip")
            continue
        labels.append(label)
    bad.check()
    if not labels:
        raise UserError(f"{where}: no line is a valid label with a frame; {bad}")
    return labels


def labels_name(drive: zipfile.ZipFile) -> str:
    """The name of a drive's labels in messages."""
    return f"{drive.filename}: {LABELS}"


def frame_member(label: Label) -> str:
    """The path of a label's frame in the zip."""
    return f"{FOLDER}/{label.frame}"


def odd_shapes(drive: zipfile.ZipFile, labels: list[Label]) -> list[str]:
    """A warning for each drive whose first frame has a shape unlike Sully Chen's, because resizing distorts it."""
    lines = []
    for label in reversed({label.drive: label for label in reversed(labels)}.values()):
        try:
            width, height = decode_frame(read_member(drive, frame_member(label)), label.frame).size
        except UserError:  # stage resize reports it
            continue
        if abs(width / height / SHAPE - 1) > 0.1:
            lines.append(
                printable(
                    f"{label.frame} is {width}x{height}, an aspect ratio of {width / height:.2f} where Sully Chen's "
                    f"frames have {SHAPE:.2f}: resizing to 33x100 distorts it; crop the frames to avoid that"
                )
            )
    return lines


def pack_drive(
    path: Path,
    frames: Iterable[Shot],
    origin: str = "",
) -> None:
    """Write a drive.

    The same frames give the same bytes: members carry no time stamp, and JPEGs are stored as they are.

    Args:
        path: the zip to write.
        frames: in the order of time.
        origin: name of the drive, shown beside its results.
    """
    lines = []
    with zipfile.ZipFile(path, "w") as drive:
        drive.comment = origin.encode()
        for name, jpeg, degrees, *more in frames:
            if jpeg is not None:
                drive.writestr(zipfile.ZipInfo(f"{FOLDER}/{name}"), jpeg)
            lines.append(format_label(Label(name, degrees, 0, *more)))
        drive.writestr(zipfile.ZipInfo(LABELS), "".join(lines))


def labels_sha256(drive: zipfile.ZipFile) -> str:
    """The checksum of data.txt; it identifies a drive."""
    return hashlib.sha256(read_member(drive, LABELS)).hexdigest()


def origin(drive: zipfile.ZipFile, name: str = "") -> str:
    """The name of a drive: from its labels if they are published, its zip's comment, or else `name` or a checksum."""
    checksum = labels_sha256(drive)
    if checksum == PILOTNET_LABELS_SHA256:
        frames = sum(member.endswith(".jpg") for member in drive.namelist())
        part = f"{frames:,} of {PILOTNET_FRAMES:,} frames of " * (frames < PILOTNET_FRAMES)
        return f"{part}Sully Chen's drive of 2017"
    comment = "".join(filter(str.isprintable, drive.comment.decode("utf-8", "replace")))[:200]
    return comment or name or f"drive with labels sha256:{checksum[:12]}"
