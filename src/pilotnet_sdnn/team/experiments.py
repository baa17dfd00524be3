"""The runs that DVC knows: experiments, the commits they start from, and the workspace.

`dvc exp show` may show metrics beside parameters that did not produce them: a running experiment has those of its base,
and so has a commit or a workspace whose params.yaml was edited and not run. Such entries are skipped, with the reason.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo
from dvc.repo.experiments.serialize import ExpState
from scmrepo.exceptions import SCMError

from pilotnet_sdnn.errors import NO_REPOSITORY, UserError, one_line
from pilotnet_sdnn.params import drive_name
from pilotnet_sdnn.paths import ANN_METRICS, EVALUATION_METRICS, LOCK, OPERATIONS_METRICS, PARAMS
from pilotnet_sdnn.team.lock import locked_stages, mismatched_inputs, stage_params

WORKSPACE = "workspace"


class Run(NamedTuple):
    """What one run of the pipeline measured on held-out road."""

    name: str  # of the experiment, the branch, the commit or the workspace
    params: dict[str, Any]
    mse: float  # sq. radians
    synops: float  # per frame
    macs: float  # per frame, of the ANN baseline
    ann_mse: float | None  # of the ANN baseline, where one was trained
    test_frames: tuple[float | None, float | None]  # how many, variance of their labels: equal for the same frames
    drive: str  # what the frames are of
    r2: float | None = None
    revision: str = WORKSPACE  # the commit with its results
    base: str = ""  # the commit that an experiment starts from
    changed: Mapping[str, Any] = {}  # its parameters that are not those of its base


class SkippedRun(NamedTuple):
    """A run without a result to show."""

    name: str
    reason: str


def read_runs(folder: Path = Path()) -> tuple[list[Run], list[SkippedRun]]:
    """Every finished run that DVC knows in a repository, and those that are skipped.

    Experiments of all commits are among them, so that a commit does not hide a sweep. The order is experiments,
    commits, the workspace.

    Raises:
        UserError: the folder is not in a repository of DVC and git.
    """
    try:
        with Repo(str(folder)) as repo:
            revs = ["HEAD", *repo.experiments.ls(all_commits=True)]
            workspace, *commits = [_dumped(state) for state in repo.experiments.show(revs=list(dict.fromkeys(revs)))]
            entries = [entry for commit in commits for entry in _experiments(commit)]
            entries += [(state, "", {}) for state in (*commits, workspace)]
            results = [
                SkippedRun(_name(state), status) if status else _result(repo, state, base)
                for state, status, base in entries
            ]
    except NotDvcRepoError:
        raise UserError(NO_REPOSITORY) from None
    except (DvcException, SCMError) as error:
        raise UserError(one_line(error)) from None
    return (
        [result for result in results if isinstance(result, Run)],
        [result for result in results if isinstance(result, SkippedRun)],
    )


def _dumped(state: ExpState) -> dict:
    """A commit or the workspace as `dvc exp show --json` has it; without its data where DVC could not read them."""
    try:
        return state.dumpd()
    except TypeError:  # DVC cannot copy its own error about a file that is not UTF-8
        return {"name": state.name, "rev": state.rev, "data": None, "experiments": None}


def distinct(runs: list[Run]) -> list[Run]:
    """The first of runs with equal parameters and results: an experiment, not the commit that took it over."""
    found: dict[Any, Run] = {}
    for run in runs:
        found.setdefault((run.mse, run.synops, run.test_frames, repr(run.params)), run)
    return list(found.values())


def _name(state: dict) -> str:
    return state["name"] or state["rev"][: len(WORKSPACE)]


def _experiments(commit: dict) -> Iterator[tuple[dict, str, dict]]:
    """The experiments of a commit, what became of those that did not finish, and the commit."""
    for experiment in commit["experiments"] or []:
        status = (experiment["executor"] or {}).get("state", "success")
        yield {**experiment["revs"][0], "name": experiment["name"]}, "" if status == "success" else status, commit


def _content(state: dict, kind: str, path: Path) -> dict:
    return ((state["data"] or {}).get(kind) or {}).get(path.as_posix(), {}).get("data") or {}


def _result(repo: Repo, state: dict, base: dict) -> Run | SkippedRun:
    def measured(path: Path, key: str) -> float | None:
        value = _content(state, "metrics", path).get(key)
        return value if isinstance(value, int | float) and math.isfinite(value) else None

    params = _content(state, "params", PARAMS)
    mse, synops = measured(EVALUATION_METRICS, "mse"), measured(OPERATIONS_METRICS, "synops_per_frame")
    macs = measured(OPERATIONS_METRICS, "macs_per_frame")
    if mse is None or synops is None or macs is None:
        return SkippedRun(_name(state), "without metrics")
    if reason := _stale(locked_stages(_read(repo, state["rev"], LOCK)), params):
        return SkippedRun(_name(state), reason)
    before = _content(base, "params", PARAMS) if base else params
    return Run(
        name=_name(state),
        params=params,
        mse=mse,
        synops=synops,
        macs=macs,
        ann_mse=measured(ANN_METRICS, "ann_mse"),
        test_frames=(measured(EVALUATION_METRICS, "frames"), measured(EVALUATION_METRICS, "label_variance")),
        drive=drive_name(params),
        r2=measured(EVALUATION_METRICS, "r2"),
        revision=state["rev"],
        base=base.get("rev", ""),
        changed={name: value for name, value in params.items() if name not in before or before[name] != value},
    )


def _read(repo: Repo, rev: str, path: Path) -> str:
    """A file that git tracks, as of a revision; empty if it was not there."""
    try:
        if rev == WORKSPACE:
            return Path(repo.root_dir, path).read_text(encoding="utf-8")
        from_git_root = Path(repo.root_dir, path).relative_to(repo.scm.root_dir)
        with repo.scm.get_fs(rev).open(from_git_root.as_posix(), "r", encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _stale(stages: dict[str, dict], params: dict) -> str:
    """Why a dvc.lock does not record a full run with these parameters; empty if it does."""
    ran = {name: value for stage in stages.values() for name, value in stage_params(stage).items()}
    if any(params.get(name) != value for name, value in ran.items()):
        return "with other parameters than its last run"
    return "whose last run did not finish" if any(mismatched_inputs(stages)) else ""
