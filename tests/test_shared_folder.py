"""A folder as the remote of two users of one group, each with a umask of their own."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from clone import ROOT, Clone
from small_pipeline import repository, small_pipeline

GROUP, ALICE, BOB = 61_000, 61_001, 61_002  # numbers suffice: nobody has to have these accounts


@pytest.fixture
def python() -> str:
    """An interpreter like ours that other users may run; ours may lie in root's home."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as two users")
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (os.path.realpath(sys.executable), shutil.which(name, path="/usr/local/bin:/usr/bin")):
        with suppress(PermissionError):
            if path and subprocess.run([path, "-c", ""], user=ALICE, group=GROUP).returncode == 0:
                return path
    return pytest.skip(f"there is no {name} that other users may run")


@pytest.fixture
def users(tmp_path):
    """Two clones of a pipeline that ran, one of each user, in a place that everyone may enter."""
    team = small_pipeline(tmp_path)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        clones = []
        for user in (ALICE, BOB):
            clone = repository(team.colleague(Path(folder, str(user))).path)
            shutil.copytree(team.path / ".dvc/cache", clone.path / ".dvc/cache")
            subprocess.run(["chown", "-R", f"{user}:{user}", clone.path], check=True)
            clones.append(clone)
        yield Path(folder), *clones


def share(python: str, clone: Clone, action: str, umask: int, code: int = 0) -> str:
    user = clone.path.stat().st_uid
    packages = sysconfig.get_paths()["purelib"]
    env = {**clone.env, "PYTHONPATH": f"{ROOT / 'src'}:{packages}", "HOME": str(clone.path), "LOGNAME": str(user),
           "DVC_SITE_CACHE_DIR": str(clone.path / ".dvc/tmp/site")}  # fmt: skip
    done = subprocess.run(
        [python, "-m", "pilotnet_sdnn.commands.share", action], cwd=clone.path, env=env, text=True, umask=umask,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, user=user, group=user, extra_groups=[GROUP],
    )  # fmt: skip
    assert done.returncode == code, done.stdout
    return done.stdout


def connect(clone: Clone, store: Path, shared: bool) -> None:
    """As the documentation says, in a config file that the clone's user owns."""
    config = clone.path / ".dvc/config.local"
    option = "    shared = group\n" if shared else ""
    config.write_text(f"[core]\n    remote = team\n['remote \"team\"']\n    url = {store}\n{option}")
    config.chmod(0o644)


@pytest.mark.parametrize("umask", [pytest.param(0o022, marks=pytest.mark.slow), 0o077])
def test_two_users_push_and_pull(python, users, umask):
    folder, alice, bob = users
    store = folder / "store"
    store.mkdir()
    os.chown(store, ALICE, GROUP)
    store.chmod(0o2775)  # install -d -m 2775 -g GROUP
    for clone in (alice, bob):
        connect(clone, store, shared=True)
    share(python, alice, "push", umask)
    shutil.rmtree(bob.path / ".dvc/cache")
    assert "execute nothing" in share(python, bob, "pull", umask)

    for path in (path for path in store.rglob("*") if path.is_file()):  # whoever finds a loss makes it good
        path.unlink()
    assert "sent 5 of 5" in share(python, bob, "push", umask)
    assert "sent 0 of 5" in share(python, alice, "push", umask)


@pytest.mark.parametrize(("umask", "action"), [(0o022, "push"), pytest.param(0o077, "pull", marks=pytest.mark.slow)])
def test_folder_that_was_not_set_up_names_who_can_open_it(python, users, umask, action):
    folder, alice, bob = users
    store = folder / "store"
    store.mkdir()
    os.chown(store, ALICE, GROUP)
    store.chmod(0o2775)
    for clone in (alice, bob):
        connect(clone, store, shared=False)
    share(python, alice, "push", umask)
    printed = share(python, bob, action, umask, code=1)
    said = (
        f"error: {store}: you cannot write {store}/" if action == "push" else "refused files: you cannot read it, nor "
    )
    (line,) = [line for line in printed.splitlines() if line.startswith(said)]
    assert f"its owner {ALICE}" in line and "shared group" in line and len(line) <= 300

    for clone in (alice, bob):
        connect(clone, store, shared=True)
    share(python, alice, "push", umask)
    share(python, bob, action, umask)


def test_file_that_nobody_may_read_does_not_stop_the_others(python, users):
    folder, alice, bob = users
    store = folder / "store"
    for clone in (alice, bob):
        connect(clone, store, shared=True)
    folder.chmod(0o777)
    share(python, alice, "push", 0o022)
    (store / "files/md5/junk").write_text("junk")
    (store / "files/md5/junk").chmod(0o000)
    shutil.rmtree(bob.path / ".dvc/cache")
    printed = share(python, bob, "pull", 0o022, code=1)
    assert "fetched 5 of 5" in printed and "refused files/md5/junk: you cannot read it: " in printed
