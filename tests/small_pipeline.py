"""A repository whose pipeline of three stages runs in a moment, for tests of what lies between clones."""

import os
from pathlib import Path

from clone import ROOT, Clone

PIPELINE = """\
stages:
  make:
    cmd: mkdir -p data && cat params.yaml src/input.txt > data/made.txt
    deps: [src/input.txt]
    params: [lam]
    outs: [data/made.txt]
  fill:
    cmd: mkdir -p data/folder/inner && cp src/input.txt data/folder/inner/a.txt
    deps: [src/input.txt]
    outs: [data/folder]
  count:
    cmd: mkdir -p metrics plots && wc -c < data/made.txt > metrics/count.json && echo size > plots/count.csv
    deps: [data/made.txt]
    metrics: [metrics/count.json: {cache: false}]
    plots: [plots/count.csv: {cache: false}]
"""


def repository(path: Path) -> Clone:
    """Commands run in a repository that is there; a module that appears in its src/ would be imported by them."""
    clone = Clone(path)
    clone.env["PYTHONPATH"] = os.pathsep.join([str(path / "src"), str(ROOT / "src")])
    return clone


def small_pipeline(folder: Path, git: str = ".") -> Clone:
    """A pipeline that ran, was committed and is shared in the folder `store` beside its clone.

    Args:
        git: the root of its git repository, seen from the pipeline.
    """
    clone = repository(folder / "clone")
    (clone.path / "src").mkdir(parents=True)
    (clone.path / "src/input.txt").write_text("something\n")
    (clone.path / "params.yaml").write_text("lam: 0.02\n")
    (clone.path / "dvc.yaml").write_text(PIPELINE)
    clone.run("git", "init", "-q", git)
    clone.run("dvc", "init", "-q", *(["--subdir"] if git != "." else []))
    clone.run("dvc", "repro")
    clone.commit("The pipeline has run")
    clone.run("dvc", "remote", "add", "--local", "-d", "team", str(folder / "store"))
    clone.run("sdnn-share", "push")
    return clone
