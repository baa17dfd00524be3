"""The dvc commands and the stages that run in a repository or in an experiment's copy of it."""

from collections.abc import Iterator
from pathlib import Path

import psutil


def running_in(root: Path) -> Iterator[psutil.Process]:
    """The processes whose current folder is in the repository."""
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(root) and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):  # ended meanwhile, or another user's
            continue


def dvc_processes(root: Path) -> list[psutil.Process]:
    return [process for process in running_in(root) if is_dvc(process)]


def orphan_stages(root: Path) -> list[psutil.Process]:
    """Stages whose dvc is no longer among their ancestors; dvc marks a stage by the variable DVC_STAGE."""
    stages = [process for process in running_in(root) if _is_stage(process)]
    with_dvc = {process.pid for process in stages if any(map(is_dvc, _parents(process)))}
    helpers = {process.pid for process in stages if process.ppid() in {other.pid for other in stages}}
    return [process for process in stages if process.pid not in with_dvc | helpers]


def is_dvc(process: psutil.Process) -> bool:
    """Whether it is `dvc`, `python .../dvc` or `python -m dvc`."""
    try:
        return any(Path(argument).name == "dvc" for argument in process.cmdline()[:3])
    except psutil.Error:
        return False


def command_of(process: psutil.Process) -> str:
    """What a process runs, as a person would have typed it."""
    try:
        program, *arguments = process.cmdline()
        if arguments and Path(arguments[0]).name == "dvc":
            program, *arguments = arguments
        return " ".join([Path(program).name, *arguments])
    except (psutil.Error, ValueError):
        return "?"


def _parents(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.parents()
    except psutil.Error:
        return []


def _is_stage(process: psutil.Process) -> bool:
    try:
        started = any(argument.startswith("pilotnet_sdnn.stages.") for argument in process.cmdline())
        return started and "DVC_STAGE" in process.environ()
    except psutil.Error:
        return False
