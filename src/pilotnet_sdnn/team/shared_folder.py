"""A folder as the remote of several users: a group owns it, and everyone in the group may read and write.

DVC's option `shared = group` does this for what DVC writes. Files written before the option was set stay private, and
only their owner can open them.
"""

import grp
import os
import pwd
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pilotnet_sdnn.errors import UserError

DIRECTORY_MODE = 0o2070  # the group reads, writes and enters; what is made inside inherits the group
FILE_MODE = 0o040


def open_to_group(folder: Path) -> None:
    """Give the present user's files in the folder to the folder's group."""
    if not folder.exists():
        return
    group = folder.stat().st_gid
    for path in [folder, *folder.rglob("*")]:
        with suppress(FileNotFoundError):  # another push renamed or removed it meanwhile
            info = path.lstat()
            if info.st_uid != os.getuid() or path.is_symlink():
                continue
            if info.st_gid != group:
                with suppress(PermissionError):  # the user is not in that group
                    os.chown(path, -1, group)
            mode = info.st_mode | (DIRECTORY_MODE if path.is_dir() else FILE_MODE)
            if mode != info.st_mode:
                path.chmod(mode)


def check_writable(folder: Path, shared: bool) -> None:
    """Find a folder in which the present user cannot write, before anything is sent.

    Args:
        shared: whether the remote has DVC's option `shared = group`.

    Raises:
        UserError: there is one; with its owner and what the owner does about it.
    """
    if closed := [
        path for path in _inside(folder) if path.is_dir() and not os.access(path, os.R_OK | os.W_OK | os.X_OK)
    ]:
        raise UserError(f"you cannot write {closed[0]}: {_recipe(closed[0], folder, shared)}")


def unreadable(folder: Path, shared: bool) -> dict[str, str]:
    """The first path that the present user cannot read, if any, and what its owner does about it."""
    closed = [path for path in _inside(folder) if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0))]
    more = f", nor {len(closed) - 1:,} more" if closed[1:] else ""
    return {
        str(path.relative_to(folder)): f"you cannot read it{more}: {_recipe(path, folder, shared)}"
        for path in closed[:1]
    }


def _inside(folder: Path) -> list[Path]:
    """A folder and all that is in it, each folder before its content; no links, which are not DVC's."""
    found = [folder] if folder.exists() else []
    for directory, folders, files in os.walk(folder):
        found += [Path(directory, name) for name in (*folders, *files)]
    return [path for path in found if not path.is_symlink()]


def _recipe(path: Path, folder: Path, shared: bool) -> str:
    owner, group = _name(path.stat().st_uid, pwd.getpwuid), _name(folder.stat().st_gid, grp.getgrgid)
    first = "" if shared else "`dvc remote modify NAME shared group`, commit that, then "
    return f"{first}`sdnn-share push` by its owner {owner} opens it to the members of the group {group}"


def _name(number: int, look_up: Callable) -> str:
    try:
        return look_up(number)[0]
    except KeyError:
        return str(number)
