"""How the working tree differs from the last commit, and which of these changes a killed run made."""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.refs import EXEC_MERGE
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides

from pilotnet_sdnn.errors import UserError, one_line, shown
from pilotnet_sdnn.params import parse_mapping
from pilotnet_sdnn.paths import LOCK, PARAMS
from pilotnet_sdnn.team.repository import commit_id, nul_separated, try_git, try_git_bytes

RESULTS = (str(LOCK), "metrics", "plots")
REPRO_DATA = ".dvc/tmp/repro.dat"
GO_BACK = f"git checkout HEAD -- {PARAMS} {' '.join(RESULTS)} && dvc checkout --force --allow-missing"


def experiment_changes(root: Path, killed: list[str]) -> Iterator[tuple[str, list[list[str]]]]:
    """The changes of a killed experiment, with commands for those that are certainly its own.

    Args:
        killed: the dvc commands that were killed, as far as dvc's locks name them.
    """
    stash, base, head, experiment = (commit_id(name, root) for name in ("stash@{0}", "stash@{0}^", "HEAD", EXEC_MERGE))
    if present(root, str(PARAMS)):
        yield params_change(root, killed)
    if results := present(root, *RESULTS):
        yield (
            f"{', '.join(results)}: changed by the killed run or by you, and left alone. The same command completes "
            f"them; `{GO_BACK}` goes back to the last commit",
            [],
        )
    if stash and base == head:
        both = f", and with them the experiment's {PARAMS}, which `git restore --staged --worktree {PARAMS}` drops"
        yield (
            "your changes may be in git's stash, where dvc puts them for a moment: `git stash show -p` shows them, "
            "`git stash pop` brings them back, after `git restore` of the files it names"
            + both
            * (stash == experiment),
            [],
        )


def only_in_experiment(root: Path) -> tuple[str, list[list[str]]]:
    """The user's changes that dvc had put aside for a killed experiment and not yet put back, and how to keep them."""
    differing = nul_separated(try_git("diff", "-z", "--name-only", "--relative", "HEAD", EXEC_MERGE, "--", root=root))
    names = [name for name in differing if name not in (str(PARAMS), REPRO_DATA) and not changed(root, name)]
    commit = commit_id(EXEC_MERGE, root)
    if not names or commit == commit_id("stash@{0}", root):
        return "", []
    return (
        f". It alone has your changes of {', '.join(names)}: git's stash gets them, `git stash pop` brings them back, "
        f"and then `git restore --staged --worktree {PARAMS}` drops the experiment's parameters",
        [["git", "stash", "store", "-m", "changes that dvc had put aside", commit]],
    )


def staged_by_dvc(root: Path) -> Iterator[tuple[str, list[list[str]]]]:
    """A file that dvc adds to an experiment, and that would be in the next commit."""
    if try_git("ls-files", REPRO_DATA, root=root):
        yield "dvc's own repro.dat is staged for commit", [["git", "rm", "-qf", REPRO_DATA]]


def params_change(root: Path, killed: list[str]) -> tuple[str, list[list[str]]]:
    """Who changed params.yaml: the experiment's change is undone, a change that may be the user's is kept."""
    text = (root / PARAMS).read_bytes() if (root / PARAMS).exists() else b""
    edits = ", ".join(edited(root))
    if any(with_overrides(root, command) == text for command in killed):
        return (
            f"{PARAMS} has the parameters of the killed experiment, and no other change ({edits})",
            [["git", "restore", "--staged", "--worktree", str(PARAMS)]],
        )
    merged = try_git_bytes("show", f"{EXEC_MERGE}:./{PARAMS}", root=root)
    if text and text == merged:  # killed between stages: it held no lock
        return (
            f"{PARAMS} is as the killed experiment had it ({edits}); git's stash keeps it, in case that was your edit",
            [["git", "stash", "push", "-q", "-m", f"{PARAMS} of a killed experiment", "--", str(PARAMS)]],
        )
    return (
        f"{PARAMS} has changes that may be yours, and is left alone ({edits}); "
        f"`git restore --staged --worktree {PARAMS}` drops them",
        [],
    )


def with_overrides(root: Path, command: str) -> bytes:
    """params.yaml as the last commit has it, with the -S edits of a `dvc exp run` made as dvc makes them."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-S", "--set-param", action="append", default=[])
    edits = parser.parse_known_args(command.strip("`").split())[0].set_param
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, PARAMS.name)
        copy.write_bytes(try_git_bytes("show", f"HEAD:./{PARAMS}", root=root))
        try:
            apply_overrides(copy, to_path_overrides(edits).get(str(PARAMS), []))
        except (DvcException, ValueError):
            return b""
        return copy.read_bytes()


def missing_results(root: Path) -> Iterator[str]:
    """Results that git tracks and that are gone: a stage removes its outputs before it runs."""
    if missing := [name for name in changed(root, str(PARAMS), *RESULTS) if not (root / name).exists()]:
        yield (
            f"{', '.join(missing)}: missing, probably because a run was stopped. The same dvc command writes them "
            f"again; `{GO_BACK}` goes back to the last commit"
        )


def cautions(root: Path) -> Iterator[str]:
    """Not damage, but worth knowing: runs here may fail, be unsafe, or differ from the last commit."""
    if not str(root).isascii():
        yield (
            f"{root} has non-ASCII letters: `dvc exp run --temp`, the queue and `dvc remote add` of a folder in it "
            "fail. Move the clone"
        )
    if "{" in str(root) or "}" in str(root):
        yield f"{root} has braces, and `dvc repro` fails in it. Move the clone"
    if unknown := nul_separated(try_git("ls-files", "-z", "--others", "--exclude-standard", "--", "src", root=root)):
        yield f"git does not know {', '.join(unknown)}: queued and --temp experiments run without it. `git add` it"
    try:
        with Repo(str(root)) as repo:
            remotes = {name: remote.get("verify") for name, remote in repo.config["remote"].items()}
            repo.index.check_graph()
    except DvcException as error:
        yield f"{one_line(error)}; `git diff HEAD` shows what changed since the last commit"
        return
    for name in (name for name, verify in remotes.items() if not verify):
        yield f"plain `dvc pull` does not check what remote `{name}` holds: `dvc remote modify {name} verify true`"
    changes = [
        *([f"{PARAMS} ({', '.join(edited(root))})"] if changed(root, str(PARAMS)) else []),
        *changed(root, *RESULTS),
    ]
    if changes:
        yield f"not committed: {', '.join(changes)}. `{GO_BACK}` goes back to the last commit"


def changed(root: Path, *paths: str) -> list[str]:
    """The files among these that differ from the last commit."""
    return nul_separated(try_git("diff", "-z", "--name-only", "--relative", "HEAD", "--", *paths, root=root))


def present(root: Path, *paths: str) -> list[str]:
    """Those of them that are there; the others are missing."""
    return [name for name in changed(root, *paths) if (root / name).exists()]


def edited(root: Path) -> list[str]:
    """The parameters that differ from the last commit, each as `name: old -> new`."""
    try:
        versions = try_git_bytes("show", f"HEAD:./{PARAMS}", root=root), (root / PARAMS).read_bytes()
        old, new = (parse_mapping(PARAMS, version.decode()) if version else {} for version in versions)
    except (UserError, OSError, UnicodeDecodeError):
        return ["unreadable"]
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return [f"{name}: {shown(old.get(name))} -> {shown(new.get(name))}" for name in names] or ["comments only"]
