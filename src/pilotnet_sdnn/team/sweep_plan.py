"""The runs of a sweep: which there are, which are done, and which stages they share."""

import hashlib
import json
import re
import tempfile
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import networkx
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from hydra.errors import HydraException

from pilotnet_sdnn.errors import UserError, one_line
from pilotnet_sdnn.params import parse_mapping
from pilotnet_sdnn.paths import LOCK, PARAMS, PIPELINE
from pilotnet_sdnn.team.lock import locked_stages, mismatched_inputs
from pilotnet_sdnn.team.repository import git, try_git, try_git_bytes

MAX_NAME = 100  # characters
PLAIN = r"[A-Za-z]\w*=-?[A-Za-z0-9]+(\.[0-9]+)?(e-[0-9]+)?"  # values that a name shows as they are


class Run(NamedTuple):
    """An experiment to run somewhere."""

    name: str
    baseline: str  # the commit it starts from
    source: str  # the commit with its files: the baseline, or what `dvc exp run --queue` stashed
    overrides: tuple[str, ...] = ()  # as `dvc exp run -S` takes them
    params: str = ""  # its parameters, as JSON
    stages: frozenset[str] = frozenset()  # a fingerprint of each stage with all that it is computed from

    @property
    def reference(self) -> str:
        """Where git has the experiment once it has run."""
        return str(ExpRefInfo(self.baseline, self.name))


class _Stage(NamedTuple):
    address: str
    params: list[tuple[str, list[str]]]  # file, names; no names stand for all
    upstream: list[str]


def grid(repo: Repo, set_params: list[str]) -> list[Run]:
    """One run for each combination of values, by DVC's own rules, named after them; combinations that are equal once.

    Raises:
        UserError: a parameter or a value is wrong, or tracked files were changed since the last commit.
    """
    root = Path(repo.root_dir)
    if changed := try_git("diff", "--name-only", "HEAD", "--", ".", root=root).splitlines():
        raise UserError(
            f"{', '.join(changed[:3])}{' and others' if changed[3:] else ''}: not committed, and workers run the last "
            "commit. Commit or drop the changes, or queue them: `dvc exp run --queue -S ...`, `sdnn-sweep --queued`"
        )
    baseline, pipeline, runs = git("rev-parse", "HEAD", root=root), _pipeline(repo), dict[str, Run]()
    try:
        combinations = get_hydra_sweeps(to_path_overrides(set_params))
        for combination in combinations:
            values = _with_overrides(root, combination)
            params = json.dumps(values, sort_keys=True, default=str)
            overrides = tuple(
                override if file == PARAMS.name else f"{file}:{override}"
                for file, listed in combination.items()
                for override in listed
            )
            run = Run(_name(overrides), baseline, baseline, overrides, params, _stages(pipeline, values, baseline))
            runs.setdefault(params, run)
    except (DvcException, HydraException) as error:
        raise UserError(f"-S: {one_line(error.__cause__ or error)}") from None
    return list(runs.values())


def queued(repo: Repo) -> list[Run]:
    """The experiments that `dvc exp run --queue` has queued.

    Raises:
        UserError: DVC is running its queue, so that both would run the same.
    """
    root, queue, pipeline = Path(repo.root_dir), repo.experiments.celery_queue, _pipeline(repo)
    if active := [entry.name or entry.stash_rev[:7] for entry in queue.iter_active()]:
        raise UserError(f"`dvc queue` is running {active[0]} in this repository; wait, or end it with `dvc queue stop`")
    runs = []
    for entry in queue.iter_queued():
        text = try_git_bytes("show", f"{entry.stash_rev}:./{PARAMS}", root=root)
        values = {PARAMS.name: parse_mapping(PARAMS, text.decode(errors="replace")) if text else {}}
        changed = try_git(
            "diff", "--name-only", "--relative", entry.baseline_rev, entry.stash_rev, "--", ".", root=root
        )
        edits = [path for path in changed.splitlines() if path != PARAMS.name and not path.startswith(".dvc/")]
        code = entry.stash_rev if edits else entry.baseline_rev
        stages = _stages(pipeline, values, code)
        params = json.dumps(values, sort_keys=True, default=str)
        runs.append(Run(entry.name, entry.baseline_rev, entry.stash_rev, (), params, stages))
    return runs


def done(repo: Repo, runs: list[Run]) -> list[Run]:
    """Those of the runs that DVC has as experiments.

    Raises:
        UserError: an experiment of the same name has other parameters.
    """
    root = Path(repo.root_dir)
    there = set(git("for-each-ref", "--format=%(refname)", "refs/exps", root=root).splitlines())
    finished = [run for run in runs if run.reference in there]
    for run in finished:
        for file, values in json.loads(run.params).items():
            text = try_git_bytes("show", f"{run.reference}:./{file}", root=root).decode(errors="replace")
            if json.loads(json.dumps(parse_mapping(Path(file), text), default=str)) != values:
                raise UserError(
                    f"experiment {run.name} exists with another {file}; `dvc exp remove {run.name}` or "
                    f"`dvc exp rename {run.name} NAME` makes room"
                )
    return finished


