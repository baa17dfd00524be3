"""Where a drive comes from: the synthetic road, Sully Chen's dataset, a file, a folder or a URL.

Every source ends as the same zip, checked before it gets its name.
"""

import hashlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import gdown
import requests
from gdown.exceptions import DownloadError
from PIL import Image

from pilotnet_sdnn import road
from pilotnet_sdnn.drive import (
    FOLDER,
    PILOTNET_LABELS_SHA256,
    labels_sha256,
    open_drive,
    pack_drive,
    parse_labels,
    read_labels,
)
from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.files import whole
from pilotnet_sdnn.paths import repository, user_cache
from pilotnet_sdnn.progress import progress

# The dataset of lava-dl's tutorial, MIT licence: https://github.com/SullyChen/driving-datasets
PILOTNET_URL = "https://drive.google.com/uc?id=1Ue4XohCOV5YXy57S_5tDfCVqzLr101M7"

RETRIES = 5  # of a download, with growing pauses


def fetch(source: str, path: Path, frames: int, seed: int) -> None:
    """Bring a drive to `path`.

    Args:
        source: "synthetic", "pilotnet", an http(s) URL of a zip, or the path of a zip or a folder.
        path: the zip to write.
        frames: length of the synthetic drive.
        seed: of the synthetic drive.

    Raises:
        UserError: the source cannot be reached or is not a drive; `path` is then left as it was.
    """
    with whole(path) as temporary:
        if source == "synthetic":
            pack_drive(temporary, _synthetic(frames, seed), f"synthetic road, seed {seed}, {frames} frames")
        elif source == "pilotnet":
            shutil.copyfile(_download(PILOTNET_URL, PILOTNET_LABELS_SHA256), temporary)
        elif source.startswith(("http://", "https://")):
            shutil.copyfile(_download(source), temporary)
        else:
            _copy(_local(source), temporary)


def _synthetic(frames: int, seed: int) -> Iterator[tuple[str, bytes, float]]:
    drive = progress(road.drive(frames, seed), total=frames, desc="synthetic road", unit="frame")
    for number, (image, degrees) in enumerate(drive):
        jpeg = io.BytesIO()
        Image.fromarray(image).save(jpeg, "JPEG", quality=90)
        yield f"{number}.jpg", jpeg.getvalue(), degrees


def _local(source: str) -> Path:
    """The path a source names; a relative one is relative to the repository."""
    path = (repository() / Path(source).expanduser()).resolve()
    if not path.exists():
        raise UserError(
            f"params.yaml: source: {source!r} is neither synthetic, pilotnet, a URL nor an existing file or folder "
            f"(looked for {path})"
        )
    return path


def _copy(source: Path, path: Path) -> None:
    if source.is_dir():
        pack_drive(path, _folder(source))
    else:
        _check(source)
        shutil.copyfile(source, path)


def _folder(source: Path) -> Iterator[tuple[str, bytes, float]]:
    """The frames of a folder that holds data.txt, or driving_dataset/data.txt as the unpacked zip does."""
    folder = source if (source / "data.txt").exists() else source / FOLDER
    try:
        text = (folder / "data.txt").read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise UserError(f"{source}: no data.txt in it, nor in {FOLDER}/; expected data.txt, 0.jpg, ...") from None
    labels = parse_labels(text, str(folder / "data.txt"))
    for label in progress(labels, desc="packing the drive", unit="frame"):
        try:
            jpeg = (folder / label.frame).read_bytes()
        except OSError:
            raise UserError(
                f"{folder / 'data.txt'} line {label.line}: no {label.frame} in the folder; "
                "add the frame or remove the line"
            ) from None
        yield label.frame, jpeg, label.degrees


def _check(path: Path, labels_checksum: str | None = None) -> None:
    with open_drive(path) as drive:
        read_labels(drive)
        if labels_checksum and labels_sha256(drive) != labels_checksum:
            raise UserError(
                f"{path}: its data.txt has sha256 {labels_sha256(drive)}, expected {labels_checksum}: "
                "not the published dataset; download it by hand and give its path as source"
            )


def _download(url: str, labels_checksum: str | None = None) -> Path:
    """The zip at a URL, kept in the user's cache: a run with another seed does not download it again.

    A download that was cut off is continued.
    """
    path = user_cache() / "drives" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_suffix(".incoming")
    if path.exists():
        print(f"{url}: already downloaded; delete {path} to get it again")
        return path
    try:
        gdown.download(url=url, output=str(incoming), resume=True, retries=RETRIES, timeout=60, use_cookies=False)
    except (DownloadError, requests.RequestException) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{url}: download failed ({reason}); run again to continue it, or give a path as source"
        ) from None
    try:
        _check(incoming, labels_checksum)
    except UserError:
        incoming.unlink()
        raise
    return incoming.replace(path)
