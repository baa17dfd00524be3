"""What a `dvc` that was killed has left behind: processes, locks, references, edited files, half written ones.

While a dvc command runs in the repository, its traces look like remains, so nothing but orphans is looked for then.
What is left at which instant was found by killing real runs; tests/test_doctor.py kills them again.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.refs import EXEC_BASELINE, EXEC_BRANCH, EXEC_MERGE, TEMP_NAMESPACE, WORKSPACE_STASH
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides

from pilotnet_sdnn.paths import PARAMS


class Finding(NamedTuple):
    """What is wrong, and the shell commands, run in the root of the repository, that mend it.

    Without commands it is for a person to decide, and `problem` says what to look at.
    """

    problem: str
    commands: list[str]


def orphans(root: Path) -> Iterator[Finding]:
    """Stages that work on although their dvc is gone."""
    for process in orphan_processes(root):
        yield Finding(
            f"process {process.pid}, `{command_of(process)}`, goes on although the dvc that started it is gone: "
            "wait for it, or end it; training then saves its state, and the same command goes on from there",
            [f"kill {process.pid}"],
        )


def remains(root: Path) -> Iterator[Finding]:
    """What a dvc that is gone has left in git, in the workspace and in .dvc/tmp."""
    if living(root):
        return
    yield from git_locks(root)
    killed = killed_commands(root)
    refs = leftover_refs(root)
    if killed or refs:
        yield from detached_head(root)
        yield from changed_files(root, killed)
    if refs:
        again = "; the next `dvc exp run` would run it as well" if WORKSPACE_STASH in refs else ""
        yield Finding(
            f"references of a killed experiment{again}", [f"git update-ref --no-deref -d {ref}" for ref in refs]
        )
    yield from phantom_runs(root)
    yield from half_files(root)
    if killed:
        commands = " and ".join(sorted(set(killed)))
        files = [str(path.relative_to(root)) for path in rwlocks(root) if dead_holders(path)]
        yield Finding(f"locks of {commands}, which was killed", [f"rm {' '.join(files)}"])


def living(root: Path) -> list[psutil.Process]:
    """The dvc commands that run in the repository or in an experiment's copy of it."""
    return [process for process in _processes(root) if _is_dvc(process)]


def orphan_processes(root: Path) -> list[psutil.Process]:
    """Stages started by a dvc that is not among their ancestors any more; dvc marks them by DVC_STAGE."""
    stages = [process for process in _processes(root) if _is_stage(process)]
    with_dvc = {process.pid for process in stages if any(map(_is_dvc, _parents(process)))}
    helpers = {process.pid for process in stages if process.ppid() in {other.pid for other in stages}}
    return [process for process in stages if process.pid not in with_dvc | helpers]


def _processes(root: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(root) and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):  # ended meanwhile, or another user's
            continue


