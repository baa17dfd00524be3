"""Where drives come from: the synthetic drive, Sully Chen's dataset, a file, a folder or a URL.

Every source becomes the same kind of zip, checked before it gets its name.
"""

import io
import math
import os
import shutil
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from pilotnet_sdnn.drive import synthetic
from pilotnet_sdnn.drive.archives import Archive, FolderArchive, ZipArchive, open_zip, quoted
from pilotnet_sdnn.drive.drive_zip import (
    FOLDER,
    LABELS,
    PILOTNET_LABELS_SHA256,
    SIMULATOR,
    Shot,
    labels_sha256,
    open_drive,
    origin,
    pack_drive,
    packed_name,
    read_labels,
)
from pilotnet_sdnn.drive.http import download
from pilotnet_sdnn.drive.labels import BadLabels, same_labels
from pilotnet_sdnn.drive.layouts import checked, read_layout
from pilotnet_sdnn.drive.reading import Drive, Reading
from pilotnet_sdnn.drive.video_labels import find_videos, pack_videos, read_videos
from pilotnet_sdnn.errors import UserError, counted, one_line, printable, shortened, without_password
from pilotnet_sdnn.files import atomic_write
from pilotnet_sdnn.params import synthetic_name
from pilotnet_sdnn.paths import repository
from pilotnet_sdnn.progress import progress

# The dataset of lava-dl's tutorial, MIT licence: https://github.com/SullyChen/driving-datasets
PILOTNET_URL = "https://drive.google.com/uc?id=1Ue4XohCOV5YXy57S_5tDfCVqzLr101M7"

WEB = ("http://", "https://")

DEFAULTS = Reading()


class Source(NamedTuple):
    """A drive that was found, with its labels."""

    name: str  # as in params.yaml, but without a password
    archive: Archive
    drive: Drive


def fetch(source: str, path: Path, frames: int, seed: int, reading: Reading = DEFAULTS) -> None:
    """Write a drive to `path`.

    Args:
        source: "synthetic", "pilotnet", an http(s) URL of a zip, or the path of a zip, a folder or a csv in
            a folder.
        path: the zip to write.
        frames: length of the synthetic drive.
        seed: seed of the synthetic drive.
        reading: how to read zips and folders.

    Raises:
        UserError: the source cannot be reached or is not a drive; `path` stays as it was.
    """
    synthetic_zip = path.with_name(".synthetic.zip.tmp")
    max_bytes = int(reading.max_gigabytes * 1e9)
    with atomic_write(path) as temporary:
        try:
            local = _local(source, synthetic_zip, frames, seed, max_bytes)
            videos = find_videos(local, reading)
            found = _source(source, local, videos, reading)
            if videos:
                _check_size(videos, max_bytes)
                pack_videos(temporary, [video for video, _ in videos], found.drive.labels, _origin(found))
            elif _packed(found):
                shutil.copyfile(found.archive.where, temporary)
                with zipfile.ZipFile(temporary, "a") as copy:
                    if not copy.comment:  # setting one, even the same, writes the list of files anew
                        copy.comment = _origin(found).encode()
            else:
                lines = [label.line for label in found.drive.labels] if found.drive.layout == "csv" else None
                pack_drive(temporary, _shots(found, max_bytes), _origin(found), lines)
            _read_back(temporary, path, reading)
        finally:
            synthetic_zip.unlink(missing_ok=True)
    if found.drive.bad.count:
        print(found.drive.bad)


def _local(source: str, synthetic_zip: Path, frames: int, seed: int, max_bytes: int) -> Path:
    """The path of a source on this machine; the synthetic drive is written to `synthetic_zip`."""
    if source == "synthetic":
        pack_drive(synthetic_zip, _synthetic(frames, seed), synthetic_name(frames, seed))
        return synthetic_zip
    if source == "pilotnet":
        return download(PILOTNET_URL, partial(_check, labels_checksum=PILOTNET_LABELS_SHA256), max_bytes)
    if source.startswith(WEB):
        return download(source, _check, max_bytes)
    path, reason = _resolved(source)
    if path:
        return path
    raise UserError(
        f"params.yaml: source: {quoted(source)} is neither synthetic, pilotnet, a URL nor an existing file or folder "
        f"({reason})"
    )


def behind(source: str, reading: Reading) -> list[Path]:
    """The files and folders that a local source consists of; empty for another kind of source, or if it is not here."""
    path = None if is_made_or_on_the_web(source) else _resolved(source)[0]
    if path is None or not path.is_file():
        return [path] if path else []
    if videos := find_videos(path, reading):
        return list(videos[0])
    return [_with_frames(path.parent, reading)] if path.suffix.lower() in (".csv", ".txt") else [path]


def is_made_or_on_the_web(source: str) -> bool:
    return source in ("synthetic", "pilotnet") or source.startswith(WEB)


