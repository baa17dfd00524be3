"""The working tree against a base revision: what git, `dvc ... diff` and the locks say about the two."""

import json
import math
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from typing import Any

from pilotnet_sdnn.errors import PROBLEM_LENGTH, UserError, one_line, shortened
from pilotnet_sdnn.paths import LOCK
from pilotnet_sdnn.team.limits import MetricChange
from pilotnet_sdnn.team.lock import locked_stages, mismatched_inputs
from pilotnet_sdnn.team.repository import commit_id, git, nul_separated, try_git

NO_DATA = ("deleted", "not in cache")  # what `dvc status` says of data that was not pulled


def merge_base(name: str) -> str:
    """The commit at which the work here left a branch, as pull requests are compared.

    Args:
        name: of a branch, tag or commit; a branch that only the remote `origin` has here is found there.

    Raises:
        UserError: there is none, or git does not have it.
    """
    fetch = "fetch it first"
    if git("rev-parse", "--is-shallow-repository") == "true":
        fetch = "this clone is shallow: `git fetch --unshallow`, or `fetch-depth: 0` in the checkout of a workflow"
    base = next(filter(commit_id, (name, f"origin/{name}")), None)
    if not base:
        raise UserError(f"{name!r} is no commit, branch or tag here; {fetch}")
    try:
        return git("merge-base", base, "HEAD")
    except UserError:
        raise UserError(f"{name!r} and HEAD have no common commit; {fetch}") from None


def changed_files(base: str, results: set[str]) -> dict[str, str]:
    """The files that differ from a base and are no results, and what happened to each.

    Untracked files count, ignored ones do not. Paths are relative to the DVC repository; a file elsewhere in a larger
    git repository begins with `../`.
    """
    states = {"A": "added", "D": "deleted"}
    fields = nul_separated(git("diff", "--name-status", "--no-renames", "-z", base))
    changed = {
        os.path.relpath(path, git("rev-parse", "--show-prefix") or "."): states.get(state, "changed")
        for state, path in zip(fields[::2], fields[1::2], strict=True)
    }
    changed |= dict.fromkeys(nul_separated(git("ls-files", "--others", "--exclude-standard", "-z")), "untracked")
    return {path: state for path, state in sorted(changed.items()) if path not in results}


def experiment_here(base: str) -> tuple[str, str] | None:
    """The experiment whose dvc.lock is the one here, and the commit it started from, if that is not the base."""
    if not LOCK.exists():
        return None
    here = git("hash-object", str(LOCK))
    found = []
    for ref in git("for-each-ref", "--format=%(refname)", "refs/exps").splitlines():
        match = re.fullmatch(r"refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/([^/]+)", ref)
        if match and try_git("rev-parse", "--verify", "--quiet", f"{ref}:./{LOCK}") == here:
            found.append((match[3], match[1] + match[2]))
    return found[0] if found and base not in [start for _, start in found] else None


def dvc_json(*arguments: str) -> dict:
    """What a dvc command prints with `--json`; its warnings go to stderr.

    Raises:
        UserError: it failed; with the error it printed.
    """
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments, "--json"], capture_output=True, text=True)
    if done.returncode:
        error = (done.stderr.partition("ERROR: ")[2] or done.stderr).partition("Traceback ")[0]
        raise UserError(f"dvc {' '.join(arguments)}: {' '.join(error.split()) or 'failed'}")
    sys.stderr.write(done.stderr)
    return json.loads(done.stdout or "{}")


def params_changes(base: str) -> dict[str, tuple[Any, Any]]:
    """The parameters that differ, as at the base and as here; None where there is none."""
    files = dvc_json("params", "diff", base)
    return {name: (change["old"], change["new"]) for params in files.values() for name, change in params.items()}


def metrics_changes(base: str) -> dict[str, MetricChange]:
    """All metrics of the base and of here, the same ones included.

    Names are as in `dvc metrics show`; the same name in two files is told apart as `file:name`.
    """
    files = dvc_json("metrics", "diff", "--all", base)
    count = Counter(name for metrics in files.values() for name in metrics)
    return {
        name if count[name] == 1 else f"{file}:{name}": MetricChange(_finite(change["old"]), _finite(change["new"]))
        for file, metrics in sorted(files.items())
        for name, change in sorted(metrics.items())
    }


def _finite(value: Any) -> float | None:
    return value if type(value) in (int, float) and -math.inf < value < math.inf else None


def stale_stages() -> dict[str, list[str]]:
    """The stages whose dvc.lock is not of the code, parameters and inputs here, and what differs.

    Data that was not pulled is no difference. `dvc status` reports it as missing; for what git ignores, that is left
    out, and dvc.lock shows instead whether each stage read what the one before it wrote.
    """
    stale: dict[str, list[str]] = {}
    status = dvc_json("status")
    for stage, entries in status.items():
        for entry in entries:
            if isinstance(entry, str):  # "changed command"
                stale.setdefault(stage, []).append(entry)
                continue
            for kind, paths in entry.items():
                for path, state in _flat(paths):
                    if state not in NO_DATA or not try_git("check-ignore", path):
                        stale.setdefault(stage, []).append(f"{kind.removeprefix('changed ')} {path} ({state})")
    for stage, path in mismatched_inputs(locked_stages(LOCK.read_text(encoding="utf-8") if LOCK.exists() else "")):
        stale.setdefault(stage, []).append(f"deps {path} (in dvc.lock it is not what its stage wrote)")
    return stale


def _flat(paths: Any) -> list[tuple[str, str]]:
    """Paths and states; parameters are one level deeper, in their file."""
    return [
        (inner, state)
        for path, value in paths.items()
        for inner, state in (value.items() if isinstance(value, dict) else [(path, value)])
    ]


def locked_versions(uv_lock: str) -> dict[str, str]:
    """Package -> version of a uv.lock, given as text.

    Raises:
        UserError: it is damaged.
    """
    try:
        return {package["name"]: package.get("version", "") for package in tomllib.loads(uv_lock).get("package", [])}
    except (tomllib.TOMLDecodeError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"uv.lock is damaged: {shortened(one_line(error), PROBLEM_LENGTH)}; `git checkout HEAD -- uv.lock` brings "
            "back the last commit's"
        ) from None