def _parents(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.parents()
    except psutil.Error:
        return []


def _is_dvc(process: psutil.Process) -> bool:
    """`dvc`, `python .../dvc` or `python -m dvc`."""
    try:
        return any(Path(argument).name == "dvc" for argument in process.cmdline()[:3])
    except psutil.Error:
        return False


def _is_stage(process: psutil.Process) -> bool:
    try:
        started = any(argument.startswith("pilotnet_sdnn.stages.") for argument in process.cmdline())
        return started and "DVC_STAGE" in process.environ()
    except psutil.Error:
        return False


def command_of(process: psutil.Process) -> str:
    """What a process runs, as a person would have typed it."""
    try:
        program, *arguments = process.cmdline()
        if arguments and Path(arguments[0]).name == "dvc":
            program, *arguments = arguments
        return " ".join([Path(program).name, *arguments])
    except (psutil.Error, ValueError):
        return "?"


def rwlocks(root: Path) -> list[Path]:
    """Where dvc writes down which command of which process uses which files."""
    return [path for path in (root / ".dvc/tmp/rwlock", root / ".dvc/tmp/exps/rwlock") if path.exists()]


def dead_holders(rwlock: Path) -> list[str]:
    """The commands in a lock file of dvc whose process is gone, or is another one by now."""
    try:
        content = json.loads(rwlock.read_text())
    except json.JSONDecodeError:  # killed while it rewrote the file, which dvc then refuses to read
        return ["a dvc command"]
    readers = [holder for holders in content.get("read", {}).values() for holder in holders]
    holders = {(holder["pid"], holder["cmd"]) for holder in [*readers, *content.get("write", {}).values()]}
    return [f"`{' '.join(['dvc', *cmd.split()[1:]])}`" for pid, cmd in holders if not _holds(pid)]


def _holds(pid: int) -> bool:
    return psutil.pid_exists(pid) and _is_dvc(psutil.Process(pid))


def killed_commands(root: Path) -> list[str]:
    return [command for path in rwlocks(root) for command in dead_holders(path)]


def git(root: Path, *arguments: str) -> str:
    """What git prints, or nothing where it fails."""
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    return done.stdout.strip("\n") if done.returncode == 0 else ""


def leftover_refs(root: Path) -> list[str]:
    """EXEC_HEAD stays after every experiment; these do not."""
    suspects = {EXEC_BASELINE, EXEC_BRANCH, EXEC_MERGE, WORKSPACE_STASH}
    refs = git(root, "for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    return [ref for ref in refs if ref in suspects or ref.startswith(f"{TEMP_NAMESPACE}/")]


def git_locks(root: Path) -> Iterator[Finding]:
    """The lock files under which git, and dvc itself, replace a reference; both refuse while one is there."""
    folder = root / git(root, "rev-parse", "--git-common-dir")
    locks = sorted([*folder.glob("*.lock"), *(folder / "refs").rglob("*.lock")])
    if locks and not any(process.name() == "git" for process in _processes(root)):
        names = " ".join(shlex.quote(os.path.relpath(path, root)) for path in locks)
        yield Finding("locks in git that a killed git or dvc held", [f"rm {names}"])


def detached_head(root: Path) -> Iterator[Finding]:
    """An experiment in the workspace leaves the branch for the commit it stands at, and comes back at the end."""
    if git(root, "symbolic-ref", "-q", "HEAD"):
        return
    moves = git(root, "reflog", "--format=%gs", "HEAD").splitlines()
    saved = bool(moves) and moves[0].startswith("commit: dvc: commit experiment")
    move = re.fullmatch(r"checkout: moving from (\S+) to ([0-9a-f]{40})", moves[saved] if len(moves) > saved else "")
    if move and git(root, "rev-parse", f"refs/heads/{move[1]}") == move[2]:
        problem = f"HEAD is detached from `{move[1]}` by a killed experiment"
        if saved:  # with whatever else had changed: the files stay as they are, as at the end of any experiment
            reattach = [f"git symbolic-ref HEAD {shlex.quote(f'refs/heads/{move[1]}')}", "git reset -q"]
            yield Finding(f"{problem} that was finished: its results stay in the workspace", reattach)
        else:
            yield Finding(problem, [f"git switch {shlex.quote(move[1])}"])
    else:
        yield Finding("HEAD is detached, and its branch cannot be told: `git switch BRANCH` goes back to it", [])


def changed_files(root: Path, killed: list[str]) -> Iterator[Finding]:
    """Changes of a killed experiment; only what is surely its own is offered to be taken back."""
    if git(root, "ls-files", ".dvc/tmp/repro.dat"):
        yield Finding("dvc's own repro.dat is staged for commit", ["git rm -qf .dvc/tmp/repro.dat"])
    if git(root, "diff", "--name-only", "HEAD", "--", str(PARAMS)):
        if any(edited_params(root, command) == (root / PARAMS).read_text() for command in killed):
            yield Finding(
                "params.yaml has the parameters of the killed experiment, and no other change",
                ["git restore --staged --worktree params.yaml"],
            )
        else:
            yield Finding(
                "params.yaml has changes that may be yours, and is left alone: see `git diff HEAD params.yaml`; "
                "`git restore --staged --worktree params.yaml` drops them",
                [],
            )
    if outputs := git(root, "diff", "--name-only", "HEAD", "--", "dvc.lock", "metrics", "plots").splitlines():
        yield Finding(
            f"{', '.join(outputs)}: changed by the killed run or by you, and left alone; the same command again "
            "completes them, `git restore --staged --worktree dvc.lock metrics plots && dvc checkout` drops them",
            [],
        )
    if git(root, "rev-parse", "-q", "--verify", "stash@{0}^") == git(root, "rev-parse", "HEAD"):
        yield Finding(
            "what you had changed may be in git's stash, where dvc puts it for a moment: `git stash show -p` shows it, "
            "`git stash pop` brings it back, after `git restore` of the files it names",
            [],
        )


def edited_params(root: Path, command: str) -> str:
    """params.yaml as the last commit has it, with the -S edits of a `dvc exp run` made as dvc makes them."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-S", "--set-param", action="append", default=[])
    edits = parser.parse_known_args(command.strip("`").split())[0].set_param
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, PARAMS.name)
        copy.write_text(git(root, "show", f"HEAD:{PARAMS}") + "\n")
        try:
            apply_overrides(copy, to_path_overrides(edits).get(str(PARAMS), []))
        except (DvcException, ValueError):
            return ""
        return copy.read_text()


def phantom_runs(root: Path) -> Iterator[Finding]:
    """Experiments that `dvc exp show` and `dvc queue status` call Running, and their copies of the repository."""
    exps = root / ".dvc/tmp/exps"
    with Repo(str(root)) as repo:
        tasks = [entry.name or entry.stash_rev[:7] for entry in repo.experiments.celery_queue.iter_active()]
    for task in tasks:
        yield Finding(
            f"queued experiment `{task}` is called Running, but its worker is gone",
            [f"dvc queue kill --force {shlex.quote(task)}"],
        )
    used = {Path(process.cwd()) for process in orphan_processes(root)}
    folders = [exps / "run/workspace", *exps.glob("tmp*"), *exps.glob("standalone/*")]
    left = [folder for folder in folders if folder.is_dir() and not any(cwd.is_relative_to(folder) for cwd in used)]
    if any(folder.name.startswith("tmp") for folder in left) or exps / "run/workspace" in left:
        names = " ".join(shlex.quote(str(folder.relative_to(root))) for folder in left)
        yield Finding("folders of killed experiments, which `dvc exp show` may call Running", [f"rm -rf {names}"])


def half_files(root: Path) -> Iterator[Finding]:
    """Files that a killed stage had not finished, under their temporary names (files.atomic_write)."""
    if orphan_processes(root):
        return
    folders = ("data", "metrics", "models", "plots")
    if paths := sorted(path for folder in folders for path in (root / folder).rglob(".*.tmp")):
        names = " ".join(shlex.quote(str(path.relative_to(root))) for path in paths)
        yield Finding("files that a killed stage had half written", [f"rm {names}"])
