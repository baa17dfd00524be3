"""sdnn-sweep: which runs a sweep has, where they run, and what is left when something dies."""

import getpass
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clone import ROOT, Clone, wait_for
from distributed import Client, LocalCluster
from dvc.repo import Repo
from servers import LOOPBACK, free_port, slurm, ssh_server
from small_pipeline import small_pipeline

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.team.sweep import Schedule, drive
from pilotnet_sdnn.team.sweep_plan import Run, grid, queued
from pilotnet_sdnn.team.sweep_progress import Ended, NoWorkers, Started
from pilotnet_sdnn.team.sweep_stages import computed_stages
from pilotnet_sdnn.team.sweep_worker import Outcome, Sweep, packages, prepare

RECORDED = """\
stages:
  prepare:
    cmd: echo prepare >> $RUNS && cp src/input.txt prepared.txt
    deps: [src/input.txt]
    params: [seed]
    outs: [prepared.txt]
  train:
    cmd: bash src/train.sh
    deps: [src/train.sh, prepared.txt]
    params: [lam]
    outs: [model.txt]
  measure:
    cmd: bash src/measure.sh
    deps: [src/measure.sh, model.txt]
    metrics: [metrics/evaluation.json: {cache: false}]
"""
TRAIN = """\
set -e
echo train $(cat params.yaml) >> $RUNS
sleep $SECONDS_OF_A_RUN
if grep -q "lam: 0.3" params.yaml; then echo "error: lam is too large"; exit 1; fi
cat params.yaml prepared.txt > model.txt
"""
MEASURE = """\
mkdir -p metrics
echo "{\\"mse\\": 0.$(cksum < model.txt | cut -d' ' -f1)}" > metrics/evaluation.json
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A small pipeline that records each run of a stage in a file, and whose remote is committed.

    The remote also has a record that workers refuse, because git tracks one of its outputs.
    """
    folder = tmp_path_factory.mktemp("sweep")
    clone = small_pipeline(folder)
    clone.env |= {"RUNS": str(folder / "runs"), "SECONDS_OF_A_RUN": "0"}
    for path, text in {"dvc.yaml": RECORDED, "src/train.sh": TRAIN, "src/measure.sh": MEASURE}.items():
        (clone.path / path).write_text(text)
    (clone.path / "params.yaml").write_text("lam: 0.02\nseed: 1\n")
    clone.run("dvc", "repro", "-q")
    clone.run("dvc", "remote", "remove", "--local", "team")
    clone.run("dvc", "remote", "add", "-d", "team", str(folder / "store"))
    clone.commit("Records its runs")
    return clone


@pytest.fixture
def clone(original: Clone, tmp_path: Path) -> Clone:
    copied = original.copy(tmp_path / "clone")
    copied.env = {**original.env, "PYTHONPATH": original.env["PYTHONPATH"], "RUNS": str(tmp_path / "runs")}
    copied.run("dvc", "remote", "modify", "-q", "team", "url", str(tmp_path / "store"))
    copied.commit("A remote of its own")
    return copied


def trained(clone: Clone) -> list[str]:
    """The values of lam with which stage train has run, in this clone's sweeps."""
    runs = Path(clone.env["RUNS"])
    return (
        [line.split()[2] for line in runs.read_text().splitlines() if line.startswith("train")] if runs.exists() else []
    )


def errors(clone: Clone) -> dict[str, float]:
    """The MSE of each experiment, as `dvc exp show` has it."""
    states = json.loads(clone.run("dvc", "exp", "show", "--json"))
    return {
        experiment["name"]: experiment["revs"][0]["data"]["metrics"]["metrics/evaluation.json"]["data"]["mse"]
        for state in states
        for experiment in state["experiments"] or []
    }


def test_grid_speaks_as_dvc_does(clone: Clone) -> None:
    with Repo(str(clone.path)) as repo:
        runs = grid(repo, ["lam=0.1,0.2", "seed=range(1,3)"])
        assert [run.name for run in runs] == ["lam-0.1-seed-1", "lam-0.1-seed-2", "lam-0.2-seed-1", "lam-0.2-seed-2"]
        assert runs[1].arguments == ("-S", "lam=0.1", "-S", "seed=2")
        assert [run.name for run in grid(repo, ["lam=0.1,0.10,1e-05,-1"])] == ["lam-0.1", "lam-1e-05", "lam--1"]
        (odd,) = grid(repo, ["lam='a/b ~c'"])
        clone.run("git", "check-ref-format", odd.reference)
        for wrong in (["nothing=1"], ["lam"], ["lam=glob(*)"], ["other.yaml:lam=1"]):
            with pytest.raises(UserError, match=r"^-S: "):
                grid(repo, wrong)


def test_queued_runs_keep_their_targets_and_options(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone.path)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    options = {"targets": ["train"], "force": True, "on_error": "keep-going", "message": "a b"}
    with Repo() as repo:
        repo.experiments.run(queue=True, name="part", params=["lam=0.1"], **options)
        repo.experiments.run(queue=True, name="last", params=["lam=0.1"], targets=["measure"], single_item=True)
        runs = {run.name: run for run in queued(repo)}
        whole = grid(repo, ["lam=0.1"])[0]
        assert runs["part"].arguments == ("--force", "--keep-going", "--message", "a b", "train")
        assert len(runs["part"].stages) == 2 and runs["part"].stages < whole.stages
        assert runs["last"].arguments == ("--single-item", "measure")
        assert len(runs["last"].stages) == 1 and not runs["last"].stages & whole.stages
        repo.experiments.run(queue=True, name="copied", params=["lam=0.2"], copy_paths=["src"])
        with pytest.raises(UserError, match=r"^queued run copied: no worker can do --copy-paths; `dvc queue remove`"):
            queued(repo)


