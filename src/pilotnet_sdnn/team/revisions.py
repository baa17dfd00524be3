"""The working tree against a base revision: what git, `dvc ... diff` and the locks say about the two."""

import json
import math
import subprocess
import sys
import tomllib
from collections import Counter
from typing import Any

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.paths import LOCK
from pilotnet_sdnn.team.limits import Change
from pilotnet_sdnn.team.lock import locked_stages, mismatched_inputs

NO_DATA = ("deleted", "not in cache")  # how `dvc status` calls data that was not pulled


def git(*arguments: str) -> str:
    """What a git command prints.

    Raises:
        UserError: it failed; with what it printed.
    """
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"git {' '.join(arguments)}: {' '.join(done.stderr.split()) or 'failed'}")
    return done.stdout.strip()


def merge_base(base: str) -> str:
    """The commit at which the work here left `base`, as pull requests are compared.

    Raises:
        UserError: there is none, or git does not have it.
    """
    fetch = "fetch it first"
    if git("rev-parse", "--is-shallow-repository") == "true":
        fetch = "this clone is shallow: `git fetch --unshallow`, or `fetch-depth: 0` in the checkout of a workflow"
    try:
        git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}")
    except UserError:
        raise UserError(f"{base!r} is no commit, branch or tag here; {fetch}") from None
    try:
        return git("merge-base", base, "HEAD")
    except UserError:
        raise UserError(f"{base!r} and HEAD have no common commit; {fetch}") from None


def file_at(revision: str, path: str) -> str:
    """The text of a file at a revision; empty where there is none."""
    done = subprocess.run(["git", "show", f"{revision}:{path}"], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else ""


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


def metrics_changes(base: str) -> dict[str, Change]:
    """All metrics of the base and of here, the same ones included.

    Names are as in `dvc metrics show`; the same name in two files is told apart as `file:name`.
    """
    files = dvc_json("metrics", "diff", "--all", base)
    count = Counter(name for metrics in files.values() for name in metrics)
    return {
        name if count[name] == 1 else f"{file}:{name}": Change(_number(change["old"]), _number(change["new"]))
        for file, metrics in sorted(files.items())
        for name, change in sorted(metrics.items())
    }


def _number(value: Any) -> float | None:
    return value if type(value) in (int, float) and math.isfinite(value) else None


def stale_stages() -> dict[str, list[str]]:
    """The stages whose dvc.lock is not of the code, parameters and inputs here, and what differs.

    Data that was not pulled is no difference: `dvc status` reports it as missing, which is left out for
    what git ignores, and dvc.lock is asked instead whether each stage read what the one before it wrote.
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
                    if state not in NO_DATA or not _git_ignores(path):
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


def _git_ignores(path: str) -> bool:
    return subprocess.run(["git", "check-ignore", "--quiet", path], capture_output=True).returncode == 0


def locked_versions(uv_lock: str) -> dict[str, str]:
    """Package -> version of a uv.lock, given as text."""
    return {package["name"]: package.get("version", "") for package in tomllib.loads(uv_lock).get("package", [])}
