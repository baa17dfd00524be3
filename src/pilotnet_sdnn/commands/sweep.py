"""Run a sweep on all cores, or on all machines of a Dask cluster: sdnn-sweep"""

import argparse
import functools
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import zc.lockfile
from dvc.config import Config
from dvc.config_schema import RelPath
from dvc.exceptions import DvcException
from dvc.repo import Repo

from pilotnet_sdnn.errors import UserError, counted, exit_on_error, one_line
from pilotnet_sdnn.team.bundles import bundle_of_commits, fetch_bundle
from pilotnet_sdnn.team.repository import enter_root, git, try_git
from pilotnet_sdnn.team.sweep_plan import Run, done, grid, queued
from pilotnet_sdnn.team.sweep_progress import Ended, displayed
from pilotnet_sdnn.team.sweep_stages import computed_stages
from pilotnet_sdnn.team.sweep_worker import (
    SHARE,
    Outcome,
    Sweep,
    error_line,
    packages,
    prepare,
)

if TYPE_CHECKING:
    from distributed import Client

NAMED = 10  # unfinished runs, at most, that are named
LOGS = Path(".dvc/tmp/sweep")  # the output of failed runs


def main() -> None:
    parser = argparse.ArgumentParser(prog="sdnn-sweep", description=__doc__.rpartition(":")[0])
    what = parser.add_argument_group("which runs")
    what.add_argument(
        "-S", "--set-param", action="append", default=[], metavar="NAME=VALUE[,VALUE...]",
        help="one run for each combination of values, as in `dvc exp run --queue -S`",
    )  # fmt: skip
    what.add_argument("--queued", action="store_true", help="what `dvc exp run --queue` has queued")
    group = parser.add_argument_group("where; without an option on this machine")
    where = group.add_mutually_exclusive_group()
    where.add_argument("--scheduler", metavar="ADDRESS", help="a Dask scheduler, such as tcp://host.example:8786")
    where.add_argument("--hosts", metavar="A,B", type=lambda text: text.split(","), help="machines reached by ssh")
    where.add_argument(
        "--slurm",
        nargs="?",
        const="",
        metavar="YAML",
        help="jobs of SLURM, with options of dask-jobqueue from a file",
    )
    group.add_argument("--python", metavar="PATH", help="Python on the hosts; default: the path it has here")
    group.add_argument("-j", "--jobs", type=int, help="runs at a time: here, on each host, or in SLURM")
    parser.add_argument(
        "--checkpoints", nargs="?", type=float, default=0, const=60, metavar="SECONDS",
        help="send the states of unfinished trainings to the remote, every minute or as often as this",
    )  # fmt: skip
    arguments = parser.parse_args()
    if bool(arguments.set_param) == arguments.queued:
        parser.error("give either -S or --queued")
    if arguments.jobs is not None and arguments.jobs < 1:
        parser.error("-j needs a number above 0")
    with exit_on_error():
        sweep(arguments)


def sweep(arguments: argparse.Namespace) -> None:
    """Run a grid of parameters, or DVC's queue if there is none, and bring the experiments here.

    Raises:
        UserError: a run failed, or the sweep could not be started.
    """
    try:
        import distributed  # noqa: F401
    except ModuleNotFoundError:
        raise UserError("sdnn-sweep needs Dask: `uv sync --extra sweep`") from None
    if arguments.slurm:
        arguments.slurm = str(Path(arguments.slurm).absolute())
    enter_root()
    with _only_sweep():
        try:
            with Repo() as repo:
                runs = grid(repo, arguments.set_param) if arguments.set_param else queued(repo)
                finished = done(repo, runs)
                computed = computed_stages(repo).union(*(run.stages for run in finished))
        except DvcException as error:
            raise UserError(one_line(error)) from None
        todo = [run for run in runs if run not in finished]
        print(f"{counted(len(runs), 'run')}, {len(finished)} of them done before")
        ended: dict[str, str] = {run.name: "" for run in finished}
        try:
            if todo:
                _run_all(todo, computed, ended, arguments)
        finally:
            if arguments.queued:
                _unqueue([run for run in runs if ended.get(run.name) == ""])
            unfinished = [run.name for run in runs if run.name not in ended]
            if unfinished:
                names = ", ".join(unfinished[:NAMED]) + (", ..." if unfinished[NAMED:] else "")
                print(f"not finished: {counted(len(unfinished), 'run')}, {names}; the same command runs them")
    if failed := [name for name, problem in ended.items() if problem]:
        raise UserError(f"{len(failed)} of {counted(len(runs), 'run')} failed: {', '.join(failed)}; see above, {LOGS}")
    print("`dvc exp show`, `sdnn-runs` and `sdnn-pareto` show them")


