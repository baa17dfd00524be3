"""A drive to watch: what the video shows, and `sdnn-video` on the outputs of a real pipeline."""

import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from clone import clone_of_working_tree
from PIL import Image, ImageDraw

from pilotnet_sdnn.commands import video as command
from pilotnet_sdnn.dataset.split import Split, Stretch
from pilotnet_sdnn.measure.activity import EventCounter
from pilotnet_sdnn.sdnn.network import Network, normalise
from pilotnet_sdnn.video.scenes import Moment, Scene, draw_wheels, tiled, watch


@pytest.fixture
def frames() -> np.ndarray:
    """Two sequences of 16 and a bit, in which something moves."""
    random = np.random.default_rng(1)
    walk = random.integers(-20, 21, (37, 33, 100, 3)).cumsum(0) + 128
    return walk.clip(0, 255).astype(np.uint8)


def test_state_is_carried_as_in_one_long_sequence(frames):
    """Angles and counts are those of lava-dl's own blocks on all frames at once."""
    torch.manual_seed(2)
    network = Network(threshold=0.01).eval()
    with torch.no_grad():
        *messages, angles = network.messages(normalise(torch.from_numpy(frames)[None]))
    moments = list(watch(network, [frames[:16], frames[16:32], frames[32:]], "torch", restarted=False))
    assert [moment.angle for moment in moments] == angles.flatten().tolist()
    for number, whole in enumerate(messages[:4]):
        signs = np.stack([moment.events[number] for moment in moments])
        assert np.array_equal(signs, whole[0].movedim(-1, 0).sign().numpy())
    whole_synops = EventCounter(network, "torch").stream([frames]).synops.sum(1)
    assert [moment.synops for moment in moments] == whole_synops.tolist()


def test_restarted_every_sequence_starts_anew(frames):
    torch.manual_seed(2)
    network = Network(threshold=0.01).eval()
    measured = EventCounter(network, "torch").sequences(frames[:32].reshape(2, 16, *frames.shape[1:]))
    moments = list(watch(network, [frames[:16], frames[16:32]], "torch", restarted=True))
    assert [moment.synops for moment in moments] == measured.synops.sum(-1).tolist()
    assert np.array_equal(np.array([moment.angle for moment in moments], np.float32), measured.angles)


def test_maps_beside_each_other():
    maps = np.array([[[1]], [[-1]], [[1]]], np.int8)
    gap = 2
    assert tiled(maps, 2).tolist() == [[1, gap, -1, gap], [gap] * 4, [1, gap, gap, gap], [gap] * 4]


@pytest.mark.parametrize("degrees", [-60, 60])
def test_a_positive_angle_turns_the_wheel_to_the_right(degrees):
    """The orange mark on the rim of the label's wheel moves to the side of the angle."""
    image = Image.new("RGB", (1280, 720))
    draw_wheels(image, ImageDraw.Draw(image), Scene(image, np.radians(degrees), "test", "0.jpg", Moment(0.0, [], 0)))
    left = np.asarray(image)[:185, 812:1036].astype(int)
    orange = (left[..., 0] > 200) & (left[..., 2] < 100)
    side = np.flatnonzero(orange.any(0)).mean() - left.shape[1] / 2
    assert np.sign(side) == np.sign(degrees) and abs(side) > 40


def test_default_stretch_is_held_out():
    segments, test = np.repeat([0, 1], [60, 40]), [Stretch(48, 60), Stretch(60, 80)]
    assert command.stretch(test, segments, None, count=12) == (60, 72)  # of the longest
    assert command.stretch(test, segments, None, count=600) == (60, 80)  # and no more than it
    assert command.stretch(test, segments, 4.5, count=600) == (90, 100)  # up to the end of the drive
    assert command.stretch(test, segments, 2.5, count=17) == (50, 60)  # and of the segment
    split = Split(train=[Stretch(0, 32)], test=test)
    assert [command.part(frame, split) for frame in (31, 32, 48, 79, 80)] == [
        "training", "unused", "test", "test", "unused",
    ]  # fmt: skip


def sdnn_video(monkeypatch, clone: Path, *arguments: object) -> None:
    monkeypatch.chdir(clone)
    monkeypatch.setattr(sys, "argv", ["sdnn-video", *map(str, arguments)])
    command.main()


def test_mp4(tiny_pipeline, monkeypatch, tmp_path, capsys):
    path = tmp_path / "new" / "drive.mp4"
    sdnn_video(monkeypatch, tiny_pipeline.path, path, "--seconds", 1)
    assert iio.imread(path, plugin="pyav").shape == (20, 720, 1280, 3)
    assert iio.immeta(path, plugin="pyav")["fps"] == 20
    assert "synthetic road, seed 4205, 160 frames, state carried from frame to frame" in capsys.readouterr().out
    assert [file.name for file in path.parent.iterdir()] == ["drive.mp4"]


def test_gif(tiny_pipeline, monkeypatch, tmp_path):
    path = tmp_path / "drive.gif"
    sdnn_video(monkeypatch, tiny_pipeline.path, path, "--seconds", 0.5, "--start", 2, "--restarted")
    with Image.open(path) as gif:
        assert (gif.format, gif.size, gif.n_frames, gif.info["duration"]) == ("GIF", (640, 360), 10, 50)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["drive.avi"], "drive.avi: expected a file name that ends with .mp4 or .gif"),
        (["drive.mp4", "--start", 8], "--start 8: the drive is 8 s long"),
        (["drive.mp4", "--start", -1], "--start -1: the drive is 8 s long"),
        (["drive.mp4", "--seconds", 0], "--seconds 0: expected 0.05, one frame, or more"),
        (["drive.mp4", "--seconds", "nan"], "--seconds nan: expected 0.05, one frame, or more"),
        (["README.md/drive.mp4"], "README.md"),
    ],
)
def test_mistakes(tiny_pipeline, monkeypatch, arguments, message):
    with pytest.raises(SystemExit, match=f"^error: .*{message}"):
        sdnn_video(monkeypatch, tiny_pipeline.path, *arguments)
    assert not list(tiny_pipeline.path.glob("*drive.*"))


def test_before_the_pipeline_has_run(tmp_path, monkeypatch):
    clone = clone_of_working_tree(tmp_path / "clone", synthetic_frames=160)
    with pytest.raises(SystemExit, match=r"^error: .*`dvc repro"):
        sdnn_video(monkeypatch, clone.path)
