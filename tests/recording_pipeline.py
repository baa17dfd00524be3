"""A small pipeline that records which of its stages ran with which parameters, for tests of sweeps."""

import json
from pathlib import Path

from clone import Clone
from small_pipeline import small_pipeline

RECORDED = """\
stages:
  prepare:
    cmd: echo prepare >> $RUNS && cp src/input.txt prepared.txt
    deps: [src/input.txt]
    params: [seed]
    outs: [prepared.txt]
  train:
    cmd: bash src/train.sh
    deps: [src/train.sh, prepared.txt]
    params: [lam]
    outs: [model.txt]
  measure:
    cmd: bash src/measure.sh
    deps: [src/measure.sh, model.txt]
    metrics: [metrics/evaluation.json: {cache: false}]
"""
TRAIN = """\
set -e
echo train $(cat params.yaml) >> $RUNS
sleep $SECONDS_OF_A_RUN
if grep -q "lam: 0.3" params.yaml; then echo "error: lam is too large"; exit 1; fi
cat params.yaml prepared.txt > model.txt
"""
MEASURE = """\
mkdir -p metrics
echo "{\\"mse\\": 0.$(cksum < model.txt | cut -d' ' -f1)}" > metrics/evaluation.json
"""


def recording_pipeline(folder: Path) -> Clone:
    """Its remote is committed, and has a record that workers refuse, because git tracks one of its outputs."""
    clone = small_pipeline(folder)
    clone.env |= {"RUNS": str(folder / "runs"), "SECONDS_OF_A_RUN": "0"}
    for path, text in {"dvc.yaml": RECORDED, "src/train.sh": TRAIN, "src/measure.sh": MEASURE}.items():
        (clone.path / path).write_text(text)
    (clone.path / "params.yaml").write_text("lam: 0.02\nseed: 1\n")
    clone.run("dvc", "repro", "-q")
    clone.run("dvc", "remote", "remove", "--local", "team")
    clone.run("dvc", "remote", "add", "-d", "team", str(folder / "store"))
    clone.commit("Records its runs")
    return clone


def with_own_remote(original: Clone, folder: Path) -> Clone:
    """A copy of such a pipeline, with a remote and a list of runs of its own."""
    copied = original.copy(folder / "clone")
    copied.env = {**original.env, "PYTHONPATH": original.env["PYTHONPATH"], "RUNS": str(folder / "runs")}
    copied.run("dvc", "remote", "modify", "-q", "team", "url", str(folder / "store"))
    copied.commit("A remote of its own")
    return copied


def trained(clone: Clone) -> list[str]:
    """The values of lam with which stage train has run, in this clone's sweeps."""
    runs = Path(clone.env["RUNS"])
    return (
        [line.split()[2] for line in runs.read_text().splitlines() if line.startswith("train")] if runs.exists() else []
    )


def errors(clone: Clone) -> dict[str, float]:
    """The MSE of each experiment, as `dvc exp show` has it."""
    states = json.loads(clone.run("dvc", "exp", "show", "--json"))
    return {
        experiment["name"]: experiment["revs"][0]["data"]["metrics"]["metrics/evaluation.json"]["data"]["mse"]
        for state in states
        for experiment in state["experiments"] or []
    }
