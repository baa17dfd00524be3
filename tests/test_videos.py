"""Videos as drives: every container and codec, variable frame rate, rotation, B-frames, and files that are cut off.

The reference is a loop over all frames in PyAV; it gave the same bytes as the program ffmpeg (release 9.0) for each
video made here.
"""

import struct
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clone import TINY, clone_of_working_tree
from drives import JPEG, one_line, write_folder
from PIL import Image

from pilotnet_sdnn.dataset import resizing
from pilotnet_sdnn.dataset.resizing import resize, resized_frames
from pilotnet_sdnn.dataset.store import read_frames
from pilotnet_sdnn.drive import sources
from pilotnet_sdnn.drive.drive_zip import camera_images, open_drive, read_labels
from pilotnet_sdnn.drive.labels import BadLabels
from pilotnet_sdnn.drive.reading import Reading
from pilotnet_sdnn.drive.video_labels import find_videos

WIDTH, HEIGHT, COUNT = 320, 180, 100
CODECS = {"h264": "libx264", "hevc": "libx265", "avi": "mpeg4"}


def write_video(path: Path, times: Iterable[int] = range(COUNT), **options: object) -> Path:
    """A video of noise that wanders; `times` in 1/25 s; short groups of pictures, with B-frames."""
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    codec = CODECS.get(path.suffix.removeprefix("."), "libx264")
    defaults = {"g": "20", "bf": "2"} | ({"x265-params": "log-level=none"} if codec == "libx265" else {})
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=defaults | {k: str(v) for k, v in options.items()})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(noise, number * 7, 1)), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def expected(path: Path) -> np.ndarray:
    """(N, 33, 100, 3): all frames that PyAV decodes, one after another."""
    with av.open(str(path)) as container:
        return np.array(
            [resize(Image.fromarray(frame.to_ndarray(format="rgb24"))) for frame in container.decode(video=0)]
        )


def label(path: Path, *rows: tuple[float, float], by: str = "frame") -> Path:
    """Write the csv of a video, by default with an angle of N degrees for frame N."""
    rows = rows or tuple((number, number) for number in range(COUNT))
    path.with_suffix(".csv").write_text(f"{by},angle\n" + "".join(f"{key},{angle}\n" for key, angle in rows))
    return path


def packed(source: Path, on_bad_frame: str = "error") -> tuple[np.ndarray, np.ndarray, list[int]]:
    """The resized frames, degrees and frame numbers of a drive, through the zip that stage download writes."""
    out = source.parent / "out/drive.zip"
    sources.fetch(str(source), out, 1, 1, Reading(on_bad_frame, csv_unit="degrees"))
    with open_drive(out) as drive:
        labels, bad = read_labels(drive), BadLabels("data.txt", on_bad_frame)
        blocks = list(resized_frames(drive, labels, bad))
    kept = [labels[at] for numbers, _ in blocks for at in numbers]
    degrees = np.array([label.degrees for label in kept])
    return np.concatenate([frames for _, frames in blocks]), degrees, [label.number for label in kept]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi", "h264", "hevc", "MP4"])
def test_every_frame_is_as_ffmpeg_gives_it(tmp_path, suffix):
    path = label(write_video(tmp_path / f"drive.{suffix}"))
    frames, degrees, numbers = packed(path)
    np.testing.assert_array_equal(frames, expected(path))
    assert numbers == list(range(COUNT)) == list(degrees)


