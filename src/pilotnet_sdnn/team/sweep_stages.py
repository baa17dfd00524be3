"""The stages of a sweep's runs: which of them DVC executes, and a fingerprint by which runs know a stage they share."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import networkx
from dvc.dependency.param import ParamsDependency
from dvc.dvcfile import PROJECT_FILE
from dvc.repo import Repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro

from pilotnet_sdnn.params import parse_mapping
from pilotnet_sdnn.paths import LOCK, PARAMS
from pilotnet_sdnn.team.lock import locked_stages, mismatched_inputs
from pilotnet_sdnn.team.repository import git


class Stage(NamedTuple):
    """A stage, the parameters it reads and the stages whose outputs it reads."""

    address: str
    params: list[tuple[str, list[str]]]  # file, names; no names stand for all
    upstream: list[str]


def pipeline(repo: Repo) -> list[Stage]:
    """The stages, each after those it depends on."""
    graph = repo.index.graph
    return [
        Stage(
            _address(stage),
            [(dep.def_path, sorted(dep.params)) for dep in stage.deps if _is_params(dep)],
            [_address(other) for other in graph.successors(stage)],
        )
        for stage in networkx.dfs_postorder_nodes(graph)
    ]


def executed(repo: Repo, options: Mapping[str, Any]) -> set[str]:
    """The addresses of the stages that `dvc exp run` executes, as `Repo.reproduce` of DVC plans them.

    Args:
        options: arguments of `Repo.reproduce`.

    Raises:
        DvcException: there is no such stage.
    """
    every, connected = options.get("all_pipelines"), options.get("pipeline")
    targets = [] if every else options.get("targets") or [PROJECT_FILE]
    stages = collect_stages(repo, targets, recursive=bool(options.get("recursive")))
    if every or connected or not options.get("single_item"):
        downstream = bool(options.get("downstream")) and not (every or connected)
        stages = plan_repro(get_active_graph(repo.index.graph), stages, bool(connected), downstream)
    return set(map(_address, stages))


def fingerprints(stages: list[Stage], values: Mapping[str, Any], code: str) -> dict[str, str]:
    """The address of each stage, by a hash of all that its outputs are computed from.

    Args:
        stages: each after those it depends on.
        values: the parameters, by file.
        code: the commit with all other inputs.
    """
    found: dict[str, str] = {}  # address -> fingerprint
    for address, params, upstream in stages:
        used = [[_value(values.get(file, {}), name) for name in names or [""]] for file, names in params]
        content = [address, code, used, [found[name] for name in sorted(upstream)]]
        found[address] = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
    return {fingerprint: address for address, fingerprint in found.items()}


def computed_stages(repo: Repo) -> frozenset[str]:
    """The stages, as fingerprints, that need not run again for the last commit's parameters: their outputs are here."""
    root = Path(repo.root_dir)
    locked = locked_stages(_text(root / LOCK))
    outdated = {name for name, _ in mismatched_inputs(locked)}
    produced = {out.fs_path for out in repo.index.outs}
    by_address = {_address(stage): stage for stage in repo.index.stages}
    stages, current = pipeline(repo), set[str]()
    for address, _, upstream in stages:
        if (
            address in locked
            and address not in outdated
            and current.issuperset(upstream)
            and _unchanged(by_address[address], produced)
            and all(repo.cache.local.exists(out.hash_info.value) for out in by_address[address].outs if out.use_cache)
        ):
            current.add(address)
    params = _text(root / PARAMS)
    values = {PARAMS.name: parse_mapping(PARAMS, params) if params else {}}
    found = fingerprints(stages, values, git("rev-parse", "HEAD", root=root))
    return frozenset(fingerprint for fingerprint, address in found.items() if address in current)


def _unchanged(stage: Any, produced: Collection[str]) -> bool:
    """Whether the inputs that no stage produces are as dvc.lock has them."""
    return not any(dep.workspace_status() for dep in stage.deps if dep.fs_path not in produced or _is_params(dep))


def _address(stage: Any) -> str:
    """Its name in the repository's dvc.yaml; else with the path of the file that has it."""
    name = getattr(stage, "name", None)
    if name and Path(stage.path) == Path(stage.repo.root_dir, PROJECT_FILE):
        return name
    return f"{stage.path}:{name}" if name else stage.path


def _is_params(dependency: object) -> bool:
    return isinstance(dependency, ParamsDependency)


def _value(values: Any, name: str) -> Any:
    """A parameter by its dotted name; all of them by an empty one."""
    for part in filter(None, name.split(".")):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
