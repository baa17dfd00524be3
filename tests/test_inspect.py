"""Whether labels match frames, on pictures whose movement is known and on real ones."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from clone import ROOT
from drives import one_drive, stage_run
from PIL import Image

from pilotnet_sdnn.dataset.resizing import resized_frames
from pilotnet_sdnn.dataset.store import DriveRange, Frames, write_frames
from pilotnet_sdnn.drive import synthetic
from pilotnet_sdnn.drive.drive_zip import open_drive, read_labels
from pilotnet_sdnn.drive.labels import BadLabels, parse_labels, radians
from pilotnet_sdnn.inspection.alignment import align, inconclusive, turning, warnings
from pilotnet_sdnn.inspection.checks import check_parts, drop_outs, found_warnings
from pilotnet_sdnn.inspection.overview import curves, draw, drive_metrics, jumps
from pilotnet_sdnn.paths import DRIVE_METRICS, DRIVE_PICTURE, DRIVE_PLOT, FRAMES
from pilotnet_sdnn.stages import inspect


def smooth(rng: np.random.Generator, length: int, over: int) -> np.ndarray:
    """Noise of unit variance that changes over so many frames."""
    noise = np.convolve(rng.standard_normal(length + over), np.hanning(over), "valid")[:length]
    return noise / noise.std()


def panned(turns: np.ndarray, degrees: np.ndarray, segments: np.ndarray | None = None) -> Frames:
    """A drive through a scenery of random shapes that moves to the left by so many columns a frame."""
    rng = np.random.default_rng(0)
    at = np.cumsum(turns) * 8
    at -= at.min()
    scenery = Image.fromarray(rng.integers(0, 255, (9, int(at.max()) // 32 + 30), np.uint8))
    scenery = scenery.resize((scenery.width * 32, 33), Image.Resampling.BICUBIC)
    columns = np.arange(100) * 8
    wide = np.asarray(scenery)
    frames = np.stack([wide[:, np.round(x + columns).astype(int)] for x in at])
    return one_drive(np.radians(degrees), np.repeat(frames[..., None], 3, -1), segments)


COUNT = 1300
TURNS = smooth(np.random.default_rng(1), COUNT, 40)
DEGREES = 10 * TURNS + np.random.default_rng(2).standard_normal(COUNT)


@pytest.fixture(scope="module")
def drive() -> Frames:
    return panned(TURNS, DEGREES)


@pytest.fixture(scope="module")
def turns(drive) -> np.ndarray:
    return turning(drive)


def told(turns: np.ndarray, angles: np.ndarray) -> str:
    return " | ".join(warnings(align(turns, angles, np.zeros(len(angles)))))


def test_turning_is_how_far_the_scenery_moved_to_the_left(turns):
    assert math.isnan(turns[0])
    assert np.abs(turns[1:] - TURNS[1:]).mean() < 0.2
    assert np.polyfit(TURNS[1:], turns[1:], 1) == pytest.approx([1, 0], abs=0.03)


def test_turning_depends_on_no_library_in_what_is_written(drive, turns):
    """Intel's FFT, OpenCV's own and one without vector instructions add in orders of their own."""
    try:
        cv2.setUseOptimized(False)
        plain = turning(drive)
    finally:
        cv2.setUseOptimized(True)
    np.testing.assert_allclose(plain, turns, rtol=0, atol=1e-8)


def test_stage_gives_the_same_bytes_with_any_number_of_threads(tmp_path, drive):
    images = [(np.arange(COUNT), drive.frames)]
    described = (drive.angles, np.zeros(COUNT))
    written = []
    for threads in "1", "2":
        folder = tmp_path / threads
        write_frames(
            folder / FRAMES / "1-0123456789abcdef.h5",
            images,
            COUNT,
            lambda numbers: described,
            origin="a panned scenery",
        )
        shutil.copy(ROOT / "params.yaml", folder)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-m", "pilotnet_sdnn.stages.inspect"]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
        written.append([(folder / path).read_bytes() for path in (DRIVE_METRICS, DRIVE_PLOT, DRIVE_PICTURE)])
    assert written[0] == written[1]


def test_nothing_turns_from_one_segment_to_the_next():
    segments = np.repeat([4, 5, 4], 20)
    seen = turning(panned(TURNS[:60], DEGREES[:60], segments))
    assert np.flatnonzero(np.isnan(seen)).tolist() == [0, 20, 40]


def test_pictures_without_anything_in_them_are_not_counted():
    black = panned(TURNS[:5], DEGREES[:5])._replace(frames=np.zeros((5, 33, 100, 3), np.uint8))
    alignment = align(turning(black), black.angles, black.segments)
    assert alignment.frames == 0 and "fewer than" in inconclusive(alignment)
    assert warnings(alignment) == []


def test_labels_that_fit(turns, drive):
    alignment = align(turns, drive.angles, drive.segments)
    assert alignment.at_zero > 0.95 and alignment.best_lag == 0
    assert warnings(alignment) == [] and inconclusive(alignment) is None


def test_labels_of_the_opposite_sign(turns, drive):
    assert "opposite sign" in told(turns, -drive.angles)
    assert "frames late" not in told(turns, -drive.angles)


@pytest.mark.parametrize(
    ("by", "words"),
    [
        (10, "10 frames late (correlation 0.9"),
        (20, "20 frames late"),
        (-10, "10 frames early"),
        (-20, "give each frame the label of 20 frames before it"),
    ],
)
def test_labels_that_are_late_or_early(turns, drive, by, words):
    assert words in told(turns, np.roll(drive.angles, by))
    both = told(turns, -np.roll(drive.angles, by))
    assert "opposite sign" in both and words.partition(" (")[0] in both


def test_labels_of_another_drive(turns, drive):
    shuffled = np.random.default_rng(0).permutation(drive.angles)
    assert "do not seem to match" in told(turns, shuffled)


def test_lags_do_not_reach_into_another_segment():
    """Each segment's labels are 10 frames late; the neighbour's would say otherwise."""
    segments = np.repeat(np.arange(13), 100)
    degrees = np.concatenate([np.roll(part, 10) for part in DEGREES.reshape(13, 100)])
    alignment = align(TURNS, np.radians(degrees), segments)
    assert alignment.best_lag == -10


def test_silence_where_nothing_can_be_told(turns, drive):
    def reason(turns, angles):
        alignment = align(turns, angles, np.zeros(len(angles)))
        assert warnings(alignment) == []
        return inconclusive(alignment)

    assert "fewer than 1,200 frames" in reason(turns[:300], -drive.angles[:300])
    assert "labels hardly change" in reason(turns, np.full(COUNT, 0.1))
    assert "are they degrees?" in reason(turns, np.radians(drive.angles))
    assert "picture hardly moves" in reason(np.zeros(COUNT), drive.angles)
    assert "fewer than" in reason(turns[:1], drive.angles[:1])


def test_few_wild_labels_do_not_hide_the_rest(turns, drive):
    wild = drive.angles.copy()
    wild[::25] = 0
    wild[7::100] = np.radians(-500)
    assert told(turns, wild) == ""
    assert "opposite sign" in told(turns, -wild)


def prove(frames: Frames) -> None:
    """On a drive whose labels are right: no warning with them, and the right one with each way to spoil them."""
    turns, angles = turning(frames), frames.angles
    alignment = align(turns, angles, frames.segments)
    assert alignment.at_zero > 0.8 and abs(alignment.best_lag) <= 2
    assert told(turns, angles) == ""
    assert "opposite sign" in told(turns, -angles) and "frames late" not in told(turns, -angles)
    for by in (10, 20):
        assert "frames late" in told(turns, np.roll(angles, by))
        assert "frames early" in told(turns, np.roll(angles, -by))
    assert "do not seem to match" in told(turns, np.random.default_rng(0).permutation(angles))


def test_real_drive(real_drive):
    with open_drive(real_drive) as archive:
        labels = read_labels(archive)
        packed = np.concatenate([frames for _, frames in resized_frames(archive, labels, BadLabels("data.txt"))])
    prove(one_drive(radians(labels), packed))


@pytest.mark.slow
def test_synthetic_drive():
    images, degrees = zip(*synthetic.drive(1300, seed=3), strict=True)
    packed = np.stack([np.asarray(Image.fromarray(image).resize((100, 33))) for image in images])
    prove(one_drive(np.radians(degrees), packed))


def jumping(*degrees: float, segments: list[int] | None = None) -> list[int]:
    return jumps(np.radians(degrees), np.array(segments or [0] * len(degrees))).tolist()


def test_jumps():
    assert jumping(50, 51, 0, 53, 54) == [2, 3]  # a drop-out: down and up again
    assert jumping(0, 1, 40, 41, 42) == [2]  # a step
    assert jumping(44, 66, 92, 120, 143, 161) == []  # a fast turn, as in Sully Chen's drive
    assert jumping(0, 0, 90, 90, segments=[0, 0, 1, 1]) == []  # another drive
    assert jumping(5) == []


def test_drop_outs_of_a_real_drive_are_jumps(real_labels):
    labels = parse_labels(real_labels.read_text(), "labels")
    found = jumps(radians(labels), np.zeros(len(labels)))
    assert {283, 284, 1291, 4447} <= set(found.tolist())  # 501.78, 0, 498.55; ... 225.08, 0, 227.6; ...
    assert not set(range(260, 283)) & set(found.tolist())  # from 44 to 502 degrees in a second


# A wrong part among good ones


def several(*signs: int, drives: bool) -> tuple[Frames, np.ndarray]:
    """The panned scenery's labels several times over, as drives or in one, with their signs; and its turning."""
    count = len(signs) * COUNT
    names = [f"{number}.jpg" for number in range(10, 10 + (COUNT if drives else count))] * (len(signs) if drives else 1)
    parts = [DriveRange(f"drive-{at}.zip", at * COUNT, (at + 1) * COUNT) for at in range(len(signs))]
    frames = Frames(
        None,
        np.concatenate([sign * np.radians(DEGREES) for sign in signs]),
        np.repeat(np.arange(len(signs)), COUNT) if drives else np.zeros(count, int),
        np.arange(count),
        "several",
        0,
        parts if drives else [DriveRange("one.zip", 0, count)],
        np.arange(count) % COUNT + 2 if drives else np.arange(count) + 2,
        np.array([name.encode() for name in names]),
    )
    return frames, np.tile(TURNS, len(signs))


