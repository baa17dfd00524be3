"""What a killed dvc leaves behind is found and repaired, and nobody's work is lost with it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest
from clone import ROOT, TINY, Clone, clone_of_working_tree
from dvc.utils.hydra import apply_overrides
from small_pipeline import repository, small_pipeline

from pilotnet_sdnn.commands.doctor import is_healthy
from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.team.lock import locked_stages
from pilotnet_sdnn.team.processes import dvc_processes
from pilotnet_sdnn.team.working_tree import GO_BACK

DEAD = 2**22 - 1  # no process has the last number there is


@pytest.fixture
def clone(tmp_path) -> Clone:
    """A clone in which nothing ever ran."""
    return clone_of_working_tree(tmp_path / "clone", **TINY)


@contextmanager
def process(clone: Clone, *command: str, **environment: str) -> Iterator[subprocess.Popen]:
    with subprocess.Popen(command, cwd=clone.path, env={**clone.env, **environment}) as running:
        try:
            yield running
        finally:
            for child in psutil.Process(running.pid).children(recursive=True) if running.poll() is None else []:
                child.kill()
            running.kill()


def killed_experiment(clone: Clone, *edits: str) -> None:
    """As a `dvc exp run` in the workspace leaves it that was killed in training."""
    head = clone.run("git", "rev-parse", "HEAD").strip()
    clone.run("git", "checkout", "-q", head)
    apply_overrides(clone.path / "params.yaml", list(edits))
    for name in ("EXEC_BASELINE", "EXEC_HEAD", "EXEC_MERGE"):
        clone.run("git", "update-ref", f"refs/exps/exec/{name}", head)
    command = " ".join(["/usr/bin/dvc exp run", *(f"-S {edit}" for edit in edits)])
    lock_by(clone, DEAD, command)
    run = clone.path / ".dvc/tmp/exps/run/workspace"
    run.mkdir(parents=True)
    (run / "workspace.json").write_text(json.dumps({"pid": DEAD}))


def lock_by(clone: Clone, pid: int, command: str) -> None:
    rwlock = clone.path / ".dvc/tmp/rwlock"
    rwlock.parent.mkdir(exist_ok=True)
    rwlock.write_text(json.dumps({"write": {"models/network.pt": {"pid": pid, "cmd": command}}}))


def branch(clone: Clone) -> str:
    return clone.run("git", "rev-parse", "--abbrev-ref", "HEAD").strip()


def test_healthy_repository_says_so(clone):
    assert clone.run("sdnn-doctor") == "healthy: no killed dvc has left anything behind\n"
    clone.run("git", "checkout", "-q", "--detach")  # by its user
    clone.set(lam=0.3)
    printed = clone.run("sdnn-doctor", "--fix")
    assert printed.startswith("no killed dvc has left anything behind, but:\n- not committed: params.yaml (lam: ")
    assert branch(clone) == "HEAD" and "lam: 0.3" in (clone.path / "params.yaml").read_text()


def test_outside_a_repository_it_is_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pilotnet_sdnn.commands.doctor"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and done.stderr.startswith("error: this is no DVC repository")


def test_killed_experiment_is_reported_with_commands_and_repaired_on_request(clone):
    before = branch(clone)
    killed_experiment(clone, "lam=0.3", "epochs=7")
    (clone.path / "README.md").write_text("my own work\n")
    printed = clone.run("sdnn-doctor", code=1)
    for command in (f"git switch {before}", "git restore --staged --worktree params.yaml", "rm .dvc/tmp/rwlock"):
        assert f"      {command}\n" in printed
    assert branch(clone) == "HEAD"  # nothing was done

    assert "everything is repaired" in clone.run("sdnn-doctor", "--fix")
    assert branch(clone) == before
    assert clone.run("git", "status", "--short") == " M README.md\n"
    assert (clone.path / "README.md").read_text() == "my own work\n"
    assert clone.run("git", "for-each-ref", "refs/exps").split("\t")[-1].strip() == "refs/exps/exec/EXEC_HEAD"
    assert clone.run("sdnn-doctor").startswith("healthy")


def test_own_edits_of_params_are_left_alone(clone, capsys):
    killed_experiment(clone, "lam=0.3")
    clone.set(batch=5)  # not the experiment's
    edited = (clone.path / "params.yaml").read_text()
    assert is_healthy(clone.path, fix=True)
    assert "params.yaml has changes that may be yours, and is left alone" in capsys.readouterr().out
    assert (clone.path / "params.yaml").read_text() == edited


def test_experiment_killed_between_two_stages(clone):
    """No lock names its command then; what may be an edit of the user is kept in git's stash."""
    killed_experiment(clone, "lam=0.3")
    clone.run("git", "update-ref", "refs/exps/exec/EXEC_MERGE", clone.run("git", "stash", "create").strip())
    (clone.path / ".dvc/tmp/rwlock").write_text("{}")
    printed = clone.run("sdnn-doctor", "--fix")
    assert "params.yaml is as the killed experiment had it (lam: 0.02 -> 0.3)" in printed
    assert clone.run("sdnn-doctor").startswith("healthy")
    assert clone.run("git", "status", "--short") == ""
    clone.run("git", "stash", "pop")
    assert "lam: 0.3" in (clone.path / "params.yaml").read_text()


