"""The driver of a sweep: gives runs to the workers of a Dask cluster, one to each, until all have ended.

Dask connects the machines and notices dead workers. Which run goes where is decided here: runs that share a stage that
is not computed yet wait for it, and a worker with other packages gets none.
"""

import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from queue import Empty, SimpleQueue

from distributed import Client, Future, get_worker

from pilotnet_sdnn.errors import UserError, one_line
from pilotnet_sdnn.team.sweep_plan import Run
from pilotnet_sdnn.team.sweep_progress import Ended, Event, Lost, NoWorkers, Progress, Refused, Started
from pilotnet_sdnn.team.sweep_schedule import Schedule
from pilotnet_sdnn.team.sweep_worker import Outcome, StoppedError, Sweep, run_experiment

LOOK = 1  # seconds between looks for new and dead workers
MAX_LOSSES = 3  # workers that may die under a run until it counts as failed


def on_worker(sweep: Sweep, topic: str, run: Run, first: list[str]) -> Outcome:
    """Run an experiment in a Dask worker, until it has ended or nobody wants it any more.

    Args:
        first: addresses of stages that other runs wait for.
    """
    worker = get_worker()
    key = worker.get_current_task()

    def stopped() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state != "executing" or worker.status.name not in ("running", "paused")

    def tell(*line: str) -> None:
        worker.log_event(topic, [run.name, *line])

    try:
        return run_experiment(sweep, run, first, tell, tell, stopped)
    except StoppedError:
        return Outcome(problem="stopped")


def drive(
    client: Client,
    prepare: Callable[[], str],
    experiment: Callable[[Run, list[str]], Outcome],
    runs: Iterable[Run],
    computed: Collection[str] = (),
    topic: str = "",
) -> Generator[Event]:
    """Have the workers of a cluster run experiments, each at most one at a time.

    Workers may come and go. When the iteration is given up, so are the runs.

    Args:
        prepare: is called on each worker first, and returns why it cannot run any experiment.
        experiment: is called on a worker for each run, with the addresses of the stages that other runs wait for.
        computed: the fingerprints of stages that need not be computed.
        topic: of Dask's events, under which `experiment` reports progress.

    Raises:
        UserError: the connection to the scheduler is lost, or every worker was refused.
    """
    driver = _Driver(client, prepare, experiment, Schedule(runs, computed))
    if topic:
        client.subscribe_topic(topic, lambda event: driver.news.put(tuple(event[1])))
    try:
        while driver.running or driver.schedule.waiting:
            yield from driver.look()
            yield from driver.start()
            yield from driver.listen()
    finally:
        with contextlib.suppress(Exception):  # the scheduler may be gone
            client.cancel([*driver.checks, *driver.running])


class _Driver:
    """What the driver knows of workers and runs."""

    def __init__(
        self,
        client: Client,
        prepare: Callable[[], str],
        experiment: Callable[[Run, list[str]], Outcome],
        schedule: Schedule,
    ) -> None:
        self.client, self.prepare, self.experiment, self.schedule = client, prepare, experiment, schedule
        self.news = SimpleQueue[Future | tuple]()  # tasks that have ended, and what runs tell
        self.looked, self.workers = -math.inf, set[str]()
        self.idle = deque[str]()  # workers
        self.checks: dict[Future, str] = {}  # -> worker
        self.running: dict[Future, tuple[Run, str]] = {}  # -> worker
        self.shared: dict[str, tuple[Run, list[str]]] = {}  # name -> the stages that others wait for
        self.losses = Counter[str]()

    def look(self) -> Iterator[Event]:
        """Check workers that are new, and take back the runs of those that are gone."""
        if time.monotonic() - self.looked < LOOK:
            return
        present, first = _workers(self.client), self.looked == -math.inf
        new, gone = present - self.workers, self.workers - present
        self.looked, self.workers = time.monotonic(), present
        for worker in new:
            self.checks[self._submit(self.prepare, worker=worker)] = worker
        self.idle = deque(worker for worker in self.idle if worker in present)
        for future in [future for future, worker in self.checks.items() if worker in gone]:
            del self.checks[future]
            future.cancel()
        for future, (run, worker) in list(self.running.items()):
            if worker in gone:
                del self.running[future]
                future.cancel()
                yield self._lost(run, worker)
        if not present and (gone or first):
            yield NoWorkers(self.client.scheduler_info()["address"])

    def start(self) -> Iterator[Event]:
        """Give idle workers the next runs."""
        while self.idle and (run := self.schedule.next()):
            worker, shared = self.idle.popleft(), self.schedule.shared(run)
            self.shared[run.name] = run, shared
            first = [run.stages[stage] for stage in shared]
            self.running[self._submit(self.experiment, run, first, worker=worker)] = run, worker
            yield Started(run, worker)

    def listen(self) -> Iterator[Event]:
        """Wait a moment for something to happen."""
        try:
            news = self.news.get(timeout=LOOK)
        except Empty:
            return
        if isinstance(news, tuple):
            name, *line = news
            if line:
                yield Progress(name, *line)
            else:
                self.schedule.computed(*self.shared[name])
        elif news in self.checks:
            worker = self.checks.pop(news)
            if reason := _checked(news):
                yield Refused(worker, reason)
                if not (self.idle or self.running or self.checks):
                    raise UserError(f"no worker can run this: {worker}: {reason}")
            else:
                self.idle.append(worker)
        elif news in self.running:
            run, worker = self.running[news]
            if news.status != "finished" and worker not in _workers(self.client):
                return  # found dead at the next look
            del self.running[news]
            outcome = news.result() if news.status == "finished" else Outcome(problem=_error(news))
            self.schedule.ended(run, success=not outcome.problem)
            self.idle.append(worker)
            yield Ended(run, outcome)

    def _submit(self, function: Callable, *arguments: object, worker: str) -> Future:
        future = self.client.submit(function, *arguments, workers=[worker], pure=False)
        future.add_done_callback(self.news.put)
        return future

    def _lost(self, run: Run, worker: str) -> Event:
        self.losses[run.name] += 1
        if self.losses[run.name] < MAX_LOSSES:
            self.schedule.again(run)
            return Lost(run, worker)
        self.schedule.ended(run, success=False)
        return Ended(run, Outcome(problem=f"{MAX_LOSSES} workers died while they ran it"))


def _workers(client: Client) -> set[str]:
    try:
        return set(client.scheduler_info(n_workers=-1)["workers"])
    except (OSError, TimeoutError):
        raise UserError(
            "the connection to the scheduler is lost; what has finished is kept, and the same command continues"
        ) from None


def _checked(future: Future) -> str:
    return future.result() if future.status == "finished" else _error(future)


def _error(future: Future) -> str:
    if future.status == "cancelled":
        return "Dask cancelled it"
    error = future.exception()
    if isinstance(error, ModuleNotFoundError):
        return f"{one_line(error)}; `uv sync --locked --extra sweep` at the driver's commit there"
    return f"{type(error).__name__}: {one_line(error)}"