def _run_all(runs: list[Run], computed: frozenset[str], ended: dict[str, str], arguments: argparse.Namespace) -> None:
    """Run them all; each that has ended is added to `ended`, with the problem if it failed."""
    from pilotnet_sdnn.team.sweep import drive, on_worker

    elsewhere, bundle = bool(arguments.scheduler or arguments.hosts or arguments.slurm is not None), b""
    if elsewhere:
        _check_remote()
        bundle = bundle_of_commits([run.source for run in runs] + [run.baseline for run in runs], Path())
    topic = f"sdnn-sweep-{uuid.uuid4().hex}"
    setup = _setup(elsewhere, arguments.checkpoints)
    with _cluster(arguments, len(runs)) as client:
        if elsewhere:
            _share("push")
        prepared = functools.partial(prepare, setup, bundle, runs[0].baseline)
        experiment = functools.partial(on_worker, setup, topic)
        events = drive(client, prepared, experiment, runs, computed, topic)
        advice = f"start `dask worker {client.scheduler_info()['address']} --nthreads 1` on each machine"
        if arguments.slurm is not None:
            advice = "`squeue --me` shows their jobs"
        try:
            with displayed(len(runs) + len(ended), len(ended), advice) as show:
                for event in events:
                    if isinstance(event, Ended):
                        event = Ended(event.run, _collected(event.run, event.outcome))
                        ended[event.run.name] = event.outcome.problem
                    show(event)
        finally:
            events.close()
            if elsewhere and any(ended.get(run.name) == "" for run in runs):
                _share("pull")


def _cluster(arguments: argparse.Namespace, runs: int) -> "AbstractContextManager[Client]":
    from pilotnet_sdnn.team import sweep_cluster

    if arguments.scheduler:
        return sweep_cluster.of_scheduler(arguments.scheduler)
    if arguments.hosts:
        return sweep_cluster.over_ssh(arguments.hosts, arguments.jobs, arguments.python)
    if arguments.slurm is not None:
        return sweep_cluster.on_slurm(runs, arguments.jobs, Path(arguments.slurm) if arguments.slurm else None)
    return sweep_cluster.on_this_machine(runs, arguments.jobs)


def _setup(elsewhere: bool, checkpoints: float) -> Sweep:
    """What the workers need to know; on this machine they find the checkpoints anyway."""
    first = git("rev-list", "--max-parents=0", "HEAD").splitlines()[0]
    subfolder = git("rev-parse", "--show-prefix").rstrip("/")
    author = (try_git("config", "user.name") or "sdnn-sweep", try_git("config", "user.email") or "sdnn-sweep@localhost")
    project = "-".join([first[:12], *subfolder.split("/")]).rstrip("-")
    if elsewhere:
        return Sweep(project, subfolder, author, packages(), "", checkpoints)
    return Sweep(project, subfolder, author, packages(), str(Path.cwd()))


@contextmanager
def _only_sweep() -> Iterator[None]:
    path = Path(".dvc/tmp/sdnn-sweep.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = zc.lockfile.LockFile(path)
    except zc.lockfile.LockError:
        raise UserError(f"process {path.read_text().strip()} runs a sweep in this repository; wait for it") from None
    try:
        yield
    finally:
        lock.close()


def _collected(run: Run, outcome: Outcome) -> Outcome:
    """Bring the experiment of a run into git here, or keep the output of a failed one."""
    if outcome.problem:
        if outcome.output:
            LOGS.mkdir(parents=True, exist_ok=True)
            (LOGS / f"{run.name}.log").write_text(outcome.output, encoding="utf-8")
        return outcome
    try:
        fetch_bundle(outcome.bundle, f"{run.reference}:{run.reference}", Path())
        return outcome
    except UserError as error:
        return outcome._replace(problem=str(error))


def _check_remote() -> None:
    """Workers elsewhere know the DVC remote from the last commit, and its credentials from their own machine."""
    committed, here = (Config(".dvc").load_one(level) for level in ("repo", "local"))
    name = (here.get("core") or committed.get("core") or {}).get("remote", "")
    url = committed.get("remote", {}).get(name, {}).get("url")
    if isinstance(url, RelPath):
        raise UserError(
            f"the DVC remote {name} is relative to this clone: `dvc remote modify {name} url {url}`, commit"
        )
    if name in here.get("remote", {}) and not url:
        raise UserError(
            f"the DVC remote {name} is in .dvc/config.local only, which workers elsewhere do not get: commit its "
            f"address, `dvc remote add -d {name} URL`; credentials stay there (docs/team.md)"
        )


def _share(action: str) -> None:
    """Run sdnn-share, which says what it does."""
    done = subprocess.run([*SHARE, action], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        reason = error_line(done.stderr, done.returncode)
        raise UserError(f"workers elsewhere need the DVC remote, and `sdnn-share {action}` says: {reason}")


def _unqueue(runs: list[Run]) -> None:
    with Repo() as repo:
        repo.experiments.celery_queue.remove([run.name for run in runs])


if __name__ == "__main__":
    main()
