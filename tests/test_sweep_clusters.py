"""sdnn-sweep on workers that share no files: what they get and send, and what is left when one of them dies."""

import getpass
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from clone import ROOT, Clone, wait_for
from distributed import Client
from recording_pipeline import errors, trained, with_own_remote
from servers import KEY, LOOPBACK, free_port, s3_server, slurm, ssh_server

pytestmark = pytest.mark.slow


@pytest.fixture
def clone(recording: Clone, tmp_path: Path) -> Clone:
    return with_own_remote(recording, tmp_path)


@contextmanager
def cluster(
    clone: Clone, folder: Path, protocol: str = "tcp", config: str = ""
) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """A Dask scheduler and two workers, each with a home of its own and without this machine's environment.

    Args:
        config: of DVC, in each home.
    """
    address = f"{protocol}://{LOOPBACK}:{free_port()}"
    dask = [sys.executable, "-m", "dask"]
    commands = [[*dask, "scheduler", "--host", LOOPBACK, "--port", address.rpartition(":")[2], "--no-dashboard"]]
    commands[0] += ["--protocol", protocol]
    commands += [[*dask, "worker", address, "--host", LOOPBACK, "--nthreads", "1", "--no-dashboard"]] * 2
    processes = []
    try:
        for number, command in enumerate(commands):
            home = folder / f"home-{number}"
            (home / ".config/dvc").mkdir(parents=True)
            (home / ".config/dvc/config").write_text(config)
            env = {name: value for name, value in clone.env.items() if not name.startswith(("GIT_", "XDG_"))}
            env["HOME"] = str(home)
            with (folder / f"{number}.log").open("wb") as log:
                process = subprocess.Popen(command, cwd=home, env=env, stdout=log, stderr=log, start_new_session=True)
            processes.append(process)
        yield address, processes[1:]
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def test_worker_killed_midway(clone: Clone, tmp_path: Path) -> None:
    """Twelve runs over two workers, one of which is killed with SIGKILL while it trains."""
    values = [str(number) for number in range(1, 13)]
    clone.env["SECONDS_OF_A_RUN"] = "3"
    with cluster(clone, tmp_path / "cluster") as (address, workers):
        sweep = clone.start("sdnn-sweep", "-S", f"lam={','.join(values)}", "--scheduler", address)
        wait_for(sweep, "lam-4: started")
        time.sleep(3)
        os.killpg(workers[0].pid, signal.SIGKILL)
        printed, _ = sweep.communicate(timeout=600)
    assert sweep.returncode == 0, printed
    assert "the run goes elsewhere" in printed
    swept = errors(clone)
    assert set(swept) == {f"lam-{value}" for value in values}
    assert set(trained(clone)) == set(values) and len(trained(clone)) <= len(values) + 1

    sequential = clone.colleague(tmp_path / "sequential")
    sequential.env = {**clone.env, "SECONDS_OF_A_RUN": "0"}
    sequential.env["RUNS"] = str(tmp_path / "sequential-runs")
    for value in values:
        sequential.run("dvc", "exp", "run", "-q", "--temp", "-n", f"lam-{value}", "-S", f"lam={value}")
    assert errors(sequential) == swept
    clone.run("dvc", "exp", "run", "-q", "-n", "once-more", "-S", "lam=1")  # the driver has its records
    assert trained(clone).count("1") == 1


@pytest.mark.parametrize("elsewhere", [False, True])
def test_runs_wait_only_for_the_stages_that_they_share(clone: Clone, tmp_path: Path, elsewhere: bool) -> None:
    clone.env["SECONDS_OF_A_RUN"] = "20"
    with cluster(clone, tmp_path / "cluster") if elsewhere else nullcontext(("", [])) as (address, _):
        where = ["--scheduler", address] if elsewhere else ["-j", "2"]
        printed = clone.run("sdnn-sweep", "-S", "lam=1,2", "-S", "seed=2", *where)
    assert set(errors(clone)) == {"lam-1-seed-2", "lam-2-seed-2"}
    assert printed.index("lam-2-seed-2: started") < printed.index("lam-1-seed-2: MSE"), printed
    ran = [line.split()[0] for line in Path(clone.env["RUNS"]).read_text().splitlines()]
    assert sorted(ran) == ["prepare", "train", "train"]


