"""Records of stage runs: which ones a clone accepts from the remote, and which objects they name.

A record says which command, inputs and parameters gave which outputs, and DVC restores a stage from it by writing
those outputs. Everyone who can write to the remote can write records, so none is trusted: its name must be its
hash, its outputs must be those that dvc.yaml declares for its command, and nothing else is ever written.
"""

import re
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dvc.dvcfile import PROJECT_FILE
from dvc.repo import Repo
from dvc.schema import COMPILED_LOCK_FILE_STAGE_SCHEMA
from dvc.stage.cache import _get_cache_hash
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from pilotnet_sdnn.team.repository import nul_separated, try_git, try_git_bytes

MAX_BYTES = 1_000_000  # of one record; those of this pipeline have two thousand
RECORD_NAME = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})/([0-9a-f]{64})")
OBJECT_NAME = re.compile(r"[0-9a-f]{32}(\.dir)?")
OUTPUT_KEYS = {"path", "hash", "md5", "size", "nfiles", "isexec"}
FORBIDDEN_PARTS = {"", ".", "..", ".git", ".dvc", ".dvcignore", PROJECT_FILE}  # they lead out, or configure git or DVC


class RefusedError(Exception):
    """Why a record is refused."""


class MissingListError(RefusedError):
    """The object that lists the files of a folder is not in the cache."""


class Stage(NamedTuple):
    """What a record and a stage of dvc.yaml have in common."""

    command: str
    outputs: frozenset[str]


def refused_name(name: str, size: int) -> str:
    """Why a file cannot be a record, whatever its content; empty if it can."""
    if not RECORD_NAME.fullmatch(name):
        return "its name is not that of a record"
    return f"it has {size} bytes, and a record has at most {MAX_BYTES}" if size > MAX_BYTES else ""


def parse_record(name: str, content: bytes) -> dict:
    """Check a record against its name and against the kind of outputs that a stage can have.

    Args:
        name: its path below `runs/`: two digits, the hash of command, inputs, parameters and paths of the outputs,
            and the hash of the whole record.

    Raises:
        RefusedError: it is damaged, is not what its name says, or has an output that must not be written.
    """
    if reason := refused_name(name, len(content)):
        raise RefusedError(reason)
    try:
        if b"*" in content and any(isinstance(event, AliasEvent) for event in YAML().parse(content)):
            raise RefusedError("it has YAML aliases, which DVC does not write")
        record = COMPILED_LOCK_FILE_STAGE_SCHEMA(YAML(typ="safe").load(content))
        hashes = _get_cache_hash(deepcopy(record), key=True), _get_cache_hash(record)
    except RefusedError:
        raise
    except Exception as error:  # YAML, DVC's schema and DVC's hash each raise exceptions of their own
        raise RefusedError(f"it is damaged: {type(error).__name__}") from None
    if hashes != tuple(name.split("/")[1:]):
        raise RefusedError("its hash does not match its name")
    for output in record.get("outs", []):
        if reason := _unsafe_output(output):
            raise RefusedError(reason)
    return record


def _unsafe_output(output: dict) -> str:
    if reason := _unsafe_path(output["path"]):
        return reason
    if unknown := output.keys() - OUTPUT_KEYS:
        return f"output {output['path']} has {', '.join(sorted(unknown))}, which outputs of this pipeline do not have"
    if output.get("hash") != "md5" or not OBJECT_NAME.fullmatch(output.get("md5", "")):
        return f"output {output['path']} has no MD5 of DVC 3"
    return ""


def _unsafe_path(path: str) -> str:
    if not path.isprintable() or "\\" in path:
        return f"path {path!r} has a backslash or a character that cannot be printed"
    if any(part.lower() in FORBIDDEN_PARTS or part.lower().endswith(".dvc") for part in path.split("/")):
        return f"path {path!r} leads out of the repository, or to files that git or DVC obeys"
    return ""