def test_experiment_killed_while_dvc_has_it_in_gits_stash(clone):
    """It restores the stash of the experiment from there, after it has put the files back as committed."""
    before = branch(clone)
    killed_experiment(clone, "lam=0.3")
    (clone.path / "README.md").write_text("my own work\n")
    (clone.path / ".dvc/tmp/repro.dat").write_bytes(b"dvc")
    clone.run("git", "add", "-f", ".dvc/tmp/repro.dat")
    clone.run("git", "stash", "push")
    clone.run("git", "update-ref", "refs/exps/exec/EXEC_MERGE", "stash@{0}")
    printed = clone.run("sdnn-doctor", "--fix")
    assert "git stash pop" in printed and "git restore --staged --worktree params.yaml" in printed
    clone.run("git", "stash", "pop")
    clone.run("git", "restore", "--staged", "--worktree", "params.yaml")
    assert "repro.dat is staged" in clone.run("sdnn-doctor", "--fix")
    assert branch(clone) == before and clone.run("git", "status", "--short") == " M README.md\n"


def test_experiment_killed_before_dvc_put_the_users_changes_back(clone):
    """They are nowhere but in the reference of the experiment, which the doctor deletes."""
    before = branch(clone)
    killed_experiment(clone, "lam=0.3")
    (clone.path / "README.md").write_text("my own work\n")
    clone.run("git", "update-ref", "refs/exps/exec/EXEC_MERGE", clone.run("git", "stash", "create").strip())
    clone.run("git", "checkout", "-q", "README.md", "params.yaml")
    assert "It alone has your changes of README.md" in clone.run("sdnn-doctor", "--fix")
    clone.run("git", "stash", "pop")
    clone.run("git", "restore", "--staged", "--worktree", "params.yaml")
    assert branch(clone) == before and clone.run("git", "status", "--short") == " M README.md\n"
    assert (clone.path / "README.md").read_text() == "my own work\n"


def test_results_that_a_stopped_run_removed(clone):
    (clone.path / "metrics/train.json").unlink()
    assert "- metrics/train.json: missing, probably because a run was stopped" in clone.run("sdnn-doctor", code=1)
    assert not is_healthy(clone.path, fix=True)
    subprocess.run(GO_BACK, shell=True, cwd=clone.path, env=clone.env, check=True)
    assert clone.run("sdnn-doctor").startswith("healthy")


def test_names_of_branches_and_references_run_nothing(clone):
    clone.run("git", "checkout", "-q", "-b", "a;touch>hacked")
    killed_experiment(clone, "lam=0.3")
    clone.run("git", "update-ref", "refs/exps/temp/$(touch>hacked)", "HEAD")
    clone.run("git", "update-ref", "refs/exps/temp/-d;touch>hacked", "HEAD")
    assert "everything is repaired" in clone.run("sdnn-doctor", "--fix")
    assert branch(clone) == "a;touch>hacked"
    assert clone.run("git", "for-each-ref", "refs/exps/temp") == ""
    assert not (clone.path / "hacked").exists()


