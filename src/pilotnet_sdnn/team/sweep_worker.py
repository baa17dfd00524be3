"""What a worker of a sweep does: check its packages, get the code, run an experiment in a clone of its own.

A worker elsewhere gets the code as a git bundle and data from the DVC remote, with the credentials of its own machine.
A worker that the sweep has started on this machine clones the repository itself and uses its cache, as
`dvc exp run --temp` does.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

import psutil
from dvc.config import Config
from dvc.exceptions import DvcException
from dvc.repo import Repo

from pilotnet_sdnn.errors import MAX_LENGTH, UserError, one_line, printable, shortened, without_password
from pilotnet_sdnn.paths import user_cache
from pilotnet_sdnn.team.bundles import COMMITS, bundle_of, fetch_bundle
from pilotnet_sdnn.team.processes import running_in
from pilotnet_sdnn.team.repository import git
from pilotnet_sdnn.team.sharing import EMPTY, FETCHED_REST
from pilotnet_sdnn.team.sweep_checkpoints import Checkpoints
from pilotnet_sdnn.team.sweep_plan import Run

LINE = 120  # characters of a line of progress
KEPT = 1_000_000  # characters of a failed run's output
SHARE = [sys.executable, "-m", "pilotnet_sdnn.commands.share"]
PULL = [*SHARE, "pull"]
STOPPING = 90  # seconds that the processes of a dead worker get to save their state


class Sweep(NamedTuple):
    """What the workers need to know."""

    project: str  # names the folder in a worker's cache
    subfolder: str  # of the git repository, with the DVC repository
    author: tuple[str, str]  # name and email, of the experiments' commits
    packages: dict[str, str]  # name -> version
    here: str  # the root of the repository that the workers share with the driver; empty if they are elsewhere
    checkpoints: float = 0  # seconds between two transfers of unfinished trainings to the remote; 0: none

    @property
    def home(self) -> Path:
        """Where a worker has its clones and the checkpoints, elsewhere also its cache."""
        return Path(self.here) if self.here else user_cache() / "sweeps" / self.project


class Outcome(NamedTuple):
    """What a run has come to."""

    bundle: bytes = b""  # the experiment, for git
    problem: str = ""  # why there is none: the last line of the run
    output: str = ""  # of a failed run


class StoppedError(Exception):
    """The sweep does not want this run any more."""


def dask_setup(worker: object) -> None:
    """Called by Dask in workers of this machine: Ctrl-C at a terminal reaches them too, but the driver ends them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def packages() -> dict[str, str]:
    """The installed packages."""
    return {found.metadata["Name"].lower().replace("_", "-"): found.version for found in distributions()}


