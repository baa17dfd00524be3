"""The same commit gives the same dvc.lock, wherever and however it runs."""

import time
from pathlib import Path

import pytest
from clone import TINY, Clone, clone_of_working_tree

from pilotnet_sdnn.team.lock import locked_stages


def lock(clone: Clone) -> str:
    return (clone.path / "dvc.lock").read_text()


def elsewhere(folder: Path) -> Clone:
    """A clone with a name and with thread settings of its own."""
    other = clone_of_working_tree(folder / "elsewhere" / "other-name", **TINY)
    other.env |= {"OMP_NUM_THREADS": "5", "MKL_NUM_THREADS": "1"}
    return other


def test_another_clone_with_other_thread_settings_trains_the_same_network(tiny_pipeline, tmp_path):
    other = elsewhere(tmp_path)
    other.run("dvc", "repro", "inspect", "train")
    stages, expected = locked_stages(lock(other)), locked_stages(lock(tiny_pipeline))
    for name in ("download", "resize", "inspect", "pretrain", "train"):
        assert stages[name] == expected[name]


@pytest.mark.slow
def test_another_clone_with_other_thread_settings_gives_the_same_lock(tiny_pipeline, tmp_path):
    other = elsewhere(tmp_path)
    other.run("dvc", "repro")
    assert lock(other) == lock(tiny_pipeline)


@pytest.mark.slow
def test_running_everything_again_leaves_the_lock_as_it_is(tiny_pipeline, tmp_path):
    again = tiny_pipeline.copy(tmp_path / "again")
    again.run("dvc", "repro", "-f")
    assert lock(again) == lock(tiny_pipeline)
    assert again.run("git", "status", "--short") == ""


@pytest.mark.slow
def test_temporary_and_queued_experiments_equal_those_in_the_workspace(tmp_path):
    """Two queued ones train at the same time."""
    workspace, queue, temporary = (
        clone_of_working_tree(tmp_path / name, **TINY) for name in ("workspace", "queue", "temporary")
    )
    for lam in ("0.5", "5"):
        workspace.run("dvc", "exp", "run", "-S", f"lam={lam}", "-n", f"lam-{lam}")
        workspace.run("git", "checkout", ".")
        queue.run("dvc", "exp", "run", "--queue", "-S", f"lam={lam}", "-n", f"lam-{lam}")
    queue.run("dvc", "queue", "start", "-j", "2")
    deadline = time.monotonic() + 300
    while queue.run("dvc", "queue", "status").count("Success") < 2:
        assert time.monotonic() < deadline, queue.run("dvc", "queue", "status")
        time.sleep(1)
    temporary.run("dvc", "exp", "run", "--temp", "-S", "lam=5", "-n", "lam-5")

    for lam in ("0.5", "5"):
        assert queue.experiment_lock(f"lam-{lam}") == workspace.experiment_lock(f"lam-{lam}")
    assert temporary.experiment_lock("lam-5") == workspace.experiment_lock("lam-5")