def test_places_in_which_dvc_fails_are_named(tmp_path):
    clone = clone_of_working_tree(tmp_path / "é{a}", **TINY)
    (clone.path / "src/pilotnet_sdnn/stages/new.py").touch()
    printed = clone.run("sdnn-doctor")
    assert "has non-ASCII letters: `dvc exp run --temp`, the queue" in printed
    assert "has braces, and `dvc repro` fails in it" in printed
    assert "git does not know src/pilotnet_sdnn/stages/new.py: queued and --temp experiments run without it" in printed


def test_remote_that_plain_dvc_pull_would_believe(clone):
    clone.run("dvc", "remote", "add", "--local", "team", "/nowhere")
    assert "`dvc remote modify team verify true`" in clone.run("sdnn-doctor")
    clone.run("dvc", "remote", "modify", "--local", "team", "verify", "true")
    assert clone.run("sdnn-doctor").startswith("healthy")


DAMAGED_LOCKS = [
    "a: [",
    "half",
    "[]",
    "schema: '2.0'\nstages: 5",
    "stages: {}",
    "\0",
    "<<<<<<< HEAD\n",
    "[" * 5_000,
    "a: !!int x",
]


@pytest.mark.parametrize("text", DAMAGED_LOCKS)
def test_damaged_text_of_a_dvc_lock_is_one_line(text):
    with pytest.raises(UserError, match=r"^dvc.lock is damaged.*git checkout HEAD -- dvc.lock") as error:
        locked_stages(text)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("command", ["sdnn-doctor", "sdnn-share"])
def test_damaged_dvc_lock_is_one_line(clone, command):
    (clone.path / "dvc.lock").write_text("schema: '2.0'\nstages: [\x00\x1b[2J\n")
    done = subprocess.run(
        [command, "push"][: 1 + (command == "sdnn-share")],
        cwd=clone.path,
        env=clone.env,
        capture_output=True,
        text=True,
    )
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if "dvc.lock" in line and "corrupted" in line]
    assert line.isprintable() and len(line) <= 300
    assert "Traceback" not in done.stderr


def test_changed_results_are_left_alone(clone, capsys):
    killed_experiment(clone, "lam=0.3")
    (clone.path / "dvc.lock").write_text("half")
    is_healthy(clone.path, fix=True)
    assert "- dvc.lock: changed by the killed run or by you, and left alone" in capsys.readouterr().out
    assert (clone.path / "dvc.lock").read_text() == "half"


def test_where_git_itself_fails_nothing_is_removed(clone):
    """Such as in a clone that belongs to somebody else: no lock of git is found, and dvc.lock is none."""
    (clone.path / ".git/config").write_text("[core\n")
    printed = clone.run("sdnn-doctor", "--fix", code=1)
    assert printed.startswith("error: git ") and printed.count("\n") == 1
    assert (clone.path / "dvc.lock").exists() and (clone.path / "uv.lock").exists()


def test_missing_results_of_a_killed_experiment_are_named_and_stay_a_finding(clone, capsys):
    killed_experiment(clone, "lam=0.3")
    (clone.path / "metrics/operations.json").unlink()
    (clone.path / "metrics/ann.json").write_text("{}")
    assert not is_healthy(clone.path, fix=True)
    printed = capsys.readouterr().out
    assert "- metrics/ann.json: changed by the killed run or by you, and left alone" in printed
    assert "- metrics/operations.json: missing" in printed
    assert "1 problem left for you to decide" in printed


def test_experiment_killed_after_it_was_saved(clone, capsys):
    """DVC has committed own work with it, which must not go away with the commit."""
    before = branch(clone)
    (clone.path / "README.md").write_text("my own work\n")
    killed_experiment(clone, "lam=0.3")
    clone.run("git", "commit", "-qam", "dvc: commit experiment 3c31")
    clone.run("git", "update-ref", "refs/exps/ab/cd/saved", "HEAD")
    clone.run("git", "symbolic-ref", "refs/exps/exec/EXEC_BRANCH", "refs/exps/ab/cd/saved")
    assert is_healthy(clone.path, fix=True)
    assert branch(clone) == before
    assert clone.run("git", "status", "--short") == " M README.md\n"
    assert (clone.path / "README.md").read_text() == "my own work\n"
    assert clone.run("git", "show", "refs/exps/ab/cd/saved:params.yaml").count("lam: 0.3") == 1


