"""Whoever can write to the team's remote must not be able to run code in a clone, or to stop its work."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import pytest
from clone import Clone
from dvc.stage.cache import _get_cache_hash
from ruamel.yaml import YAML
from servers import Server, lying_s3_server, s3_client, s3_server
from small_pipeline import repository, small_pipeline


@pytest.fixture(scope="module")
def team(tmp_path_factory) -> Clone:
    return small_pipeline(tmp_path_factory.mktemp("team"))


def colleague(team: Clone, path: Path, server: Server) -> Clone:
    clone = repository(team.colleague(path).path)
    clone.run("dvc", "remote", "add", "--local", "-d", "team", server.url)
    for name, value in {**server.options, **server.secrets}.items():
        clone.run("dvc", "remote", "modify", "--local", "team", name, value)
    return clone


def store_of(team: Clone) -> dict[str, bytes]:
    """What an honest remote holds, by path."""
    store = team.path.parent / "store"
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def honest_record(team: Clone, output: str) -> tuple[str, dict]:
    """The key and the content of the record of a stage, known by its output."""
    records = {name: YAML(typ="safe").load(data) for name, data in store_of(team).items() if name.startswith("runs/")}
    ((name, record),) = [item for item in records.items() if item[1]["outs"][0]["path"] == output]
    return name.split("/")[2], record


def named(record: dict, key: str | None = None, value: str | None = None) -> tuple[str, bytes]:
    """A record under the name it should have, or one that it should not."""
    key = key or _get_cache_hash(deepcopy(record), key=True)
    value = value or _get_cache_hash(record)
    return f"runs/{key[:2]}/{key}/{value}", json.dumps(record).encode()


def stored(content: bytes, suffix: str = "") -> tuple[str, bytes]:
    md5 = hashlib.md5(content).hexdigest()
    return f"files/md5/{md5[:2]}/{md5[2:]}{suffix}", content


def output(path: str, content: bytes = b"", **more: object) -> dict:
    return {"path": path, "hash": "md5", "md5": hashlib.md5(content).hexdigest(), **more}


def attacks(team: Clone, marker: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Bad records, by path, and the objects that they need."""
    make, made = honest_record(team, "data/made.txt")
    fill, filled = honest_record(team, "data/folder")
    config = f'[core]\n\tfsmonitor = "touch {marker}"\n'.encode()
    program = f"open({str(marker)!r}, 'w')".encode()
    remote = f"[core]\n\tremote = team\n['remote \"team\"']\n\turl = ssh://x\n\tssh_command = touch {marker}\n".encode()
    some = hashlib.md5(config).hexdigest()
    entries: list = [
        [{"md5": some, "relpath": path}]
        for path in (
            "../../.git/config", "/etc/cron.d/hacked", "a//b", "a/./b", "a\\b", "\x1b[2J", "\0", "\ud800", "", 5, None,
            ".git", "sub/dvc.yaml", "HEAD", "x" * 250, "/".join(["x" * 100] * 40),
        )
    ]  # fmt: skip
    entries += [
        [{"md5": md5, "relpath": "a.txt"}]
        for md5 in ("../../../../../.git/config", some.upper(), f"{some}.dir", 5, None)
    ]
    entries += [
        [{"md5": some, "relpath": "a"}, {"md5": some, "relpath": "a/b"}],  # a file and a folder
        [{"md5": some, "relpath": "a"}, {"md5": some, "relpath": "a"}],
        [{"md5": some, "relpath": "a", "isexec": True}],
        [{"relpath": "a"}], [some], {"md5": some, "relpath": "a"}, "a", 5, None,
    ]  # fmt: skip
    bad_lists = [json.dumps(entry).encode() for entry in entries]
    bad_lists += [b"", b"\xff", b"[" * 100_000, json.dumps([{"md5": some, "relpath": "a"}]).encode("utf-16")]
    lists = dict(stored(content, ".dir") for content in bad_lists)

    def with_outputs(record: dict, *outputs: dict) -> dict:
        return {**record, "outs": list(outputs)}

    def with_list(content: bytes) -> dict:
        return with_outputs(filled, output("data/folder", md5=f"{hashlib.md5(content).hexdigest()}.dir"))

    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(9)
    )
    contents = [
        b"\xff\xfe not UTF-8", b"", b"[" * 50_000, bomb.encode(), b"cmd: " + b"x" * 2_000_000,
        json.dumps(made).encode("utf-16"), json.dumps({**made, "cmd": "x" * 90_000}).encode(),
        b"!!python/name:os.system", json.dumps({**made, "params": {"p": {"lr": 10**400}}}).encode(),
    ]  # fmt: skip
    damaged = {f"runs/{make[:2]}/{make}/{number:064x}": data for number, data in enumerate(contents)}
    targets = {
        "src/input.txt": program, "src": program, ".git/config": config, ".GIT/config": config,
        "data/../.git/config": config, "../outside.txt": program, str(marker): program, ".dvc/config.local": remote,
        "data/\x1b[2J": program, "sub/dvc.yaml": program,
    }  # fmt: skip
    records = dict(
        [
            named(with_outputs(made, output(".git/config", config)), key=make),
            named(with_outputs(made, output("data/made.txt", b"other")), value="f" * 64),
            *(named(with_outputs({**made, "cmd": path}, output(path, data))) for path, data in targets.items()),
            named(with_outputs(made, output("data/made.txt", md5="../../../../.git/config")), key=make),
            named(with_outputs(made, output("data/made.txt", files=[{"relpath": "../../.git/config", "md5": "0"}]))),
            named(with_outputs(made, {**output("data/made.txt"), "x" * 30_000: 1}), key=make),
            named(with_outputs(made, output("data/" + "x" * 30_000)), key=make),
            *(named(with_list(content), key=fill) for content in bad_lists),
            ("runs/ab/config", config),
        ]
    )  # fmt: skip
    objects = dict(map(stored, (config, program, remote, b"other")))
    return {**damaged, **records}, {**objects, **lists}


