"""An untrusted zip or folder, read file by file and never unpacked.

Names are relative, with forward slashes. Refused are names that lead out, links, duplicate or encrypted entries, and
more bytes than allowed.
"""

import os
import re
import stat
import zipfile
from pathlib import Path
from typing import Protocol

from pilotnet_sdnn.errors import UserError, one_line

MAX_FILE = 64 * 2**20  # bytes of a frame, or of a file with labels
MAX_NAME = 1000  # characters
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # other methods decompress without a bound


class Archive(Protocol):
    """A zip or a folder."""

    where: str

    def contains(self, name: str) -> bool:
        """Whether the archive contains this file."""

    def children(self, folder: str) -> list[str]:
        """Sorted names of the files and, with a slash at the end, the folders in `folder` ("" or "x/")."""

    def files(self, folder: str) -> list[str]:
        """Sorted names of all files below `folder` ("" or "x/"), without those behind links to folders."""

    def why_absent(self, name: str) -> str:
        """If a link is why the archive does not contain a file, the words that say so, else ""."""

    def read(self, name: str) -> bytes:
        """The bytes of a file; `UserError` if it is damaged or too large."""


def quoted(text: str) -> str:
    """Untrusted text for a message: short, in quotes, without control characters."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def inside(name: str) -> bool:
    """Whether a name stays inside the folder it is resolved in, on any system."""
    return not name.startswith("/") and not re.match("[A-Za-z]:", name) and ".." not in name.split("/")


def open_zip(path: Path) -> zipfile.ZipFile:
    """The zip at `path`.

    Raises:
        UserError: it is missing, or not a zip.
    """
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, expected a zip file") from None
    except PermissionError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except MemoryError:
        raise
    except Exception:  # zipfile trusts the numbers in a file, so damage raises one of six exceptions
        with path.open("rb") as file:
            start = file.read(20)
        if start and not start.startswith(b"PK"):
            found = quoted(start.decode("ascii", "replace"))
            raise UserError(
                f"{path}: not a readable zip file, it begins with {found}; expected a zip, folder, csv or data.txt"
            ) from None
        raise UserError(f"{path}: not a readable zip file, or cut off; download it again") from None


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of one file of a zip, at most as many as its directory declares and `MAX_FILE` allows.

    Raises:
        UserError: the file is missing, damaged, encrypted, too large or compressed in an unusual way.
    """
    where = f"{archive.filename}: {quoted(name)}"
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise UserError(f"{where} is not in the zip") from None
    if reason := _unreadable(entry):
        raise UserError(f"{where} {reason}")
    if entry.file_size > MAX_FILE:
        raise UserError(f"{where} has {entry.file_size:,} bytes, more than the {MAX_FILE:,} allowed for one file")
    try:
        with archive.open(entry) as file:
            data = file.read(entry.file_size + 1)  # bounded, so that the decompressor stops there
    except MemoryError:
        raise
    except Exception as error:  # as in open_zip
        raise UserError(f"{where} is damaged ({one_line(error)}); get the drive again") from None
    if len(data) != entry.file_size:
        raise UserError(f"{where} is damaged (fewer bytes than declared); get the drive again")
    return data


def _unreadable(entry: zipfile.ZipInfo) -> str | None:
    if entry.flag_bits & 0x1:
        return "is encrypted; unpack the zip and set source to the folder"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "is a link; put the file itself in the zip"
    if entry.compress_type not in METHODS:
        return f"is compressed by method {entry.compress_type}; pack it again as an ordinary zip (deflate)"
    return None


class ZipArchive:
    """A zip without suspicious entries."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Open and check a zip.

        Raises:
            UserError: it is not a zip, an entry leads out of it, is a link, encrypted or a duplicate, or the
                entries declare more than `max_bytes` in all.
        """
        self.where = str(path)
        self.zip = open_zip(path)
        try:
            self._entries = self._checked_entries(max_bytes)
        except UserError:
            self.zip.close()
            raise

    def _checked_entries(self, max_bytes: int) -> dict[str, str]:
        entries: dict[str, str] = {}
        size = 0
        for entry in self.zip.infolist():
            name = entry.filename.replace("\\", "/")  # as in some zips from Windows
            where = f"{self.where}: entry {quoted(entry.filename)}"
            if not inside(name):
                raise UserError(f"{where} leads out of the zip; do not trust it")
            if not name or name.endswith("/"):
                continue
            if reason := _unreadable(entry):
                raise UserError(f"{where} {reason}")
            if name in entries:
                raise UserError(f"{where} appears twice; pack the zip again")
            entries[name] = entry.filename
            size += entry.file_size
        if size > max_bytes:
            raise UserError(
                f"{self.where}: unpacks to {size / 1e9:,.1f} GB, more than max_gigabytes allows ({max_bytes / 1e9:g}); "
                "raise it in params.yaml if you trust the zip"
            )
        return entries

    @property
    def has_forward_slashes(self) -> bool:
        """Whether no name had to be changed from `x\\y` to `x/y`."""
        return all(name == entry for name, entry in self._entries.items())

    def contains(self, name: str) -> bool:
        return len(name) <= MAX_NAME and name in self._entries

    def children(self, folder: str) -> list[str]:
        below = (name[len(folder) :] for name in self._entries if name.startswith(folder))
        return sorted({first + slash for first, slash, _ in (name.partition("/") for name in below)})

    def files(self, folder: str) -> list[str]:
        return sorted(name for name in self._entries if name.startswith(folder))

    def why_absent(self, name: str) -> str:  # a zip with links is refused
        return ""

    def read(self, name: str) -> bytes:
        return read_member(self.zip, self._entries[name])


class FolderArchive:
    """A folder; links in it are followed if they stay inside."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self.root = path.resolve()

    def contains(self, name: str) -> bool:
        try:
            path = (self.root / name).resolve()
            return inside(name) and path.is_relative_to(self.root) and path.is_file()
        except (OSError, RuntimeError, ValueError):  # a link loop, a name too long, a NUL
            return False

    def children(self, folder: str) -> list[str]:
        try:
            return sorted(path.name + "/" * path.is_dir() for path in (self.root / folder).iterdir())
        except OSError as error:
            raise UserError(f"{self.root / folder}: {error.strerror}") from None

    def files(self, folder: str) -> list[str]:
        return sorted(
            (Path(parent) / name).relative_to(self.root).as_posix()
            for parent, _, names in os.walk(self.root / folder)
            for name in names
        )

    def why_absent(self, name: str) -> str:
        for part in (self.root / name, *(self.root / name).parents):
            if part == self.root or not inside(name):
                break
            if part.is_symlink():
                link, target = part.relative_to(self.root).as_posix(), str(part.readlink())
                if not part.exists():
                    return f": {quoted(link)} is a link to {quoted(target)}, which does not exist"
                return (
                    f": {quoted(link)} is a link to {quoted(target)}, which is outside of the drive's folder and "
                    "therefore refused; copy or move what it leads to into the folder"
                )
        return ""

    def read(self, name: str) -> bytes:
        try:
            with (self.root / name).open("rb") as file:
                data = file.read(MAX_FILE + 1)
        except OSError as error:
            raise UserError(f"{self.where}: {quoted(name)}: {error.strerror}") from None
        if len(data) > MAX_FILE:
            raise UserError(f"{self.where}: {quoted(name)} has more than the {MAX_FILE:,} bytes allowed for one file")
        return data