def _resolved(source: str) -> tuple[Path | None, str]:
    """The existing path of a source, or why there is none."""
    try:
        path = (repository() / Path(source).expanduser()).resolve()  # relative paths start at the repository
        return (path, "") if path.exists() else (None, f"looked for {quoted(str(path))}")
    except (OSError, RuntimeError, ValueError) as error:  # a link loop, ~nobody, a NUL
        return None, shortened(one_line(error), 100)


def _synthetic(frames: int, seed: int) -> Iterator[tuple[str, bytes, float]]:
    drive = progress(synthetic.drive(frames, seed), total=frames, desc="synthetic road", unit="frame")
    for number, (image, degrees) in enumerate(drive):
        jpeg = io.BytesIO()
        Image.fromarray(image).save(jpeg, "JPEG", quality=90)
        yield f"{number}.jpg", jpeg.getvalue(), degrees


def _check_size(videos: list[tuple[Path, Path]], max_bytes: int) -> None:
    if sum(video.stat().st_size for video, _ in videos) > max_bytes:
        raise UserError(
            f"{videos[0][0]}: more than max_gigabytes allows ({max_bytes / 1e9:g}); raise it in params.yaml"
        )


def _source(name: str, path: Path, videos: list[tuple[Path, Path]], reading: Reading) -> Source:
    """The drive at a path: videos, a zip, a folder, or a csv in a folder."""
    archive: Archive
    table: str | None
    if videos:
        archive, table = FolderArchive(videos[0][0].parent), None
    elif path.is_dir():
        archive, table = FolderArchive(path), None
    elif path.suffix.lower() in (".csv", ".txt"):
        folder = _with_frames(path.parent, reading)
        archive, table = FolderArchive(folder), path.relative_to(folder).as_posix()
    elif path.is_file():
        archive, table = ZipArchive(path, int(reading.max_gigabytes * 1e9)), None
    else:
        raise UserError(f"{path}: neither a file nor a folder")
    drive = checked(read_videos(videos, reading), reading) if videos else read_layout(archive, reading, table)
    name = printable(without_password(name))
    print("; ".join([f"{name}: {drive.layout} layout, {counted(_frames(drive), 'labelled frame')}", *drive.detected]))
    if warning := same_labels(drive.labels):
        print(f"WARNING: {name}: {warning}")
    return Source(name, archive, drive)


def _with_frames(folder: Path, reading: Reading) -> Path:
    """The folder that holds the one of a csv and `csv_frames`."""
    return Path(os.path.commonpath([folder, (folder / (reading.csv_frames or "")).resolve()]))


def _frames(drive: Drive) -> int:
    return sum(not math.isnan(label.degrees) for label in drive.labels)


def _packed(source: Source) -> zipfile.ZipFile | None:
    """The zip, if later stages can read it as it is."""
    drive, archive = source.drive, source.archive
    if isinstance(archive, ZipArchive) and drive.as_stored and drive.folder == f"{FOLDER}/":
        return archive.zip if LABELS in archive.zip.namelist() and archive.has_forward_slashes else None
    return None


def _origin(source: Source) -> str:
    path = Path(source.name)
    name = str(Path(path.parent.name, path.name)) if path.name == "data.txt" else path.name
    if packed := _packed(source):
        return origin(packed, name)
    return f"{SIMULATOR} drive, {counted(_frames(source.drive), 'frame')}" if source.drive.layout == SIMULATOR else name


def _shots(source: Source, max_bytes: int) -> Iterator[Shot]:
    """The frames and labels of a drive as `pack_drive` takes them."""
    _, archive, drive = source
    size = 0
    for label in progress(drive.labels, desc="packing the drive", unit="frame"):
        image, problem = None, label.problem
        if not math.isnan(label.degrees):
            try:
                image = archive.read(drive.folder + label.frame)
            except UserError as error:
                drive.bad.add(label.line, str(error))
                drive.bad.check()
                problem = f"data.txt line {label.line}: {str(error).removeprefix(f'{archive.where}: ')}"
        yield packed_name(label.frame), image, math.nan if image is None else label.degrees, label.time, problem
        size += len(image or b"")
        if size > max_bytes:
            raise UserError(
                f"{archive.where}: more than max_gigabytes allows ({max_bytes / 1e9:g}); raise it in params.yaml"
            )


def _read_back(temporary: Path, path: Path, reading: Reading) -> None:
    """Read the labels as later stages do, before the zip replaces an older one."""
    with open_drive(temporary) as drive:
        try:
            read_labels(drive, BadLabels(f"{path}: {LABELS}", reading.on_bad_frame))
        except UserError as error:
            raise UserError(str(error).replace(str(temporary), str(path))) from None


def _check(path: Path, labels_checksum: str | None = None) -> None:
    with open_zip(path) as drive:
        if labels_checksum and labels_sha256(drive) != labels_checksum:
            raise UserError(
                f"{path}: its data.txt has sha256 {labels_sha256(drive)}, expected {labels_checksum}: "
                "not the published dataset; download it by hand and give its path as source"
            )