def computed_stages(repo: Repo) -> frozenset[str]:
    """The stages, as fingerprints, that need not run again for the last commit's parameters: their outputs are here."""
    root, locked = Path(repo.root_dir), locked_stages(_text(Path(repo.root_dir, LOCK)))
    outdated = {name for name, _ in mismatched_inputs(locked)}
    produced = {out.fs_path for out in repo.index.outs}
    current: set[str] = set()
    pipeline = _pipeline(repo)
    by_address = {_address(stage): stage for stage in repo.index.stages}
    for address, _, upstream in pipeline:
        stage = by_address[address]
        if (
            address in locked
            and address not in outdated
            and current.issuperset(upstream)
            and not any(dep.workspace_status() for dep in stage.deps if dep.fs_path not in produced or _is_params(dep))
            and all(repo.cache.local.exists(out.hash_info.value) for out in stage.outs if out.use_cache)
        ):
            current.add(address)
    fingerprints = _fingerprints(pipeline, _with_overrides(root, {}), git("rev-parse", "HEAD", root=root))
    return frozenset(fingerprints[address] for address in current)


class Schedule:
    """The runs that wait, in an order in which no stage is computed twice.

    A run that needs a stage which another run is computing waits for that one.
    """

    def __init__(self, runs: Iterable[Run], computed: Collection[str]) -> None:
        self._ready = deque(runs)
        self._blocked: dict[str, list[Run]] = defaultdict(list)  # stage -> the runs that wait for it
        self._computing: dict[str, str] = {}  # stage -> name of the run
        self._computed = set(computed)

    def next(self) -> Run | None:
        """A run that may start, or None: all the others wait for one that was started."""
        while self._ready:
            run = self._ready.popleft()
            needed = run.stages - self._computed
            if busy := next((stage for stage in needed if stage in self._computing), None):
                self._blocked[busy].append(run)
                continue
            self._computing |= dict.fromkeys(needed, run.name)
            return run
        return None

    def ended(self, run: Run, *, success: bool) -> None:
        """A run that was started has ended; the runs that waited for it may start."""
        for stage in run.stages:
            if self._computing.get(stage) == run.name:
                del self._computing[stage]
                self._ready.extendleft(reversed(self._blocked.pop(stage, [])))
        if success:
            self._computed |= run.stages

    def again(self, run: Run) -> None:
        """A run that was started and is to be started once more."""
        self.ended(run, success=False)
        self._ready.appendleft(run)


def _address(stage: Any) -> str:
    """Its name in dvc.yaml; the path of a .dvc file."""
    return getattr(stage, "name", None) or stage.path


def _is_params(dependency: object) -> bool:
    return isinstance(dependency, ParamsDependency)


def _pipeline(repo: Repo) -> list[_Stage]:
    """The stages, each after those it depends on."""
    graph = repo.index.graph
    return [
        _Stage(
            _address(stage),
            [(dep.def_path, sorted(dep.params)) for dep in stage.deps if _is_params(dep)],
            [_address(other) for other in graph.successors(stage)],
        )
        for stage in networkx.dfs_postorder_nodes(graph)
    ]


def _fingerprints(pipeline: list[_Stage], values: Mapping[str, Any], code: str) -> dict[str, str]:
    fingerprints: dict[str, str] = {}
    for address, params, upstream in pipeline:
        used = [[_value(values.get(file, {}), name) for name in names or [""]] for file, names in params]
        content = [address, code, used, [fingerprints[name] for name in sorted(upstream)]]
        fingerprints[address] = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    return fingerprints


def _stages(pipeline: list[_Stage], values: Mapping[str, Any], code: str) -> frozenset[str]:
    return frozenset(_fingerprints(pipeline, values, code).values())


def _value(values: Any, name: str) -> Any:
    """A parameter by its dotted name; all of them by an empty one."""
    for part in filter(None, name.split(".")):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _with_overrides(root: Path, overrides: Mapping[str, list[str]]) -> dict[str, dict]:
    """The parameter files, as DVC would write them."""
    values = {}
    for file in overrides.keys() | {PARAMS.name}:
        if not (root / file).is_file():
            raise UserError(f"-S: there is no {file} beside {PIPELINE}")
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, Path(file).name)
            copy.write_bytes((root / file).read_bytes())
            if file in overrides:
                apply_overrides(copy, overrides[file])
            values[file] = parse_mapping(Path(file), copy.read_text(encoding="utf-8"))
    return values


def _name(overrides: Iterable[str]) -> str:
    """`lam-0.05-threshold-0.1`; with a hash, where values have characters that a git reference may not have."""
    written = ",".join(overrides)
    name = re.sub(r"[^A-Za-z0-9._-]", "-", written)
    if re.fullmatch(rf"{PLAIN}(,{PLAIN})*", written) and len(name) <= MAX_NAME:
        return name
    short = re.sub(r"[-.]{2,}", "-", name)[:MAX_NAME].strip("-.")
    return f"{short}-{hashlib.sha256(written.encode()).hexdigest()[:6]}"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