def test_wrong_drive_among_good_ones():
    frames, turns = several(1, 1, -1, 1, drives=True)
    assert warnings(align(turns, frames.angles, frames.segments)) == []  # together they pass
    (warning,) = found_warnings(frames, check_parts(frames, turns))
    assert warning.startswith("drive 3 of 4 (drive-2.zip): the labels seem to have the opposite sign")
    assert "label_sign: -1 (of several drives, a list)" in warning
    frames, turns = several(1, 1, drives=True)
    assert found_warnings(frames, check_parts(frames, turns)) == []


def test_wrong_stretch_of_a_good_drive():
    frames, turns = several(1, 1, -1, -1, 1, 1, 1, drives=False)
    (warning,) = found_warnings(frames, check_parts(frames, turns))
    assert warning.startswith("one.zip, lines 2,602 to 5,201, frames 2610.jpg to 5209.jpg: the labels seem to")
    frames, turns = several(-1, -1, drives=False)  # told once, of the whole drive
    (warning,) = found_warnings(frames, check_parts(frames, turns))
    assert warning.startswith("one.zip: the labels seem to have the opposite sign")


def test_neighbouring_stretches_are_told_together_whatever_their_length():
    """Of four segments, the second and the longer third are wrong."""
    frames, turns = several(1, 1, 1, 1, -1, -1, -1, 1, 1, 1, 1, 1, drives=False)
    frames = frames._replace(segments=np.repeat([0, 1, 2, 3], np.multiply([4, 1, 2, 5], COUNT)))
    (warning,) = found_warnings(frames, check_parts(frames, turns))
    assert warning.startswith("one.zip, lines 5,202 to 9,101,") and "opposite sign" in warning


