"""Training that is killed, stopped or started twice ends as if nothing had happened."""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from clone import ROOT, TINY, Clone, clone_of_working_tree, wait_for

from pilotnet_sdnn.sdnn.checkpoint import (
    FINISHED_STATES,
    checkpoint_path,
    load_checkpoint,
    only_trainer,
    save_checkpoint,
)
from pilotnet_sdnn.team.lock import locked_stages

TRAIN = (sys.executable, "-m", "pilotnet_sdnn.stages.train")
TRAIN_ANN = (sys.executable, "-m", "pilotnet_sdnn.stages.train_ann")
STAGES = sorted({path.stem for path in (ROOT / "src/pilotnet_sdnn/stages").glob("[a-z]*.py")} - {"environment"})


def checkpoints(clone: Clone) -> list[Path]:
    folder = clone.path / "models" / "checkpoints"
    return sorted(folder.iterdir()) if folder.exists() else []


@pytest.fixture
def clone(tiny_pipelines, tmp_path) -> Clone:
    """The tiny pipeline before its training."""
    return Clone(tiny_pipelines / "untrained").copy(tmp_path / "clone")


def locked_train(clone: Clone, experiment: str = "") -> dict:
    """What dvc.lock says of the training in the workspace, or in an experiment."""
    lock = clone.experiment_lock(experiment) if experiment else (clone.path / "dvc.lock").read_text()
    return locked_stages(lock)["train"]


def kill_once(clone: Clone, instants: random.Random) -> bool:
    """Start `dvc repro train` and kill it and its training at a random instant; whether it was in time."""
    process = clone.start("dvc", "repro", "train")
    wait_for(process, "training sequences")
    time.sleep(instants.uniform(0, 0.4))
    in_time = process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return in_time


def kill_after_first_epoch(clone: Clone) -> None:
    process = clone.start(*TRAIN)
    wait_for(process, "epoch   1")
    process.kill()
    process.communicate()


def kill_and_compare(clone: Clone, undisturbed: Clone, kills: int) -> None:
    """Training that was killed goes on to the outputs of an undisturbed one, by what dvc.lock says of both."""
    instants = random.Random(kills)
    hits = sum(kill_once(clone, instants) for _ in range(kills))
    assert hits > kills / 2
    clone.run("dvc", "repro", "train")
    assert locked_train(clone) == locked_train(undisturbed)
    assert [path.suffix for path in checkpoints(clone)] == [".finished"]


def test_killed_at_random_instants_the_outputs_are_those_of_an_undisturbed_run(tiny_pipeline, clone):
    kill_and_compare(clone, tiny_pipeline, kills=3)


@pytest.mark.slow
def test_killed_twenty_times_the_outputs_are_those_of_an_undisturbed_run(clone, tmp_path):
    undisturbed = clone_of_working_tree(tmp_path / "undisturbed", **{**TINY, "epochs": 200})
    undisturbed.run("dvc", "repro", "train")
    clone.set(epochs=200)
    kill_and_compare(clone, undisturbed, kills=20)


def test_killed_ann_training_ends_as_undisturbed(tiny_pipeline, clone):
    """It is killed within an epoch: the tiny pipeline saves its state after nearly every step."""
    process = clone.start(*TRAIN_ANN)
    wait_for(process, "epoch   3")
    time.sleep(0.05)
    process.kill()
    process.communicate()
    assert "resuming at epoch" in clone.run(*TRAIN_ANN)
    for output in ("models/ann.pt", "metrics/ann.json"):
        assert (clone.path / output).read_bytes() == (tiny_pipeline.path / output).read_bytes()
    assert checkpoints(clone) == []


def outlive_dvc(clone: Clone, *command: str) -> None:
    """Start a dvc command, kill dvc alone in the training and let that finish."""
    process = clone.start(*command)
    wait_for(process, "epoch   1")
    process.kill()
    process.communicate()
    assert [path.suffix for path in checkpoints(clone)] == [".finished"]


