"""What a killed `dvc` leaves behind: processes, locks, references, folders and temporary files.

A running dvc command leaves the same traces, so while one runs only orphans are looked for. Killing real runs showed
what is left at which instant; tests/test_doctor.py kills them again.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from dvc.repo import Repo
from dvc.repo.experiments.refs import EXEC_BASELINE, EXEC_BRANCH, EXEC_MERGE, TEMP_NAMESPACE, WORKSPACE_STASH
from dvc.rwlock import SCHEMA as RWLOCK_SCHEMA

from pilotnet_sdnn.team import working_tree
from pilotnet_sdnn.team.processes import command_of, dvc_processes, is_dvc, orphan_stages, running_in
from pilotnet_sdnn.team.repository import git, try_git


class Finding(NamedTuple):
    """A problem, and the commands, run in the root of the repository, that solve it.

    Without commands a person has to decide, and `problem` says what to look at.
    """

    problem: str
    commands: list[list[str]]  # each the list of its arguments; no shell reads them


def orphans(root: Path) -> Iterator[Finding]:
    """Stages that still run although their dvc is gone."""
    for process in orphan_stages(root):
        yield Finding(
            f"process {process.pid}, `{command_of(process)}`, still runs although the dvc that started it is gone. "
            "Wait for it, and the same dvc command takes over its result; or end it, and the same command resumes it",
            [["kill", str(process.pid)]],
        )


def leftovers(root: Path) -> Iterator[Finding]:
    """What a dvc that is gone left in git, in the working tree and in .dvc/tmp."""
    if dvc_processes(root):
        return
    yield from git_locks(root)
    for problem, commands in working_tree.staged_by_dvc(root):
        yield Finding(problem, commands)
    killed = killed_commands(root)
    refs = leftover_refs(root)
    if killed or refs:
        yield from detached_head(root)
        for problem, commands in working_tree.experiment_changes(root, killed):
            yield Finding(problem, commands)
    for problem in working_tree.missing_results(root):
        yield Finding(problem, [])
    if refs:
        again = "; the next `dvc exp run` would run it as well" if WORKSPACE_STASH in refs else ""
        kept, keep = working_tree.only_in_experiment(root)
        yield Finding(
            f"references of a killed experiment{again}{kept}",
            [*keep, *(["git", "update-ref", "--no-deref", "-d", ref] for ref in refs)],
        )
    yield from dead_experiments(root)
    yield from temporary_files(root)
    if killed:
        commands_killed = " and ".join(sorted(set(killed)))
        files = [str(path.relative_to(root)) for path in rwlocks(root) if dead_holders(path)]
        yield Finding(f"locks of {commands_killed}, which was killed", [["rm", *files]])


def rwlocks(root: Path) -> list[Path]:
    """The files in which dvc records which command of which process uses which files."""
    return [path for path in (root / ".dvc/tmp/rwlock", root / ".dvc/tmp/exps/rwlock") if path.exists()]


def dead_holders(rwlock: Path) -> list[str]:
    """The commands in a lock file of dvc whose process is gone, or is another one by now."""
    try:
        content = RWLOCK_SCHEMA(json.loads(rwlock.read_text()))
    except Exception:  # of JSON or of DVC's schema: killed while it rewrote the file, which dvc now refuses to read
        return ["a dvc command"]
    readers = [holder for holders in content["read"].values() for holder in holders]
    holders = {(holder["pid"], holder["cmd"]) for holder in [*readers, *content["write"].values()]}
    return [f"`{' '.join(['dvc', *command.split()[1:]])}`" for pid, command in holders if not _holds(pid)]


def _holds(pid: int) -> bool:
    try:
        return is_dvc(psutil.Process(pid))
    except (psutil.Error, ValueError, OverflowError):  # gone, or no number of a process
        return False


def killed_commands(root: Path) -> list[str]:
    return [command for path in rwlocks(root) for command in dead_holders(path)]


def leftover_refs(root: Path) -> list[str]:
    """References that an experiment deletes at its end; EXEC_HEAD stays after every experiment."""
    suspects = {EXEC_BASELINE, EXEC_BRANCH, EXEC_MERGE, WORKSPACE_STASH}
    refs = try_git("for-each-ref", "--format=%(refname)", "refs/exps", root=root).splitlines()
    return [ref for ref in refs if ref in suspects or ref.startswith(f"{TEMP_NAMESPACE}/")]


def git_locks(root: Path) -> Iterator[Finding]:
    """The lock files under which git, and dvc itself, replace a reference; both refuse while one is there."""
    folder = root / git("rev-parse", "--git-common-dir", root=root)
    locks = sorted([*folder.glob("*.lock"), *(folder / "refs").rglob("*.lock")])
    if locks and not any(process.name() == "git" for process in running_in(root)):
        paths = [os.path.relpath(path, root) for path in locks]
        yield Finding("locks in git that a killed git or dvc held", [["rm", "--", *paths]])


def detached_head(root: Path) -> Iterator[Finding]:
    """An experiment in the workspace detaches HEAD from the branch, and goes back to it at the end."""
    if try_git("symbolic-ref", "-q", "HEAD", root=root):
        return
    moves = try_git("reflog", "--format=%gs", "HEAD", root=root).splitlines()
    saved = bool(moves) and moves[0].startswith("commit: dvc: commit experiment")
    move = re.fullmatch(r"checkout: moving from ([^-\s]\S*) to ([0-9a-f]{40})", moves[saved] if moves[saved:] else "")
    if move and try_git("rev-parse", f"refs/heads/{move[1]}", root=root) == move[2]:
        problem = f"HEAD is detached from `{move[1]}` by a killed experiment"
        if saved:  # with all other changes: the files stay as they are, as at the end of any experiment
            reattach = [["git", "symbolic-ref", "HEAD", f"refs/heads/{move[1]}"], ["git", "reset", "-q"]]
            yield Finding(f"{problem} that was finished: its results stay in the workspace", reattach)
        else:
            yield Finding(problem, [["git", "switch", move[1]]])
    else:
        yield Finding("HEAD is detached, and its branch is unknown: `git switch BRANCH` goes back to it", [])


def dead_experiments(root: Path) -> Iterator[Finding]:
    """Experiments that `dvc exp show` and `dvc queue status` call Running, and their copies of the repository."""
    exps = root / ".dvc/tmp/exps"
    with Repo(str(root)) as repo:
        tasks = [entry.name or entry.stash_rev[:7] for entry in repo.experiments.celery_queue.iter_active()]
    for task in tasks:
        yield Finding(
            f"queued experiment `{task}` is listed as Running, but its worker is gone",
            [["dvc", "queue", "kill", "--force", "--", task]],
        )
    used = {Path(process.cwd()) for process in orphan_stages(root)}
    folders = [exps / "run/workspace", *exps.glob("tmp*"), *exps.glob("standalone/*")]
    left = [folder for folder in folders if folder.is_dir() and not any(cwd.is_relative_to(folder) for cwd in used)]
    if any(folder.name.startswith("tmp") for folder in left) or exps / "run/workspace" in left:
        paths = [str(folder.relative_to(root)) for folder in left]
        yield Finding("folders of killed experiments, which `dvc exp show` may list Running", [["rm", "-rf", *paths]])


def temporary_files(root: Path) -> Iterator[Finding]:
    """Files that a killed stage had not finished, under their temporary names (files.atomic_write)."""
    if orphan_stages(root):
        return
    folders = ("data", "metrics", "models", "plots")
    if paths := sorted(path for folder in folders for path in (root / folder).rglob(".*.tmp")):
        yield Finding("files that a killed stage left unfinished", [["rm", *(str(p.relative_to(root)) for p in paths)]])
