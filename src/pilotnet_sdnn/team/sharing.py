"""Objects and run records between the cache and a DVC remote.

`dvc push --run-cache` sends the records of all runs, but only the objects of the current dvc.lock, and
`dvc pull --run-cache` writes whatever the remote holds to whatever path it names. These two functions send and fetch
the objects of every recorded run, of all experiments and of the workspace, and trust nothing that the remote says.
The calls into DVC are internal ones of the version that pyproject.toml pins; tests/test_share.py tries them on real
servers.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from dvc.cachemgr import LEGACY_HASH_NAMES
from dvc.data_cloud import Remote
from dvc.fs.callbacks import TqdmCallback
from dvc.repo import Repo
from dvc.repo.experiments.utils import exp_refs
from dvc.scm import NoSCMError
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.hash import file_md5
from dvc_data.hashfile.hash_info import HashInfo
from dvc_objects.fs import generic
from dvc_objects.fs.base import FileSystem
from dvc_objects.fs.local import LocalFileSystem

from pilotnet_sdnn.errors import MAX_LENGTH, UserError, counted, printable, shortened
from pilotnet_sdnn.team.records import (
    MAX_LIST_BYTES,
    MissingListError,
    RefusedError,
    code_in_git,
    declared_stages,
    folders,
    objects,
    parse_record,
    record_stage,
    refuse_code,
    refused_name,
)

NAMED = 20  # refused files, at most, that are named
FETCHED_REST = "everything else was fetched"
EMPTY = "the remote holds nothing"


class Arrivals(NamedTuple):
    """The records that the remote has and the clone lacks."""

    accepted: dict[str, list[HashInfo]]  # name -> the objects it refers to
    refused: dict[str, str]  # name -> reason
    undeclared: list[str]  # names of records that fit no stage of dvc.yaml


def push(repo: Repo, remote: Remote) -> None:
    """Send objects first and records last, so that a record on the remote never refers to a missing object.

    An interrupted upload leaves nothing under an object's name. An object whose size differs from the one here is
    damaged, which `dvc push` does not see: it is sent again.
    """
    cache, recorded = repo.cache.local, recorded_objects(repo)
    here, there = _sizes(cache), _sizes(remote.odb)
    shared = {entry.value: entry for entry in used_objects(repo, recorded) if entry.value in here}
    damaged = [oid for oid in shared if there.get(oid, here[oid]) != here[oid] and _intact(cache, oid)]
    for oid in damaged:
        remote.odb.delete(oid)
    sent, failed = repo.cloud.push(shared.values(), odb=remote.odb)
    if failed:
        raise UserError(
            f"{len(failed)} of {counted(len(shared), 'object')} could not be sent; run the same command again"
        )
    available = here.keys() | there.keys()
    complete = {name for name, entries in recorded.items() if available.issuperset(entry.value for entry in entries)}
    records = _send_records(repo.cache.legacy, remote.legacy_odb, complete)

    size = sum(here[entry.value] for entry in sent) / 1e6
    print(
        f"sent {len(sent)} of {counted(len(shared), 'object')}, {size:.1f} MB, and the records of "
        f"{counted(records, 'stage run')}"
    )
    if damaged:
        print(f"damaged objects repaired on the remote: {len(damaged)}")


def pull(repo: Repo, remote: Remote, closed: Mapping[str, str]) -> None:
    """Fetch objects first and records last, so that a record here never refers to a missing object.

    DVC restores a stage from its newest record, or runs it if objects of that record are missing.

    Args:
        closed: files of the remote that the user may not read -> why.

    Raises:
        UserError: something was refused or could not be fetched. Everything else is here by then.
    """
    if not remote.fs.exists(remote.path):
        raise UserError(f"{EMPTY}; `sdnn-share push` in a clone that has runs fills it")
    remote.odb.verify = True  # DVC then removes an object whose hash is not its name
    repo.config["remote"][remote.name]["verify"] = True  # also where DVC itself fetches the list of a folder
    before, there = _sizes(repo.cache.local), _sizes(remote.odb)
    with tempfile.TemporaryDirectory(dir=repo.tmp_dir) as folder:
        arrivals = _fetch_records(repo, remote, there, Path(folder))
        wanted = used_objects(repo, recorded_objects(repo) | arrivals.accepted)
        _, failed = repo.cloud.pull([entry for entry in wanted if entry.value in there], odb=remote.odb)
        here = _sizes(repo.cache.local)
        _take_over(repo, arrivals.accepted, here.keys(), Path(folder))
    new = here.keys() - before.keys()
    print(f"fetched {len(new)} of {counted(len(wanted), 'object')}, {sum(here[oid] for oid in new) / 1e6:.1f} MB")

    lacking = {entry.value for entry in wanted - failed} - here.keys()
    damaged, missing = sorted(lacking & there.keys()), lacking - there.keys()
    refused = {**closed, **{f"runs/{name}": reason for name, reason in arrivals.refused.items()}}
    refused |= {
        remote.odb.oid_to_path(oid).removeprefix(f"{remote.path}/"): "its hash does not match its name"
        for oid in damaged
    }
    for path, reason in islice(refused.items(), NAMED):
        print(shortened(printable(f"refused {path}: {reason}"), MAX_LENGTH))
    if arrivals.undeclared:
        print(
            f"records not fetched: {len(arrivals.undeclared)}. Their stages are in no dvc.yaml that git has here; if a "
            "colleague added them, `git fetch`, then pull again"
        )
    if failed:
        raise UserError(f"{counted(len(failed), 'object')} could not be fetched; run the same command again")
    if refused:
        raise UserError(
            f"{counted(len(refused), 'file')} refused, see above; {FETCHED_REST}. Delete what is damaged "
            "there, and `sdnn-share push` of a clone that has the run sends it again"
        )
    if missing:
        print(f"objects missing both here and on the remote: {len(missing)}. The stages that made them would run again")
    print(f"`dvc repro` and `dvc exp run` of {'the other' if missing else 'these'} runs now execute nothing")


def used_objects(repo: Repo, recorded: dict[str, list[HashInfo]]) -> set[HashInfo]:
    """The objects of the workspace, of all experiments and of these records."""
    try:
        experiments = [repo.scm.get_ref(str(ref)) for ref in exp_refs(repo.scm)]
    except NoSCMError:
        experiments = []
    used = repo.used_objs(revs=experiments, skip_failed=True)
    in_lock_files = {entry for entries in used.values() for entry in entries if entry.name not in LEGACY_HASH_NAMES}
    return in_lock_files.union(*recorded.values())


def recorded_objects(repo: Repo) -> dict[str, list[HashInfo]]:
    """The objects of each record in this clone; a damaged record is removed, as DVC does when it meets one."""
    recorded = {}
    runs = Path(repo.stage_cache.cache_dir)
    for name in _record_sizes(repo.cache.legacy):
        try:
            recorded[name] = objects(parse_record(name, (runs / name).read_bytes()), repo.cache.local.oid_to_path)
        except MissingListError:  # removed by `dvc gc`
            continue
        except RefusedError as error:
            print(shortened(printable(f"removed {runs / name}: {error}"), MAX_LENGTH))
            (runs / name).unlink()
    return recorded


def _send_records(source: HashFileDB, target: HashFileDB, records: set[str]) -> int:
    """Send the records that the target lacks or has in another size, and return their number."""
    there = _record_sizes(target)
    sizes = {name: size for name, size in _record_sizes(source).items() if name in records}
    names = [name for name, size in sizes.items() if there.get(name) != size]
    paths = [_record_path(target, name) for name in names]
    for folder in {target.fs.parent(path) for path in paths}:
        target.makedirs(folder)
    _copy(source.fs, [_record_path(source, name) for name in names], target.fs, paths)
    for path in paths:
        target.protect(path)
    return len(names)


def _fetch_records(repo: Repo, remote: Remote, there: Mapping[str, int], folder: Path) -> Arrivals:
    """Fetch the records that are new here into a folder, and check each of them.

    Args:
        there: the sizes of the objects on the remote.
    """
    source, target = remote.legacy_odb, repo.cache.legacy
    here, offered = _record_sizes(target), _record_sizes(source)
    new = [name for name, size in offered.items() if here.get(name) != size]
    arrivals = Arrivals({}, {name: reason for name in new if (reason := refused_name(name, offered[name]))}, [])
    names = [name for name in new if name not in arrivals.refused]
    declared, code = declared_stages(repo), code_in_git(repo)
    paths = [_arrived(folder, name) for name in names]
    _copy(source.fs, [_record_path(source, name) for name in names], target.fs, list(map(str, paths)))
    records = {}
    for name, path in zip(names, paths, strict=True):
        with _refusing(name, arrivals):
            records[name] = parse_record(name, path.read_bytes())
    cache = repo.cache.local
    lists = {oid for record in records.values() for oid in folders(record) if not cache.exists(oid)}
    _fetch_lists(remote, [oid for oid in lists if there.get(oid, MAX_LIST_BYTES + 1) <= MAX_LIST_BYTES], folder)
    for name, record in records.items():
        with _refusing(name, arrivals):
            refuse_code(record, code)
            used = objects(record, lambda oid: str(folder / oid) if oid in lists else cache.oid_to_path(oid))
            if record_stage(record) not in declared:
                arrivals.undeclared.append(name)
                continue
            arrivals.accepted[name] = used
            for oid in lists.intersection(folders(record)):
                cache.add(str(folder / oid), cache.fs, oid)
                os.utime(cache.oid_to_path(oid), (0, 0))  # stages prefer the newest, which are the clone's own
    return arrivals


def _fetch_lists(remote: Remote, lists: list[str], folder: Path) -> None:
    """Fetch lists of files into a folder, to be checked before DVC sees them: it follows what a list says."""
    sources = [remote.odb.oid_to_path(oid) for oid in lists]
    _copy(remote.fs, sources, LocalFileSystem(), [str(folder / oid) for oid in lists])


def _take_over(repo: Repo, accepted: Mapping[str, list[HashInfo]], here: Collection[str], folder: Path) -> None:
    """Give the clone those of the fetched records whose objects are all here.

    They count as older than the clone's own: for inputs that it has run itself, its own result stays.
    """
    target = repo.cache.legacy
    for name, used in accepted.items():
        if all(entry.value in here for entry in used):
            path = _record_path(target, name)
            target.makedirs(target.fs.parent(path))
            shutil.move(_arrived(folder, name), path)
            os.utime(path, (0, 0))


def _arrived(folder: Path, name: str) -> Path:
    """Where a record waits until it is checked."""
    return folder / name.replace("/", "-")


@contextmanager
def _refusing(name: str, arrivals: Arrivals) -> Iterator[None]:
    try:
        yield
    except RefusedError as error:
        arrivals.refused[name] = str(error)


def _copy(source: FileSystem, sources: list[str], target: FileSystem, targets: list[str]) -> None:
    with TqdmCallback(desc="Records of runs", unit="file", size=len(sources)) as callback:
        if sources:
            generic.copy(source, sources, target, targets, callback=callback)


def _sizes(odb: HashFileDB) -> dict[str, int]:
    """The size of each object, by its hash; what lies deeper is none."""
    files = [(odb.fs.parts(path), size) for path, size in _files(odb.fs, odb.path)]
    return {"".join(parts[-2:]): size for parts, size in files if len(parts) == len(odb.fs.parts(odb.path)) + 2}


def _intact(odb: HashFileDB, oid: str) -> bool:
    return file_md5(odb.oid_to_path(oid), odb.fs) == oid.removesuffix(".dir")


def _record_path(odb: HashFileDB, name: str) -> str:
    return odb.fs.join(odb.path, "runs", name)


def _record_sizes(odb: HashFileDB) -> dict[str, int]:
    """The size of each record, by its path below `runs`, without the remains of an interrupted upload."""
    folder = odb.fs.join(odb.path, "runs")
    names = {path[len(folder) :].lstrip("/"): size for path, size in _files(odb.fs, folder)}
    return {name: size for name, size in names.items() if not name.endswith(".tmp")}


def _files(fs: FileSystem, folder: str) -> Iterator[tuple[str, int]]:
    """Every readable file in a folder, which may not exist yet, and its size; one listing, no request for each."""
    if not fs.exists(folder):
        return
    if isinstance(fs, LocalFileSystem):
        for path in fs.find(folder):
            info = Path(path).lstat()
            if stat.S_ISREG(info.st_mode) and os.access(path, os.R_OK):
                yield path, info.st_size
    else:
        yield from ((path, info["size"]) for path, info in fs.fs.find(folder, detail=True).items())
