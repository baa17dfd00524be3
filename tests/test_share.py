"""What one of the team has run, nobody runs again: two clones, `sdnn-share` and real servers between them."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest
from clone import Clone
from servers import Server, kill, s3_client, s3_server, ssh_server

LAMS = ("0.02", "0.05", "0.5")  # the first one is the default


@pytest.fixture(scope="module")
def team(tiny_pipeline, tmp_path_factory) -> Clone:
    """A clone in which three values of `lam` ran, the default one and two experiments."""
    clone = tiny_pipeline.colleague(tmp_path_factory.mktemp("team") / "clone")
    shutil.copytree(tiny_pipeline.path / ".dvc/cache", clone.path / ".dvc/cache")
    for lam in LAMS[1:]:
        clone.run("dvc", "exp", "run", "-S", f"lam={lam}", "-n", f"lam-{lam}")
    clone.run("git", "checkout", ".")
    clone.run("dvc", "checkout")
    return clone


@contextmanager
def shared_folder(folder: Path):
    yield Server(str(folder), {}, {}, None)


def connect(clone: Clone, server: Server, **changed: str) -> None:
    """As the README says; everything with --local here, so that the commit stays as it is."""
    clone.run("dvc", "remote", "add", "--local", "-f", "-d", "team", server.url)
    for name, value in {**server.options, **server.secrets, **changed}.items():
        clone.run("dvc", "remote", "modify", "--local", "team", name, value)


def executions(clone: Clone, *command: str) -> int:
    return clone.run(*command).count("Running stage")


def objects(folder: Path) -> list[Path]:
    """The objects of a store, without what a cut-off upload leaves beside them under a temporary name."""
    return sorted(path for path in folder.rglob("files/md5/*/*") if path.suffix != ".tmp")


def network_object(clone: Clone, store: Path) -> Path:
    """Where a store keeps the network of the clone's dvc.lock."""
    lock = (clone.path / "dvc.lock").read_text().split("path: models/network.pt")[1]
    md5 = lock.split("md5: ")[1].split()[0]
    return store / "files/md5" / md5[:2] / md5[2:]


@pytest.fixture(scope="module")
def folder_store(team, tmp_path_factory) -> Path:
    """A shared folder to which the three runs were pushed; tests change copies of it."""
    store = tmp_path_factory.mktemp("store") / "store"
    connect(team, Server(str(store), {}, {}, None))
    team.run("sdnn-share", "push")
    return store


