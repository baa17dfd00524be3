"""The order in which the runs of a sweep start."""

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable

from pilotnet_sdnn.team.sweep_plan import Run


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

    @property
    def waiting(self) -> bool:
        """Whether a run has not been started yet."""
        return bool(self._ready or self._blocked)

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