def record_stage(record: dict) -> Stage:
    return Stage(str(record["cmd"]), frozenset(output["path"] for output in record.get("outs", [])))


def folders(record: dict) -> list[HashInfo]:
    """The objects that list the files of those outputs that are folders."""
    return [entry for entry in _outputs(record) if entry.isdir]


def objects(record: dict, cache: HashFileDB) -> list[HashInfo]:
    """Every object a record refers to, the files in its folders included.

    Raises:
        MissingListError: the list of the files of a folder is not in the cache.
        RefusedError: the list is damaged or has a file that must not be written.
    """
    listed = [file for folder in folders(record) for file in _files(folder, cache)]
    return [*_outputs(record), *listed]


def _outputs(record: dict) -> list[HashInfo]:
    return [HashInfo("md5", output["md5"]) for output in record.get("outs", [])]


def _files(folder: HashInfo, cache: HashFileDB) -> list[HashInfo]:
    try:
        entries = list(Tree.load(cache, folder))
    except FileNotFoundError:
        raise MissingListError(f"the list of files {folder.value} is missing") from None
    except Exception as error:  # the list is JSON of any form
        raise RefusedError(f"the list of files {folder.value} is damaged: {type(error).__name__}") from None
    for parts, _, entry in entries:
        if reason := _unsafe_path("/".join(parts)):
            raise RefusedError(f"the list of files {folder.value}: {reason}")
        if not entry or not OBJECT_NAME.fullmatch(entry.value or "") or entry.isdir:
            raise RefusedError(f"the list of files {folder.value}: {'/'.join(parts)} has no MD5")
    return [entry for _, _, entry in entries]


def declared_stages(repo: Repo) -> set[Stage]:
    """The stages of dvc.yaml in the workspace and at every commit that git has here.

    A dvc.yaml with templates is resolved in the workspace only.
    """
    here = [Stage(str(stage.cmd), frozenset(out.def_path for out in stage.outs)) for stage in repo.index.stages]
    return {*here, *(stage for text in _pipelines(Path(repo.root_dir)) for stage in _stages(text))}


def _pipelines(root: Path) -> Iterable[bytes]:
    """Every version of dvc.yaml in git."""
    prefix = try_git("rev-parse", "--show-prefix", root=root)
    history = try_git("rev-list", "--all", "--full-history", "--objects", "HEAD", "--", PROJECT_FILE, root=root)
    names = {line.split(" ")[0] for line in history.splitlines() if line.endswith(f" {prefix}{PROJECT_FILE}")}
    return [try_git_bytes("cat-file", "blob", name, root=root) for name in names]


def _stages(pipeline: bytes) -> Iterable[Stage]:
    try:
        stages = YAML(typ="safe").load(pipeline)["stages"].values()
        for stage in stages:
            listed = [entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind) or []]
            paths = [path for entry in listed for path in (entry if isinstance(entry, dict) else [entry])]
            yield Stage(str(stage["cmd"]), frozenset(paths))
    except (YAMLError, AttributeError, KeyError, TypeError):  # a commit with a broken dvc.yaml, or templates
        return


def code_in_git(repo: Repo) -> set[PurePosixPath]:
    """The files that git tracks here, with their folders, except what dvc.yaml declares as outputs."""
    root = Path(repo.root_dir)
    tracked = set(map(PurePosixPath, nul_separated(try_git("ls-files", "-z", root=root))))
    results = {
        PurePosixPath(Path(out.fs_path).relative_to(root).as_posix()) for out in repo.index.outs if out.is_in_repo
    }
    code = tracked - results
    return code | {folder for file in code for folder in file.parents}


def refuse_code(record: dict, code: set[PurePosixPath]) -> None:
    """Raise RefusedError if an output is among these files of git."""
    for output in record_stage(record).outputs:
        if PurePosixPath(output) in code:
            raise RefusedError(f"git tracks its output {output}")
