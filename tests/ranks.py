"""Run a function in several processes that train together."""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from pilotnet_sdnn.sdnn import processes

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["pilotnet_sdnn.sdnn.training", "torch._dynamo"])  # slow imports, once for all


def in_processes(
    count: int, function: Callable, *arguments: Any, patience: timedelta = timedelta(minutes=1)
) -> list[Any]:
    """What each process returns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = [
            CONTEXT.Process(target=_run, args=(number, count, folder, patience, function, arguments))
            for number in range(count)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join()
        assert [process.exitcode for process in started] == [0] * count
        return [torch.load(folder / f"{number}.pt", weights_only=False) for number in range(count)]


def _run(number: int, count: int, folder: Path, patience: timedelta, function: Callable, arguments: tuple) -> None:
    environment = {"RANK": number, "WORLD_SIZE": count, processes.STORE: f"file://{folder}/store"}
    os.environ.update({name: str(value) for name, value in environment.items()})
    torch.set_num_threads(1)
    processes.PATIENCE = patience
    processes.started(count, main=lambda: None)
    torch.save(function(*arguments), folder / f"{number}.pt")