def test_training_that_outlived_its_dvc_is_taken_over(tiny_pipeline, clone):
    outlive_dvc(clone, "dvc", "repro", "train")
    assert "resuming at its end" in clone.run("dvc", "repro", "train")
    recorded = (clone.path / "dvc.lock").read_text()
    assert locked_train(clone) == locked_train(tiny_pipeline)
    assert "epoch   1" in clone.run("dvc", "repro", "-f", "-s", "train")  # now that dvc.lock has it, -f trains
    assert (clone.path / "dvc.lock").read_text() == recorded


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--temp",)])
def test_experiment_that_outlived_its_dvc_is_taken_over(tiny_pipeline, clone, options):
    command = ("dvc", "exp", "run", "-n", "again", *options, "train")
    outlive_dvc(clone, *command)
    clone.run("sdnn-doctor", "--fix")
    assert "resuming at its end" in clone.run(*command)
    assert locked_train(clone, "again") == locked_train(tiny_pipeline)


@pytest.mark.slow
def test_killed_temporary_experiment_ends_as_undisturbed(tiny_pipeline, clone):
    process = clone.start("dvc", "exp", "run", "--temp", "-n", "temporary", "train")
    wait_for(process, "epoch   2")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    clone.run("sdnn-doctor", "--fix")
    assert "resuming at epoch" in clone.run("dvc", "exp", "run", "--temp", "-n", "temporary", "train")
    assert locked_train(clone, "temporary") == locked_train(tiny_pipeline)


@pytest.mark.slow
def test_killed_queued_experiment_ends_as_undisturbed(clone, tmp_path):
    """Killed is the training; the queue calls it failed, and it is queued again."""
    clone.set(epochs=100)
    undisturbed = clone.copy(tmp_path / "undisturbed")
    undisturbed.run("dvc", "repro", "train")
    clone.commit("A longer training")
    for name in ("first", "second"):
        clone.run("dvc", "exp", "run", "--queue", "-n", name, "train")
        clone.start("dvc", "queue", "start")  # it returns long after its worker has started, perhaps too late
        if name == "first":
            (process,) = wait_until(lambda: trainings(clone))
            wait_until(lambda: checkpoints(clone))
            process.kill()
            wait_until(lambda: "Failed" in clone.run("dvc", "queue", "status"))
    wait_until(lambda: "Success" in clone.run("dvc", "queue", "status"))
    assert "resuming at epoch" in clone.run("dvc", "queue", "logs", "second")
    assert locked_train(clone, "second") == locked_train(undisturbed)


