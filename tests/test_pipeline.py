"""The pipeline as its users run it: real `dvc` and `git` in a clone in a temporary folder."""

import json
import sys

import pytest
from clone import Clone

OUTPUTS = [
    "data/raw", "data/frames", "models/network.pt", "models/network.net",
    "metrics/train.json", "metrics/evaluation.json", "metrics/operations.json", "plots/operations.md",
    "metrics/deployment.json", "plots/deployment.csv",
]  # fmt: skip


TOLERANCE_DEGREES = 10  # of the steering wheel, between the trained network and Loihi 2's; it depends on the start


@pytest.fixture
def clone(tiny_pipeline) -> Clone:
    return tiny_pipeline


def test_repro_makes_every_output(clone):
    assert [path for path in OUTPUTS if not (clone.path / path).exists()] == []
    assert {"best_epoch", "best_test_mse", "final_train_mse", "final_test_mse"} <= clone.metrics("train").keys()
    evaluation = clone.metrics("evaluation")
    assert {"mse", "mae_degrees", "r2", "frames", "events_per_frame", "events"} <= evaluation.keys()
    assert evaluation["frames"] == evaluation["restarted"]["frames"] == 2 * 16  # a fifth of 160
    assert {"held_mse", "lag_frames", "last_tenth_mse"} <= evaluation["following"].keys()
    operations = clone.metrics("operations")
    totals = {"events_sparsity", "synops_sparsity", "synops_per_frame", "macs_per_frame", "neurons", "layers"}
    assert totals <= operations.keys() and totals <= operations["as_published"].keys()
    assert totals - {"layers"} <= operations["restarted"].keys()
    spread = {f"{count}_{kind}" for count in ("events", "synops") for kind in ("p95", "worst", "first")}
    assert operations["layers"]["layer-1"].keys() == {"events", "synops", "activations", "macs", *spread}
    assert operations["total"].keys() == {"events", "synops", *spread}
    assert clone.metrics("ann").keys() == {"ann_mse", "ann_mae_degrees", "ann_r2"}


def test_saved_network_is_the_one_the_training_ended_with(clone):
    """The metric of the file, measured anew, is the last test MSE of the log: nothing is picked on held-out road."""
    train = clone.metrics("train")
    assert clone.metrics("evaluation")["mse"] == pytest.approx(train["final_test_mse"], rel=1e-5)
    assert train["best_test_mse"] <= train["final_test_mse"]


def test_exported_network_is_the_trained_one(clone):
    """On all held-out road: to the last bit from the same start, and within a few degrees as the hardware starts."""
    deployment, evaluation = clone.metrics("deployment"), clone.metrics("evaluation")
    assert deployment["netx"] == {"frames": 20, "identical": True}
    assert deployment["frames"] == evaluation["frames"] and deployment["float_mse"] == evaluation["mse"]
    same_start = deployment["same_start"]
    assert same_start["max_abs_difference"] == 0 and same_start["fixed_point_mse"] == evaluation["mse"]
    assert deployment["rms_difference_degrees"] <= deployment["max_abs_difference"] < TOLERANCE_DEGREES
    assert deployment["mse_ratio"] == pytest.approx(deployment["fixed_point_mse"] / deployment["float_mse"], rel=1e-4)
    assert len((clone.path / "plots/deployment.csv").read_text().splitlines()) == 1 + 32


def test_a_network_whose_simulations_differ_gets_no_metrics(clone, tmp_path):
    """netx and the integers read one threshold differently here, as a changed lava would."""
    copy = clone.copy(tmp_path / "copy")
    module = copy.path / "src/pilotnet_sdnn/loihi/fixed_point.py"
    text = module.read_text()
    module.write_text(text.replace('(neuron["vThMant"]) * 2**INPUT_BITS)', '(neuron["vThMant"]) * 2**INPUT_BITS) + 7'))
    assert module.read_text() != text
    before = (copy.path / "metrics/deployment.json").read_text()
    printed = copy.run(sys.executable, "-m", "pilotnet_sdnn.stages.simulate_loihi", code=1)
    refusal = printed.splitlines()[-1]
    assert "netx and fixed_point.py differ from frame" in refusal and "refusing to write metrics" in refusal
    assert (copy.path / "metrics/deployment.json").read_text() == before


def test_second_repro_does_nothing(clone):
    printed = clone.run("dvc", "repro")
    assert "Running stage" not in printed
    assert "Data and pipelines are up to date" in printed


def test_changing_lam_runs_train_and_what_follows(clone):
    clone.set(lam=0.5)
    stale = clone.run("dvc", "repro", "--dry")
    clone.run("git", "checkout", "params.yaml")
    assert "Running stage 'train'" in stale
    assert "Running stage 'resize'" not in stale and "Running stage 'download'" not in stale


def test_experiment_and_metrics_diff(clone):
    """Its value is one that YAML calls a text, in the form in which DVC writes it."""
    clone.run("dvc", "exp", "run", "-S", "lam=0.00001", "evaluate")  # and what it needs
    changed = json.loads(clone.run("dvc", "metrics", "diff", "--json"))
    shown = clone.run("dvc", "exp", "show", "--json")
    clone.run("git", "checkout", ".")
    clone.run("dvc", "checkout")
    assert {"old", "new", "diff"} <= changed["metrics/evaluation.json"]["events_per_frame"].keys()
    assert '"lam": 1e-05' in shown


def test_several_values_are_queued(clone):
    clone.run("dvc", "exp", "run", "--queue", "-S", "lam=0.01,0.05,0.2")
    queued = clone.run("dvc", "queue", "status").count("Queued")
    clone.run("dvc", "queue", "remove", "--all")
    assert queued == 3


def test_plots_show_every_chart(clone):
    charts = json.loads(clone.run("dvc", "plots", "show", "--json"))
    assert not charts.get("errors")
    assert set(charts["data"]) == {
        "learning curves", "events per frame", "gradient flow", "operations by layer", "steering", "deployment",
        "labels of the drive", "plots/calibration.csv", "plots/drive.png",
        "plots/drive.csv", "plots/training.csv", "plots/events.csv",
        "plots/steering.csv", "plots/drift.csv", "plots/operations.csv", "plots/deployment.csv",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("param", "value", "expected"),
    [
        ("source", "sintetic", "error: params.yaml: source: 'sintetic' is neither synthetic"),
        ("lam", "much", "error: params.yaml: lam: expected a number >= 0, found 'much'"),
        ("sequence", "100", "error: the drive has 160 frames, 1 sequence of 100: too few"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(clone, param, value, expected):
    clone.set(**{param: value})
    stage = "download" if param == "source" else "train"
    printed = clone.run(sys.executable, "-m", f"pilotnet_sdnn.stages.{stage}", code=1)
    clone.run("git", "checkout", "params.yaml")
    assert printed.startswith(expected) and printed.count("\n") == 1
