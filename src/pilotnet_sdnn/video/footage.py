"""Frames one by one: from a video file, a folder or zip of images, or a camera."""

import re
import stat
import zipfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import av
from PIL import Image

from pilotnet_sdnn.drive.archives import Archive, FolderArchive, ZipArchive, quoted
from pilotnet_sdnn.drive.drive_zip import LABELS, camera_images, labels_name, open_drive, read_labels
from pilotnet_sdnn.drive.frame_files import ENDINGS
from pilotnet_sdnn.drive.images import MAX_PIXELS, decode_frame
from pilotnet_sdnn.drive.labels import BadLabels
from pilotnet_sdnn.drive.layouts import read_layout
from pilotnet_sdnn.drive.reading import Reading
from pilotnet_sdnn.drive.synthetic_world import FRAME_RATE
from pilotnet_sdnn.drive.videos import upright
from pilotnet_sdnn.errors import UserError, one_line, shortened

CAMERA = "v4l2"  # ffmpeg's name for cameras of Linux
MISSING_SECONDS = 0.5  # a video that ends so much earlier than it says is cut off


class Frame(NamedTuple):
    """What the camera saw."""

    image: Image.Image  # upright RGB, of any size
    seconds: float  # since the first frame


class Footage(NamedTuple):
    """Frames in the order of time; they may end with a `UserError`."""

    name: str
    frames: Iterator[Frame]
    total: int | None  # as far as known
    rate: float  # frames a second
    live: bool  # a camera


def open_footage(source: str, reading: Reading) -> Footage:
    """The frames of a video file, a folder or zip of images, or a camera device.

    Of a drive with labels, the labelled frames in the order of the labels; of other folders and zips, all images in
    the order of the numbers in their names. Images have no times: they count as 20 a second.

    Args:
        source: path of the file, folder or device.
        reading: how to read the labels of drives.

    Raises:
        UserError: there is nothing to read, or it is damaged; while frames are read, too.
    """
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UserError(f"{source}: {_absent(path, error)}") from None
    if stat.S_ISCHR(mode):
        return _video(source, CAMERA)
    if stat.S_ISDIR(mode):
        return _images(source, FolderArchive(path), reading)
    if zipfile.is_zipfile(path) or path.suffix.lower() == ".zip":
        archive = ZipArchive(path, int(reading.max_gigabytes * 1e9))
        return _drive(path) if archive.contains(LABELS) else _images(source, archive, reading)
    return _video(source)


def _absent(path: Path, error: OSError) -> str:
    if not path.name.startswith("video") or path.parent != Path("/dev"):
        return f"{error.strerror}; expected a video, a folder or zip of frames, or a camera such as /dev/video0"
    cameras = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
    return f"there is no such camera, found {cameras}; plug it in, or pass it to the container (--device {path})"


def _drive(path: Path) -> Footage:
    """A drive as stage download packs it."""
    drive = open_drive(path)
    labels = read_labels(drive, BadLabels(labels_name(drive), "skip"))
    images = enumerate(camera_images(drive, labels))
    frames = (Frame(image, number / FRAME_RATE) for number, image in images)
    return Footage(str(path), frames, len(labels), FRAME_RATE, live=False)


def _images(source: str, archive: Archive, reading: Reading) -> Footage:
    names = _image_names(source, archive, reading)

    def frames() -> Iterator[Frame]:
        for number, name in enumerate(names):
            yield Frame(decode_frame(archive.read(name), f"{source}: {name}"), number / FRAME_RATE)

    return Footage(source, frames(), len(names), FRAME_RATE, live=False)


def _image_names(source: str, archive: Archive, reading: Reading) -> list[str]:
    try:
        drive = read_layout(archive, reading._replace(on_bad_frame="skip"))
        return [drive.folder + label.frame for label in drive.labels if label.degrees == label.degrees]  # not NaN
    except UserError as no_labels:
        names = [name for name in archive.files("") if name.endswith(ENDINGS)]
        folders = sorted({name.rpartition("/")[0] for name in names})
        if len(folders) > 1:
            raise UserError(
                f"{source}: images in {len(folders)} folders ({', '.join(map(quoted, folders[:3]))}) and no labels "
                "that say which ones to take; name one of the folders"
            ) from no_labels
        if not names:
            raise UserError(f"{source}: no images in it ({', '.join(ENDINGS[:5])})") from no_labels
    return sorted(names, key=_by_numbers)


def _by_numbers(name: str) -> list[tuple[int, str]]:
    """Sorts 9.jpg before 10.jpg."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _video(source: str, kind: str | None = None) -> Footage:
    """A video file, or a device of the kind."""
    what = "camera" if kind else "video"
    try:
        container = av.open(source, format=kind)
    except (av.FFmpegError, OSError) as error:
        hint = "is another program using it?" if kind else "the file may be cut off, or of another kind"
        raise UserError(f"{source}: not a readable {what} ({_reason(error)}); {hint}") from None
    if not container.streams.video:
        sound = ", only sound" if container.streams.audio else ""
        container.close()
        raise UserError(f"{source}: no pictures in it{sound}")
    stream = container.streams.video[0]
    stream.thread_type = "SLICE" if kind else "AUTO"  # frame threads would hold a camera's frames back
    rate = float(stream.average_rate or stream.guessed_rate or FRAME_RATE)

    def frames() -> Iterator[Frame]:
        first, seconds, number = None, 0.0, 0
        try:
            for number, frame in zip(count(1), container.decode(stream), strict=False):
                if frame.width * frame.height > MAX_PIXELS:
                    raise UserError(f"{source}: frames of {frame.width}x{frame.height} pixels are more than allowed")
                first = frame.time if first is None else first
                timed = frame.time is not None and first is not None
                seconds = float(frame.time - first) if timed else (number - 1) / rate
                yield Frame(upright(frame), seconds)
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"{source}: frame {number} cannot be read ({_reason(error)}){hints[what]}") from None
        finally:
            container.close()
        if kind:
            raise UserError(f"{source}: the camera sends no more frames{hints[what]}")
        if expected and seconds + 1 / rate < expected - MISSING_SECONDS:
            raise UserError(
                f"{source}: ends after {seconds + 1 / rate:.2f} of {expected:.2f} s, {number} frames: the file is cut "
                "off; copy it again"
            )

    hints = {"camera": "; was it unplugged?", "video": "; the file is damaged or cut off, copy it again"}
    expected = 0.0 if kind else _duration(container, stream)
    return Footage(source, frames(), stream.frames or round(expected * rate) or None, rate, live=bool(kind))


def _duration(container: Any, stream: Any) -> float:
    """Seconds of pictures that the file says it has; 0 if it does not say."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    if container.duration and len(container.streams) == 1:
        return float(container.duration / av.time_base)
    return 0.0


def _reason(error: BaseException) -> str:
    return shortened(one_line(getattr(error, "strerror", None) or error), 60)
