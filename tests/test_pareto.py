"""Accuracy against operations: the front, what the runs are called, and `sdnn-pareto` in a real repository."""

import copy
import csv
import json
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from clone import TINY, Clone, clone_of_working_tree
from matplotlib.path import Path as Path2D
from PIL import Image

from pilotnet_sdnn.team.experiments import Run, read_runs
from pilotnet_sdnn.team.pareto import comparable, draw, labels, on_front, pareto_front, save


def run(name: str, mse: float = 0.01, synops: float = 1e5, test_frames=(320, 0.1), **params: object) -> Run:
    return Run(name, params, mse, synops, 5e6, 0.012, test_frames, "synthetic road, seed 1, 160 frames")


def test_front_by_hand():
    points = {  # MSE, synops
        (1, 9): True,
        (2, 5): True,
        (2, 6): False,  # as accurate as (2, 5), with more operations
        (3, 5): False,  # as few operations as (2, 5), less accurate
        (4, 4): True,
        (5, 5): False,
        (6, 1): True,
    }
    assert pareto_front(np.array(list(points))).tolist() == list(points.values())


def test_equal_points_are_all_on_the_front():
    assert pareto_front(np.array([(1, 2), (2, 1), (1, 2), (2, 2)])).tolist() == [True, True, True, False]


def test_one_point_is_the_front_and_no_points_have_none():
    assert on_front([run("only")]).tolist() == [True]
    assert on_front([]).tolist() == []


def test_labels_say_what_differs_and_what_is_usual_once():
    runs = [run("a", lam=0.01, threshold=0.1, seed=1), run("b", lam=0.05, threshold=0.1, seed=1),
            run("c", lam=0.05, threshold=0.3, seed=1)]  # fmt: skip
    texts, usual = labels(runs)
    assert usual == "lam 0.05, threshold 0.1"
    assert texts == ["lam 0.01", "b", "threshold 0.3"]


def test_labels_of_a_sweep_name_every_swept_parameter():
    sweep = [run(f"{lam}-{threshold}", lam=lam, threshold=threshold) for lam in (0.01, 0.05) for threshold in (0.1, 1)]
    assert labels(sweep) == (
        ["lam 0.01, threshold 0.1", "lam 0.01, threshold 1", "lam 0.05, threshold 0.1", "lam 0.05, threshold 1"], "",
    )  # fmt: skip


def test_runs_with_the_same_parameters_are_told_apart_by_name():
    texts, _ = labels([run("main", lam=0.01), run("older", lam=0.01), run("c", lam=0.05)])
    assert len(set(texts)) == 3 and texts[0].startswith("main") and texts[1].startswith("older")


def test_only_runs_on_the_same_test_frames_are_compared():
    road, street = run("a"), run("b", test_frames=(320, 0.2))
    assert comparable([street, road, run("c")]) == [[road, run("c")], [street]]


def test_labels_neither_cover_each_other_nor_leave_the_picture():
    """Thirty runs in a heap, and one that sends nothing."""
    random = np.random.default_rng(0)
    runs = [run(f"r{i}", 0.01 + 0.001 * random.random(), 1e5 * 1.2 ** random.random(), lam=i) for i in range(30)]
    figure = draw([[*runs, run("silent", 0.05, 0.0, lam=99)]], "")
    renderer = figure.canvas.get_renderer()
    (ax,) = figure.axes
    boxes = [super(type(text), text).get_window_extent(renderer) for text in ax.texts]
    overlaps = sum(box.count_overlaps(boxes) - 1 for box in boxes)
    assert len(boxes) == 31 and overlaps == 0
    assert all(ax.bbox.containsx(box.x0) and ax.bbox.containsx(box.x1) for box in boxes)


def test_what_ties_a_label_to_its_point_crosses_no_other():
    """A sweep of two parameters: the usual one."""
    random = np.random.default_rng(1)
    runs = [
        run(f"{lam} {t}", 0.0075 + 0.002 * random.random(), 4e5 / (1 + 9 * lam) / (1 + t), lam=lam, threshold=t)
        for lam in (0.002, 0.01, 0.05, 0.2)
        for t in (0.03, 0.1, 0.3)
    ]
    (ax,) = draw([runs], "").axes
    points = ax.transData.transform([text.xy for text in ax.texts])
    ends = points + np.array([text.xyann for text in ax.texts]) * ax.figure.dpi / 72
    ties = [Path2D([point, end]) for point, end in zip(points, ends, strict=True)]
    assert not any(a.intersects_path(b, filled=False) for a, b in combinations(ties, 2))


def test_the_runs_set_the_axes_and_the_legend_tells_what_lies_beyond():
    """The ANN baseline has 50 times their operations, and the mean label ten times their error."""
    (ax,) = draw([[run("a", 0.01, 9e4, (320, 0.1), lam=1), run("b", 0.011, 1e5, (320, 0.1), lam=2)]], "").axes
    assert ax.get_xlim()[1] < 2e5 and ax.get_ylim()[1] < 0.02
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "ANN baseline, MSE 0.012 (above)" in legend and "always the mean label, MSE 0.1 (above)" in legend
    assert "ANN's 5.00 million MACs a frame (to the right)" in legend


def test_a_network_that_learned_nothing_lies_at_the_line_of_the_mean_label():
    (ax,) = draw([[run("good", 0.01, lam=1), run("nothing", 0.1, 5e4, lam=2)]], "").axes
    assert any(line.get_label() == "always the mean label, MSE 0.1" for line in ax.lines)