def trainings(clone: Clone) -> list[psutil.Process]:
    """The training processes in a clone or in an experiment's copy of it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if TRAIN[-1] in process.cmdline()[-1:] and Path(process.cwd()).is_relative_to(clone.path):
                found.append(process)
    return found


def wait_until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return result


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_training_says_so_and_goes_on(tiny_pipeline, clone, number):
    process = clone.start(*TRAIN)
    wait_for(process, "epoch   2")
    process.send_signal(number)
    printed, _ = process.communicate()
    assert process.returncode == 1
    assert f"stopped by {number.name}; the same command resumes from" in printed and "Traceback" not in printed
    assert "resuming at epoch" in clone.run(*TRAIN)
    for output in ("models/trained.pt", "models/training.csv"):
        assert (clone.path / output).read_bytes() == (tiny_pipeline.path / output).read_bytes()
    assert checkpoints(clone) == []


def test_second_trainer_of_the_same_run_is_refused(clone):
    clone.set(epochs=5000)  # so that the first one is still at it when the second one starts
    first = clone.start(*TRAIN)
    wait_for(first, "epoch   1")
    printed = clone.run(*TRAIN, code=1)
    first.kill()
    first.communicate()
    assert printed.startswith("error: ") or "\nerror: " in printed
    assert f"process {first.pid} is already training this run" in printed


def test_damaged_checkpoint_is_reported_and_ignored(tiny_pipeline, clone):
    kill_after_first_epoch(clone)
    (checkpoint,) = [path for path in checkpoints(clone) if path.suffix == ".pt"]
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1000])
    assert "ignored, it is damaged" in clone.run(*TRAIN)
    assert (clone.path / "models/trained.pt").read_bytes() == (tiny_pipeline.path / "models/trained.pt").read_bytes()


@pytest.mark.parametrize("content", [b"", b"hello"])
def test_a_file_that_is_no_checkpoint_is_reported_and_ignored(tmp_path, capsys, content):
    path = tmp_path / "train.pt"
    path.write_bytes(content)
    assert load_checkpoint(path) is None
    assert "ignored, it is damaged" in capsys.readouterr().out


def test_changed_experiment_does_not_go_on_from_another_ones_checkpoint(clone):
    kill_after_first_epoch(clone)
    clone.set(lam=0.5, epochs=1)
    assert "resuming" not in clone.run(*TRAIN)


def test_folder_that_cannot_be_written_is_one_line(clone):
    """A file where the folder should be, which stops root as well."""
    (clone.path / "models").rename(clone.path / "models.away")
    (clone.path / "models").write_text("")
    printed = clone.run(*TRAIN, code=1)
    assert "error: " in printed and "Traceback" not in printed and "models" in printed


@pytest.fixture
def in_clone(clone, monkeypatch) -> Clone:
    """A clone with data, in whose root the test runs."""
    monkeypatch.chdir(clone.path)
    return clone


@pytest.mark.parametrize(
    ("file", "counts"),
    [
        ("src/pilotnet_sdnn/stages/train.py", True),
        ("src/pilotnet_sdnn/sdnn/losses.py", True),
        ("src/pilotnet_sdnn/dataset/augmentation.py", True),
        ("data/frames/1-0123456789abcdef.h5", True),
        ("src/pilotnet_sdnn/stages/evaluate.py", False),
        ("src/pilotnet_sdnn/team/report.py", False),
        ("src/pilotnet_sdnn/commands/report.py", False),
        ("src/pilotnet_sdnn/sdnn/__pycache__/losses.cpython-311.pyc", False),
        ("README.md", False),
    ],
)
def test_a_checkpoint_belongs_to_the_code_and_data_its_stage_depends_on(in_clone, file, counts):
    """An edit to a command must not throw a night of training away."""
    before = checkpoint_path("train", {})
    path = in_clone.path / file
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as edited:
        edited.write("\n")
    assert (checkpoint_path("train", {}) != before) == counts


def test_a_checkpoint_belongs_to_the_parameters_of_its_stage_and_to_its_environment(in_clone):
    path = checkpoint_path("train", {"device": "cpu"})
    in_clone.set(checkpoint_minutes=1, deploy_frames=3)
    assert checkpoint_path("train", {"device": "cpu"}) == path
    assert path not in [checkpoint_path("train", {"device": "cuda"}), checkpoint_path("train_ann", {"device": "cpu"})]
    in_clone.set(lr=0.5)
    assert checkpoint_path("train", {"device": "cpu"}) != path


def test_finished_states_are_few(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "train")
    for number in range(FINISHED_STATES + 2):
        path = tmp_path / f"{number}.pt"
        with only_trainer(path):
            save_checkpoint(path, {"kept_weights": {}})
        os.utime(path.with_suffix(".finished"), (number, number))
    assert {path.stem for path in tmp_path.iterdir()} == {str(n) for n in range(2, FINISHED_STATES + 2)}


@pytest.mark.parametrize("stage", STAGES)
def test_interrupted_while_it_imports_a_stage_says_so_in_one_line(clone, stage):
    process = clone.start(sys.executable, "-X", "importtime", "-m", f"pilotnet_sdnn.stages.{stage}")
    wait_for(process, "numpy")
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate()
    assert process.returncode == 1
    said = [line for line in printed.splitlines() if not line.startswith("import time:")]
    assert said == ["stopped by SIGINT"]