def code_of_nobody(team: Clone) -> tuple[str, bytes]:
    """A sound record whose stage no commit knows: it may be of a colleague's branch, or of an enemy."""
    _, made = honest_record(team, "data/made.txt")
    return named({**made, "cmd": "anything", "outs": [output("src/sitecustomize.py", b"open('hacked', 'w')")]})


@contextmanager
def folder_remote(folder: Path, content: dict[str, bytes]) -> Iterator[Server]:
    """With a pipe and a link among the records, which no S3 has."""
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    os.mkfifo(folder / "runs" / ("c" * 64))
    (folder / "files/md5/link").symlink_to("/nowhere")
    yield Server(str(folder), {}, {}, None)


@contextmanager
def s3_remote(folder: Path, content: dict[str, bytes]) -> Iterator[Server]:
    """With keys that are no paths, which no folder has."""
    lies = {
        "runs/../../config.local": b"[core]\n\tremote = other\n",
        "runs/../../../.git/config": b"[core]\n\tfsmonitor = false\n",
        "runs//etc/passwd": b"root",
        "files/md5/../../../config.local": b"[core]\n\tremote = other\n",
    }
    with lying_s3_server({f"store/{name}": data for name, data in {**content, **lies}.items()}) as server:
        yield server


@contextmanager
def seaweed_remote(folder: Path, content: dict[str, bytes]) -> Iterator[Server]:
    with s3_server(folder) as server:
        client = s3_client(server.options["endpointurl"])
        for name, data in content.items():
            client.put_object(Bucket="team", Key=f"store/{name}", Body=data)
        yield server


REMOTES = [folder_remote, s3_remote, pytest.param(seaweed_remote, marks=pytest.mark.slow)]


def files_outside_data(clone: Clone) -> dict[str, bytes]:
    """All that a run may not change: code, configuration, git's own files and what lies beside the clone."""
    passing = (".dvc/cache", ".dvc/tmp", ".git/index", "data", "store", "src/__pycache__")
    files = {path.relative_to(clone.path.parent): path for path in clone.path.parent.rglob("*") if path.is_file()}
    inside = {name.relative_to(clone.path.name).as_posix() if name.parts[0] == clone.path.name else str(name): path
              for name, path in files.items()}  # fmt: skip
    return {name: path.read_bytes() for name, path in inside.items() if not name.startswith(passing)}


@pytest.mark.parametrize("serve", REMOTES)
def test_bad_records_are_named_and_left_and_the_good_ones_arrive(team, tmp_path, serve):
    marker = tmp_path / "hacked"
    bad, objects = attacks(team, marker)
    content = {**store_of(team), **bad, **objects, **dict([code_of_nobody(team)])}
    with serve(tmp_path / "store", content) as server:
        clone = colleague(team, tmp_path / "clone", server)
        before = files_outside_data(clone)
        printed = clone.run("sdnn-share", "pull", code=1)
        assert "Traceback" not in printed and "\x1b" not in printed
        lies = 3 if serve is s3_remote else 0
        assert f": {len(bad) + lies} files refused, see above; everything else was fetched" in printed
        assert "records not fetched: 1. Their stages are in no dvc.yaml" in printed
        refused = [line for line in printed.splitlines() if line.startswith("refused runs/")]
        assert len(refused) == 20 and max(map(len, printed.splitlines())) <= 300
        assert clone.run("sdnn-share", "pull", code=1).count("fetched 0 of") == 1
    assert "Running stage" not in clone.run("dvc", "repro")
    assert (clone.path / "data/folder/inner/a.txt").read_text() == "something\n"
    assert clone.run("git", "status", "--short") == ""
    assert files_outside_data(clone) == before
    assert not marker.exists()