def test_the_picture_is_saved_as_it_was_laid_out(tmp_path):
    """At another resolution a text has another width, and covers its own point; a tie there runs through the text."""
    figure = draw([[run("a", lam=1), run("b", 0.02, 5e4, lam=2)]], "")
    save(figure, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == tuple(figure.bbox.size.round())
    for text in figure.axes[0].texts:
        assert not text.arrow_patch.get_visible() and np.hypot(*text.xyann) < 60


def test_the_picture_has_the_same_bytes_every_time(tmp_path):
    for name in ("a.svg", "b.svg"):
        save(draw([[run("a", lam=1), run("b", 0.02, 5e4, lam=2)]], "a note"), tmp_path / name)
    svg = (tmp_path / "a.svg").read_bytes()
    assert svg == (tmp_path / "b.svg").read_bytes()
    assert b"dc:date" not in svg


@pytest.fixture(scope="module")
def sweep(tiny_pipeline, tmp_path_factory) -> Clone:
    """A copy of the tiny pipeline with an experiment that ran, one that failed and one that waits."""
    clone = tiny_pipeline.copy(tmp_path_factory.mktemp("sweep") / "clone")
    clone.run("dvc", "exp", "run", "--temp", "-n", "cheap", "-S", "energy_add_pj=0.5")  # runs one short stage
    clone.run("dvc", "exp", "run", "--queue", "-n", "broken", "-S", "lr=-1")
    clone.run("dvc", "queue", "start")
    deadline = time.monotonic() + 120
    while "Failed" not in clone.run("dvc", "queue", "status") and time.monotonic() < deadline:
        time.sleep(0.5)
    clone.run("dvc", "exp", "run", "--queue", "-n", "waiting", "-S", "lam=3")
    return clone


def pareto(clone: Clone, *arguments: str, code: int = 0) -> str:
    return clone.run("python", "-m", "pilotnet_sdnn.commands.pareto", *arguments, code=code)


def table(clone: Clone, folder: str = "pareto") -> list[dict[str, str]]:
    with (clone.path / folder / "pareto.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def head(clone: Clone) -> str:
    """What the last commit is called."""
    return clone.run("git", "branch", "--show-current").strip() or clone.run("git", "rev-parse", "HEAD")[:9]


def test_the_runs_that_dvc_knows(sweep):
    printed = pareto(sweep)
    main = head(sweep)
    rows = {row["run"]: row for row in table(sweep)}
    assert rows.keys() == {main, "cheap"}  # the workspace is the commit's
    assert float(rows[main]["mse"]) == sweep.metrics("evaluation")["mse"]
    assert float(rows[main]["synops_per_frame"]) == sweep.metrics("operations")["synops_per_frame"]
    assert (rows[main]["energy_add_pj"], rows["cheap"]["energy_add_pj"]) == ("0.9", "0.5")
    assert "failed: broken" in printed and "queued: waiting" in printed
    assert "synthetic road, seed 4205, 160 frames: 32 held-out frames, blocked split" in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert Image.open(sweep.path / "pareto/pareto.png").size[0] > 1000
    assert sweep.run("git", "status", "--porcelain") == ""  # what it writes is ignored


def test_experiments_of_an_earlier_commit_are_not_lost(sweep):
    (sweep.path / "notes.md").write_text("Looks good\n")
    sweep.commit("Notes")
    pareto(sweep)
    assert {row["run"] for row in table(sweep)} == {head(sweep), "cheap"}


def test_edited_parameters_are_not_shown_with_old_metrics(sweep):
    """`dvc exp show` lists the workspace with its new parameters beside the metrics of the last run."""
    sweep.set(energy_add_pj=0.3)
    printed = pareto(sweep, "elsewhere")
    sweep.run("git", "checkout", "params.yaml")
    assert "with other parameters than its last run: workspace" in " ".join(printed.split())
    assert "0.3" not in {row["energy_add_pj"] for row in table(sweep, "elsewhere")}


def test_another_drive_is_not_mixed_in(sweep):
    """A run on other held-out frames is named below the picture, and in the table only."""
    file = sweep.path / "metrics/evaluation.json"
    metrics = json.loads(file.read_text())
    file.write_text(json.dumps({**metrics, "label_variance": 2 * metrics["label_variance"]}))
    printed = pareto(sweep)
    sweep.run("git", "checkout", "metrics")
    assert "not drawn, on other held-out frames: workspace" in printed
    assert {row["run"] for row in table(sweep)} == {head(sweep), "cheap", "workspace"}


@pytest.mark.parametrize("value", ["null", "NaN", '"none"'])
def test_a_diverged_run_is_skipped(sweep, value):
    file = sweep.path / "metrics/evaluation.json"
    file.write_text(f'{{"mse": {value}, "frames": 32}}')
    _, skipped = read_runs(sweep.path)
    sweep.run("git", "checkout", "metrics")
    assert ("workspace", "without metrics") in skipped


def test_nothing_to_draw(tmp_path):
    clone = clone_of_working_tree(tmp_path / "clone", **TINY)
    printed = pareto(clone, code=1)
    assert printed.startswith("error: no finished runs") and "dvc exp run --queue" in printed
    assert not (clone.path / "pareto").exists()


def test_outside_a_repository(tmp_path, sweep):
    clone = copy.copy(sweep)
    clone.path = Path(tmp_path)
    printed = pareto(clone, code=1)
    assert printed.startswith("error:") and "run the command inside your clone" in printed
    assert len(printed.splitlines()) == 1
