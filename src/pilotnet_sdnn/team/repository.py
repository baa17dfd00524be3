"""The root of the DVC repository, which may be a folder of a larger git repository.

Commands work from there, whichever folder they are called in. Paths that git is given or gives count from the root.
"""

import os
import subprocess
from pathlib import Path

from dvc.exceptions import NotDvcRepoError
from dvc.repo import Repo

from pilotnet_sdnn.errors import NO_REPOSITORY, UserError, one_line


def enter_root() -> Path:
    """Make the root of the DVC repository the current folder.

    Returns:
        The folder it was before.

    Raises:
        UserError: the current folder is in no DVC repository.
    """
    before = Path.cwd()
    try:
        os.chdir(Repo.find_root())
    except NotDvcRepoError:
        raise UserError(NO_REPOSITORY) from None
    return before


def git(*arguments: str) -> str:
    """What a git command prints, without the line ends around it.

    Raises:
        UserError: it failed; with what it printed.
    """
    done = subprocess.run(["git", *arguments], capture_output=True)
    if done.returncode:
        reason = one_line(UserError(done.stderr.decode(errors="replace"))) if done.stderr.strip() else "failed"
        raise UserError(f"git {' '.join(arguments)}: {reason}")
    return done.stdout.decode(errors="surrogateescape").strip("\n")


def git_paths(*arguments: str) -> list[str]:
    """What a git command with the option -z prints, one string for each field."""
    return [field for field in git(*arguments).split("\0") if field]


def file_at(revision: str, path: str | Path) -> str:
    """The text of a file at a revision; empty where there is none."""
    try:
        return git("show", f"{revision}:./{Path(path).as_posix()}") + "\n"
    except UserError:
        return ""