def test_segments_are_not_checked_together():
    """Each is long enough by itself; labels 10 frames late in one of them are told of that one."""
    frames, turns = several(1, 1, 1, drives=False)
    angles = frames.angles.copy()
    angles[COUNT : 2 * COUNT] = np.roll(angles[COUNT : 2 * COUNT], 10)
    late = frames._replace(angles=angles, segments=np.repeat([0, 1, 2], COUNT))
    (warning,) = found_warnings(late, check_parts(late, turns))
    assert warning.startswith("one.zip, lines 1,302 to 2,601,") and "10 frames late" in warning


def test_stage_names_the_wrong_drive(tmp_path, monkeypatch, capsys, drive):
    images = [(np.arange(COUNT), drive.frames)]
    for position, sign in ((1, 1), (2, -1)):
        path = tmp_path / FRAMES / f"{position}-{'0' * 16}.h5"
        angles = sign * drive.angles
        angles[100] += np.radians(40)
        described = (angles, np.zeros(COUNT))
        origin = ("good.zip", "bad.zip")[position - 1]
        write_frames(path, images, COUNT, lambda numbers, described=described: described, origin=origin)
    stage_run(inspect.main, tmp_path, monkeypatch)
    printed = capsys.readouterr().out
    assert "WARNING: drive 2 of 2 (bad.zip): the labels seem to have the opposite sign" in printed
    assert "2 labels drop out for a single frame" in printed, printed
    assert "first: drive 1 of 2 (good.zip), frame 100, line 101 (" in printed, printed
    metrics = json.loads((tmp_path / DRIVE_METRICS).read_text())
    assert metrics["warnings"] == 1 and metrics["parts"] == 2 and metrics["drop_outs"] == 2
    assert metrics["lowest_correlation"] < -0.9 and abs(metrics["correlation"]) < 0.3
    with Image.open(tmp_path / DRIVE_PICTURE) as image:
        assert image.size == (1200, 1000)


