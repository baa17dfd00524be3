"""Folders with a file for each drive, of which a stage makes only those that DVC's cache lacks.

DVC runs a stage as a whole, and removes its outputs first. But its cache has each file of a folder once, and the
listing of every version of a folder that was ever written here or pulled from the team. A file's name holds a key of
everything that it was made from, so a listing says which object of the cache is the file that a key stands for.

A name is `POSITION-KEY.SUFFIX`: the position of the drive in `source`, from 1, and one or two keys.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pilotnet_sdnn.errors import UserError, check_present
from pilotnet_sdnn.params import read_mapping
from pilotnet_sdnn.paths import PIPELINE

NAME = re.compile(r"([0-9]{1,6})-((?:[0-9a-f]{16}-)?[0-9a-f]{16}\.(?:zip|h5))")
MAX_LISTING = 2**22  # bytes; a listing has about 100 for each drive, and other pipelines may share the cache


def drive_files(folder: Path, stage: str) -> list[Path]:
    """The files in a folder that `stage` writes, in the order of the drives.

    Raises:
        UserError: the folder is missing, or there is no such file in it.
    """
    check_present(folder, stage)
    named = [(int(match[1]), path) for path in folder.iterdir() if (match := NAME.fullmatch(path.name))]
    if not named:
        raise UserError(f"{folder}: no file of a drive in it; `dvc repro {stage}` makes them")
    return [path for _, path in sorted(named)]


def key_of(*made_from: object) -> str:
    """16 hexadecimal digits for what a file is made from: texts, numbers, lists and dicts of these."""
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]


def inputs_of(stage: str) -> dict[str, Any]:
    """What dvc.yaml says that a stage depends on: the checksum of its code, and its parameters."""
    if not PIPELINE.exists():
        return {}
    entry = read_mapping(PIPELINE)["stages"][stage]
    code = hashlib.sha256()
    for dependency in sorted(name for name in entry["deps"] if name.startswith("src/")):
        path = Path(dependency)
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            code.update(f"{file.as_posix()}\0".encode() + file.read_bytes() + b"\0")
    inputs = {"code": code.hexdigest()}
    for file, names in ((file, names) for group in entry.get("params", []) for file, names in group.items()):
        values = read_mapping(Path(file))
        inputs |= {name: values.get(name) for name in names}
    return inputs


class DriveFolder:
    """A folder being written, beside what the cache has from earlier."""

    def __init__(self, folder: Path, repo: Any = None) -> None:
        """
        Args:
            folder: the folder.
            repo: the `dvc.repo.Repo` whose cache to use, if there is one.
        """
        self.folder = folder
        self._repo = repo
        self._cached = _cached_files(Path(repo.cache.local.path)) if repo else {}
        self._paths: list[Path] = []
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, position: int, name: str) -> Path:
        """Where the file of a drive belongs."""
        self._paths.append(self.folder / f"{position}-{name}")
        return self._paths[-1]

    def remove_others(self) -> None:
        """Remove the files of earlier drives."""
        for path in self.folder.iterdir():
            if NAME.fullmatch(path.name) and path not in self._paths:
                path.unlink()

    def newest(self, pattern: str) -> str | None:
        """The name, without position, of the newest file in the cache whose name matches a pattern."""
        return next((name for name in reversed(self._cached) if re.fullmatch(pattern, name)), None)

    def restore(self, name: str | None, path: Path) -> bool:
        """Link a file from the cache, as `dvc checkout` does.

        Args:
            name: its name in the cache, without position.
            path: where it should be.

        Returns: whether the cache has it.
        """
        if name is None or name not in self._cached:
            return False
        from dvc_data.hashfile.checkout import checkout
        from dvc_objects.errors import ObjectFormatError

        cache, oid = self._repo.cache.local, self._cached[name]
        try:
            cache.check(oid)
            checkout(str(path.absolute()), cache.fs, cache.get(oid), cache, force=True, state=self._repo.state)
        except (FileNotFoundError, ObjectFormatError):  # removed by `dvc gc`, or damaged
            return False
        return True

    def keep(self) -> None:
        """Put what the folder has so far into the cache: if the next drive fails, these are not made again."""
        if self._repo is None:
            return
        from dvc_data.hashfile.build import build
        from dvc_data.hashfile.transfer import transfer

        cache = self._repo.cache.local
        staging, _, tree = build(cache, str(self.folder.absolute()), cache.fs, "md5")
        hardlink = cache.cache_types[0] == "hardlink"  # as `dvc commit`: no copy is ever made
        transfer(staging, cache, {tree.hash_info}, shallow=False, hardlink=hardlink)


@contextmanager
def drive_folder(folder: Path) -> Iterator[DriveFolder]:
    """Write a folder. Outside a DVC repository, every file in it is made; after an error, those of before stay."""
    with ExitStack() as stack:
        repo = None
        if Path(".dvc").is_dir():
            from dvc.repo import Repo  # half a second

            repo = stack.enter_context(Repo(str(Path.cwd())))
        drives = DriveFolder(folder, repo)
        yield drives
        drives.remove_others()


def _cached_files(cache: Path) -> dict[str, str]:
    """The MD5 of each file of a drive in any listing of a folder, by its name without the position; newest last."""
    files: dict[str, str] = {}
    listings = [(path.stat().st_mtime_ns, path) for path in cache.glob("[0-9a-f][0-9a-f]/*.dir")]
    for _, listing in sorted(listings):
        if listing.stat().st_size > MAX_LISTING:
            continue
        try:
            entries = [(NAME.fullmatch(entry["relpath"]), entry["md5"]) for entry in json.loads(listing.read_bytes())]
        except (OSError, ValueError, TypeError, KeyError):  # damaged: DVC says so when it needs it
            continue
        for match, md5 in entries:
            if match and re.fullmatch("[0-9a-f]{32}", md5):
                files.pop(match[2], None)
                files[match[2]] = md5
    return files
