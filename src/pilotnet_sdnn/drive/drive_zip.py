"""The zip in which a drive waits for later stages: data.txt and the frames beside it."""

import hashlib
import math
import zipfile
from collections.abc import Iterable
from pathlib import Path

from pilotnet_sdnn.drive.archives import open_zip, quoted, read_member
from pilotnet_sdnn.drive.images import decode_frame
from pilotnet_sdnn.drive.labels import BadLabels, Label, decode_text, format_label, parse_labels
from pilotnet_sdnn.errors import UserError

FOLDER = "driving_dataset"
LABELS = f"{FOLDER}/data.txt"
PILOTNET_LABELS_SHA256 = "235c70454d460b86edf1ddb4afba4354529687ad9ca08cb5d7ddfd8f8d4a8bb7"

SHAPE = 455 / 256  # width over height of Sully Chen's frames


def open_drive(path: Path) -> zipfile.ZipFile:
    """The zip at `path`.

    Raises:
        UserError: there is none, or it is not a zip.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file; `dvc repro download` makes it")
    return open_zip(path)


def read_labels(drive: zipfile.ZipFile, bad: BadLabels | None = None) -> list[Label]:
    """The labels of a drive, every one of which has its frame in the zip.

    Args:
        drive: the zip.
        bad: gathers the lines that cannot be used or have no frame; they are then not among the labels.

    Raises:
        UserError: data.txt is missing or malformed, or a labelled frame is not there; without `bad`, or
            where it says so, one such line is enough.
    """
    members = set(drive.namelist())
    where = labels_name(drive)
    if LABELS not in members:
        raise UserError(f"{drive.filename}: no {LABELS} in it; expected the files {LABELS}, {FOLDER}/0.jpg, ...")
    bad = bad or BadLabels(where)
    labels = []
    for label in parse_labels(decode_text(read_member(drive, LABELS), where), where, bad):
        if math.isnan(label.degrees):
            continue
        if frame_member(label) not in members:
            bad.add(label.line, f"no {quoted(frame_member(label))} in the zip")
            continue
        labels.append(label)
    bad.check()
    if not labels:
        raise UserError(f"{where}: not one of its lines is a label with a frame; {bad}")
    return labels


def labels_name(drive: zipfile.ZipFile) -> str:
    """How messages call the labels of a drive."""
    return f"{drive.filename}: {LABELS}"


def frame_member(label: Label) -> str:
    """Where in the zip a label's frame is."""
    return f"{FOLDER}/{label.frame}"


def odd_shapes(drive: zipfile.ZipFile, labels: list[Label]) -> list[str]:
    """A line for each drive whose first frame is of quite another shape than Sully Chen's, as resizing distorts it."""
    lines = []
    for label in reversed({label.drive: label for label in reversed(labels)}.values()):
        try:
            width, height = decode_frame(read_member(drive, frame_member(label)), label.frame).size
        except UserError:  # the resize stage tells
            continue
        if abs(width / height / SHAPE - 1) > 0.1:
            lines.append(
                f"{label.frame} is {width}x{height}, {width / height:.2f} wide for 1 high where Sully Chen's frames "
                f"are {SHAPE:.2f}: it is squeezed to 33x100 like them; crop the frames if that is not meant"
            )
    return lines


def pack_drive(
    path: Path,
    frames: Iterable[tuple[str, bytes | None, float] | tuple[str, bytes | None, float, float | None]],
    origin: str = "",
) -> None:
    """Write a drive.

    The same frames give the same bytes: members carry no time stamp, and JPEGs are stored as they are.

    Args:
        path: the zip to write.
        frames: (file name, JPEG, degrees) or (file name, JPEG, degrees, seconds since 1970) in the order of
            time; without a JPEG and with nan degrees for a frame that is left out.
        origin: what the drive is, for those who look at its figures later.
    """
    lines = []
    with zipfile.ZipFile(path, "w") as drive:
        drive.comment = origin.encode()
        for name, jpeg, degrees, *time in frames:
            if jpeg is not None:
                drive.writestr(zipfile.ZipInfo(f"{FOLDER}/{name}"), jpeg)
            lines.append(format_label(Label(name, degrees, 0, *time)))
        drive.writestr(zipfile.ZipInfo(LABELS), "".join(lines))


def labels_sha256(drive: zipfile.ZipFile) -> str:
    """The checksum of data.txt, which tells one drive from another."""
    return hashlib.sha256(read_member(drive, LABELS)).hexdigest()


def origin(drive: zipfile.ZipFile) -> str:
    """What the drive is: as its zip says, or else as its labels show."""
    checksum = labels_sha256(drive)
    if checksum == PILOTNET_LABELS_SHA256:
        return "Sully Chen's drive of 2017"
    comment = "".join(filter(str.isprintable, drive.comment.decode("utf-8", "replace")))[:200]
    return comment or f"drive with labels sha256:{checksum[:12]}"