def test_bad_records_that_are_here_already_are_removed(team, tmp_path):
    """As `dvc pull --run-cache` brings them."""
    bad, objects = attacks(team, tmp_path / "hacked")
    with folder_remote(tmp_path / "store", {**store_of(team), **objects}) as server:
        clone = colleague(team, tmp_path / "clone", server)
        for name, data in bad.items():
            path = clone.path / ".dvc/cache" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        assert "execute nothing" in clone.run("sdnn-share", "pull")
    assert "Running stage" not in clone.run("dvc", "repro")


@pytest.mark.parametrize("mode", [0o444, pytest.param(0o644, marks=pytest.mark.slow)])
def test_list_of_a_folder_that_was_exchanged_is_not_followed(team, tmp_path, mode):
    """The name is that of the list in dvc.lock, the content leads to .git/config; DVC believes a read-only one."""
    _, objects = attacks(team, tmp_path / "hacked")
    honest = store_of(team)
    (name,) = [name for name in honest if name.endswith(".dir")]
    lies = [data for path, data in objects.items() if path.endswith(".dir")]
    with folder_remote(tmp_path / "store", {**honest, **objects, name: lies[0]}) as server:
        (tmp_path / "store" / name).chmod(mode)
        clone = colleague(team, tmp_path / "clone", server)
        before = files_outside_data(clone)
        oid = name.removeprefix("files/md5/").replace("/", "")
        assert f"the list of files {oid}: its hash does not match its name" in clone.run("sdnn-share", "pull", code=1)
        clone.run("dvc", "checkout", "--allow-missing")
        clone.run("git", "status")
    assert files_outside_data(clone) == before
    assert not (tmp_path / "hacked").exists()
    assert (clone.path / "data/made.txt").read_text() == "lam: 0.02\nsomething\n"


def test_record_without_its_objects_or_against_the_clones_own_is_not_followed(team, tmp_path):
    """DVC restores from the newest record, whatever it leads to."""
    make, made = honest_record(team, "data/made.txt")
    lies = [b"missing", b"damaged", b"another result"]
    records = dict(named({**made, "outs": [output("data/made.txt", lie)]}, key=make) for lie in lies)
    objects = {stored(b"damaged")[0]: b"other bytes", **dict([stored(b"another result")])}
    objects[stored(b"missing")[0].replace("md5/", "md5/decoy/")] = b"missing"
    with folder_remote(tmp_path / "store", {**records, **objects}) as server:
        clone = colleague(team, tmp_path / "clone", server)
        clone.run("dvc", "repro", "--force")
        ran = (clone.path / "data/made.txt").read_bytes()
        printed = clone.run("sdnn-share", "pull", code=1)
        assert "its hash does not match its name" in printed and "could not be fetched" not in printed
        assert len(list((clone.path / ".dvc/cache/runs" / make[:2] / make).iterdir())) == 2
        (clone.path / "dvc.lock").unlink()
        assert "Running stage" not in clone.run("dvc", "repro")
    assert (clone.path / "data/made.txt").read_bytes() == ran
    assert clone.run("git", "status", "--short") == ""


def test_lists_of_records_that_are_not_taken_do_not_reach_the_cache(team, tmp_path):
    """Stages look for their files in all lists of the cache, and prefer the newest."""
    fill, filled = honest_record(team, "data/folder")
    content = json.dumps([{"md5": hashlib.md5(b"a lie").hexdigest(), "relpath": "a.txt"}]).encode()
    name, lie = stored(content, ".dir")
    record = {**filled, "outs": [output("data/folder", md5=f"{hashlib.md5(content).hexdigest()}.dir")]}
    foreign = dict([named({**record, "cmd": "anything"}), (name, lie), stored(b"a lie")])
    with folder_remote(tmp_path / "store", {**store_of(team), **foreign}) as server:
        clone = colleague(team, tmp_path / "clone", server)
        clone.run("dvc", "repro", "--force")
        assert "records not fetched: 1." in clone.run("sdnn-share", "pull")
        assert not (clone.path / ".dvc/cache" / name).exists()
        for path, data in dict([named(record, key=fill)]).items():
            (tmp_path / "store" / path).write_bytes(data)
        clone.run("sdnn-share", "pull")
    lists = sorted((clone.path / ".dvc/cache").rglob("*.dir"), key=lambda path: path.stat().st_mtime)
    assert len(lists) == 2 and lists[0] == clone.path / ".dvc/cache" / name
