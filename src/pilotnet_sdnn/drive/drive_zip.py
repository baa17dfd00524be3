"""The zip that stage download writes and later stages read: `driving_dataset/` with data.txt and the frames."""

import hashlib
import math
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from pilotnet_sdnn.drive.archives import open_zip, quoted, read_member
from pilotnet_sdnn.drive.images import decode_frame
from pilotnet_sdnn.drive.labels import BadLabels, Label, decode_text, format_label, parse_labels
from pilotnet_sdnn.drive.videos import Video, frames, index, is_video, video_in_zip
from pilotnet_sdnn.errors import UserError, printable

FOLDER = "driving_dataset"
LABELS = f"{FOLDER}/data.txt"
PILOTNET_FRAMES = 45_406
PILOTNET_LABELS_SHA256 = "235c70454d460b86edf1ddb4afba4354529687ad9ca08cb5d7ddfd8f8d4a8bb7"

ZEROS_ARE_LABELS = "# zeros are labels"  # the last line of a data.txt that was no data.txt before
SIMULATOR = "Udacity simulator"

# File name, JPEG, degrees and, optionally, seconds since 1970 and, where JPEG is None and degrees nan, the problem.
Shot = tuple[str, bytes | None, float] | tuple[str, bytes | None, float, float | None, str]

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
        if holder(label) not in members:
            bad.add(label.line, f"no {quoted(holder(label))} in the zip")
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


def packed_name(name: str) -> str:
    """The name of a file as data.txt can hold it: without spaces."""
    return re.sub(r"[\s%]|^#", lambda found: quote(found[0]), name)


def holder(label: Label) -> str:
    """The file of the zip that holds a label's frame: an image, or a video whose name is the frame's folder."""
    return f"{FOLDER}/{label.drive}" if is_video(label.drive) else frame_member(label)


def video_of(drive: zipfile.ZipFile, label: Label) -> Video | None:
    """The video that holds a label's frame; None if the frame is an image.

    Raises:
        UserError: the zip is damaged, or the video in it is compressed.
    """
    if not is_video(label.drive):
        return None
    where, entry = f"{drive.filename}: {quoted(holder(label))}", drive.getinfo(holder(label))
    with Path(str(drive.filename)).open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(30)
    if len(header) < 30 or entry.compress_type != zipfile.ZIP_STORED:
        raise UserError(f"{where} is compressed or damaged; get the drive again")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start = entry.header_offset + 30 + name_length + extra_length
    return video_in_zip(str(drive.filename), start, entry.file_size, holder(label))


def camera_images(drive: zipfile.ZipFile, labels: list[Label]) -> Iterator[Image.Image]:
    """The images of labelled frames as the camera took them; those of a video are read in one go.

    Raises:
        UserError: a frame cannot be read.
    """
    for _, group in groupby(labels, lambda label: label.drive):
        run = list(group)
        video = video_of(drive, run[0])
        if video is None:
            for label in run:
                member = frame_member(label)
                yield decode_frame(read_member(drive, member), f"{drive.filename}: {member}")
            continue
        known, wanted = index(video), [label.number for label in run]
        first = max(frame for frame in known.keyframes if frame <= wanted[0])
        found = dict.fromkeys(wanted)
        decoded = (pair for pair in frames(video, known, first, wanted[-1] + 1) if pair[0] in found)
        for number in wanted:
            at, image = next(decoded, (None, None))
            if at != number or image is None:
                raise UserError(f"{video.where}: frame {number} cannot be decoded")
            yield image


def odd_shapes(drive: zipfile.ZipFile, labels: list[Label]) -> list[str]:
    """A warning for each drive whose first frame has a shape unlike Sully Chen's, because resizing distorts it."""
    lines = []
    for label in reversed({label.drive: label for label in reversed(labels)}.values()):
        try:
            width, height = next(camera_images(drive, [label])).size
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
    table_lines: list[int] | None = None,
) -> None:
    """Write a drive.

    The same frames give the same bytes: members carry no time stamp, and JPEGs are stored as they are.

    Args:
        path: the zip to write.
        frames: in the order of time.
        origin: name of the drive, shown beside its results.
        table_lines: the lines of a csv that the labels are from; their lines in data.txt become the same, and labels
            of zero are labels.
    """
    lines: list[str] = []
    with zipfile.ZipFile(path, "w") as drive:
        drive.comment = origin.encode()
        for labelled, (name, jpeg, degrees, *more) in enumerate(frames):
            if jpeg is not None:
                drive.writestr(zipfile.ZipInfo(f"{FOLDER}/{name}"), jpeg)
            if table_lines:
                lines += ["#\n"] * (table_lines[labelled] - 1 - len(lines))
            lines.append(format_label(Label(name, degrees, 0, *more)))  # type: ignore[arg-type]
        if table_lines:
            lines.append(f"{ZEROS_ARE_LABELS}\n")
        drive.writestr(zipfile.ZipInfo(LABELS), "".join(lines))


def content_digest(path: Path) -> str:
    """A checksum of a zip's list of files with their sizes and CRC-32, and of its comment."""
    with open_zip(path) as drive:
        entries = [(entry.filename, entry.file_size, entry.CRC) for entry in drive.infolist()]
        return hashlib.sha256(repr((entries, drive.comment)).encode("utf-8", "surrogatepass")).hexdigest()


def labels_sha256(drive: zipfile.ZipFile) -> str:
    """The checksum of data.txt; it identifies a drive."""
    return hashlib.sha256(read_member(drive, LABELS)).hexdigest()


def repairs_zeros(drive: zipfile.ZipFile) -> bool:
    """Whether labels of exactly zero are drop-outs of a sensor, as in Sully Chen's drives.

    In the logs of simulators, which are driven by keyboards, and in other csv files they are labels.
    """
    if drive.comment.decode("utf-8", "replace").startswith(f"{SIMULATOR} drive, "):
        return False
    text = decode_text(read_member(drive, LABELS), labels_name(drive))
    return not text.rstrip().endswith(ZEROS_ARE_LABELS)


def origin(drive: zipfile.ZipFile, name: str = "") -> str:
    """The name of a drive: from its labels if they are published, its zip's comment, or else `name`."""
    checksum = labels_sha256(drive)
    if checksum == PILOTNET_LABELS_SHA256:
        frames = sum(member.endswith(".jpg") for member in drive.namelist())
        part = f"{frames:,} of {PILOTNET_FRAMES:,} frames of " * (frames < PILOTNET_FRAMES)
        return f"{part}Sully Chen's drive of 2017"
    comment = "".join(filter(str.isprintable, drive.comment.decode("utf-8", "replace")))[:200]
    return comment or name or f"labels {checksum[:12]}"
