"""The runs of a sweep: which there are, and which are done."""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.executor.base import BaseExecutor
from dvc.repo.experiments.queue.base import QueueEntry
from dvc.repo.experiments.refs import ExpRefInfo
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from hydra.errors import HydraException

from pilotnet_sdnn.errors import UserError, one_line
from pilotnet_sdnn.params import parse_mapping
from pilotnet_sdnn.paths import PARAMS, PIPELINE
from pilotnet_sdnn.team.repository import git, try_git, try_git_bytes
from pilotnet_sdnn.team.sweep_stages import Stage, executed, fingerprints, pipeline

MAX_NAME = 100  # characters
FLAGS = (  # of `dvc exp run`, as DVC calls them
    "single_item", "pipeline", "all_pipelines", "recursive", "downstream", "force", "force_downstream", "pull",
    "allow_missing",
)  # fmt: skip
NOT_FOR_WORKERS = ("copy_paths", "interactive", "dry")
PLAIN = r"[A-Za-z]\w*=-?[A-Za-z0-9]+(\.[0-9]+)?(e-[0-9]+)?"  # values that a name shows as they are


class Run(NamedTuple):
    """An experiment to run somewhere."""

    name: str
    baseline: str  # the commit it starts from
    source: str  # the commit with its files: the baseline, or what `dvc exp run --queue` stashed
    arguments: tuple[str, ...] = ()  # of `dvc exp run`
    params: str = ""  # its parameters, as JSON
    stages: Mapping[str, str] = {}  # fingerprint -> address
    targets: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """Where git has the experiment once it has run."""
        return str(ExpRefInfo(self.baseline, self.name))


def grid(repo: Repo, set_params: list[str]) -> list[Run]:
    """One run for each combination of values, by DVC's own rules, named after them; combinations that are equal once.

    Raises:
        UserError: a parameter or a value is wrong, or tracked files were changed since the last commit.
    """
    root = Path(repo.root_dir)
    if changed := try_git("diff", "--name-only", "HEAD", "--", ".", root=root).splitlines():
        raise UserError(
            f"{', '.join(changed[:3])}{' and others' if changed[3:] else ''}: not committed, and workers run the last "
            "commit. Commit or drop the changes, or queue them: `dvc exp run --queue -S ...`, `sdnn-sweep --queued`"
        )
    baseline, stages, runs = git("rev-parse", "HEAD", root=root), pipeline(repo), dict[str, Run]()
    try:
        combinations = get_hydra_sweeps(to_path_overrides(set_params))
        for combination in combinations:
            values = _with_overrides(root, combination)
            params = json.dumps(values, sort_keys=True, default=str)
            overrides = tuple(
                override if file == PARAMS.name else f"{file}:{override}"
                for file, listed in combination.items()
                for override in listed
            )
            arguments = tuple(word for override in overrides for word in ("-S", override))
            found = fingerprints(stages, values, baseline)
            runs.setdefault(params, Run(_name(overrides), baseline, baseline, arguments, params, found))
    except (DvcException, HydraException) as error:
        raise UserError(f"-S: {one_line(error.__cause__ or error)}") from None
    return list(runs.values())


def queued(repo: Repo) -> list[Run]:
    """The experiments that `dvc exp run --queue` has queued, with its targets and options.

    Raises:
        UserError: DVC is running its queue, so that both would run the same; or a worker cannot run one of them as it
            was queued.
    """
    queue, stages = repo.experiments.celery_queue, pipeline(repo)
    if active := [entry.name or entry.stash_rev[:7] for entry in queue.iter_active()]:
        raise UserError(f"`dvc queue` is running {active[0]} in this repository; wait, or end it with `dvc queue stop`")
    return [_queued_run(repo, stages, entry, message.decode()[1]) for message, entry in queue._iter_queued()]


