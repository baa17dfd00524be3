"""What git says about a repository, for callers to whom a failure means nothing to see."""

import subprocess
from pathlib import Path


def git_bytes(root: Path, *arguments: str) -> bytes:
    """What a git command prints; nothing where it fails."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True)
    return done.stdout if done.returncode == 0 else b""


def git_text(root: Path, *arguments: str) -> str:
    """The same as text, without the line ends around it."""
    return git_bytes(root, *arguments).decode(errors="replace").strip("\n")


def git_paths(root: Path, *arguments: str) -> list[str]:
    """The paths that a git command with the option -z prints."""
    return [path for path in git_bytes(root, *arguments).decode(errors="surrogateescape").split("\0") if path]
