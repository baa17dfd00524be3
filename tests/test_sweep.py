"""sdnn-sweep: which runs a sweep has, in which order they run, and a sweep on this machine."""

import json
from pathlib import Path

import pytest
from clone import Clone
from distributed import Client, LocalCluster
from dvc.repo import Repo
from recording_pipeline import errors, trained, with_own_remote
from servers import LOOPBACK
from small_pipeline import small_pipeline

from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.team.sweep import drive
from pilotnet_sdnn.team.sweep_plan import Run, grid, queued
from pilotnet_sdnn.team.sweep_progress import Ended, NoWorkers, Started
from pilotnet_sdnn.team.sweep_schedule import Schedule
from pilotnet_sdnn.team.sweep_stages import computed_stages
from pilotnet_sdnn.team.sweep_worker import Outcome, Sweep, packages, prepare


@pytest.fixture
def clone(recording: Clone, tmp_path: Path) -> Clone:
    return with_own_remote(recording, tmp_path)


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
        assert runs["part"].arguments == ("--force", "--keep-going", "--message", "a b")
        assert runs["part"].targets == ("train",)
        assert sorted(runs["part"].stages.values()) == ["prepare", "train"]
        assert runs["part"].stages.items() < whole.stages.items()
        assert (runs["last"].arguments, runs["last"].targets) == (("--single-item",), ("measure",))
        assert list(runs["last"].stages.values()) == ["measure"]
        assert not runs["last"].stages.keys() & whole.stages.keys()
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
    assert [started[1].stages[stage] for stage in schedule.shared(started[1])] == ["prepare"]
    schedule.computed(started[1], schedule.shared(started[1]))  # the run itself goes on
    last = schedule.next()
    assert last and last.name == "lam-0.2-seed-2"
    schedule.again(last)
    assert schedule.next() == last and schedule.next() is None


def test_sweep_says_that_it_has_no_workers_and_waits_for_them() -> None:
    with LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster, Client(cluster) as client:
        events = drive(client, str, lambda run, first: Outcome(), [Run("lam-1", "", "")])
        assert next(events) == NoWorkers(cluster.scheduler_address)
        cluster.scale(1)
        assert [type(event) for event in events] == [Started, Ended]


def test_runs_that_wait_are_not_lost_when_the_first_one_fails() -> None:
    runs = [Run(str(number), "", "", stages={"shared": "", str(number): ""}) for number in range(3)]
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
    printed = clone.run("sdnn-sweep", "--queued")
    assert "1 run, 0 of them done before" in printed and "waiting: done" in printed
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
