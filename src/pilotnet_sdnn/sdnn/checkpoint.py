"""The state of a training run, kept where the next start of a killed run finds it.

A checkpoint is named by a fingerprint of all that the run depends on, so an experiment never resumes from
another one's. It lies in models/checkpoints of the repository, also for `dvc exp run --temp` and queued
experiments, which run in a copy of it. DVC does not know this folder, so the run cache works as ever.

The state of a finished run stays: a `dvc` that was killed before it recorded the outputs takes them over
when it is started again, instead of training once more.
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

FINISHED_STATES = 8  # that are kept, the newest ones; each has about 7 MB


def checkpoint_path(stage: str, environment: dict[str, str]) -> Path:
    """Where a stage keeps its state that runs with the present parameters, code and data.

    What counts are the parameters and dependencies that dvc.yaml declares for the stage: DVC runs it again
    when they change, and no other change makes it another run.

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
    values.append([version(name) for name in libraries])  # as installed, which may not be as locked
    fingerprint = hashlib.sha256(json.dumps([stage, values, environment], sort_keys=True).encode())
    for path in _files(definition["deps"]):
        with path.open("rb") as file:
            fingerprint.update(hashlib.file_digest(file, "sha256").digest())
    return repository() / CHECKPOINTS / f"{fingerprint.hexdigest()[:32]}.pt"


def _files(dependencies: list[str]) -> Iterator[Path]:
    """The files and the files of the folders, without Python's own caches."""
    for path in map(Path, dependencies):
        yield from sorted(file for file in path.rglob("*.*") if file.suffix != ".pyc") if path.is_dir() else [path]


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Replace the checkpoint at once: there is an old one or a new one, never half of one."""
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
    """Hold the run whose checkpoint is at `path`, until its outputs are written.

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
            f"process {process} is training this very run already (maybe it outlived its dvc); wait for it, or end "
            f"it with `kill {process}`: this command then takes over what it has done"
        ) from None
    try:
        _retrieve_finished(path)
        yield path
        _retire(path)
    finally:
        lock_path.unlink(missing_ok=True)
        lock.close()


def _retrieve_finished(path: Path) -> None:
    """Put the state of a finished run back, if there is one whose outputs DVC has not recorded."""
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
    """Keep the state of a run that is finished for the `dvc` that started it, if one did."""
    if "DVC_STAGE" not in os.environ:
        path.unlink(missing_ok=True)
        return
    path.replace(_finished(path))
    states = sorted(path.parent.glob(f"*{_finished(path).suffix}"), key=lambda state: state.stat().st_mtime)
    for state in states[:-FINISHED_STATES]:
        state.unlink(missing_ok=True)


def _finished(path: Path) -> Path:
    return path.with_suffix(".finished")