def test_running_dvc_is_not_taken_for_a_dead_one(clone, tmp_path, capsys):
    killed_experiment(clone, "lam=0.3")
    program = tmp_path / "dvc"
    program.write_text("import time; time.sleep(60)")
    with process(clone, sys.executable, str(program), "exp", "run") as running:
        lock_by(clone, running.pid, "dvc exp run")
        assert is_healthy(clone.path, fix=True)
        assert f"`dvc exp run` is running, process {running.pid}" in capsys.readouterr().out
    assert branch(clone) == "HEAD" and "lam: 0.3" in (clone.path / "params.yaml").read_text()


def test_lock_whose_number_another_process_has_by_now(clone, capsys):
    """DVC asks only whether there is a process of that number, and refuses to run."""
    lock_by(clone, os.getpid(), "/usr/bin/dvc repro")
    assert is_healthy(clone.path, fix=True)
    assert "locks of `dvc repro`, which was killed" in capsys.readouterr().out
    assert not (clone.path / ".dvc/tmp/rwlock").exists()


def test_lock_file_that_was_being_rewritten(clone):
    lock_by(clone, DEAD, "dvc repro")
    (clone.path / ".dvc/tmp/rwlock").write_text("")
    assert "JSON structure is corrupted" in clone.run("dvc", "repro", "download", code=255)
    damaged = [
        '{"write"', "[]", '{"write": {"a": 5}}', "[" * 100_000, "\0",
        '{"read": {"a": [{"pid": -1, "cmd": "\\n"}]}}', '{"write": {"a": {"pid": 1%s, "cmd": ""}}}' % ("0" * 30),
    ]  # fmt: skip
    for content in ["", *damaged]:
        (clone.path / ".dvc/tmp/rwlock").write_text(content)
        assert is_healthy(clone.path, fix=True)
        assert not (clone.path / ".dvc/tmp/rwlock").exists()


SLEEP = "import time; time.sleep(60)"


def test_training_that_outlived_its_dvc_is_ended(clone, capsys):
    with process(clone, sys.executable, "-c", SLEEP, "pilotnet_sdnn.stages.train", DVC_STAGE="train") as orphan:
        assert not is_healthy(clone.path)
        assert f"      kill {orphan.pid}\n" in capsys.readouterr().out
        assert is_healthy(clone.path, fix=True)
        assert not psutil.pid_exists(orphan.pid)


def test_training_below_a_dvc_and_training_by_hand_are_no_orphans(clone, tmp_path):
    program = tmp_path / "dvc"
    program.write_text(
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{SLEEP}', 'pilotnet_sdnn.stages.train'])"
    )
    by_hand = (sys.executable, "-c", SLEEP, "pilotnet_sdnn.stages.train")
    with process(clone, sys.executable, str(program), DVC_STAGE="train") as dvc, process(clone, *by_hand) as training:
        while not psutil.Process(dvc.pid).children():
            time.sleep(0.05)
        assert is_healthy(clone.path, fix=True)
        assert dvc.poll() is None and training.poll() is None


def test_files_folders_and_references_that_nobody_needs(clone, capsys):
    half = clone.path / "models/.network.pt.tmp"
    copy = clone.path / ".dvc/tmp/exps/standalone/tmpabc"
    locks = [clone.path / ".git" / name for name in ("index.lock", "refs/exps/stash.lock")]
    copy.mkdir(parents=True)
    half.touch()
    clone.run("git", "update-ref", "refs/exps/stash", "HEAD")
    for lock in locks:  # seen where dvc was killed while it wrote the reference
        lock.touch()
    assert is_healthy(clone.path, fix=True)
    assert "the next `dvc exp run` would run it as well" in capsys.readouterr().out
    assert not any(path.exists() for path in (half, copy, *locks))


