"""Training states that outlive a killed run: the next start resumes from them.

A checkpoint's name is a fingerprint of all that the run depends on, so an experiment never resumes from another
one's. It lies in models/checkpoints of the repository, also for `dvc exp run --temp` and queued experiments, which
run in a copy of it. DVC does not know this folder, so its run cache works as usual.

The state of a finished run stays. A `dvc` that was killed before it recorded the outputs then takes them over at its
next start and does not train again.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import zc.lockfile

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.params import read_mapping
from pilotnet_sdnn.paths import CHECKPOINTS, ENVIRONMENT, LOCK, PIPELINE, repository
from pilotnet_sdnn.sdnn.network import tensor_bytes, write_tensors
from pilotnet_sdnn.sdnn.processes import rank

FINISHED_STATES = 8  # kept, the newest ones; about 7 MB each


def checkpoint_path(stage: str, environment: dict[str, str]) -> Path:
    """Where a stage keeps the state of a run with the present parameters, code and data.

    The fingerprint covers the parameters and dependencies that dvc.yaml declares for the stage: DVC runs it again when
    they change, and no other change makes another run of it.

    Args:
        stage: its name in dvc.yaml.
        environment: what else the result depends on.
    """
    definition = read_mapping(PIPELINE)["stages"][stage]
    values = [
        [read_mapping(Path(file)).get(name) for name in names]
        for declared in definition["params"]
        for file, names in declared.items()
    ]
    libraries = [name for declared in definition["params"] for name in declared.get(ENVIRONMENT.as_posix(), [])]
    values.append([version(name) for name in libraries])  # the installed ones, which may differ from the locked ones
    fingerprint = hashlib.sha256(json.dumps([stage, values, environment], sort_keys=True).encode())
    for path in _files(definition["deps"]):
        with path.open("rb") as file:
            fingerprint.update(hashlib.file_digest(file, "sha256").digest())
    return repository() / CHECKPOINTS / f"{fingerprint.hexdigest()[:32]}.pt"


def _files(dependencies: list[str]) -> Iterator[Path]:
    """The files, and all files of the folders, without Python's caches."""
    for path in map(Path, dependencies):
        yield from sorted(file for file in path.rglob("*.*") if file.suffix != ".pyc") if path.is_dir() else [path]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint atomically: the old one or the new one exists, never half of one."""
    write_tensors(path, {"run": path.stem, "state": state})


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state to resume from, or None; a damaged or foreign file is reported and ignored."""
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
def only_trainer(path: Path) -> Iterator[Path]:
    """Hold the run whose checkpoint is at `path`, until its outputs are written; process 0 does so for all.

    Raises:
        UserError: another process trains it, perhaps one that outlived its `dvc`.
    """
    if rank():
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock_path = path.with_suffix(".lock")
    try:
        lock = zc.lockfile.LockFile(lock_path)
    except zc.lockfile.LockError:
        process = lock_path.read_text().strip()
        raise UserError(
            f"process {process} is already training this run (it may have outlived its dvc); wait for it, or end it "
            f"with `kill {process}`: this command then resumes from its state"
        ) from None
    try:
        _retrieve_finished(path)
        yield path
        _retire(path)
    finally:
        lock_path.unlink(missing_ok=True)
        lock.close()


def _retrieve_finished(path: Path) -> None:
    """Bring back the state of a finished run whose outputs DVC has not recorded, if there is one."""
    finished = _finished(path)
    if not finished.exists():
        return
    finished.replace(path)
    state = load_checkpoint(path)
    if state and hashlib.md5(tensor_bytes(state["kept_weights"])).hexdigest() in _lock_text():
        path.unlink()  # `dvc repro --force` asks for another training


def _lock_text() -> str:
    return LOCK.read_text(encoding="utf-8") if LOCK.exists() else ""


def _retire(path: Path) -> None:
    """Keep the state of a finished run for the `dvc` that started it, if one did."""
    if "DVC_STAGE" not in os.environ:
        path.unlink(missing_ok=True)
        return
    path.replace(_finished(path))
    states = sorted(path.parent.glob(f"*{_finished(path).suffix}"), key=lambda state: state.stat().st_mtime)
    for state in states[:-FINISHED_STATES]:
        state.unlink(missing_ok=True)


def _finished(path: Path) -> Path:
    return path.with_suffix(".finished")
