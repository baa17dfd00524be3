"""Records of stage runs: which ones a clone accepts from the remote, and which objects they name.

A record says which command, inputs and parameters gave which outputs, and DVC restores a stage from it by writing
those outputs. Everyone who can write to the remote can write records, so none is trusted: its name must be its
hash, its outputs must be those that dvc.yaml declares for its command, and nothing else is ever written.
"""

import json
import re
from collections.abc import Callable, Iterable
from copy import deepcopy
from hashlib import md5
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dvc.dvcfile import PROJECT_FILE
from dvc.repo import Repo
from dvc.schema import COMPILED_LOCK_FILE_STAGE_SCHEMA
from dvc.stage.cache import _get_cache_hash
from dvc_data.hashfile.hash_info import HashInfo
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from pilotnet_sdnn.errors import shown
from pilotnet_sdnn.team.repository import nul_separated, try_git, try_git_bytes

MAX_BYTES = 100_000  # of one record; those of this pipeline have two thousand
MAX_LIST_BYTES = 30_000_000  # of the list of the files of a folder, which takes ten times that in memory
LONGEST_NAME, LONGEST_PATH = 200, 1000  # bytes; file systems allow 255, and 4096 with the folder of the clone
RECORD_NAME = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{62})/([0-9a-f]{64})")
OBJECT_NAME = re.compile(r"[0-9a-f]{32}(\.dir)?")
OUTPUT_KEYS = {"path", "hash", "md5", "size", "nfiles", "isexec"}
FORBIDDEN_PARTS = {"", ".", "..", ".git", ".dvc", ".dvcignore", PROJECT_FILE}  # they lead out, or configure git or DVC
REPOSITORY_MARK = "HEAD"  # with it, git takes a folder for a repository and obeys the configuration in it


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
        text = content.decode()
        if "*" in text and any(isinstance(event, AliasEvent) for event in YAML().parse(text)):
            raise RefusedError("it has YAML aliases, which DVC does not write")
        record = COMPILED_LOCK_FILE_STAGE_SCHEMA(YAML(typ="safe").load(text))
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
        return f"output {output['path']} has {shown(sorted(unknown))}, which outputs of this pipeline do not have"
    if output.get("hash") != "md5" or not OBJECT_NAME.fullmatch(output.get("md5", "")):
        return f"output {output['path']} has no MD5 of DVC 3"
    return ""


def _unsafe_path(path: str) -> str:
    if not path.isprintable() or "\\" in path:
        return f"path {shown(path)} has a backslash or a character that cannot be printed"
    parts = path.split("/")
    if len(path.encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST_NAME for part in parts):
        return f"path {shown(path)} is too long"
    if REPOSITORY_MARK in parts or any(
        part.lower() in FORBIDDEN_PARTS or part.lower().endswith(".dvc") for part in parts
    ):
        return f"path {shown(path)} leads out of the repository, or to files that git or DVC obeys"
    return ""


def record_stage(record: dict) -> Stage:
    return Stage(str(record["cmd"]), frozenset(output["path"] for output in record.get("outs", [])))


def folders(record: dict) -> list[str]:
    """The names of the objects that list the files of those outputs that are folders."""
    return [entry.value for entry in _outputs(record) if entry.isdir]


def objects(record: dict, path_of: Callable[[str], str]) -> list[HashInfo]:
    """Every object a record refers to, the files in its folders included.

    Args:
        path_of: where the list of the files of a folder is, by its name.

    Raises:
        MissingListError: such a list is not there.
        RefusedError: it is damaged or has a file that must not be written.
    """
    listed = [file for folder in folders(record) for file in listed_files(folder, path_of(folder))]
    return [*_outputs(record), *listed]


def _outputs(record: dict) -> list[HashInfo]:
    return [HashInfo("md5", output["md5"]) for output in record.get("outs", [])]


def listed_files(oid: str, path: str) -> list[HashInfo]:
    """The objects in the list of the files of a folder.

    Args:
        oid: the name of the list.
        path: where it is.

    Raises:
        MissingListError: it is not there.
        RefusedError: it is not what its name says, is none that DVC writes, or has a file that must not be written.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise MissingListError(f"the list of files {oid} is missing, or too large") from None
    if md5(content).hexdigest() != oid.removesuffix(".dir"):
        raise RefusedError(f"the list of files {oid}: its hash does not match its name")
    try:
        entries = json.loads(content.decode("ascii"))
        files: dict[str, str] = {entry["relpath"]: entry["md5"] for entry in entries}
        sound = len(files) == len(entries) and all(map(_is_sound, entries))
    except (ValueError, TypeError, KeyError, RecursionError):
        sound = False
    if not sound:
        raise RefusedError(f"the list of files {oid} is damaged")
    for path in files:
        if reason := _unsafe_path(path):
            raise RefusedError(f"the list of files {oid}: {reason}")
    parents = {str(folder) for path in files for folder in PurePosixPath(path).parents}
    if both := parents & files.keys():
        raise RefusedError(f"the list of files {oid}: {shown(min(both))} is a file and a folder")
    return [HashInfo("md5", value) for value in files.values()]


def _is_sound(entry: dict) -> bool:
    """Whether DVC can have written an entry of a list: no other keys, and strings of the right form."""
    path, value = entry["relpath"], entry["md5"]
    return len(entry) == 2 and isinstance(path, str) and bool(re.fullmatch(r"[0-9a-f]{32}", value))


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