def test_first_runs_of_a_pipeline(clone: Clone, tmp_path: Path) -> None:
    """Nothing has run yet, so there is nothing that workers could fetch."""
    shutil.rmtree(clone.path / ".dvc/cache")
    (clone.path / "dvc.lock").unlink()
    clone.commit("No runs")
    with cluster(clone, tmp_path / "cluster") as (address, _):
        clone.run("sdnn-sweep", "-S", "lam=1,2", "--scheduler", address)
    assert set(errors(clone)) == {"lam-1", "lam-2"}


def test_unfinished_training_moves_with_its_run(clone: Clone, tmp_path: Path) -> None:
    """The other machine has the state that the killed worker's training had sent to the remote."""
    (clone.path / "src/train.sh").write_text(
        "set -e\ncheckpoints=${PWD%%/.dvc/tmp/exps/*}/models/checkpoints\nmkdir -p $checkpoints\n"
        "for epoch in 1 2 3 4 5 6 7 8; do\n"
        "  if [ $(cat $checkpoints/state.pt 2>/dev/null || echo 0) -ge $epoch ]; then continue; fi\n"
        "  sleep $SECONDS_OF_A_RUN; echo $epoch >> $RUNS; echo $epoch > $checkpoints/state.pt\n"
        "done\n"
        "cat params.yaml > model.txt; rm $checkpoints/state.pt\n"
    )
    clone.run("dvc", "repro", "-q")
    clone.commit("Trains in epochs")
    runs = Path(clone.env["RUNS"])
    runs.unlink()
    clone.env["SECONDS_OF_A_RUN"] = "4"
    with cluster(clone, tmp_path / "cluster") as (address, workers):
        sweep = clone.start("sdnn-sweep", "-S", "lam=1", "--scheduler", address, "--checkpoints", "1")
        wait_for(sweep, "lam-1: started on ")
        while not (runs.exists() and "3" in runs.read_text()):
            time.sleep(0.2)
        time.sleep(3)
        (state,) = tmp_path.glob("cluster/home-*/.cache/pilotnet-sdnn/sweeps/*/models/checkpoints/state.pt")
        busy = int(state.relative_to(tmp_path / "cluster").parts[0].removeprefix("home-")) - 1
        os.killpg(workers[busy].pid, signal.SIGKILL)
        printed, _ = sweep.communicate(timeout=300)
    assert sweep.returncode == 0 and "the run goes elsewhere" in printed, printed
    epochs = runs.read_text().split()
    assert sorted(set(epochs)) == list("12345678") and len(epochs) <= 10, epochs
    assert not list((tmp_path / "store/checkpoints").glob("*"))


def test_tls(clone: Clone, tmp_path: Path) -> None:
    key, certificate = str(tmp_path / "key"), str(tmp_path / "certificate")
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=sweep", "-days", "1"]
    clone.run(*request, "-keyout", key, "-out", certificate)
    with_keys = {
        "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
        "DASK_DISTRIBUTED__COMM__TLS__CA_FILE": certificate,
    }
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        with_keys[f"DASK_DISTRIBUTED__COMM__TLS__{role}__KEY"] = key
        with_keys[f"DASK_DISTRIBUTED__COMM__TLS__{role}__CERT"] = certificate
    without = dict(clone.env)
    clone.env |= with_keys
    with cluster(clone, tmp_path / "cluster", "tls") as (address, _):
        clone.run("sdnn-sweep", "--scheduler", address, "-S", "lam=1")
        clone.env = without
        assert f"error: no Dask scheduler answers at {address}: " in clone.run(
            "sdnn-sweep", "--scheduler", address, "-S", "lam=2", code=1
        )
    assert set(errors(clone)) == {"lam-1"}


