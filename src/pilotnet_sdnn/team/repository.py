"""The DVC repository, which may be a folder of a larger git repository, and what git says about it.

Commands work from its root, whichever folder they are called in. Paths given to git and printed by it are relative to
`root`, which is the current folder unless a caller names another.
"""

import os
import subprocess
from contextlib import suppress
from pathlib import Path

from dvc.exceptions import NotDvcRepoError
from dvc.repo import Repo
from ruamel.yaml.error import YAMLError

from pilotnet_sdnn.errors import NO_REPOSITORY, UserError, one_line
from pilotnet_sdnn.params import check_aliases
from pilotnet_sdnn.paths import ENVIRONMENT, LOCK, PARAMS


def find_root() -> Path:
    """The root of the DVC repository around the current folder.

    Raises:
        UserError: there is none, or params.yaml or the like has YAML aliases: DVC, which reads it next, expands aliases
            without a limit, and would take hours and gigabytes before it says anything.
    """
    try:
        root = Path(Repo.find_root())
    except NotDvcRepoError:
        raise UserError(NO_REPOSITORY) from None
    for path in (PARAMS, ENVIRONMENT, LOCK):
        with suppress(OSError, UnicodeDecodeError, YAMLError, RecursionError):  # what else is wrong is said later
            check_aliases(path, (root / path).read_text(encoding="utf-8"))
    return root


def enter_root() -> Path:
    """Make the root of the DVC repository the current folder.

    Returns:
        The folder it was before.
    """
    before = Path.cwd()
    os.chdir(find_root())
    return before


def git(*arguments: str, root: Path = Path()) -> str:
    """What a git command prints, without the line ends around it.

    Raises:
        UserError: it failed; with what it printed.
    """
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True)
    if done.returncode:
        reason = one_line(UserError(done.stderr.decode(errors="replace"))) if done.stderr.strip() else "failed"
        raise UserError(f"git {' '.join(arguments)}: {reason}")
    return _text(done.stdout).strip("\n")


def try_git(*arguments: str, root: Path = Path()) -> str:
    """The same; nothing where it fails, which is how git says that there is no such thing."""
    return _text(try_git_bytes(*arguments, root=root)).strip("\n")


def try_git_bytes(*arguments: str, root: Path = Path()) -> bytes:
    """The same, to the byte."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True)
    return b"" if done.returncode else done.stdout


def commit_id(name: str, root: Path = Path()) -> str:
    """The commit that a branch, a reference or the like names; empty if there is none."""
    return try_git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}", root=root)


def nul_separated(printed: str) -> list[str]:
    """The fields, such as paths, that a git command prints with the option -z."""
    return [field for field in printed.split("\0") if field]


def file_at(revision: str, path: str | Path) -> str:
    """The text of a file at a revision; empty where there is none."""
    return _text(try_git_bytes("show", f"{revision}:./{Path(path).as_posix()}"))


def _text(printed: bytes) -> str:
    return printed.decode(errors="surrogateescape")  # paths may be in any encoding
