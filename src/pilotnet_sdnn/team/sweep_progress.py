"""What happens in a sweep, and how a terminal or a log shows it."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tqdm import tqdm

from pilotnet_sdnn.paths import EVALUATION_METRICS, LOCK, OPERATIONS_METRICS
from pilotnet_sdnn.progress import progress
from pilotnet_sdnn.team.lock import locked_stages, mismatched_inputs
from pilotnet_sdnn.team.repository import file_at
from pilotnet_sdnn.team.sweep_plan import Run
from pilotnet_sdnn.team.sweep_worker import Outcome

NEWS = 30  # seconds between two lines about a run in a log


class NoWorkers(NamedTuple):
    """The cluster has no workers; the sweep waits for them."""

    scheduler: str


class Refused(NamedTuple):
    """A worker that gets no runs."""

    worker: str
    reason: str


class Started(NamedTuple):
    """A run that a worker has begun."""

    run: Run
    worker: str


class Progress(NamedTuple):
    """What a run printed last."""

    name: str
    line: str


class Lost(NamedTuple):
    """A run whose worker has died, and which goes elsewhere."""

    run: Run
    worker: str


class Ended(NamedTuple):
    """A run that has finished or failed."""

    run: Run
    outcome: Outcome


Event = NoWorkers | Refused | Started | Progress | Lost | Ended


@contextmanager
def displayed(total: int, finished: int, advice: str) -> Iterator[Callable[[Event], None]]:
    """Show what happens: on a terminal one line for each worker and one for all, in a log a line for each event.

    Args:
        advice: what to do when there are no workers.
    """
    workers: dict[str, str] = {}  # run -> worker
    lines: dict[str, tqdm] = {}  # worker -> its line on a terminal
    told: dict[str, float] = {}
    live = sys.stderr.isatty()

    def say(text: str) -> None:
        tqdm.write(text, file=sys.stdout)
        sys.stdout.flush()

    def line(worker: str, text: str) -> None:
        if worker not in lines:
            lines[worker] = tqdm(total=0, bar_format="{desc}", position=len(lines) + 1, leave=False, dynamic_ncols=True)
        lines[worker].set_description_str(text)

    def show(event: Event) -> None:
        match event:
            case NoWorkers():
                bar.set_description_str("sweep waits for workers")
                say(f"no workers at {event.scheduler}, waiting for them: {advice}")
            case Started():
                if bar.desc != "sweep":
                    bar.set_description_str("sweep")
                workers[event.run.name], told[event.run.name] = event.worker, time.monotonic()
                if live:
                    line(event.worker, f"{event.run.name} on {_host(event.worker)}")
                else:
                    say(f"{event.run.name}: started on {_host(event.worker)}")
            case Progress() if event.name in workers:
                text = f"{event.name} on {_host(workers[event.name])}: {event.line}"
                if live:
                    line(workers[event.name], text)
                elif time.monotonic() - told[event.name] >= NEWS:
                    told[event.name] = time.monotonic()
                    say(text)
            case Refused():
                say(f"{_host(event.worker)} gets no runs: {event.reason}")
            case Lost():
                say(f"{event.run.name}: {_host(event.worker)} is gone; the run goes elsewhere")
            case Ended():
                worker = workers.pop(event.run.name, "")
                problem = event.outcome.problem
                say(f"{event.run.name}: {f'FAILED: {problem}' if problem else _result(event.run) or 'done'}")
                if live and worker in lines:
                    line(worker, "")
                bar.update()

    with progress(total=total, initial=finished, desc="sweep", unit="run") as bar:
        try:
            yield show
        finally:
            for shown in lines.values():
                shown.close()


def _host(worker: str) -> str:
    return worker.rpartition("//")[2]


def _result(run: Run) -> str:
    """The error and the operations of a finished run, as far as it measures them."""
    if any(mismatched_inputs(locked_stages(file_at(run.reference, LOCK)))):
        return ""  # a run of some stages: the metrics are still those of its baseline
    evaluation, operations = (
        json.loads(file_at(run.reference, path) or "{}") for path in (EVALUATION_METRICS, OPERATIONS_METRICS)
    )
    found = [f"MSE {evaluation['mse']:.5f}"] if "mse" in evaluation else []
    return ", ".join(found + ([f"{operations['synops_sparsity']:.1f}x"] if "synops_sparsity" in operations else []))
