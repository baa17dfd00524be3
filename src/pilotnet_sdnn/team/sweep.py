"""The driver of a sweep: gives runs to the workers of a Dask cluster, one to each, until all have ended.

Dask connects the machines and notices dead workers. Which run goes where is decided here: runs that share a stage that
is not computed yet wait for each other, and a worker with other packages gets none.
"""

import contextlib
import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Generator, Iterable
from queue import Empty, SimpleQueue

from distributed import Client, Future, get_worker

from pilotnet_sdnn.errors import UserError, one_line
from pilotnet_sdnn.team.sweep_plan import Run
from pilotnet_sdnn.team.sweep_progress import Ended, Event, Lost, NoWorkers, Progress, Refused, Started
from pilotnet_sdnn.team.sweep_worker import Outcome, StoppedError, Sweep, run_experiment

LOOK = 1  # seconds between looks for new and dead workers
MAX_LOSSES = 3  # workers that may die under a run until it counts as failed


class Schedule:
    """The runs that wait, in an order in which no stage is computed twice.

    A run that needs a stage which another run is computing waits until that one has it.
    """

    def __init__(self, runs: Iterable[Run], computed: Collection[str]) -> None:
        self._ready = deque(runs)
        self._blocked: dict[str, list[Run]] = defaultdict(list)  # stage -> the runs that wait for it
        self._computing: dict[str, str] = {}  # stage -> name of the run
        self._computed = set(computed)
        self._needed = Counter(stage for run in self._ready for stage in run.stages)  # by runs that wait

    def next(self) -> Run | None:
        """A run that may start, or None: all the others wait for one that was started."""
        while self._ready:
            run = self._ready.popleft()
            needed = run.stages.keys() - self._computed
            if busy := next((stage for stage in needed if stage in self._computing), None):
                self._blocked[busy].append(run)
                continue
            self._computing |= dict.fromkeys(needed, run.name)
            self._needed.subtract(run.stages.keys())
            return run
        return None

    def shared(self, run: Run) -> list[str]:
        """The stages that a run computes and others wait for."""
        return [stage for stage in run.stages if self._computing.get(stage) == run.name and self._needed[stage] > 0]

    def computed(self, run: Run, stages: Collection[str]) -> None:
        """A run that was started has computed these stages, and others can use them."""
        self._computed.update(stages)
        self._release(run, stages)

    def ended(self, run: Run, *, success: bool) -> None:
        """A run that was started has ended."""
        if success:
            self._computed.update(run.stages)
        self._release(run, run.stages)

    def again(self, run: Run) -> None:
        """A run that was started and is to be started once more."""
        self.ended(run, success=False)
        self._ready.appendleft(run)
        self._needed.update(run.stages.keys())

    def _release(self, run: Run, stages: Collection[str]) -> None:
        """The runs that waited for these stages may start."""
        for stage in stages:
            if self._computing.get(stage) == run.name:
                del self._computing[stage]
                self._ready.extendleft(reversed(self._blocked.pop(stage, [])))


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
    schedule, events = Schedule(runs, computed), SimpleQueue[Future | tuple]()
    if topic:
        client.subscribe_topic(topic, lambda event: events.put(tuple(event[1])))
    checks: dict[Future, str] = {}
    running: dict[Future, tuple[Run, str]] = {}
    shared: dict[str, tuple[Run, list[str]]] = {}
    known: set[str] | None = None
    idle: deque[str] = deque()
    losses: Counter[str] = Counter()
    looked, waiting = -math.inf, schedule.next()

    def submit(function: Callable, *arguments: object, worker: str) -> Future:
        future = client.submit(function, *arguments, workers=[worker], pure=False)
        future.add_done_callback(events.put)
        return future

    try:
        while waiting or running:
            if time.monotonic() - looked >= LOOK:
                looked = time.monotonic()
                present = _workers(client)
                for worker in present - (known or set()):
                    checks[submit(prepare, worker=worker)] = worker
                for future, worker in list(checks.items()):
                    if worker not in present:
                        del checks[future]
                        future.cancel()
                for future, (run, worker) in list(running.items()):
                    if worker not in present:
                        del running[future]
                        future.cancel()
                        losses[run.name] += 1
                        if losses[run.name] < MAX_LOSSES:
                            schedule.again(run)
                            yield Lost(run, worker)
                        else:
                            schedule.ended(run, success=False)
                            yield Ended(run, Outcome(problem=f"{MAX_LOSSES} workers died while they ran it"))
                idle = deque(worker for worker in idle if worker in present)
                if not present and known != present:
                    yield NoWorkers(client.scheduler_info()["address"])
                known = present
                waiting = waiting or schedule.next()
            while idle and waiting:
                worker = idle.popleft()
                shared[waiting.name] = waiting, schedule.shared(waiting)
                first = [waiting.stages[stage] for stage in shared[waiting.name][1]]
                running[submit(experiment, waiting, first, worker=worker)] = (waiting, worker)
                yield Started(waiting, worker)
                waiting = schedule.next()
            try:
                event = events.get(timeout=LOOK)
            except Empty:
                continue
            if isinstance(event, tuple):
                name, *line = event
                if line:
                    yield Progress(name, *line)
                else:
                    schedule.computed(*shared[name])
                    waiting = waiting or schedule.next()
            elif event in checks:
                worker = checks.pop(event)
                if reason := _checked(event):
                    yield Refused(worker, reason)
                    if not (idle or running or checks):
                        raise UserError(f"no worker can run this: {worker}: {reason}")
                else:
                    idle.append(worker)
            elif event in running:
                run, worker = running[event]
                if event.status != "finished" and worker not in _workers(client):
                    continue  # found dead at the next look
                del running[event]
                outcome = event.result() if event.status == "finished" else Outcome(problem=_error(event))
                schedule.ended(run, success=not outcome.problem)
                idle.append(worker)
                yield Ended(run, outcome)
                waiting = waiting or schedule.next()
    finally:
        with contextlib.suppress(Exception):  # the scheduler may be gone
            client.cancel([*checks, *running])


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