# Drop-outs


def dropping(*degrees: float, segments: list[int] | None = None) -> list[int]:
    return drop_outs(np.radians(degrees), np.array(segments or [0] * len(degrees))).tolist()


def test_drop_outs():
    assert dropping(5, 5.2, 0, 5.4, 5.5, 5.5) == [2]  # less than a jump of 15 degrees
    assert dropping(-3, -3, -9, -3, -3, -3) == [2]
    assert dropping(0, 0, 0, 5, 5, 5, 5) == []  # a step
    assert dropping(0, 2, 4, 6, 4, 2, 0) == []  # a turn
    assert dropping(3, -3, 3, -3, 3, -3, 3, -3, 3, -3, 3) == []  # noise
    assert dropping(5, 5, 0, 5, 5, segments=[0, 0, 1, 2, 2]) == []
    assert dropping(5, 0) == [] and dropping() == []


def test_drop_outs_of_real_drives(real_labels, real_drive):
    """Single zeros between labels that are well away from zero, and hardly anything else."""
    degrees = np.array([label.degrees for label in parse_labels(real_labels.read_text(), "labels")])
    found = drop_outs(np.radians(degrees), np.zeros(len(degrees)))
    before, after = degrees[:-2], degrees[2:]
    single = np.flatnonzero((degrees[1:-1] == 0) & (np.minimum(abs(before), abs(after)) > 5) & (before * after > 0)) + 1
    assert len(np.intersect1d(single, found)) > 0.97 * len(single) > 500
    assert np.mean(degrees[found] == 0) > 0.9
    with open_drive(real_drive) as archive:
        labels = read_labels(archive)
    assert len(drop_outs(radians(labels), np.zeros(len(labels)))) == 0


