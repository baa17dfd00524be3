"""`sdnn-report`: what a reviewer reads, and the gate."""

import contextlib
import io
import json
import re
import struct
import subprocess
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from clone import ROOT, Clone
from PIL import Image
from ruamel.yaml import YAML

from pilotnet_sdnn.commands.report import main, write_report
from pilotnet_sdnn.errors import UserError
from pilotnet_sdnn.team.charts import Chart, Charts, find_charts
from pilotnet_sdnn.team.limits import Limit, Limits, MetricChange, load_limits
from pilotnet_sdnn.team.revisions import merge_base, stale_stages

EVALUATION = Path("metrics/evaluation.json")
PIPELINE = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())


@pytest.fixture
def clone(tiny_pipeline, tmp_path, monkeypatch) -> Clone:
    """The tiny pipeline after it ran, as a clone without data, on a branch of main; the tests' folder is in it."""
    clone = tiny_pipeline.colleague(tmp_path / "repository")
    clone.run("git", "branch", "-q", "-M", "main")
    clone.run("git", "switch", "-q", "-c", "change")
    monkeypatch.chdir(clone.path)
    for name, value in clone.env.items():
        monkeypatch.setenv(name, value)
    return clone


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def report(*arguments: str, code: int = 0) -> str:
    """report.md of the working tree, as the command writes it before it exits with a code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["sdnn-report", *arguments])
        with pytest.raises(SystemExit) if code else contextlib.nullcontext() as left:
            main()
    assert left is None or left.value.code == code
    return Path("report.md").read_text()


def row(text: str, name: str) -> list[str]:
    """The cells of the row of a table that starts with `name`."""
    (line,) = re.findall(rf"^\| {re.escape(name)} +\|.*$", text, re.M)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_report_says_what_changed_and_whether_it_is_good(clone):
    old = clone.metrics("evaluation")
    edit(
        EVALUATION,
        **{name: old[name] * by for name, by in (("mse", 1.5), ("events_per_frame", 0.5), ("mae_degrees", 1.01))},
    )
    operations = clone.metrics("operations")
    operations["layers"]["layer-1"]["events"] *= 2
    edit(Path("metrics/operations.json"), layers=operations["layers"])
    plot = Path("plots/events.csv")
    plot.write_text(plot.read_text().replace("layer-1,", "layer-1,9"))
    clone.set(lam=0.05)

    text = report()
    assert row(text, "mse")[3:] == ["+50.0 %", "down", "worse"]
    assert row(text, "events_per_frame")[3:] == ["-50.0 %", "down", "better"]
    assert row(text, "mae_degrees")[3:] == ["+1.0 %", "down", "noise (3 %)"]
    assert row(text, "lam") == ["lam", "0.02", "0.05"]
    assert row(text, "layer-1")[3] == "+100.0 %"
    table = text.split("## Operations by layer")[1].split("## Plots")[0]
    assert max(map(len, table.splitlines())) <= 80
    pictures = re.findall(r"!\[(.+)\]\((.+)\)", text)
    assert [name for name, _ in pictures] == ["plots/events.csv"]
    assert Path(pictures[0][1]).read_bytes().startswith(b"\x89PNG") and len(list(Path("report").iterdir())) == 1
    assert re.search("Unchanged: .*learning curves", text)
    assert "synthetic road, seed 4205, 160 frames" in text
    assert "train: dvc.lock is stale" in text and "evaluate: dvc.lock is stale" in text
    assert clone.run("git", "status", "--porcelain", "report.md", "report") == ""  # ignored


def test_nothing_changed(clone):
    text = report("main", "--gate")
    assert "Gate: passed" in text and "dvc.lock is up to date" in text  # and that without any data
    assert text.count("Nothing changed.") == 2
    assert "![" not in text and not Path("report").exists()


def test_gate_fails_and_names_metric_old_new_and_limit(clone, capsys):
    """A metric over its limit, one that is no number, one that is gone with its file, and a hand-edited file."""
    mse = clone.metrics("evaluation")["mse"]
    edit(EVALUATION, mse=mse * 1.04, r2=float("nan"))
    Path("metrics/train.json").unlink()
    Path("limits.yaml").write_text(
        "gate:\n  mse: {rise: 3 %}\n  r2: {min: 0}\n  best_test_mse: {max: 1}\n  mae_degrees: {fall: 1}\n"
    )
    text = report("--gate", code=1)
    printed = capsys.readouterr().err
    assert f"gate: mse: {mse:.6g} -> {mse * 1.04:.6g} (+4.0 %); limit: rise at most 3 %\n" in printed
    assert re.search(r"gate: r2: \S+ -> none \(missing or NaN: here\); limit: min 0\n", printed)
    assert re.search(r"gate: best_test_mse: \S+ -> none \(missing or NaN: here\); limit: max 1\n", printed)
    assert "metrics/evaluation.json (modified)" in printed and "metrics/train.json (deleted)" in printed
    assert "mae_degrees" not in printed
    assert "Gate: FAILED" in text and row(text, "r2")[2:] == ["none", "", "", "vanished"]


def test_stale_lock_is_told_from_missing_data(clone):
    assert stale_stages() == {}
    source = Path("src/pilotnet_sdnn/sdnn/kernels/neurons.cpp")
    source.write_text(source.read_text() + "// another byte\n")
    assert stale_stages().keys() == {
        name for name, stage in PIPELINE["stages"].items() if "src/pilotnet_sdnn/sdnn" in stage["deps"]
    }
    clone.run("git", "checkout", "-q", ".")

    lock = Path("dvc.lock")  # as left by a merge that took one stage from either side
    stages = re.split(r"(?=^  \w+:$)", lock.read_text(), flags=re.M)
    input_hash = r"(data/frames\n *hash: md5\n *md5: )[\w.]+"
    lock.write_text(
        "".join(re.sub(input_hash, rf"\g<1>{'f' * 32}", s) if s.startswith("  train:") else s for s in stages)
    )
    assert stale_stages() == {"train": ["deps data/frames (in dvc.lock it is not what its stage wrote)"]}


def test_a_base_without_a_pipeline_is_compared_with(clone):
    """Everything is new; a limit on a rise cannot be kept."""
    clone.run("git", "switch", "-q", "--orphan", "empty")
    clone.run("git", "commit", "-q", "--allow-empty", "-m", "Nothing")
    clone.run("git", "switch", "-q", "main")
    clone.run("git", "merge", "-q", "--allow-unrelated-histories", "-m", "Merge", "empty")
    text = report("empty")
    assert row(text, "mse")[1] == "none" and row(text, "mse")[-1] == "new"
    assert "(missing or NaN: base); limit: rise at most 3 %" in text
    plots = len(PIPELINE["plots"]) + sum(len(stage.get("plots", [])) for stage in PIPELINE["stages"].values())
    assert len(re.findall(r"!\[.+\]", text)) == plots > 10


def colours(chart: Chart) -> Counter:
    """How many pixels of each colour a picture has."""
    return Counter(map(tuple, np.asarray(Image.open(io.BytesIO(chart.png)).convert("RGB")).reshape(-1, 3).tolist()))


BLUE, LIGHT_BLUE, ORANGE, LIGHT_ORANGE = (76, 120, 168), (158, 202, 233), (245, 133, 24), (255, 191, 121)


def test_a_series_is_light_at_the_base_and_dark_here_and_drawn_once_if_it_is_the_same(clone):
    path = Path("plots/steering.csv")
    header, *rows = path.read_text().splitlines()
    at = header.split(",").index("predicted_degrees")
    cells = [row.split(",") for row in rows]
    path.write_text("\n".join([header, *(",".join([*row[:at], "1.5", *row[at + 1 :]]) for row in cells)]) + "\n")
    charts = {chart.name: colours(chart) for chart in find_charts("main").changed}
    assert charts.keys() == {"steering", "plots/steering.csv"}
    assert charts["steering"][BLUE] and charts["steering"][ORANGE] and charts["steering"][LIGHT_ORANGE]
    assert not charts["steering"][LIGHT_BLUE]  # of the labels at the base
    points = charts["plots/steering.csv"]
    for colour in (BLUE, LIGHT_BLUE):  # their circles are thin, and blurred
        assert any(np.abs(np.subtract(pixel, colour)).max() < 30 for pixel in points)


def test_a_series_of_one_point_is_seen(clone):
    """Calibration that is off leaves one row, and a line through one point is nothing."""
    path = Path("plots/calibration.csv")
    header, row = path.read_text().splitlines()
    path.write_text(f"{header}\n{','.join(f'{float(cell) + 1:g}' for cell in row.split(','))}\n")
    (chart,) = find_charts("main").changed
    picture = Image.open(io.BytesIO(chart.png)).convert("RGB").crop((0, 0, 1040, 500))  # without the legend
    for colour in (BLUE, LIGHT_BLUE):  # the points are small, and blurred
        assert np.abs(np.subtract(picture, colour, dtype=int)).max(axis=-1).min() < 30


def test_images_are_shown_side_by_side(clone):
    Path("dvc.yaml").write_text(Path("dvc.yaml").read_text().replace("\nplots:\n", "\nplots:\n  - road.png\n"))
    Image.new("RGB", (30, 20), "red").save("road.png")
    clone.commit("A red road")
    Image.new("RGB", (30, 20), "blue").save("road.png")
    changed = find_charts("HEAD").changed
    assert [chart.name for chart in changed] == ["road.png"]
    picture = Image.open(io.BytesIO(changed[0].png))
    assert {picture.getpixel((15, 30)), picture.getpixel((65, 30))} == {(255, 0, 0), (0, 0, 255)}


def test_charts_that_neither_side_has_are_left_out(clone, monkeypatch):
    """As dvc gives a plot of dvc.yaml whose stage never ran."""
    monkeypatch.setattr("pilotnet_sdnn.team.charts.dvc_json", lambda *_: {"data": {"deployment": []}})
    assert find_charts("HEAD") == Charts([], [], [])


def png_bomb(width: int, height: int) -> bytes:
    """A black PNG, made without its pixels."""
    packer = zlib.compressobj()
    pixels = b"".join([*(packer.compress(bytes(1 + width // 8)) for _ in range(height)), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_charts_that_would_take_gigabytes_are_named_and_not_drawn(clone):
    """A table of 300,000 rows, and a picture of a hundred kilobytes with 900 million pixels."""
    Path("plots/training.csv").write_text("epoch,train_mse\n" + "".join(f"{n},{n}\n" for n in range(300_000)))
    Path("plots/drive.png").write_bytes(png_bomb(30_000, 30_000))
    clone.run("bash", "-c", "ulimit -d 1000000; sdnn-report main")  # KB
    text = Path("report.md").read_text()
    (left_out,) = re.findall("^Too large to draw: (.*)\\.$", text, re.M)
    assert {"learning curves", "plots/training.csv", "plots/drive.png"} < set(left_out.split(", "))
    assert re.search("^Unchanged: .*steering", text, re.M) and "![" not in text


@pytest.mark.parametrize(
    ("base", "expected"),
    [("nowhere", "'nowhere' is no commit, branch or tag here; fetch it first"), ("-h", "'-h' is no commit")],
)
def test_unknown_base(clone, base, expected):
    with pytest.raises(UserError, match=re.escape(expected)):
        merge_base(base)


def test_shallow_clone_says_how_to_get_the_rest(clone, tmp_path, monkeypatch):
    shallow = tmp_path / "shallow"
    subprocess.run(["git", "clone", "-q", "--depth", "1", clone.path.as_uri(), shallow], check=True)
    monkeypatch.chdir(shallow)
    with pytest.raises(UserError, match=r"this clone is shallow: .*fetch-depth: 0"):
        merge_base("main")


def test_pictures_of_an_older_report_go_when_the_new_one_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for png in (b"old", b"new"):
        write_report("text", [Chart("learning rate", png)])
    (picture,) = Path("report").iterdir()
    assert picture.name.startswith("learning-rate-") and picture.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("form", "value", "percent", "change", "holds"),
    [
        ("rise", 3, True, MetricChange(1.0, 1.03), True),
        ("rise", 3, True, MetricChange(1.0, 1.031), False),
        ("rise", 3, True, MetricChange(1.0, 0.1), True),
        ("rise", 3, True, MetricChange(-1.0, -0.9), False),
        ("rise", 3, True, MetricChange(0.0, 0.1), False),
        ("rise", 3, True, MetricChange(0.0, 0.0), True),
        ("rise", 3, True, MetricChange(None, 1.0), False),
        ("rise", 3, True, MetricChange(1.0, None), False),
        ("rise", 0.5, False, MetricChange(1.0, 1.5), True),
        ("fall", 0.5, False, MetricChange(1.0, 0.4), False),
        ("fall", 5, True, MetricChange(1.0, 0.96), True),
        ("max", 2, False, MetricChange(None, 2.0), True),
        ("max", 2, False, MetricChange(1.0, None), False),
        ("min", 2, False, MetricChange(9.0, 1.9), False),
    ],
)
def test_a_limit_holds(form, value, percent, change, holds):
    assert Limit("mse", form, value, percent).holds(change) is holds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gate: {mse: 3}", "gate: mse: expected a limit such as {rise: 3 %}, found 3"),
        ("gate: {mse: {raise: 3 %}}", "gate: mse: unknown limit 'raise'; did you mean 'rise'?"),
        ("gate: {mse: {rise: much}}", "gate: mse: rise: expected a number such as 0.01, or a percentage such as 3 %"),
        ("gate: {mse: {rise: -1}}", "gate: mse: rise: expected a number >= 0"),
        ("gate: {mse: {max: 3 %}}", "gate: mse: max: expected a number, found '3 %'"),
        ("better: {mse: left}", "better: mse: expected up or down, found 'left'"),
        ("noise: {mse: 3}", "noise: mse: expected a percentage such as 3 %, found 3"),
        ("limits: {}", "unknown section 'limits'"),
        ("gate: [mse]", "gate: expected 'metric: value' lines"),
        ("gate: {mse", "not valid YAML"),
    ],
)
def test_mistakes_in_the_limits_are_named(tmp_path, text, expected):
    path = tmp_path / "limits.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(f"{path}: {expected}")):
        load_limits(path)


def test_a_limit_of_an_unknown_metric_is_an_error():
    limits = Limits({}, {}, [Limit("mze", "rise", 3, True)])
    with pytest.raises(UserError, match=r"limits.yaml: gate: no metric 'mze'; did you mean 'mse'\?"):
        limits.check_metrics({"mse": MetricChange(1, 1)})