@pytest.mark.parametrize("how", ["experiment in a fresh clone", "stopped training", "staged"])
def test_one_command_goes_back_to_the_last_commit(tmp_path, how):
    """`git checkout . && dvc checkout` fails: the outputs of the commit are not here, or those here are in no cache."""
    clone = small_pipeline(tmp_path)
    if how == "experiment in a fresh clone":
        clone = repository(clone.colleague(tmp_path / "fresh").path)
        clone.run("dvc", "exp", "run", "-S", "lam=0.3")
    elif how == "stopped training":
        (clone.path / "params.yaml").write_text("lam: 0.3\n")
        (clone.path / "metrics/count.json").unlink()
        (clone.path / "data/made.txt").write_text("half trained")
    else:
        (clone.path / "params.yaml").write_text("lam: 0.3\n")
        clone.run("dvc", "repro", "make")
        clone.run("git", "add", "-A")
    clone.run("git", "checkout", ".")
    if how != "staged":
        clone.run("dvc", "checkout", code=255)
    assert GO_BACK in (ROOT / "docs/recovery.md").read_text().replace("uv run ", "")
    for _ in range(2):
        subprocess.run(GO_BACK, shell=True, cwd=clone.path, env=clone.env, check=True)
        assert clone.run("git", "status", "--short") == ""
    clone.run("dvc", "repro")
    assert clone.run("git", "status", "--short") == ""
    assert (clone.path / "data/made.txt").read_text() == "lam: 0.02\nsomething\n"


def test_pipeline_in_a_folder_of_a_larger_repository(tmp_path):
    clone = small_pipeline(tmp_path, git="..")
    (tmp_path / "params.yaml").write_text("lam: of somebody else\n")
    clone.run("git", "add", "../params.yaml")
    clone.run("git", "commit", "-qm", "Others")
    (tmp_path / "params.yaml").write_text("lam: of somebody else, edited\n")
    clone.run("dvc", "remote", "modify", "--local", "team", "verify", "true")
    assert clone.run("sdnn-doctor").startswith("healthy")
    shutil.rmtree(clone.path / ".dvc/cache")
    assert "execute nothing" in clone.run("sdnn-share", "pull")
    (clone.path / "data/made.txt").unlink()
    assert "Running stage" not in clone.run("dvc", "repro")

    killed_experiment(clone, "lam=0.3")
    assert "params.yaml has the parameters of the killed experiment" in clone.run("sdnn-doctor", "--fix")
    assert clone.run("sdnn-doctor").startswith("healthy")
    (clone.path / "metrics/count.json").unlink()
    assert "- metrics/count.json: missing" in clone.run("sdnn-doctor", code=1)


# The real thing: dvc is killed at an instant, and what it leaves is repaired.


@pytest.fixture(scope="module")
def lab(tiny_pipeline, tmp_path_factory) -> Clone:
    """The tiny pipeline and one finished experiment, `lam` 0.05, which the run cache restores in a moment."""
    clone = tiny_pipeline.colleague(tmp_path_factory.mktemp("lab") / "clone")
    shutil.copytree(tiny_pipeline.path / ".dvc/cache", clone.path / ".dvc/cache")
    clone.run("dvc", "exp", "run", "-S", "lam=0.05")
    clone.run("git", "checkout", "-q", ".")
    clone.run("dvc", "checkout")
    return clone


def kill_when(clone: Clone, condition: Callable[[], bool], *command: str, group: bool = True) -> None:
    """Kill dvc, with or without its training, as soon as the condition holds."""
    (clone.path / ".dvc/tmp").mkdir(exist_ok=True)
    with (clone.path / ".dvc/tmp/printed").open("w") as printed:
        process = subprocess.Popen(
            command, cwd=clone.path, env=clone.env, stdout=printed, stderr=printed, start_new_session=True
        )
        while not condition():
            assert process.poll() is None, (clone.path / ".dvc/tmp/printed").read_text()
            time.sleep(0.002)
        if group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def instants(clone: Clone) -> dict[str, Callable[[], bool]]:
    git, printed = clone.path / ".git", clone.path / ".dvc/tmp/printed"
    return {
        "stashed": (git / "refs/exps/stash").exists,
        "merge": (git / "refs/exps/exec/EXEC_MERGE").exists,
        "detached": lambda: "ref:" not in (git / "HEAD").read_text(),
        "edited": lambda: "lam: 0.05" in (clone.path / "params.yaml").read_text(),
        "last stage": lambda: "compare_ops" in printed.read_text(),
        "saved": lambda: "commit: dvc" in (git / "logs/HEAD").read_text().splitlines()[-1],
    }


