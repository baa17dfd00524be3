"""A clone of the repository in which tests run the pipeline as its users do."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
TINY = {  # with augmentation, and a checkpoint after nearly every step, so that kills hit their writing
    "synthetic_frames": 160, "sequence": 16, "batch": 2, "carry": 2, "pretrain_epochs": 2, "epochs": 12, "lr": 0.01,
    "mirror": 0.5, "brightness": 0.15, "contrast": 0.3, "shift": 8,
    "sparsity": 0, "checkpoint_minutes": 0.0001, "deploy_frames": 20, "threads": 1,
}  # fmt: skip


def environment(path: Path) -> dict[str, str]:
    """What the commands of a repository at `path` need: our programs, its code and an author for commits."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(path / "src"),
        "DVC_NO_ANALYTICS": "1",  # a process that outlives its command, which the doctor would name as running
        "GIT_AUTHOR_NAME": "test", "GIT_AUTHOR_EMAIL": "test@example.com",
        "GIT_COMMITTER_NAME": "test", "GIT_COMMITTER_EMAIL": "test@example.com",
        "GIT_EDITOR": "true",  # no commit waits for somebody to write its message
    }  # fmt: skip


class Clone:
    """The repository in a folder, used with the environment the tests run in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.env = environment(path)

    def colleague(self, path: Path) -> "Clone":
        """A git clone of this one, which has none of its data."""
        subprocess.run(["git", "clone", "-q", self.path, path], check=True)
        return Clone(path)

    def copy(self, path: Path) -> "Clone":
        """The whole folder once more, with data, cache and history, to change at will."""
        shutil.copytree(self.path, path, symlinks=True)
        return Clone(path)

    def run(self, *command: str, code: int = 0) -> str:
        """Run a command; what it printed."""
        done = subprocess.run(
            command, cwd=self.path, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def set(self, **params: object) -> None:
        """Edit params.yaml as a person would, some seconds after git wrote it.

        Once DVC has staged dvc.lock, git overlooks an edit of the same length in the same second.
        """
        file = self.path / "params.yaml"
        lines = file.read_text().splitlines()
        for name, value in params.items():
            lines = [f"{name}: {value}" if line.startswith(f"{name}:") else line for line in lines]
        file.write_text("\n".join(lines) + "\n")
        later = file.stat().st_mtime + 2
        os.utime(file, (later, later))

    def start(self, *command: str) -> subprocess.Popen:
        """Start a command in a process group of its own; what it prints can be read line by line."""
        return subprocess.Popen(
            command,
            cwd=self.path,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", message)

    def experiment_lock(self, name: str) -> str:
        """The dvc.lock of an experiment."""
        commit = self.run("git", "for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{name}").strip()
        return self.run("git", "show", f"{commit}:dvc.lock")

    def metrics(self, name: str) -> dict:
        return json.loads((self.path / "metrics" / f"{name}.json").read_text())


def wait_for(process: subprocess.Popen, text: str) -> None:
    """Read what a process prints up to a line with some text."""
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"{text!r} was not printed")


def clone_of_working_tree(path: Path, **params: object) -> Clone:
    """A clone of this repository, with what is not committed yet, and with parameters of its own."""
    subprocess.run(["git", "clone", "-q", ROOT, path], check=True)
    clone = Clone(path)
    changed = subprocess.check_output(["git", "ls-files", "-mo", "--exclude-standard"], cwd=ROOT, text=True)
    for name in changed.splitlines():
        if (ROOT / name).exists():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, path / name)
    clone.set(**params)
    clone.commit("Parameters of a test")
    return clone