def beginning(drive: Frames, length: int) -> Frames:
    """The first frames of a drive."""
    return one_drive(drive.angles[:length], drive.frames[:length])


def picture(path, drive: Frames) -> bytes:
    seen = np.full(len(drive.angles), 0.5)
    alignment, jumped = align(seen, drive.angles, drive.segments), jumps(drive.angles, drive.segments)
    draw(path, drive, alignment, curves(drive, seen, jumped), jumped, check_parts(drive, seen))
    return path.read_bytes()


@pytest.mark.parametrize("length", [2, 40])
def test_picture_of_a_short_drive_cuts_no_label_off(tmp_path, drive, length):
    picture(tmp_path / "drive.png", beginning(drive, length))
    with Image.open(tmp_path / "drive.png") as image:
        assert np.all(np.asarray(image)[:, 0] == 255)


@pytest.mark.parametrize("length", [1, 160])
def test_picture_has_the_same_size_for_any_drive_and_the_same_bytes_again(tmp_path, drive, length):
    few = beginning(drive, length)._replace(origin="costs $5 and {more", skipped=3)
    assert picture(tmp_path / "one.png", few) == picture(tmp_path / "two.png", few)
    with Image.open(tmp_path / "one.png") as image:
        assert image.size == (1200, 1000)
        assert "Software" not in image.info


@pytest.mark.parametrize("length", [1, 999, 1000, 1001, 45_406])
def test_chart_of_a_drive_of_any_length(length):
    degrees = np.random.default_rng(0).normal(0, 10, length)
    drive = one_drive(np.radians(degrees))
    chart = curves(drive, np.ones(length), np.array([length - 1]))
    assert len(chart["frame"]) <= 1000
    assert {len(column) for column in chart.values()} == {len(chart["frame"])}
    assert chart["most_degrees"].max() == pytest.approx(degrees.max())
    assert chart["jumps"].sum() == 1 and chart["jumps"][-1] == 1
    assert np.all(chart["turn"] == 1)


def test_metrics_of_a_drive(drive):
    few = one_drive(np.radians([0.0, 10, -10, 0]), segments=np.array([0, 0, 1, 1]))._replace(skipped=2)
    turns = np.zeros(4)
    metrics = drive_metrics(few, align(turns, few.angles, few.segments), np.array([2]), check_parts(few, turns))
    assert metrics["frames"] == 4 and metrics["skipped_frames"] == 2 and metrics["segments"] == 2
    assert metrics["zero_share"] == 0.5 and metrics["jumps"] == 1 and metrics["warnings"] == 0
    assert metrics["label_max_degrees"] == pytest.approx(10) and metrics["label_std_degrees"] == pytest.approx(50**0.5)


@pytest.mark.parametrize("plot", ["drive", "steering", "deployment"])
def test_plots_have_the_names_that_frames_have_in_their_drive(tiny_pipeline, plot):
    with (tiny_pipeline.path / f"plots/{plot}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and all(row["name"] == f"{row['frame']}.jpg" for row in rows)


def test_stage_leaves_what_people_and_dvc_look_at(tiny_pipeline):
    metrics = tiny_pipeline.metrics("drive")
    assert metrics["frames"] == 160 and metrics["warnings"] == 0
    shown = json.loads(tiny_pipeline.run("dvc", "plots", "show", "--json"))
    assert not shown.get("errors")
    assert {"plots/drive.png", "labels of the drive"} <= set(shown["data"])
    with Image.open(tiny_pipeline.path / "plots/drive.png") as image:
        assert image.size == (1200, 1000)
