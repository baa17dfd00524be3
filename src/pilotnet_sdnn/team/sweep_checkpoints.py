"""The states of unfinished trainings on the DVC remote: a run that moves to another machine resumes from them."""

import contextlib
import os
import socket
import time
from pathlib import Path

from dvc.repo import Repo

from pilotnet_sdnn.paths import CHECKPOINTS

FOLDER = "checkpoints"  # on the remote, beside its objects


class Checkpoints:
    """The checkpoints of a machine and of the remote. What cannot be transferred is left out: it only saves time."""

    def __init__(self, root: Path, home: Path, seconds: float) -> None:
        """Connect to the remote of the repository at `root`.

        Args:
            home: trainings keep their checkpoints below it.
            seconds: between two transfers; 0 for none.
        """
        self._folder, self._seconds = home / CHECKPOINTS, seconds
        self._sent = self._here() if seconds else {}  # name -> when it was written
        self._looked = time.monotonic()
        if seconds:
            remote = Repo(str(root)).cloud.get_remote()
            self._fs, self._remote = remote.fs, remote.fs.join(remote.path, FOLDER)

    def fetch(self) -> None:
        """Get the states that this machine does not have."""
        if not self._seconds:
            return
        with contextlib.suppress(Exception):  # each kind of remote raises its own
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in self._fs.find(self._remote) if self._fs.exists(self._remote) else []:
                target = self._folder / self._fs.name(path)
                if target.suffix == ".pt" and not target.exists():
                    arriving = target.with_suffix(f".{os.getpid()}.tmp")
                    self._fs.get_file(path, str(arriving))
                    arriving.replace(target)
        self._sent = self._here()

    def send(self, *, finished: bool = False) -> None:
        """Send the states that are new since the last time, if that was long enough ago, and delete finished ones."""
        if not self._seconds or (time.monotonic() - self._looked < self._seconds and not finished):
            return
        self._looked = time.monotonic()
        here = self._here()
        with contextlib.suppress(Exception):
            for name in [name for name, written in here.items() if self._sent.get(name) != written]:
                arriving = self._fs.join(self._remote, f"{name}.{socket.gethostname()}-{os.getpid()}.tmp")
                self._fs.makedirs(self._remote)
                self._fs.put_file(str(self._folder / name), arriving)
                self._fs.move(arriving, self._fs.join(self._remote, name))
                self._sent[name] = here[name]
            for name in self._sent.keys() - here.keys():
                del self._sent[name]
                self._fs.remove(self._fs.join(self._remote, name))

    def _here(self) -> dict[str, float]:
        found = {}
        for path in self._folder.glob("*.pt"):
            with contextlib.suppress(FileNotFoundError):  # its training has just finished
                found[path.name] = path.stat().st_mtime
        return found