def test_hosts_over_ssh(clone: Clone, tmp_path: Path) -> None:
    """Workers that ssh starts, with a remote on SSH, for which each machine has its own key."""
    there = tmp_path / "there"  # what that machine has of its own
    environment = {
        "RUNS": clone.env["RUNS"], "SECONDS_OF_A_RUN": "0", "PYTHONPATH": str(ROOT / "src"),
        "XDG_CACHE_HOME": str(there / "cache"), "XDG_CONFIG_HOME": str(there / "config"),
    }  # fmt: skip
    with ssh_server(tmp_path / "ssh", **environment) as server:
        address, port = server.url.partition("@")[2].split("/")[0].split(":")
        home = tmp_path / "home"
        (home / ".ssh").mkdir(parents=True)
        (home / ".ssh/known_hosts").write_text(f"[{address}]:{port} {(tmp_path / 'ssh/host.pub').read_text()}")
        (home / ".ssh/config").write_text(
            f"Host {address}\n  Port {port}\n  User {getpass.getuser()}\n  IdentityFile {tmp_path}/ssh/user\n"
        )
        (there / "config/dvc").mkdir(parents=True)
        (there / "config/dvc/config").write_text(f"['remote \"team\"']\n    keyfile = {tmp_path}/ssh/user\n")
        clone.env["HOME"] = str(home)
        clone.run("dvc", "remote", "modify", "-q", "team", "url", server.url)
        clone.run("dvc", "remote", "modify", "-q", "--local", "team", "keyfile", str(tmp_path / "ssh/user"))
        clone.commit("A remote on SSH")
        clone.run("sdnn-sweep", "--hosts", address, "-j", "2", "-S", "lam=1,2,3")
        assert set(errors(clone)) == {"lam-1", "lam-2", "lam-3"}
        assert list((there / "cache/pilotnet-sdnn/sweeps").iterdir())


def test_remote_on_s3_with_credentials_that_stay_where_they_are(clone: Clone, tmp_path: Path) -> None:
    """Driver and workers have the keys in configurations of their own, and they are nowhere else afterwards."""
    with s3_server(tmp_path / "s3") as server:
        clone.run("dvc", "remote", "modify", "-q", "team", "url", server.url)
        clone.run("dvc", "remote", "modify", "-q", "team", "endpointurl", server.options["endpointurl"])
        clone.commit("A remote on S3")
        for name, value in server.secrets.items():
            clone.run("dvc", "remote", "modify", "-q", "--local", "team", name, value)
        user = Clone(tmp_path)
        user.env["HOME"] = str(tmp_path / "user")
        user.run("dvc", "remote", "add", "--global", "team", server.url)
        for name, value in server.secrets.items():
            user.run("dvc", "remote", "modify", "--global", "team", name, value)
        config = tmp_path / "user/.config/dvc/config"
        clone.env["SECONDS_OF_A_RUN"] = "3"
        with cluster(clone, tmp_path / "cluster", config=config.read_text()) as (address, _):
            sweep = clone.start("sdnn-sweep", "-S", "lam=1,2,0.3", "--scheduler", address)
            wait_for(sweep, "lam-2: started")
            with Client(address, set_as_default=False) as client:
                tasks = client.run_on_scheduler(
                    lambda dask_scheduler: pickle.dumps([task.run_spec for task in dask_scheduler.tasks.values()])
                )
            printed, _ = sweep.communicate(timeout=300)
    assert "lam-0.3: FAILED: lam is too large" in printed and "2 of 3" not in printed, printed
    assert set(errors(clone)) == {"lam-1", "lam-2"}
    assert b"lam-1" in tasks
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    found = {path for path, content in written.items() if KEY["secretKey"].encode() in content}
    own = {clone.path / ".dvc/config.local", config, tmp_path / "s3/s3.json"}
    assert found == own | {tmp_path / f"cluster/home-{number}/.config/dvc/config" for number in range(3)}
    assert clone.path / ".dvc/tmp/sweep/lam-0.3.log" in written
    for secret in KEY.values():
        assert secret not in printed and secret.encode() not in tasks


def test_slurm(clone: Clone, tmp_path: Path) -> None:
    """Workers that are jobs of a real SLURM, each with a home of its own."""
    with slurm(tmp_path / "slurm") as environment:
        clone.env |= environment
        options = tmp_path / "slurm.yaml"
        options.write_text(
            "cores: 1\nmemory: 1GB\ninterface: lo\nwalltime: '00:20:00'\n"
            f"log_directory: {tmp_path}/logs\n"
            f"job_script_prologue: ['export HOME={tmp_path}/home-$SLURM_JOB_ID', 'mkdir -p $HOME']\n"
        )
        clone.run("sdnn-sweep", "--slurm", str(options), "-j", "2", "-S", "lam=1,2,3,4")
        assert set(errors(clone)) == {"lam-1", "lam-2", "lam-3", "lam-4"}
        assert sorted(trained(clone)) == ["1", "2", "3", "4"]
        assert len(list(tmp_path.glob("home-*/.cache/pilotnet-sdnn/sweeps"))) == 2
        assert not clone.run("squeue", "-h", "-t", "running,pending")
