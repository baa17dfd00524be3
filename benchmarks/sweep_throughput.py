"""A sweep of tiny runs: sdnn-sweep with one and two workers against `dvc queue start -j 2`, and what a run costs.

    uv run python benchmarks/sweep_throughput.py

Each way starts in a new repository, whose one stage sleeps. Workers of a scheduler have homes and caches of their own
and a folder as the DVC remote; the time to start them does not count.
"""

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pilotnet_sdnn.commands.sweep import _setup
from pilotnet_sdnn.team import sweep_worker
from pilotnet_sdnn.team.bundles import bundle_of_commits
from pilotnet_sdnn.team.repository import git
from pilotnet_sdnn.team.sweep_plan import Run

PIPELINE = """\
stages:
  make:
    cmd: sleep {seconds} && cat params.yaml > made.txt
    params: [lam]
    outs: [made.txt]
"""
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1",
    "GIT_AUTHOR_NAME": "test", "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "test", "GIT_COMMITTER_EMAIL": "test@example.com",
}  # fmt: skip


def run(root: Path, command: str) -> None:
    done = subprocess.run(command.split(), cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"{command}\n{done.stdout}")


def repository(folder: Path, seconds: float) -> Path:
    root = folder / "clone"
    root.mkdir(parents=True)
    (root / "dvc.yaml").write_text(PIPELINE.format(seconds=seconds))
    (root / "params.yaml").write_text("lam: 0\n")
    for command in ("git init -q", "dvc init -q", f"dvc remote add -d team {folder}/store", "git add -A"):
        run(root, command)
    run(root, "git commit -q -m Start")
    return root


def experiments(root: Path) -> int:
    names = git("for-each-ref", "--format=%(refname)", "refs/exps", root=root).splitlines()
    return sum("celery" not in name for name in names)


def dvc_queue(root: Path, grid: str, runs: int) -> tuple[float, float]:
    """Seconds to queue the runs, and to run them."""
    start = time.perf_counter()
    run(root, f"dvc exp run --queue -S {grid}")
    queued = time.perf_counter()
    run(root, "dvc queue start -j 2")
    while experiments(root) < runs:
        time.sleep(0.1)
    return queued - start, time.perf_counter() - queued


@contextmanager
def workers(folder: Path, count: int) -> Iterator[str]:
    """A Dask scheduler with workers that share no files; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    commands = [f"dask scheduler --host 127.0.0.1 --port {port} --no-dashboard"]
    commands += [f"dask worker {address} --host 127.0.0.1 --nthreads 1 --no-dashboard"] * count
    processes = []
    try:
        for number, command in enumerate(commands):
            home = folder / f"home-{number}"
            home.mkdir()
            processes.append(
                subprocess.Popen(
                    command.split(), cwd=home, env={**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home)},
                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
                )
            )  # fmt: skip
        time.sleep(10)
        yield address
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def sweep(root: Path, options: str, runs: int) -> float:
    start = time.perf_counter()
    run(root, f"sdnn-sweep {options}")
    assert experiments(root) == runs
    return time.perf_counter() - start


def parts_of_runs(root: Path, runs: int, here: bool) -> dict[str, list[float]]:
    """Seconds of the steps of some runs, one after the other."""
    seconds = defaultdict[str, list[float]](list)
    watched = sweep_worker._watched

    def timed(command: list[str], root: Path, output: Path, wanted: Callable[[str], bool]) -> int:
        start = time.perf_counter()
        code = watched(command, root, output, wanted)
        seconds[command[-1] if command[-1] in ("pull", "push") else "dvc exp run"].append(time.perf_counter() - start)
        return code

    os.chdir(root)
    setup, commit = _setup(not here, 0), git("rev-parse", "HEAD")
    if not here:
        start = time.perf_counter()
        assert not sweep_worker.prepare(setup, bundle_of_commits([commit], root), commit)
        seconds["once: code and data for a worker"].append(time.perf_counter() - start)
    sweep_worker._watched = timed
    for number in range(runs):
        before, start = sum(map(sum, seconds.values())), time.perf_counter()
        part = Run(f"part-{number}", commit, commit, ("-S", f"lam={1000 + number}"))
        outcome = sweep_worker.run_experiment(setup, part, [], lambda _: None, lambda: None, lambda: False)
        assert not outcome.problem, outcome
        steps = sum(map(sum, seconds.values())) - before
        seconds["clone, bundle"].append(time.perf_counter() - start - steps)
    sweep_worker._watched = watched
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2, help="of a run")
    arguments = parser.parse_args()
    runs, grid = arguments.runs, f"lam=range(1,{arguments.runs + 1})"
    os.environ |= ENVIRONMENT
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["XDG_CACHE_HOME"] = f"{temporary}/cache"

        def new(name: str) -> Path:
            return repository(Path(temporary, name), arguments.seconds)

        seconds = defaultdict[str, list[float]](list)
        for number in range(arguments.rounds):
            queueing, running = dvc_queue(new(f"queue-{number}"), grid, runs)
            seconds["dvc queue start -j 2"].append(running)
            seconds["to queue its runs before"].append(queueing)
            for count in (1, 2):
                seconds[f"sdnn-sweep -j {count}"].append(
                    sweep(new(f"here-{count}-{number}"), f"-j {count} -S {grid}", runs)
                )
                root = new(f"there-{count}-{number}")
                with workers(root.parent, count) as address:
                    seconds[f"sdnn-sweep --scheduler, workers: {count}"].append(
                        sweep(root, f"--scheduler {address} -S {grid}", runs)
                    )
        print(f"{runs} runs of {arguments.seconds:g} s, {os.cpu_count()} cores, medians of {arguments.rounds}")
        reference = statistics.median(seconds["dvc queue start -j 2"])
        for way, times in seconds.items():
            median = statistics.median(times)
            print(f"{way:<35} {median:6.1f} s, {median / reference:.2f} of the first")
        for where, here in (("this machine", True), ("a worker elsewhere", False)):
            print(f"a run on {where}, seconds (medians of 3):")
            for part, times in parts_of_runs(new(where.replace(" ", "-")), 3, here).items():
                print(f"  {part:<33} {statistics.median(times):.1f}")


if __name__ == "__main__":
    main()
