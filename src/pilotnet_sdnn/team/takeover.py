"""Take an experiment over: apply its parameters and results to the present commit, and none of its other files.

`dvc exp apply` puts every file back as it was when the experiment started, and so undoes later commits.
"""

import json
import subprocess
import sys

from dvc.repo import Repo
from dvc.utils.serialize import modify_yaml

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.files import write_text
from pilotnet_sdnn.params import read_mapping
from pilotnet_sdnn.paths import EVALUATION_METRICS, LOCK, OPERATIONS_METRICS, PARAMS
from pilotnet_sdnn.team.experiments import Run
from pilotnet_sdnn.team.repository import file_at, git, nul_separated


def find_run(runs: list[Run], name: str) -> Run:
    """The experiment with this name, or whose commit begins with it.

    Raises:
        UserError: there is none, or more than one.
    """
    experiments = [run for run in runs if run.base]
    found = [run for run in experiments if run.name == name]
    found = found or [run for run in experiments if len(name) >= 6 and run.revision.startswith(name)]
    if not found:
        raise UserError(f"no finished experiment {name!r}; `sdnn-runs` lists them")
    if len(found) > 1:
        commits = ", ".join(f"{run.revision[:8]} (base {run.base[:8]})" for run in found)
        raise UserError(f"{len(found)} experiments are called {name!r}; name one by its commit: {commits}")
    return found[0]


def take_params(run: Run, runs: list[Run]) -> None:
    """Give params.yaml of the present commit the values that a run changed.

    Raises:
        UserError: params.yaml has edits that no run has, or lacks a parameter of the run.
    """
    if git("status", "--porcelain", "--", str(PARAMS)) and read_mapping(PARAMS) not in [other.params for other in runs]:
        raise UserError(f"{PARAMS} has changes that no run has: commit them, or `git restore {PARAMS}`")
    committed = file_at("HEAD", PARAMS)
    write_text(PARAMS, committed)
    if missing := [name for name in run.changed if name not in read_mapping(PARAMS)]:
        raise UserError(f"{PARAMS} here has no {', '.join(missing)}, which {run.name} changed: its code is not here")
    with modify_yaml(str(PARAMS)) as params:
        params.update(run.changed)


def reproduce() -> None:
    """Restore the results from the run cache, or run what the code or the data here have changed.

    Raises:
        UserError: `dvc repro` failed.
    """
    if subprocess.run([sys.executable, "-m", "dvc", "repro"]).returncode:
        raise UserError(f"dvc repro failed; {PARAMS} has the parameters, and `dvc repro` resumes")


def differences(run: Run) -> list[str]:
    """How the workspace differs from the run: files that it changed and that were not taken, and other results."""
    with Repo() as repo:
        results = {str(LOCK), str(PARAMS), *(out.def_path for out in repo.index.outs)}
    names = set(nul_separated(git("diff", "--name-only", "--relative", "-z", run.base, run.revision))) - results
    lines = [f"not taken, although the run changed it: {name}" for name in sorted(names)]
    for path, key, there in (
        (EVALUATION_METRICS, "mse", run.mse),
        (OPERATIONS_METRICS, "synops_per_frame", run.synops),
    ):
        here = json.loads(path.read_text(encoding="utf-8")).get(key)
        if here != there:
            lines.append(f"{key} is {here} here and {there} in the run: code, data or other parameters differ")
    return lines