@pytest.mark.slow
@pytest.mark.parametrize("instant", ["stashed", "merge", "detached", "edited", "last stage", "saved"])
def test_experiment_killed_at_an_instant(lab, tmp_path, instant):
    clone = lab.colleague(tmp_path / "clone")
    shutil.copytree(lab.path / ".dvc/cache", clone.path / ".dvc/cache")
    clone.run("dvc", "checkout")
    before = branch(clone)
    (clone.path / "README.md").write_text("my own work\n")
    kill_when(clone, instants(clone)[instant], "dvc", "exp", "run", "-S", "lam=0.05")
    clone.run("sdnn-doctor", code=1)
    missing = clone.run("git", "ls-files", "--deleted").split()  # by dvc, before the stage would have written them
    assert ", ".join(missing) in clone.run("sdnn-doctor", "--fix", code=int(bool(missing)))
    assert branch(clone) == before
    if (clone.path / "README.md").read_text() != "my own work\n":  # as the advice says
        clone.run("git", "restore", "README.md")
        clone.run("git", "stash", "pop")
        clone.run("git", "restore", "--staged", "--worktree", "params.yaml")
        clone.run("sdnn-doctor", "--fix")
    assert (clone.path / "README.md").read_text() == "my own work\n"
    results = ["dvc.lock", "metrics", "plots"] + ["params.yaml"] * (instant in ("last stage", "saved"))
    clone.run("git", "restore", "--staged", "--worktree", *results)
    assert clone.run("git", "status", "--short") == " M README.md\n"
    assert clone.run("sdnn-doctor").startswith("healthy")
    assert "Ran experiment" in clone.run("dvc", "exp", "run", "-S", "lam=0.05")


@pytest.mark.slow
@pytest.mark.parametrize("how", [[], ["--temp"], ["--queue"]])
def test_experiment_killed_in_training_that_goes_on(lab, tmp_path, how):
    clone = lab.colleague(tmp_path / "clone")
    shutil.copytree(lab.path / ".dvc/cache", clone.path / ".dvc/cache")
    clone.run("dvc", "checkout")
    before = branch(clone)
    checkpoints = clone.path / "models/checkpoints"

    def trains() -> bool:
        return any(checkpoints.glob("*.pt"))

    experiment = ("dvc", "exp", "run", *how, "-S", "lam=0.3", "-S", "epochs=5000")
    if how == ["--queue"]:
        clone.run(*experiment, "-n", "queued")
        start = ("dvc", "queue", "start", "-j", "1")  # whose worker would keep a pipe open
        subprocess.run(start, cwd=clone.path, env=clone.env, check=True, stdout=subprocess.DEVNULL)
        while not trains():
            time.sleep(0.2)
        assert "is running" in clone.run("sdnn-doctor", "--fix")
        for process in dvc_processes(clone.path):
            process.kill()
        assert "Running" in clone.run("dvc", "queue", "status")
    else:
        kill_when(clone, trains, *experiment, group=False)
    printed = clone.run("sdnn-doctor", code=1)
    assert "still runs although the dvc that started it is gone" in printed
    assert "everything is repaired" in clone.run("sdnn-doctor", "--fix")
    assert branch(clone) == before and clone.run("git", "status", "--short") == ""
    assert "Running" not in clone.run("dvc", "exp", "show") + clone.run("dvc", "queue", "status")
    assert trains()  # the state of the training is kept
    assert clone.run("sdnn-doctor").startswith("healthy")


@pytest.mark.slow
def test_repro_killed_in_training(lab, tmp_path):
    clone = lab.colleague(tmp_path / "clone")
    clone.set(epochs=5000)
    kill_when(clone, lambda: any((clone.path / "models/checkpoints").glob("*.pt")), "dvc", "repro")
    assert "locks of `dvc repro`, which was killed" in clone.run("sdnn-doctor", code=1)
    clone.run("sdnn-doctor", "--fix")
    assert "not committed: params.yaml (epochs: 12 -> 5000)" in clone.run("sdnn-doctor")
    assert clone.run("git", "diff", "--name-only").startswith("params.yaml")
