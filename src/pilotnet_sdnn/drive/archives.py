"""A zip or a folder from a stranger, read file by file and never unpacked.

Names are relative, with forward slashes; a name that leads out is refused, and so is what could not be
told apart or would not fit: links, two entries of one name, encrypted entries, more bytes than allowed.
"""

import re
import stat
import zipfile
from pathlib import Path
from typing import Protocol

from pilotnet_sdnn.errors import UserError, one_line

MAX_FILE = 64 * 2**20  # bytes of a frame, or of a file with labels
LONGEST_NAME = 1000  # characters
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others decompress without a bound


class Archive(Protocol):
    """What a zip and a folder have in common."""

    where: str

    def contains(self, name: str) -> bool:
        """Whether there is a file of this name, inside the archive."""

    def children(self, folder: str) -> list[str]:
        """Sorted names of the files and, with a slash at the end, the folders in `folder` ("" or "x/")."""

    def read(self, name: str) -> bytes:
        """The bytes of a file; a `UserError` if they are damaged or too many."""


def quoted(text: str) -> str:
    """Text of a stranger for one line of a message."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def inside(name: str) -> bool:
    """Whether a name stays below where it is looked up, on any system."""
    return not name.startswith("/") and not re.match("[A-Za-z]:", name) and ".." not in name.split("/")


def open_zip(path: Path) -> zipfile.ZipFile:
    """The zip at `path`.

    Raises:
        UserError: there is none, or it is not a zip.
    """
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise UserError(f"{path}: a folder, expected a zip file") from None
    except PermissionError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except Exception:  # zipfile trusts the numbers in a file: what they break it with is any of six exceptions
        raise UserError(f"{path}: not a readable zip file, or cut off; get it again") from None


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of one file of a zip, no more of them than its directory declares and `MAX_FILE` allows.

    Raises:
        UserError: they are missing, damaged, encrypted, too many or compressed in an unusual way.
    """
    where = f"{archive.filename}: {quoted(name)}"
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise UserError(f"{where} is not in the zip") from None
    if reason := _unreadable(entry):
        raise UserError(f"{where} {reason}")
    if entry.file_size > MAX_FILE:
        raise UserError(f"{where} is of {entry.file_size:,} bytes, more than the {MAX_FILE:,} allowed for one file")
    try:
        with archive.open(entry) as file:
            data = file.read(entry.file_size + 1)  # with a number, so that the decompressor stops there
    except Exception as error:  # as in open_zip
        raise UserError(f"{where} is damaged ({one_line(error)}); get the drive again") from None
    if len(data) != entry.file_size:
        raise UserError(f"{where} is damaged (fewer bytes than declared); get the drive again")
    return data


def _unreadable(entry: zipfile.ZipInfo) -> str | None:
    if entry.flag_bits & 0x1:
        return "is encrypted; unpack the zip and give the folder as source"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "is a link; put the file itself in the zip"
    if entry.compress_type not in METHODS:
        return f"is compressed by method {entry.compress_type}; pack it again as an ordinary zip (deflate)"
    return None


class ZipArchive:
    """A zip none of whose entries is suspicious."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Open and check a zip.

        Raises:
            UserError: it is not a zip, an entry leads out of it, is a link, encrypted or there twice, or
                all of them together declare more than `max_bytes`.
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
            name = entry.filename.replace("\\", "/")  # as some zips from Windows have it
            where = f"{self.where}: entry {quoted(entry.filename)}"
            if not inside(name):
                raise UserError(f"{where} leads out of the zip; do not trust it")
            if not name or name.endswith("/"):
                continue
            if reason := _unreadable(entry):
                raise UserError(f"{where} {reason}")
            if name in entries:
                raise UserError(f"{where} is there twice; pack the zip again")
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
        """Whether every entry has the name by which this class knows it."""
        return all(name == entry for name, entry in self._entries.items())

    def contains(self, name: str) -> bool:
        return len(name) <= LONGEST_NAME and name in self._entries

    def children(self, folder: str) -> list[str]:
        below = (name[len(folder) :] for name in self._entries if name.startswith(folder))
        return sorted({first + slash for first, slash, _ in (name.partition("/") for name in below)})

    def read(self, name: str) -> bytes:
        return read_member(self.zip, self._entries[name])


class FolderArchive:
    """A folder; links in it count as long as they stay inside."""

    def __init__(self, path: Path) -> None:
        self.where = str(path)
        self.root = path.resolve()

    def contains(self, name: str) -> bool:
        try:
            path = (self.root / name).resolve()
            return inside(name) and path.is_relative_to(self.root) and path.is_file()
        except (OSError, RuntimeError, ValueError):  # a loop of links, a name too long, a NUL in it
            return False

    def children(self, folder: str) -> list[str]:
        try:
            return sorted(path.name + "/" * path.is_dir() for path in (self.root / folder).iterdir())
        except OSError as error:
            raise UserError(f"{self.root / folder}: {error.strerror}") from None

    def read(self, name: str) -> bytes:
        try:
            with (self.root / name).open("rb") as file:
                data = file.read(MAX_FILE + 1)
        except OSError as error:
            raise UserError(f"{self.where}: {quoted(name)}: {error.strerror}") from None
        if len(data) > MAX_FILE:
            raise UserError(f"{self.where}: {quoted(name)} is of more than the {MAX_FILE:,} bytes allowed for one file")
        return data
