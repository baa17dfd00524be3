"""The content of a local source as one checksum, computed again only when sizes or times of its files change."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from pilotnet_sdnn.files import write_text
from pilotnet_sdnn.paths import user_cache
from pilotnet_sdnn.progress import progress

BLOCK = 2**20  # bytes


def fingerprint(path: Path) -> str:
    """The checksum of a file, or of all files in a folder with their names.

    It is the same on every machine. What it was, for which sizes and times, is kept in the user's cache.
    """
    files = sorted(_files(path))
    stats = hashlib.sha256(repr(files).encode()).hexdigest()
    note = user_cache() / "fingerprints" / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.json"
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["stats"] == stats:
            return str(known["content"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    content = hashlib.sha256()
    size = sum(size for _, size, _ in files)
    with progress(total=size, desc=f"reading {path.name}", unit="B", unit_scale=True, delay=2) as bar:
        for name, *_ in files:
            content.update(os.fsencode(name) + b"\0" + _checksum(path / name if name else path, bar))
    with suppress(OSError):  # a home that cannot be written costs time, nothing else
        write_text(note, json.dumps({"stats": stats, "content": content.hexdigest()}))
    return content.hexdigest()


def _files(path: Path) -> Iterator[tuple[str, int, int]]:
    """The name below `path`, size and time of each file; links are not followed out of the folder."""
    if path.is_file():
        yield "", path.stat().st_size, path.stat().st_mtime_ns
        return
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(path / folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{folder}{entry.name}/")
                elif entry.is_file():
                    status = entry.stat()
                    yield f"{folder}{entry.name}", status.st_size, status.st_mtime_ns


def _checksum(path: Path, bar: tqdm) -> bytes:
    checksum = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            checksum.update(block)
            bar.update(len(block))
    return checksum.digest()