def prepare(sweep: Sweep, bundle: bytes, baseline: str) -> str:
    """Make a worker ready for the runs of a sweep: packages, code, data and earlier runs.

    Args:
        bundle: the commits that the runs start from; empty for workers on the driver's machine.
        baseline: one of the commits.

    Returns:
        Why it cannot run any; empty if it can.
    """
    mine = packages()
    other = [
        f"{name} {mine[name]}, not {version}"
        for name, version in sorted(sweep.packages.items())
        if mine.get(name, version) != version
    ]
    if other:
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        return f"it has {', '.join(other[:3])}{more}; `uv sync --locked` at the driver's commit there"
    if sweep.here:
        return ""
    try:
        _unbundle(sweep, bundle)
        with _clone(sweep, baseline, baseline) as root:
            pulled = subprocess.run(PULL, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            text = without_password(pulled.stdout.decode(errors="replace"))
            usable = not pulled.returncode or FETCHED_REST in text or EMPTY in text
            return "" if usable else error_line(text, pulled.returncode)
    except (UserError, OSError, DvcException) as error:
        return without_password(one_line(error))


def run_experiment(
    sweep: Sweep,
    run: Run,
    first: list[str],
    tell: Callable[[str], object],
    first_computed: Callable[[], object],
    stopped: Callable[[], bool],
) -> Outcome:
    """Run one experiment in a new clone.

    Args:
        first: addresses of stages that other runs wait for.
        tell: is told the progress, about once a second.
        first_computed: is called as soon as the other runs can have those stages.
        stopped: whether to give the run up.

    Raises:
        StoppedError: it was given up; its processes have ended.
    """
    dvc_run = [sys.executable, "-m", "dvc", "exp", "run", *run.arguments, "-n"]
    push = [] if sweep.here else [[*SHARE, "push"]]
    steps = [] if sweep.here else [PULL]
    if first:
        steps += [[*dvc_run, f"{run.name}-first", *first], *push]
    try:
        with _clone(sweep, run.baseline, run.source) as root:
            checkpoints = Checkpoints(root, sweep.home, sweep.checkpoints)
            checkpoints.fetch()

            def wanted(line: str) -> bool:
                tell(line)
                checkpoints.send()
                return not stopped()

            if failure := _failure(steps, root, wanted):
                return failure
            first_computed()
            if failure := _failure([[*dvc_run, run.name, *run.targets], *push], root, wanted):
                return failure
            checkpoints.send(finished=True)
            return Outcome(bundle_of([run.reference, f"^{run.baseline}"], root))
    except (UserError, OSError, DvcException) as error:
        return Outcome(problem=without_password(one_line(error)))


def _failure(steps: list[list[str]], root: Path, wanted: Callable[[str], bool]) -> Outcome | None:
    """Run commands until one fails; what a pull could not fetch is computed."""
    output = root / ".dvc/tmp/sweep.log"
    for step in steps:
        code = _watched(step, root, output, wanted)
        if code and step != PULL:
            text = without_password(output.read_text(errors="replace"))
            return Outcome(problem=error_line(text, code), output=text[-KEPT:])
    return None


def error_line(text: str, code: int) -> str:
    """The line that says why a command failed: its own, or that of a stage, if there is one, else the last."""
    lines = [line for line in text.replace("\r", "\n").split("\n") if line.strip()]
    own = [line for line in lines if line.startswith("error: ")]
    return _shown((own or lines or [f"exit code {code}"])[-1].removeprefix("error: "), MAX_LENGTH)


def _unbundle(sweep: Sweep, bundle: bytes) -> None:
    home = sweep.home
    home.mkdir(parents=True, exist_ok=True)
    with _locked(home):
        if not (home / "git").exists():
            git("init", "-q", "--bare", "git", root=home)
        fetch_bundle(bundle, f"+{COMMITS}/*:{COMMITS}/*", home / "git")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One worker of this machine at a time."""
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _clone(sweep: Sweep, baseline: str, source: str) -> Iterator[Path]:
    """A clone with a commit and the files of another one, which ends with the block.

    Returns:
        The root of its DVC repository.
    """
    home = sweep.home
    folder = home / ".dvc/tmp/exps"  # from there, training finds the checkpoints of `home`
    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    clone = Path(tempfile.mkdtemp(prefix=f"sweep-{socket.gethostname()}-{os.getpid()}-", dir=folder))
    try:
        origin = git("rev-parse", "--show-toplevel", root=home) if sweep.here else str(home / "git")
        git("clone", "-q", "--shared", "--no-checkout", "--", origin, str(clone), root=home)
        for key, value in zip(("user.name", "user.email"), sweep.author, strict=True):
            git("config", key, value, root=clone)
        git("checkout", "-q", "--detach", baseline, root=clone)
        root = clone / sweep.subfolder
        if source != baseline:
            git("restore", f"--source={source}", "--worktree", "--", ".", ":(exclude).dvc/tmp", root=root)
        (root / ".dvc/tmp").mkdir(exist_ok=True)
        local = Path(".dvc/config.local")
        if sweep.here and (home / local).exists():
            shutil.copy(home / local, root / local)
        with Config(str(root / ".dvc")).edit("local") as config:
            config["cache"]["dir"] = Repo(sweep.here).cache.local_cache_dir if sweep.here else str(home / "cache")
        yield root
    finally:
        shutil.rmtree(clone, ignore_errors=True)


def _watched(command: list[str], root: Path, output: Path, wanted: Callable[[str], bool]) -> int:
    """Run a command to its end, and return its exit code.

    It has a session of its own, so that Ctrl-C at a terminal does not reach it, and a supervisor, which ends it if
    this process dies.

    Args:
        wanted: is called each second with what was printed last; the command ends when it is false.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pilotnet_sdnn.team.supervise", *command],
            cwd=root, env={**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    with process:
        while True:
            try:
                return process.wait(1)
            except subprocess.TimeoutExpired:
                if not wanted(_last_line(output)):
                    assert process.stdin
                    process.stdin.close()
                    process.wait()
                    raise StoppedError from None


def _last_line(output: Path) -> str:
    with output.open("rb") as file:
        file.seek(max(0, output.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").replace("\r", "\n").split("\n")
    return _shown(next((line for line in reversed(lines) if line.strip()), ""), LINE)


def _shown(line: str, length: int) -> str:
    return shortened(printable(" ".join(line.split())), length)


def _clear(folder: Path) -> None:
    """Delete the clones of this machine's workers that died, once all processes in them have ended."""
    for clone in folder.glob(f"sweep-{socket.gethostname()}-*"):
        pid = clone.name.removeprefix(f"sweep-{socket.gethostname()}-").partition("-")[0]
        if psutil.pid_exists(int(pid)):
            continue
        _, alive = psutil.wait_procs(list(running_in(clone)), STOPPING)
        for process in alive:
            process.kill()
        shutil.rmtree(clone, ignore_errors=True)