@pytest.mark.parametrize("options", [{"g": 250}, {"g": 40, "flags": "+cgop"}, {"x264-params": "open-gop=1", "bf": 3}])
def test_any_group_of_pictures(tmp_path, options):
    path = label(write_video(tmp_path / "drive.mp4", **options))
    np.testing.assert_array_equal(packed(path)[0], expected(path))


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_long_pieces_are_decoded_a_few_frames_at_a_time(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(resizing, "MAX_PIECE", 10)
    path = label(write_video(tmp_path / f"drive.{suffix}", g=70), *((number, number) for number in range(0, COUNT, 3)))
    frames, _, numbers = packed(path)
    assert numbers == list(range(0, COUNT, 3))
    np.testing.assert_array_equal(frames, expected(path)[::3])


def test_only_labelled_frames_are_taken(tmp_path):
    path = label(write_video(tmp_path / "drive.mkv"), (70, -3), (5, 1.5), (42, 2))
    frames, degrees, numbers = packed(path)
    assert numbers == [5, 42, 70] and list(degrees) == [1.5, 2, -3]
    np.testing.assert_array_equal(frames, expected(path)[numbers])


def test_labels_by_time_are_interpolated_at_a_variable_frame_rate(tmp_path, capsys):
    """Frames come at irregular times; labels every 0.4 seconds rise by 10 degrees a second, and stop for a while."""
    times = np.cumsum([0, *np.random.default_rng(1).integers(1, 6, COUNT - 1)])
    path = write_video(tmp_path / "drive.mp4", times.tolist())
    seconds = times / 25
    labelled = [time for time in np.arange(0.2, 9, 0.4) if not 3 < time < 5]
    label(path, *((round(time, 3), round(10 * time, 3)) for time in labelled), by="time")
    frames, degrees, numbers = packed(path)
    last_before, first_after = max(t for t in labelled if t < 4), min(t for t in labelled if t > 4)
    inside = (seconds >= 0.2) & (seconds <= labelled[-1]) & ~((seconds > last_before) & (seconds < first_after))
    assert numbers == list(np.flatnonzero(inside))
    np.testing.assert_allclose(degrees, 10 * seconds[inside], atol=1e-5)
    np.testing.assert_array_equal(frames, expected(path)[inside])
    assert f"labels interpolated to {len(numbers)} of 100 frames" in capsys.readouterr().out


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotation_flag_is_obeyed(tmp_path, turn):
    """The matrix of the track header says how far a player turns the picture clockwise."""
    path = label(write_video(tmp_path / "drive.mp4"))
    upright = expected_images(path)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16
    matrix = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[turn]
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    turned = [resize(image.rotate(-turn, expand=True)) for image in upright]
    np.testing.assert_array_equal(packed(path)[0], turned)


def expected_images(path: Path) -> list[Image.Image]:
    with av.open(str(path)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def test_video_that_was_cut_off_gives_what_it_has(tmp_path, capsys):
    path = label(write_video(tmp_path / "drive.mkv"))
    whole = expected(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    one_line(lambda: packed(path), "no frame ", "which has 0 to", "on_bad_frame: skip")
    frames, degrees, numbers = packed(path, "skip")
    assert 30 < len(frames) < 70 and numbers == list(degrees) == list(range(len(frames)))
    np.testing.assert_array_equal(frames[:-3], whole[: len(frames) - 3])  # the last may lack a reference


def test_video_that_lost_its_index_is_one_line(tmp_path):
    path = label(write_video(tmp_path / "drive.mp4"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    one_line(lambda: packed(path), "drive.mp4: not a readable video, or cut off before its index")


def test_video_that_is_damaged_inside(tmp_path):
    """The frames of other groups of pictures keep their numbers and labels."""
    path = label(write_video(tmp_path / "drive.mkv"))
    whole, data = expected(path), bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        hit = [packet for packet in container.demux(video=0) if packet.size][30]
    data[hit.pos + 10 : hit.pos + hit.size] = bytes(hit.size - 10)
    path.write_bytes(data)
    frames, degrees, numbers = packed(path, "skip")
    assert list(degrees) == numbers
    elsewhere = [at for at, number in enumerate(numbers) if not 20 <= number < 40]
    assert len(elsewhere) == 80
    np.testing.assert_array_equal(frames[elsewhere], whole[[numbers[at] for at in elsewhere]])


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (None, ["drive.mp4: no labels; expected 'drive.csv' beside it"]),
        ("frame,throttle\n0,1\n", ["drive.csv: expected columns frame,angle or time,angle", "'frame, throttle'"]),
        ("0,1\n1,2\n", ["expected columns frame,angle or time,angle"]),
        ("frame,angle\n0,1\n100,2\n", ["drive.csv line 3: no frame '100' in drive.mp4, which has 0 to 99"]),
        ("frame,angle\n0,1\n0,2\n", ["line 3: '0' already has a label, on line 2"]),
        ("frame,angle\n1.5,1\n", ["line 2: no frame '1.5'"]),
        ("frame,angle\n1\n", ["line 2: expected 2 columns as in the first line, found 1"]),
        ("frame,angle\nx,1\n", ["line 2: no frame 'x'"]),
        ("frame,angle\n1,left\n", ["line 2: expected an angle in degrees, found 'left'"]),
        ("time,angle\n1700000000,1\n1700000001,2\n", ["seconds since its first frame are expected, from 0 to 3.960"]),
        ("time,angle\nnow,2\n", ["line 2: expected a time, found 'now'"]),
        ("", ["expected columns frame,angle"]),
    ],
)
def test_bad_table_is_one_line(tmp_path, table, words):
    path = write_video(tmp_path / "drive.mp4")
    if table is not None:
        path.with_suffix(".csv").write_text(table)
    one_line(lambda: packed(path), *words)


def test_raw_stream_has_no_times(tmp_path):
    path = label(write_video(tmp_path / "drive.h264"), (0, 1), (1, 2), by="time")
    one_line(lambda: packed(path), "drive.h264 has no times; label it by frame,angle, or put it in an mp4")


@pytest.mark.parametrize("content", [b"", b"no video", b"\0\0\0\x18ftypmp42" + bytes(100)])
def test_file_that_is_no_video_is_one_line(tmp_path, content):
    path = label(tmp_path / "drive.mp4")
    path.write_bytes(content)
    one_line(lambda: packed(path), f"{path}: not a readable video")


def test_images_for_the_eye_are_those_of_the_labels(tmp_path):
    path = label(write_video(tmp_path / "drive.mp4"))
    packed(path)
    images = expected_images(path)
    with open_drive(tmp_path / "out/drive.zip") as drive:
        labels = read_labels(drive)
        shown = list(camera_images(drive, [labels[at] for at in (45, 46, 63)]))
    for image, number in zip(shown, (45, 46, 63), strict=True):
        np.testing.assert_array_equal(image, images[number])


def test_folder_of_videos_through_the_pipeline(tmp_path):
    """Two clips of a dashcam are one drive with a segment each; the pixels are those of the clips."""
    (tmp_path / "card").mkdir()
    clips = [
        label(write_video(tmp_path / f"card/{name}", range(40)), *((n, n) for n in range(40)))
        for name in ("first half.mp4", "second.mov")
    ]
    clone = clone_of_working_tree(tmp_path / "clone", **TINY, source=str(tmp_path / "card"), csv_unit="degrees")
    printed = clone.run("dvc", "repro", "resize")
    assert "card: video layout, 80 labelled frames" in printed and "80 frames in 2 segments" in printed
    written = read_frames(clone.path / "data/frames")
    np.testing.assert_array_equal(written.frames[:], np.concatenate([expected(clip) for clip in clips]))
    np.testing.assert_allclose(np.degrees(written.angles), 2 * list(range(40)), atol=1e-4)
    assert not written.drives[0].repairs_zeros


def test_a_video_beside_images_is_not_the_drive(tmp_path):
    """A preview, say, in a folder whose csv labels images."""
    columns = {"frame": "image", "angle": "degrees", "time": None, "camera": None}
    folder = write_folder(tmp_path / "a", {"labels.csv": "image,degrees\n0.jpg,1\n", "0.jpg": JPEG, "preview.mp4": b""})
    assert find_videos(folder, Reading(csv_columns=columns)) == []
    (folder / "labels.csv").rename(folder / "preview.csv")
    assert find_videos(folder, Reading()) == [(folder / "preview.mp4", folder / "preview.csv")]
    (folder / "data.txt").write_text("0.jpg 1\n")
    assert find_videos(folder, Reading()) == []


def test_folder_in_which_a_video_has_no_labels(tmp_path):
    folder = write_folder(tmp_path / "a", {"1.mp4": b"", "1.csv": "", "2.mp4": b""})
    one_line(lambda: find_videos(folder, Reading()), "2.mp4: no labels; expected '2.csv' beside it")
