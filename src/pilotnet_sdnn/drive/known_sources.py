"""data/sources.json: the content of each local drive when it was packed.

Stage download depends on this file, so DVC runs it when the file changes, and finds earlier runs by it. It says nothing
of this machine: where a drive is absent, or is the same, the file stays as it is.
"""

import json
import os
from pathlib import Path
from typing import TypedDict

from pilotnet_sdnn.drive.fingerprint import fingerprint
from pilotnet_sdnn.files import write_text
from pilotnet_sdnn.paths import SOURCES, repository


class Known(TypedDict):
    """What is known of a source."""

    files: list[str]  # its files and folders, seen from the folder that it lies in
    content: str  # their checksum


def read_known() -> dict[str, Known]:
    """What data/sources.json says, by the source's name; empty if it is missing or damaged."""
    try:
        known = json.loads(SOURCES.read_text(encoding="utf-8"))
        return {
            str(name): Known(files=[*entry["files"]], content=str(entry["content"])) for name, entry in known.items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def write_known(known: dict[str, Known]) -> None:
    """Write data/sources.json, unless it says this already."""
    text = json.dumps(known, indent=2, ensure_ascii=False) + "\n"
    if not SOURCES.exists() or SOURCES.read_text(encoding="utf-8") != text:
        write_text(SOURCES, text)


def look_at(source: str, paths: list[Path]) -> Known:
    """What there is of a source now.

    Args:
        source: its name.
        paths: its files and folders.
    """
    parent = _parent(source)
    return Known(files=[Path(os.path.relpath(path, parent)).as_posix() for path in paths], content=_content(paths))


def refresh() -> None:
    """Let data/sources.json follow the local drives that are here and have changed."""
    before = read_known()
    after = {name: _now(name, known) for name, known in before.items()}
    if after != before:
        write_known(after)


def _now(source: str, known: Known) -> Known:
    try:
        return Known(files=known["files"], content=_content([_parent(source) / file for file in known["files"]]))
    except (OSError, RuntimeError, ValueError):  # not here, or not to be read
        return known


def _parent(source: str) -> Path:
    return (repository() / Path(source).expanduser()).resolve().parent


def _content(paths: list[Path]) -> str:
    return "".join(fingerprint(path)[:32] for path in paths)