SERVERS = [
    shared_folder,
    pytest.param(ssh_server, marks=pytest.mark.slow),
    pytest.param(s3_server, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("serve", SERVERS)
def test_colleague_executes_nothing_of_what_the_team_has_run(team, tmp_path, serve: Callable):
    with serve(tmp_path / "server") as server:
        connect(team, server)
        team.run("sdnn-share", "push")
        assert "sent 0 of" in team.run("sdnn-share", "push")
        other = team.colleague(tmp_path / "other")
        connect(other, server)
        assert "execute nothing" in other.run("sdnn-share", "pull")
    assert executions(other, "dvc", "repro") == 0
    assert other.run("git", "status", "--short") == ""
    for lam in LAMS:
        assert executions(other, "dvc", "exp", "run", "-S", f"lam={lam}") == 0
    assert other.metrics("evaluation") == team_metrics(team, "lam-0.5")


def team_metrics(team: Clone, experiment: str) -> dict:
    commit = team.run("git", "for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{experiment}").strip()
    return json.loads(team.run("git", "show", f"{commit}:metrics/evaluation.json"))


def test_experiments_are_pushed_pulled_applied_and_branched(team, folder_store, tmp_path):
    origin = tmp_path / "origin.git"
    team.run("git", "clone", "-q", "--bare", ".", str(origin))
    team.run("git", "remote", "add", "hub", str(origin))
    team.run("dvc", "exp", "push", "hub", "lam-0.05")
    team.run("git", "remote", "remove", "hub")

    other = team.colleague(tmp_path / "other")
    other.run("git", "remote", "set-url", "origin", str(origin))
    connect(other, Server(str(folder_store), {}, {}, None))
    assert "lam-0.05" in other.run("dvc", "exp", "list", "origin")
    other.run("dvc", "exp", "pull", "origin", "lam-0.05")
    assert "lam-0.05" in other.run("dvc", "exp", "show")
    other.run("dvc", "exp", "branch", "lam-0.05", "less-events")
    assert "less-events" in other.run("git", "branch", "--list", "less-events")
    other.run("dvc", "exp", "apply", "lam-0.05")
    assert "lam: 0.05" in (other.path / "params.yaml").read_text()
    assert other.metrics("evaluation") == team_metrics(team, "lam-0.05")
    assert executions(other, "dvc", "repro") == 0


@pytest.mark.parametrize("mode", [0o444, 0o644])
def test_damaged_object_does_not_become_a_model(team, folder_store, tmp_path, mode):
    """Changed in place by a bad disk; DVC takes a read-only one for checked, and deletes one that can be written."""
    store = shutil.copytree(folder_store, tmp_path / "store")
    damaged = network_object(team, store)
    damage(damaged, lambda content: b"\x00" + content[1:])
    damaged.chmod(mode)
    other = team.colleague(tmp_path / "other")
    connect(other, Server(str(store), {}, {}, None), verify="false")
    printed = other.run("sdnn-share", "pull", code=1)
    assert f"refused {damaged.relative_to(store)}: its hash does not match its name" in printed.splitlines()
    assert printed.splitlines()[-1].startswith(f"error: {store}: 1 file refused, see above; everything else was")
    assert not network_object(other, other.path / ".dvc/cache").exists()
    assert "models/network.pt" in other.run("dvc", "checkout", code=255)
    assert not (other.path / "models/network.pt").exists()

    damaged.unlink(missing_ok=True)
    connect(team, Server(str(store), {}, {}, None))
    assert "sent 1 of" in team.run("sdnn-share", "push")
    assert "execute nothing" in other.run("sdnn-share", "pull")


def damage(path: Path, change: Callable[[bytes], bytes]) -> None:
    mode = path.stat().st_mode
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(change(content))
    path.chmod(mode)


def test_plain_dvc_pull_takes_a_damaged_object_unless_the_remote_verifies(team, folder_store, tmp_path):
    """What the README warns of."""
    store = shutil.copytree(folder_store, tmp_path / "store")
    damage(network_object(team, store), lambda content: b"\x00" + content[1:])
    for verify, code in (("false", 0), ("true", 1)):
        other = team.colleague(tmp_path / verify)
        connect(other, Server(str(store), {}, {}, None), verify=verify)
        other.run("dvc", "pull", code=code)
        assert (other.path / "models/network.pt").exists() == (code == 0)


@pytest.mark.parametrize("change", [lambda text: text[: len(text) // 2], lambda text: text.replace(b"lam", b"lum")])
def test_damaged_record_of_a_run_is_named_and_replaced(team, folder_store, tmp_path, change):
    store = shutil.copytree(folder_store, tmp_path / "store")
    record = next(path for path in sorted(store.rglob("runs/*/*/*")) if "stages.train\n" in path.read_text())
    damage(record, change)
    other = team.colleague(tmp_path / "other")
    connect(other, Server(str(store), {}, {}, None))
    printed = other.run("sdnn-share", "pull", code=1)
    assert str(record.relative_to(store)) in printed
    assert not (other.path / ".dvc/cache" / record.relative_to(store)).exists()

    record.unlink()
    connect(team, Server(str(store), {}, {}, None))
    assert "records of 1 stage run\n" in team.run("sdnn-share", "push")
    assert "execute nothing" in other.run("sdnn-share", "pull")


def test_remote_that_is_missing_or_refuses_is_one_line(team, tmp_path):
    other = team.colleague(tmp_path / "other")
    assert other.run("sdnn-share", "push", code=1).startswith("error: there is no default DVC remote")
    for clone, action, url, says in (
        (team, "push", "/proc/nowhere", "error: /proc/nowhere: FileNotFoundError"),
        (other, "pull", "/proc/nowhere", "error: /proc/nowhere: the remote holds nothing"),
        (team, "push", "ssh://root@127.0.0.1:9/store", "error: ssh://127.0.0.1:9/store: ConnectionRefusedError"),
        (other, "pull", "ssh://root@127.0.0.1:9/store", "error: ssh://127.0.0.1:9/store: ConnectionRefusedError"),
    ):
        connect(clone, Server(url, {}, {}, None))
        lines = clone.run("sdnn-share", action, code=1).splitlines()
        assert len(lines) == 2 and lines[1].startswith(says)


@pytest.mark.parametrize(("stage", "missing"), [("train", "data/frames"), ("export", "models/network.pt")])
def test_stage_without_its_data_names_the_cure(team, tmp_path, stage, missing):
    other = team.colleague(tmp_path / "other")
    printed = other.run(sys.executable, "-m", f"pilotnet_sdnn.stages.{stage}", code=1)
    assert printed.startswith(
        f"error: {missing} is not in this clone: `sdnn-share pull`, then `dvc checkout`, fetches it"
    )


def test_mistake_in_the_configuration_is_one_line(team, tmp_path):
    other = team.colleague(tmp_path / "other")
    (other.path / ".dvc/config.local").write_text("[core]\nremoot = team\n")
    for command in (("sdnn-share", "push"), ("sdnn-doctor",)):
        printed = other.run(*command, code=1)
        assert printed.startswith("error: config file error") and printed.count("\n") == 1


@pytest.mark.slow
def test_wrong_ssh_key_and_push_that_is_cut_off(team, tmp_path):
    """The next push completes it, and replaces a truncated object."""
    with ssh_server(tmp_path / "server") as server:
        connect(team, server, keyfile=str(tmp_path / "server/stranger"))
        assert "PermissionError: Permission denied" in team.run("sdnn-share", "push", code=1).splitlines()[-1]

        connect(team, server)
        store, cache = tmp_path / "server/store", team.path / ".dvc/cache"
        for arrived in (1, 8, 20):
            process = team.start("sdnn-share", "push")
            while len(objects(store)) < arrived and process.poll() is None:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        truncated = network_object(team, store)
        truncated.parent.mkdir(parents=True, exist_ok=True)
        truncated.write_bytes(network_object(team, cache).read_bytes()[:1000])
        assert "repaired" in team.run("sdnn-share", "push")
        assert truncated in objects(store)
        for path in objects(store):
            assert path.read_bytes() == (cache / path.relative_to(store)).read_bytes()


@pytest.mark.slow
def test_wrong_s3_secret_and_damaged_object_on_s3(team, tmp_path):
    with s3_server(tmp_path / "server") as server:
        connect(team, server, secret_access_key="wrong")
        assert "PermissionError: Forbidden" in team.run("sdnn-share", "push", code=1).splitlines()[-1]
        connect(team, server)
        team.run("sdnn-share", "push")

        client = s3_client(server.options["endpointurl"])
        key = str(network_object(team, Path("store")))
        client.put_object(Bucket="team", Key=key, Body=b"damaged")
        other = team.colleague(tmp_path / "other")
        connect(other, server)
        assert f"refused {Path(key).relative_to('store')}: " in other.run("sdnn-share", "pull", code=1)
        assert "repaired" in team.run("sdnn-share", "push")
        assert "execute nothing" in other.run("sdnn-share", "pull")


@pytest.mark.slow
@pytest.mark.parametrize("serve", [ssh_server, s3_server])
@pytest.mark.parametrize("action", ["push", "pull"])
def test_server_that_dies_midway(team, tmp_path, serve: Callable, action):
    before = [path.read_bytes() for path in objects(team.path / ".dvc/cache")]
    clone = team
    with serve(tmp_path / "server") as server:
        if action == "pull":
            connect(team, server)
            team.run("sdnn-share", "push")
            clone = team.colleague(tmp_path / "other")
        connect(clone, server)
        process = clone.start("sdnn-share", action)
        process.stdout.readline()
        time.sleep(0.4)
        kill(server.process)
        printed, _ = process.communicate(timeout=300)
        assert process.returncode == 1, printed
        assert printed.splitlines()[-1].startswith("error: ") and "Traceback" not in printed
    assert [path.read_bytes() for path in objects(team.path / ".dvc/cache")] == before
    for path in objects(clone.path / ".dvc/cache"):
        assert subprocess.run(["md5sum", path], capture_output=True, text=True).stdout.split()[0].lstrip("\\") == (
            path.parent.name + path.name.removesuffix(".dir")
        )
