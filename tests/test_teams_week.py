"""A team's week: two people, two clones, a git server and a shared folder, by the commands of README and docs.

The other commands of every page, or the reasons why one is not run, are in test_docs.py.
"""

import os
import signal
from pathlib import Path

import pytest
from clone import Clone, wait_for

from pilotnet_sdnn.team.working_tree import GO_BACK

UP_TO_DATE = "Data and pipelines are up to date.\n"
HEALTHY = "healthy: no killed dvc has left anything behind\n"


def sh(clone: Clone, *lines: str) -> str:
    """What command lines print, as somebody types them who has activated `.venv`."""
    return clone.run("bash", "-e", "-c", "\n".join(lines))


@pytest.fixture
def ana(tiny_pipeline, tmp_path) -> Clone:
    """The clone in which the pipeline has run; its server is `origin.git` beside it."""
    ana = tiny_pipeline.copy(tmp_path / "ana")
    sh(ana, "git branch -M main", "git clone -q --bare . ../origin.git", "git remote set-url origin ../origin.git")
    return ana


def interrupt(clone: Clone, how: signal.Signals, *command: str) -> None:
    """Stop a dvc command and its training, in the first epochs."""
    process = clone.start(*command)
    wait_for(process, "epoch   1")
    os.killpg(process.pid, how)
    process.communicate()


@pytest.mark.slow
def test_a_teams_week(ana, tmp_path):
    monday_ana_shares_an_experiment(ana, tmp_path / "team")
    ben = Clone(tmp_path / "origin.git").colleague(tmp_path / "ben")
    tuesday_ben_changes_something_else(ben)
    wednesday_ana_merges_both(ana)
    thursday_a_network_is_released(ana, ben)
    friday_trainings_are_interrupted(ana, ben)
    for clone in (ana, ben):
        assert sh(clone, "dvc status") == UP_TO_DATE
        assert sh(clone, "git status --short --branch") == "## main...origin/main\n"
        assert sh(clone, "sdnn-doctor") == HEALTHY


def monday_ana_shares_an_experiment(ana: Clone, team: Path) -> None:
    sh(
        ana,
        f"dvc remote add -d team {team}",
        "dvc remote modify team shared group",
        "dvc remote modify team verify true",
        "git commit -q -m 'DVC remote' .dvc/config",
        "git push -q",
    )
    assert "Running stage" not in sh(ana, "dvc repro")
    sh(ana, "dvc exp run -n sparser -S lam=0.5")
    assert "metrics/evaluation.json  mse" in sh(ana, "dvc metrics diff --targets metrics/evaluation.json")
    experiment = ana.metrics("evaluation")
    sh(ana, GO_BACK)
    assert sh(ana, "git status --short") == "" and sh(ana, "dvc status") == UP_TO_DATE

    sh(ana, "echo '# tuned by hand' >> limits.yaml", "git commit -q -a -m 'A note'", "git push -q")
    assert "\n  lam 0.5\n" in sh(ana, "sdnn-runs")  # although the experiment started from an older commit
    sh(ana, "git switch -q -c sparser", "sdnn-runs take sparser")
    printed = sh(ana, "sdnn-report")
    assert "gate: " in printed and "changed besides results: params.yaml" in printed
    sh(ana, "git commit -q -a -m 'lam 0.5'", "git push -q -u origin sparser", "sdnn-share push")
    sh(ana, "dvc exp push origin sparser", "git switch -q main", "dvc checkout")
    assert ana.metrics("evaluation") != experiment


def tuesday_ben_changes_something_else(ben: Clone) -> None:
    """He has nothing but git's files; the pull brings the rest."""
    assert "execute nothing" in sh(ben, "sdnn-share pull")
    assert "Running stage" not in sh(ben, "dvc repro")
    assert sh(ben, "dvc status") == UP_TO_DATE and sh(ben, "sdnn-doctor") == HEALTHY
    assert "sparser" in sh(ben, "dvc exp list origin --all-commits")
    sh(ben, "dvc exp pull origin sparser")
    assert "\n  lam 0.5\n" in sh(ben, "sdnn-runs")
    assert "sparser: lam 0.5" in sh(ben, "sdnn-pareto") + (ben.path / "pareto/pareto.csv").read_text()
    assert "Running stage" not in sh(ben, "dvc exp run --temp -n again -S lam=0.5")  # Ana has run it

    sh(ben, "git switch -q -c cheaper")
    ben.set(energy_add_pj=0.1)
    printed = sh(ben, "dvc repro")
    assert "Running stage 'compare_ops'" in printed and "Running stage 'evaluate'" not in printed
    sh(ben, "git commit -q -a -m 'Cheaper additions'")
    printed = sh(ben, "sdnn-report main --gate")
    assert "gate: passed" in printed and "energy_add_pj" in (ben.path / "report.md").read_text()
    sh(ben, "git push -q -u origin cheaper", "sdnn-share push", "git switch -q main", "dvc checkout")


def wednesday_ana_merges_both(ana: Clone) -> None:
    sh(ana, "git fetch -q", "git merge -q origin/sparser")
    assert "CONFLICT" in sh(ana, "! git merge origin/cheaper")
    sh(ana, "sdnn-share pull")
    printed = sh(ana, "dvc repro")
    assert "Running stage 'train'" not in printed and "Running stage 'train_ann'" not in printed
    sh(ana, "git commit -q -a -m Merge")
    assert sh(ana, "dvc status") == UP_TO_DATE and sh(ana, "git status --porcelain") == ""
    assert "  mse " in sh(ana, "dvc metrics diff origin/main --targets metrics/evaluation.json")
    assert {"energy_add_pj", "lam"} <= set(sh(ana, "dvc params diff origin/main").split())
    assert "gate: passed" in sh(ana, "sdnn-report sparser --gate")
    sh(ana, "git push -q", "sdnn-share push")


def thursday_a_network_is_released(ana: Clone, ben: Clone) -> None:
    for name in ("network", "network-hdf5"):
        sh(ana, f"gto register {name} --version v1.0.0")
        sh(ana, f"gto assign {name} --version v1.0.0 --stage car")
    assert "v1.0.0" in sh(ana, "gto show")
    sh(ana, "dvc push", "git push -q --tags")

    sh(ben, "dvc artifacts get ../origin.git network --rev v1.0.0 -o ../released.pt")
    sh(ben, "dvc artifacts get ../origin.git network-hdf5 --stage car -o ../car.net")
    for fetched, path in (("released.pt", "network.pt"), ("car.net", "network.net")):
        assert (ben.path.parent / fetched).read_bytes() == (ana.path / "models" / path).read_bytes()
    sh(ben, "git pull -q", "sdnn-share pull")
    assert "Running stage" not in sh(ben, "dvc repro")


def friday_trainings_are_interrupted(ana: Clone, ben: Clone) -> None:
    """Ana presses Ctrl-C and goes back; Ben's machine loses power in an experiment."""
    ana.set(lr=0.02, epochs=5000)
    interrupt(ana, signal.SIGINT, "dvc", "repro")
    sh(ana, GO_BACK)

    interrupt(ben, signal.SIGKILL, "dvc", "exp", "run", "-S", "lam=5", "-S", "epochs=5000")
    assert "dvc exp run -S lam=5 -S epochs=5000`, which was killed" in ben.run("sdnn-doctor", code=1)
    sh(ben, "sdnn-doctor --fix || true", GO_BACK)
