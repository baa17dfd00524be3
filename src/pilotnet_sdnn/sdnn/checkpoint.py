"""The state of an unfinished training run, kept where the run finds it again however it is started.

A checkpoint is named by a fingerprint of everything the run depends on, so a changed experiment never
goes on from another's. It lies in models/checkpoints of the repository, also for `dvc exp run --temp`
and queued experiments, which run in a copy of it. DVC does not know it, so the run cache works as ever.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import zc.lockfile

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.params import Params
from pilotnet_sdnn.paths import CHECKPOINTS, repository
from pilotnet_sdnn.sdnn.network import write_tensors

CODE = sorted(path for path in Path(__file__).parent.rglob("*") if path.suffix in (".py", ".cpp"))


def checkpoint_path(params: Params, environment: dict[str, str], data: Path) -> Path:
    """Where the run keeps its state that has these parameters, this code and these data.

    Args:
        params: those that change no result do not count.
        environment: what else the result depends on, and which stage it is.
        data: the file of frames.
    """
    counts = {name: value for name, value in asdict(params).items() if name != "checkpoint_minutes"}
    fingerprint = hashlib.sha256(json.dumps({**counts, **environment}, sort_keys=True).encode())
    for path in (*CODE, data):
        with path.open("rb") as file:
            fingerprint.update(hashlib.file_digest(file, "sha256").digest())
    return repository() / CHECKPOINTS / f"{fingerprint.hexdigest()[:32]}.pt"


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint at once: there is an old one or a new one, never half of one."""
    write_tensors(path, {"run": path.stem, "state": state})


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state of the run to go on from, or None; a damaged or foreign file is reported and ignored."""
    if not path.exists():
        return None
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
        if content["run"] == path.stem:
            return content["state"]
        problem = "of another run"
    except Exception as error:  # as in network.load_network
        problem = f"damaged: {type(error).__name__}"
    print(f"{path}: ignored, it is {problem}; training starts from the beginning")
    return None


@contextmanager
def only_trainer(path: Path) -> Iterator[None]:
    """Hold the run whose checkpoint is at `path`.

    Raises:
        UserError: another process trains it, maybe one that outlived its `dvc`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock_path = path.with_suffix(".lock")
    try:
        lock = zc.lockfile.LockFile(lock_path)
    except zc.lockfile.LockError:
        process = lock_path.read_text().strip()
        raise UserError(
            f"process {process} is training this very run already (maybe it outlived its dvc); "
            f"wait for it, or end it with `kill {process}`: this command then goes on from where it was"
        ) from None
    try:
        yield
    finally:
        lock_path.unlink(missing_ok=True)
        lock.close()