def _queued_run(repo: Repo, stages: list[Stage], entry: QueueEntry, more: dict[str, Any]) -> Run:
    """What was queued.

    Args:
        more: options that DVC has in the message about the entry, not in its commit.
    """
    root = Path(repo.root_dir)
    text = try_git_bytes("show", f"{entry.stash_rev}:./{PARAMS}", root=root)
    values = {PARAMS.name: parse_mapping(PARAMS, text.decode(errors="replace")) if text else {}}
    changed = try_git("diff", "--name-only", "--relative", entry.baseline_rev, entry.stash_rev, "--", ".", root=root)
    edits = [path for path in changed.splitlines() if path != PARAMS.name and not path.startswith(".dvc/")]
    code = entry.stash_rev if edits else entry.baseline_rev
    try:
        options = _queued_options(root, entry.stash_rev) | more
        arguments, addresses = _arguments(options), executed(repo, options)
    except (UserError, DvcException) as error:
        raise UserError(f"queued run {entry.name}: {one_line(error)}") from None
    if options.get("single_item") or options.get("downstream"):
        code += f" {arguments}"  # the outputs do not depend on the stages before, but on the files that are there
    found = fingerprints(stages, values, code)
    used = {fingerprint: address for fingerprint, address in found.items() if address in addresses}
    params, targets = json.dumps(values, sort_keys=True, default=str), tuple(options.get("targets") or [])
    return Run(entry.name, entry.baseline_rev, entry.stash_rev, arguments, params, used, targets)


def _queued_options(root: Path, commit: str) -> dict[str, Any]:
    """The targets and options of a queued run, which DVC has in a file of its commit."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, BaseExecutor.PACKED_ARGS_FILE)
        copy.write_bytes(try_git_bytes("show", f"{commit}:./.dvc/tmp/{copy.name}", root=root))
        return BaseExecutor.unpack_repro_args(copy)[1]


def _arguments(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The same options as words of a command."""
    if refused := [name for name in NOT_FOR_WORKERS if options.get(name)]:
        raise UserError(f"no worker can do {_option(refused[0])}; `dvc queue remove` it, and queue it without")
    flags = [_option(name) for name in FLAGS if options.get(name)]
    on_error = {"keep-going": ["--keep-going"], "ignore": ["--ignore-errors"]}.get(options.get("on_error") or "", [])
    message = ["--message", options["message"]] if options.get("message") else []
    return (*flags, *on_error, *message)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def done(repo: Repo, runs: list[Run]) -> list[Run]:
    """Those of the runs that DVC has as experiments.

    Raises:
        UserError: an experiment of the same name has other parameters.
    """
    root = Path(repo.root_dir)
    there = set(git("for-each-ref", "--format=%(refname)", "refs/exps", root=root).splitlines())
    finished = [run for run in runs if run.reference in there]
    for run in finished:
        for file, values in json.loads(run.params).items():
            text = try_git_bytes("show", f"{run.reference}:./{file}", root=root).decode(errors="replace")
            if json.loads(json.dumps(parse_mapping(Path(file), text), default=str)) != values:
                raise UserError(
                    f"experiment {run.name} exists with another {file}; `dvc exp remove {run.name}` or "
                    f"`dvc exp rename {run.name} NAME` makes room"
                )
    return finished


def _with_overrides(root: Path, overrides: Mapping[str, list[str]]) -> dict[str, dict]:
    """The parameter files, as DVC would write them."""
    values = {}
    for file in overrides.keys() | {PARAMS.name}:
        if not (root / file).is_file():
            raise UserError(f"-S: there is no {file} beside {PIPELINE}")
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, Path(file).name)
            copy.write_bytes((root / file).read_bytes())
            if file in overrides:
                apply_overrides(copy, overrides[file])
            values[file] = parse_mapping(Path(file), copy.read_text(encoding="utf-8"))
    return values


def _name(overrides: Iterable[str]) -> str:
    """`lam-0.05-threshold-0.1`; with a hash, where values have characters that a git reference may not have."""
    written = ",".join(overrides)
    name = re.sub(r"[^A-Za-z0-9._-]", "-", written)
    if re.fullmatch(rf"{PLAIN}(,{PLAIN})*", written) and len(name) <= MAX_NAME:
        return name
    short = re.sub(r"[-.]{2,}", "-", name)[:MAX_NAME].strip("-.")
    return f"{short}-{hashlib.sha256(written.encode()).hexdigest()[:6]}"
