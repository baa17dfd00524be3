"""Training that is killed, stopped or started twice ends as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from clone import ROOT, TINY, Clone

from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.sdnn.checkpoint import checkpoint_path
from pilotnet_sdnn.team.lock import locked_stages

TRAIN = (sys.executable, "-m", "pilotnet_sdnn.stages.train")


def checkpoints(clone: Clone) -> list[Path]:
    folder = clone.path / "models" / "checkpoints"
    return sorted(folder.iterdir()) if folder.exists() else []


def wait_for(process: subprocess.Popen, text: str) -> None:
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"{text!r} was not printed")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Clone:
    """The tiny pipeline before its training."""
    clone = Clone(tmp_path_factory.mktemp("untrained") / "clone", **TINY)
    clone.run("dvc", "repro", "resize")
    return clone


@pytest.fixture
def clone(untrained, tmp_path) -> Clone:
    """The tiny pipeline before its training, in another folder."""
    return untrained.copy(tmp_path / "clone")


def kill_once(clone: Clone, instants: random.Random) -> bool:
    """Start `dvc repro train` and kill it and its training at a random instant; whether it was in time."""
    process = clone.start("dvc", "repro", "train")
    wait_for(process, "training and")
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
    one, other = (locked_stages((run.path / "dvc.lock").read_text())["train"] for run in (clone, undisturbed))
    assert one == other
    assert checkpoints(clone) == []


def test_killed_at_random_instants_the_outputs_are_those_of_an_undisturbed_run(tiny_pipeline, clone):
    kill_and_compare(clone, tiny_pipeline, kills=3)


@pytest.mark.slow
def test_killed_twenty_times_the_outputs_are_those_of_an_undisturbed_run(clone, tmp_path):
    undisturbed = Clone(tmp_path / "undisturbed", **{**TINY, "epochs": 200})
    undisturbed.run("dvc", "repro", "train")
    clone.set(epochs=200)
    kill_and_compare(clone, undisturbed, kills=20)


def test_killed_with_augmentation_it_ends_as_undisturbed(clone):
    clone.set(mirror=0.5, brightness=0.15, contrast=0.3, shift=8)
    clone.run(*TRAIN)
    undisturbed = (clone.path / "models/network.pt").read_bytes()
    kill_after_first_epoch(clone)
    assert "going on at epoch" in clone.run(*TRAIN)
    assert (clone.path / "models/network.pt").read_bytes() == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_training_says_so_and_goes_on(tiny_pipeline, clone, number):
    process = clone.start(*TRAIN)
    wait_for(process, "epoch   2")
    process.send_signal(number)
    printed, _ = process.communicate()
    assert process.returncode == 1
    assert f"stopped by {number.name}; the same command goes on from" in printed and "Traceback" not in printed
    assert "going on at epoch" in clone.run(*TRAIN)
    for output in ("models/network.pt", "models/training.csv"):
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
    assert f"process {first.pid} is training this very run already" in printed


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"hello"])
def test_damaged_checkpoint_is_reported_and_ignored(tiny_pipeline, clone, damage):
    kill_after_first_epoch(clone)
    (checkpoint,) = [path for path in checkpoints(clone) if path.suffix == ".pt"]
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    assert "ignored, it is damaged" in clone.run(*TRAIN)
    assert (clone.path / "models/network.pt").read_bytes() == (tiny_pipeline.path / "models/network.pt").read_bytes()


def test_changed_experiment_does_not_go_on_from_another_ones_checkpoint(clone):
    kill_after_first_epoch(clone)
    clone.set(lam=0.5, epochs=1)
    assert "going on" not in clone.run(*TRAIN)


def test_folder_that_cannot_be_written_is_one_line(clone):
    """A file where the folder should be, which stops root as well."""
    (clone.path / "models").rename(clone.path / "models.away")
    (clone.path / "models").write_text("")
    printed = clone.run(*TRAIN, code=1)
    assert "error: " in printed and "Traceback" not in printed and "models" in printed


def test_a_checkpoint_belongs_to_what_changes_the_result(tmp_path):
    data = tmp_path / "frames.h5"
    data.write_bytes(b"frames")
    params = load_params(ROOT / "params.yaml")
    path = checkpoint_path(params, {"stage": "train"}, data)
    assert checkpoint_path(replace(params, checkpoint_minutes=1), {"stage": "train"}, data) == path
    others = [
        checkpoint_path(replace(params, lr=0.5), {"stage": "train"}, data),
        checkpoint_path(params, {"stage": "train_ann"}, data),
    ]
    data.write_bytes(b"other frames")
    assert path not in [*others, checkpoint_path(params, {"stage": "train"}, data)]
