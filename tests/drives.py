"""Small drives of every kind, also bad ones, to test with."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pilotnet_sdnn.dataset.store import DriveRange, Frames
from pilotnet_sdnn.errors import UserError, exit_on_error
from pilotnet_sdnn.params import read_mapping


def encoded(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


JPEG = encoded(Image.new("RGB", (455, 256), (90, 120, 60)))


def write_zip(path: Path, files: dict[str, str | bytes], **options) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def files_in(path: Path) -> list[tuple[str, int, int]]:
    """Name, size and checksum of each file in a zip, in its order."""
    with zipfile.ZipFile(path) as archive:
        return [(entry.filename, entry.file_size, entry.CRC) for entry in archive.infolist()]


def write_folder(path: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def one_line(call, *words: str) -> None:
    """The call is refused in one line that has the words."""
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert len(message.splitlines()) == 1
    for word in words:
        assert word in message


def stage_run(main, folder: Path, monkeypatch, **params) -> None:
    """Run a stage, in this process, in a folder whose params.yaml is the default one with other values for some."""
    defaults = read_mapping(Path(__file__).parent.parent / "params.yaml")
    columns = {**defaults["csv_columns"], **params.pop("csv_columns", {})}
    (folder / "params.yaml").write_text(json.dumps({**defaults, **params, "csv_columns": columns}))
    monkeypatch.chdir(folder)
    with exit_on_error():
        main()


def one_drive(angles: np.ndarray, frames: np.ndarray | None = None, segments: np.ndarray | None = None) -> Frames:
    """A drive with these labels, one for each frame, as if it had been read from its file."""
    count = len(angles)
    numbers = np.arange(count, dtype=np.int32)
    names = np.array([str(number).encode() for number in numbers])
    segments = np.zeros(count, np.int32) if segments is None else segments
    whole = [DriveRange("a test drive", 0, count)]
    return Frames(frames, angles, segments, numbers, "a test drive", 0, whole, numbers + 1, names)  # type: ignore[arg-type]
