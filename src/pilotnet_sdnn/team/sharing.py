"""Objects and run records between the cache and a DVC remote.

`dvc push --run-cache` sends the records of all runs, but only the objects of the current dvc.lock. This sends, or
fetches, the objects of every recorded run, of all experiments and of the workspace, and then the records. The calls
into DVC are internal ones of the version that pyproject.toml pins; tests/test_share.py tries them on real servers.
"""

from collections.abc import Iterator
from pathlib import Path

from dvc.cachemgr import LEGACY_HASH_NAMES
from dvc.data_cloud import Remote
from dvc.fs.callbacks import TqdmCallback
from dvc.repo import Repo
from dvc.repo.experiments.utils import exp_refs
from dvc.scm import NoSCMError
from dvc.stage.cache import _get_cache_hash
from dvc.utils.serialize import YAMLFileCorruptedError, load_yaml
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.hash import file_md5
from dvc_data.hashfile.hash_info import HashInfo
from dvc_objects.fs import generic
from dvc_objects.fs.base import FileSystem
from dvc_objects.fs.local import LocalFileSystem

from pilotnet_sdnn.errors import UserError


def push(repo: Repo, remote: Remote) -> None:
    """Send objects first and records last, so that a record on the remote never refers to what is not there.

    An upload that is cut off leaves nothing under an object's name. One of another size than here is damaged, which
    `dvc push` does not see: it is sent again.
    """
    cache = repo.cache.local
    here, there = _sizes(cache), _sizes(remote.odb)
    shared = {entry.value: entry for entry in used_objects(repo) if entry.value in here}
    damaged = [oid for oid in shared if there.get(oid, here[oid]) != here[oid] and _intact(cache, oid)]
    for oid in damaged:
        remote.odb.delete(oid)
    sent, failed = repo.cloud.push(shared.values(), odb=remote.odb)
    if failed:
        raise UserError(f"{len(failed)} of {len(shared)} objects could not be sent, the same command goes on")
    records = copy_records(repo.cache.legacy, remote.legacy_odb)

    size = sum(here[entry.value] for entry in sent) / 1e6
    print(f"sent {len(sent)} of {len(shared)} objects, {size:.1f} MB, and the records of {len(records)} stage runs")
    if damaged:
        print(f"{len(damaged)} of them lay there damaged and are whole now")


def pull(repo: Repo, remote: Remote) -> None:
    """Fetch records, then the objects they and the experiments refer to; the hash of what arrives is checked."""
    if not remote.fs.exists(remote.path):
        raise UserError("there is nothing there; a clone that has runs sends them with `sdnn-share push`")
    damaged_records = remove_damaged(copy_records(remote.legacy_odb, repo.cache.legacy))
    wanted = used_objects(repo)
    before, there = _sizes(repo.cache.local), _sizes(remote.odb)
    remote.odb.verify = True  # whatever its configuration: DVC then removes what has not the hash of its name
    _, failed = repo.cloud.pull(wanted, odb=remote.odb)
    here = _sizes(repo.cache.local)
    new = here.keys() - before.keys()
    print(f"fetched {len(new)} of {len(wanted)} objects, {sum(here[oid] for oid in new) / 1e6:.1f} MB")

    lacking = {entry.value for entry in wanted - failed} - here.keys()
    damaged = sorted(lacking & there.keys())
    missing = lacking - there.keys()
    if failed:
        raise UserError(f"{len(failed)} objects could not be fetched, the same command goes on")
    if damaged or damaged_records:
        paths = [*map(remote.odb.oid_to_path, damaged), *damaged_records]
        raise UserError(
            f"damaged there and not taken over: {', '.join(paths)}; delete that there (from a folder DVC has, if it "
            "was writable), and whoever has the run sends it again with `sdnn-share push`"
        )
    if missing:
        print(f"{len(missing)} objects are neither here nor there: the stages that made them would run again")
    print(f"`dvc repro` and `dvc exp run` of {'the other' if missing else 'these'} runs execute nothing any more")


def used_objects(repo: Repo) -> set[HashInfo]:
    """The objects of the workspace, of all experiments and of every record in the run cache."""
    runs = Path(repo.stage_cache.cache_dir)
    records = [(path.parent.name, path.name) for path in runs.glob("*/*/*") if len(path.name) == 64]
    try:
        experiments = [repo.scm.get_ref(str(ref)) for ref in exp_refs(repo.scm)]
    except NoSCMError:
        experiments = []
    used = repo.used_objs(revs=experiments, used_run_cache=records, skip_failed=True)
    return {entry for entries in used.values() for entry in entries if entry.name not in LEGACY_HASH_NAMES}


def copy_records(source: HashFileDB, target: HashFileDB) -> list[str]:
    """Copy the records that the target lacks or has of another size; where they are now."""
    wanted, there = _record_sizes(source), _record_sizes(target)
    names = [name for name, size in wanted.items() if there.get(name) != size]
    paths = [target.fs.join(target.path, "runs", name) for name in names]
    for folder in {target.fs.parent(path) for path in paths}:
        target.fs.makedirs(folder, exist_ok=True)
    with TqdmCallback(desc="Records of runs", unit="file", size=len(names)) as callback:
        if names:
            sources = [source.fs.join(source.path, "runs", name) for name in names]
            generic.copy(source.fs, sources, target.fs, paths, callback=callback)
    return paths


def remove_damaged(records: list[str]) -> list[str]:
    """Remove the local records whose content has not the hash that is their name; which these were."""

    def damaged(record: Path) -> bool:
        try:
            return _get_cache_hash(load_yaml(record)) != record.name
        except (YAMLFileCorruptedError, AttributeError, TypeError, KeyError):
            return True

    removed = [record for record in map(Path, records) if damaged(record)]
    for record in removed:
        record.unlink()
    return ["/".join(("runs", *record.parts[-3:])) for record in removed]


def _sizes(odb: HashFileDB) -> dict[str, int]:
    """The size of each object, by its hash."""
    return {"".join(odb.fs.parts(path)[-2:]): size for path, size in _files(odb.fs, odb.path)}


def _intact(odb: HashFileDB, oid: str) -> bool:
    return file_md5(odb.oid_to_path(oid), odb.fs) == oid


def _record_sizes(odb: HashFileDB) -> dict[str, int]:
    """The size of each record of the run cache, by its path in `runs`."""
    files = _files(odb.fs, odb.fs.join(odb.path, "runs"))
    return {"/".join(odb.fs.parts(path)[-3:]): size for path, size in files}


def _files(fs: FileSystem, folder: str) -> Iterator[tuple[str, int]]:
    """Every file in a folder, which may not exist yet, and its size; one listing, no request for each."""
    if not fs.exists(folder):
        return
    if isinstance(fs, LocalFileSystem):
        yield from ((path, Path(path).stat().st_size) for path in fs.find(folder))
    else:
        yield from ((path, info["size"]) for path, info in fs.fs.find(folder, detail=True).items())