def test_uncommitted_changes_are_refused(clone: Clone) -> None:
    clone.set(lam=0.04)
    printed = clone.run("sdnn-sweep", "-S", "lam=0.1,0.2", code=1)
    assert printed.startswith("error: params.yaml: not committed") and printed.count("\n") == 1


def test_no_stage_is_computed_twice(clone: Clone) -> None:
    with Repo(str(clone.path)) as repo:
        computed = computed_stages(repo)
        assert len(computed) == 3
        seeds = grid(repo, ["lam=0.1,0.2", "seed=1,2"])
    schedule = Schedule(seeds, computed)
    started = [schedule.next() for _ in range(4)]
    assert [run and run.name for run in started] == ["lam-0.1-seed-1", "lam-0.1-seed-2", "lam-0.2-seed-1", None]
    assert started[1]
    schedule.ended(started[1], success=True)  # stage prepare of seed 2 is there now
    last = schedule.next()
    assert last and last.name == "lam-0.2-seed-2"
    schedule.again(last)
    assert schedule.next() == last and schedule.next() is None


def test_sweep_says_that_it_has_no_workers_and_waits_for_them() -> None:
    with LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster, Client(cluster) as client:
        events = drive(client, str, lambda run: Outcome(), [Run("lam-1", "", "")])
        assert next(events) == NoWorkers(cluster.scheduler_address)
        cluster.scale(1)
        assert [type(event) for event in events] == [Started, Ended]


def test_runs_that_wait_are_not_lost_when_the_first_one_fails() -> None:
    runs = [Run(str(number), "", "", stages=frozenset({"shared", str(number)})) for number in range(3)]
    schedule = Schedule(runs, ())
    order = []
    while run := schedule.next():
        assert schedule.next() is None
        order.append(run)
        schedule.ended(run, success=False)
    assert order == runs


def test_worker_with_other_packages_is_refused_by_name() -> None:
    sweep = Sweep("project", "", ("name", "mail"), packages() | {"torch": "1.0"}, here="/nowhere")
    assert prepare(sweep, b"", "").startswith(f"it has torch {packages()['torch']}, not 1.0; `uv sync")
    assert not prepare(sweep._replace(packages=packages()), b"", "")


def test_remote_that_workers_do_not_know_is_refused(clone: Clone) -> None:
    clone.run("dvc", "remote", "remove", "team")
    clone.commit("No remote")
    clone.run("dvc", "remote", "add", "-d", "--local", "team", "/somewhere")
    printed = clone.run("sdnn-sweep", "-S", "lam=0.1", "--scheduler", f"tcp://{LOOPBACK}:9", code=1)
    assert "error: the DVC remote team is in .dvc/config.local only" in printed


def test_sweep_on_this_machine(clone: Clone) -> None:
    printed = clone.run("sdnn-sweep", "-S", "lam=0.1,0.3", "-j", "2", code=1)
    assert "lam-0.3: FAILED: lam is too large" in printed and "1 of 2 runs failed: lam-0.3" in printed
    assert set(errors(clone)) == {"lam-0.1"}
    assert "lam is too large" in (clone.path / ".dvc/tmp/sweep/lam-0.3.log").read_text()
    assert not clone.run("git", "status", "--short")

    clone.run("dvc", "exp", "run", "--queue", "-n", "waiting", "-S", "lam=0.4", "train")
    assert "1 run, 0 of them done before" in clone.run("sdnn-sweep", "--queued")
    with Repo(str(clone.path)) as repo:
        assert not list(repo.experiments.celery_queue.iter_queued())
    assert trained(clone).count("0.4") == 1
    committed = json.loads((clone.path / "metrics/evaluation.json").read_text())["mse"]
    assert errors(clone)["waiting"] == committed  # stage measure did not run

    printed = clone.run("sdnn-sweep", "-S", "lam=0.1,0.3,0.4", "-j", "2", code=1)
    assert "3 runs, 1 of them done before" in printed
    assert sorted(trained(clone)) == ["0.1", "0.3", "0.3", "0.4"]  # stage train of lam-0.4 is in the run cache
    assert errors(clone)["lam-0.4"] != committed


def test_pipeline_in_a_folder_of_a_larger_repository(tmp_path: Path) -> None:
    inner = small_pipeline(tmp_path, git="..")
    inner.run("sdnn-sweep", "-S", "lam=0.1")
    assert "lam-0.1" in inner.run("dvc", "exp", "list")


@contextmanager
def cluster(clone: Clone, folder: Path, protocol: str = "tcp") -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """A Dask scheduler and two workers, each with a home of its own and without this machine's environment."""
    address = f"{protocol}://{LOOPBACK}:{free_port()}"
    dask = [sys.executable, "-m", "dask"]
    commands = [[*dask, "scheduler", "--host", LOOPBACK, "--port", address.rpartition(":")[2], "--no-dashboard"]]
    commands[0] += ["--protocol", protocol]
    commands += [[*dask, "worker", address, "--host", LOOPBACK, "--nthreads", "1", "--no-dashboard"]] * 2
    processes = []
    try:
        for number, command in enumerate(commands):
            home = folder / f"home-{number}"
            home.mkdir(parents=True)
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
