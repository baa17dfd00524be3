"""`sdnn-runs`: every run in a table, and one taken over; on a pipeline of one quick stage, run by DVC itself."""

import csv
import io
import json
import subprocess
from pathlib import Path

import pytest
from clone import environment

STAGE = """\
import json
from pathlib import Path
lam = float(dict(line.split(": ") for line in Path("params.yaml").read_text().splitlines())["lam"])
Path("metrics").mkdir(exist_ok=True)
Path("metrics/evaluation.json").write_text(
    json.dumps({"mse": lam, "r2": 1 - lam, "frames": 320, "label_variance": 0.1}))
Path("metrics/operations.json").write_text(json.dumps({"synops_per_frame": 1000 / lam, "macs_per_frame": 1e6}))
"""
PIPELINE = """\
stages:
  train:
    cmd: python stage.py
    deps: [stage.py]
    params: [lam, seed]
    metrics:
      - metrics/evaluation.json: {cache: false}
      - metrics/operations.json: {cache: false}
"""
FILES = {
    "stage.py": STAGE, "dvc.yaml": PIPELINE, "fix.txt": "broken\n",
    "params.yaml": "lam: 0.02\nseed: 1\nsource: synthetic\nsynthetic_frames: 160\n",
}  # fmt: skip


class Project:
    def __init__(self, path: Path) -> None:
        self.path, self.env = path, environment(path) | {"COLUMNS": "80"}
        self.env.pop("PYTHONPATH")

    def run(self, *command: str, code: int = 0, folder: str = ".") -> str:
        done = subprocess.run(
            command, cwd=self.path / folder, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def read(self, name: str) -> str:
        return (self.path / name).read_text()


@pytest.fixture
def project(tmp_path) -> Project:
    """A folder of a larger git repository, with two experiments; since the first, a colleague mended a file."""
    project = Project(tmp_path / "net")
    (project.path / "sub").mkdir(parents=True)
    for name, text in FILES.items():
        (project.path / name).write_text(text)
    project.run("git", "init", "-q", "-b", "main", "..")
    project.run("dvc", "init", "-q", "--subdir")
    project.run("dvc", "repro", "-q")
    project.run("git", "add", "-A", "..")
    project.run("git", "commit", "-q", "-m", "Base")
    project.run("dvc", "exp", "run", "-q", "--temp", "-n", "pick", "-S", "lam=0.01")
    (project.path / "fix.txt").write_text("mended\n")
    project.run("git", "commit", "-q", "-a", "-m", "A fix")
    project.run("dvc", "exp", "run", "-q", "--temp", "-n", "twin", "-S", "lam=0.01")
    return project


def test_runs_of_all_commits_are_listed_and_taken_over_alone(project):
    printed = project.run("sdnn-runs", folder="sub")
    assert max(map(len, printed.splitlines())) <= 80
    names = [line.split()[0] for line in printed.splitlines()[2:] if not line.startswith("  ")]
    assert set(names) >= {"pick", "twin", "main", "workspace"}  # twins with equal parameters are both there
    assert "  lam 0.01\n" in printed and "mixed" in printed

    rows = {row["name"]: row for row in json.loads(project.run("sdnn-runs", "--json"))}
    assert rows["pick"]["base"] != rows["twin"]["base"] and rows["pick"]["changed"] == {"lam": 0.01}
    assert (rows["pick"]["mse"], rows["pick"]["r2"], rows["pick"]["synops_sparsity"]) == (0.01, 0.99, 10)
    table = list(csv.DictReader(io.StringIO(project.run("sdnn-runs", "--csv", "--sort", "synops"))))
    assert [float(row["synops_per_frame"]) for row in table] == sorted(float(row["synops_per_frame"]) for row in table)

    (project.path / "params.yaml").write_text(FILES["params.yaml"].replace("seed: 1", "seed: 7"))
    printed = project.run("sdnn-runs", "take", "pick", code=1)
    assert printed.startswith("error: params.yaml has changes that no run has") and "seed: 7" in project.read(
        "params.yaml"
    )
    project.run("git", "restore", "params.yaml")

    project.run("sdnn-runs", "take", "pick", folder="sub")
    assert "lam: 0.01" in project.read("params.yaml") and "seed: 1" in project.read("params.yaml")
    assert json.loads(project.read("metrics/evaluation.json"))["mse"] == 0.01
    assert project.read("fix.txt") == "mended\n"  # `dvc exp apply` would put the broken one back
    changed = project.run("git", "diff", "--name-only", "--relative").split()
    assert changed == ["dvc.lock", "metrics/evaluation.json", "metrics/operations.json", "params.yaml"]


def test_only_finished_experiments_are_taken_over(project):
    assert project.run("sdnn-runs", "take", "nobody", code=1) == (
        "error: no finished experiment 'nobody'; `sdnn-runs` lists them\n"
    )
