"""The runs that DVC knows: experiments, the commits they start from, and the workspace.

What `dvc exp show` shows is not always what was measured: a running experiment shows the metrics of the
commit it starts from until its own are written, and so does a commit or a workspace whose params.yaml was
edited and not run. Such entries are left out, with the reason.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo
from scmrepo.exceptions import SCMError

from pilotnet_sdnn.errors import NO_REPOSITORY, UserError, one_line
from pilotnet_sdnn.params import drive_name
from pilotnet_sdnn.paths import ANN_METRICS, EVALUATION_METRICS, LOCK, OPERATIONS_METRICS, PARAMS
from pilotnet_sdnn.team.lock import locked_stages, mismatched_inputs, stage_params

WORKSPACE = "workspace"


class Run(NamedTuple):
    """What one run of the pipeline measured on its test frames."""

    name: str  # of the experiment, the branch, the commit or the workspace
    params: dict[str, Any]
    mse: float  # sq. radians
    synops: float  # per frame
    macs: float  # per frame, of the ordinary network
    ann_mse: float | None  # of the ordinary network, where one was trained
    test_frames: tuple[float | None, float | None]  # how many, variance of their labels: equal for the same frames
    drive: str  # what the frames are of


class LeftOut(NamedTuple):
    """A run without a result to show."""

    name: str
    reason: str


def read_runs(folder: Path = Path()) -> tuple[list[Run], list[LeftOut]]:
    """Every finished run that DVC knows in a repository, equal ones once, and those that are left out.

    Experiments of earlier commits are among them, so that a commit does not hide a sweep.

    Raises:
        UserError: the folder is not in a repository of DVC and git.
    """
    runs: dict[Any, Run] = {}
    left_out = []
    try:
        with Repo(str(folder)) as repo:
            revs = ["HEAD", *repo.experiments.ls(all_commits=True)]
            workspace, *commits = [state.dumpd() for state in repo.experiments.show(revs=revs)]
            experiments = [entry for commit in commits for entry in _experiments(commit)]
            # Of equal runs the first is kept: an experiment rather than the commit that took it over
            for state, status in (*experiments, *((state, "") for state in (*commits, workspace))):
                name = state["name"] or state["rev"][: len(WORKSPACE)]
                result = LeftOut(name, status) if status else _result(repo, name, state)
                if isinstance(result, LeftOut):
                    left_out.append(result)
                else:
                    runs.setdefault((result.mse, result.synops, result.test_frames, repr(result.params)), result)
    except NotDvcRepoError:
        raise UserError(NO_REPOSITORY) from None
    except (DvcException, SCMError) as error:
        raise UserError(one_line(error)) from None
    return list(runs.values()), left_out


def _experiments(commit: dict) -> Iterator[tuple[dict, str]]:
    """The experiments that start from a commit; with those that did not finish, what became of them."""
    for experiment in commit["experiments"] or []:
        status = (experiment["executor"] or {}).get("state", "success")
        yield {**experiment["revs"][0], "name": experiment["name"]}, "" if status == "success" else status


def _result(repo: Repo, name: str, state: dict) -> Run | LeftOut:
    data = state["data"] or {}

    def content(kind: str, path: Path) -> dict:
        return (data.get(kind) or {}).get(path.as_posix(), {}).get("data") or {}

    def measured(path: Path, key: str) -> float | None:
        value = content("metrics", path).get(key)
        return value if isinstance(value, int | float) and math.isfinite(value) else None

    params = content("params", PARAMS)
    mse, synops = measured(EVALUATION_METRICS, "mse"), measured(OPERATIONS_METRICS, "synops_per_frame")
    macs = measured(OPERATIONS_METRICS, "macs_per_frame")
    if mse is None or synops is None or macs is None:
        return LeftOut(name, "without metrics")
    if reason := _stale(locked_stages(_read(repo, state["rev"], LOCK)), params):
        return LeftOut(name, reason)
    return Run(
        name=name,
        params=params,
        mse=mse,
        synops=synops,
        macs=macs,
        ann_mse=measured(ANN_METRICS, "ann_mse"),
        test_frames=(measured(EVALUATION_METRICS, "frames"), measured(EVALUATION_METRICS, "label_variance")),
        drive=drive_name(params),
    )


def _read(repo: Repo, rev: str, path: Path) -> str:
    """A file that git tracks, as of a revision; empty if it was not there."""
    try:
        if rev == WORKSPACE:
            return Path(repo.root_dir, path).read_text(encoding="utf-8")
        with repo.scm.get_fs(rev).open(path.as_posix(), "r", encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _stale(stages: dict[str, dict], params: dict) -> str:
    """Why a dvc.lock is not of a whole run with these parameters; empty if it is."""
    ran = {name: value for stage in stages.values() for name, value in stage_params(stage).items()}
    if any(params.get(name) != value for name, value in ran.items()):
        return "with other parameters than its last run"
    return "whose last run did not finish" if any(mismatched_inputs(stages)) else ""
