"""Git bundles, by which commits travel between repositories that cannot reach each other."""

import subprocess
import tempfile
from pathlib import Path

from pilotnet_sdnn.errors import UserError, one_line
from pilotnet_sdnn.team.repository import git

COMMITS = "refs/sweep"  # what a bundle calls commits that have no reference


def bundle_of(revisions: list[str], root: Path) -> bytes:
    """A bundle of these references, with their history; `^COMMIT` leaves out what the other side has."""
    return _piped(["bundle", "create", "-q", "-", "--stdin"], revisions, root)


def bundle_of_commits(commits: list[str], root: Path) -> bytes:
    """A bundle of these commits, with their history."""
    names = {f"{COMMITS}/{commit}": commit for commit in commits}
    try:
        _piped(["update-ref", "--stdin"], [f"update {name} {commit}" for name, commit in names.items()], root)
        return bundle_of(list(names), root)
    finally:
        _piped(["update-ref", "--stdin"], [f"delete {name}" for name in names], root)


def fetch_bundle(bundle: bytes, refs: str, root: Path) -> None:
    """Fetch references from a bundle.

    Raises:
        UserError: git refuses it.
    """
    with tempfile.NamedTemporaryFile(suffix=".bundle") as file:
        file.write(bundle)
        file.flush()
        git("fetch", "-q", file.name, refs, root=root)


def _piped(command: list[str], lines: list[str], root: Path) -> bytes:
    """What a git command prints that reads these lines.

    Raises:
        UserError: it failed; with what it printed.
    """
    text = "".join(f"{line}\n" for line in lines).encode()
    top = git("rev-parse", "--show-toplevel", root=root)  # in a subfolder, `git bundle` takes - for a file
    done = subprocess.run(["git", *command], cwd=top, input=text, capture_output=True)
    if done.returncode:
        raise UserError(f"git {command[0]}: {one_line(UserError(done.stderr.decode(errors='replace')))}")
    return done.stdout
