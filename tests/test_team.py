"""Two people and one pipeline: branches merged, models released."""

import subprocess

import pytest
from clone import Clone


@pytest.fixture
def clone(tiny_pipeline, tmp_path) -> Clone:
    """A copy of the tiny pipeline, with its cache and history, to change at will."""
    return tiny_pipeline.copy(tmp_path / "repository")


def run_on_branch(clone: Clone, branch: str, start: str, **params: object) -> None:
    """What a colleague does: a branch, other parameters, `dvc repro`, a commit."""
    clone.run("git", "switch", "-q", "-c", branch, start)
    clone.run("dvc", "checkout")
    clone.set(**params)
    clone.run("dvc", "repro")
    clone.commit(f"{branch}: {params}")


def test_merge_of_two_runs_runs_only_what_nobody_has_run(clone):
    """The recipe for teams: git merge, settle params.yaml, dvc repro, git commit -a."""
    run_on_branch(clone, "shorter", "HEAD", deploy_frames=16)
    shorter = clone.metrics("deployment")
    run_on_branch(clone, "cheaper", "HEAD~1", energy_add_pj=0.1)
    cheaper = clone.metrics("operations")

    printed = clone.run("git", "merge", "shorter", code=1)
    assert "Merge conflict in dvc.lock" in printed and "Merge conflict in params.yaml" not in printed
    assert "<<<<" not in (clone.path / "dvc.lock").read_text()  # so that dvc reads it
    assert "Running stage" not in clone.run("dvc", "repro")  # each half has been run by one of the two
    clone.run("git", "commit", "-q", "-a", "-m", "Merge")
    assert clone.metrics("deployment") == shorter and clone.metrics("operations") == cheaper
    assert clone.run("dvc", "status") == "Data and pipelines are up to date.\n"
    assert clone.run("git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_merge_that_nobody_has_run_trains(clone):
    run_on_branch(clone, "sparser", "HEAD", lam=0.5)
    run_on_branch(clone, "faster", "HEAD~1", lr=0.02)
    clone.run("git", "merge", "sparser", code=1)
    assert "Running stage 'train'" in clone.run("dvc", "repro")
    clone.run("git", "commit", "-q", "-a", "-m", "Merge")
    assert clone.run("dvc", "status") == "Data and pipelines are up to date.\n"


def test_a_released_network_is_fetched_by_version_and_by_stage(clone, tmp_path):
    remote = tmp_path / "remote"
    clone.run("dvc", "remote", "add", "-q", "-d", "team", str(remote))
    clone.commit("A remote")
    clone.run("dvc", "push")
    for name in ("network", "network-hdf5"):
        clone.run("gto", "register", name)
        clone.run("gto", "assign", name, "--version", "v0.0.1", "--stage", "car")
    assert {"network@v0.0.1", "network#car#1"} <= set(clone.run("git", "tag").split())

    fetched, exported = tmp_path / "fetched.pt", tmp_path / "fetched.net"
    get = ("dvc", "artifacts", "get", str(clone.path))
    subprocess.run([*get, "network", "--rev", "v0.0.1", "-o", fetched], cwd=tmp_path, env=clone.env, check=True)
    subprocess.run([*get, "network-hdf5", "--stage", "car", "-o", exported], cwd=tmp_path, env=clone.env, check=True)
    assert fetched.read_bytes() == (clone.path / "models/network.pt").read_bytes()
    assert exported.read_bytes() == (clone.path / "models/network.net").read_bytes()
