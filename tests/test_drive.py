"""`sdnn-drive`: a video, a folder, a zip or a camera in; angles out, those of fixed_point.py, whatever happens."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
import wave
import zipfile
from pathlib import Path

import av
import imageio.v3 as iio
import networks
import numpy as np
import pytest
from drives import encoded
from PIL import Image

from pilotnet_sdnn.commands import drive as command
from pilotnet_sdnn.dataset.resizing import resize
from pilotnet_sdnn.dataset.road import open_dataset
from pilotnet_sdnn.drive.drive_zip import frame_member, open_drive, read_labels
from pilotnet_sdnn.drive_files import drive_files
from pilotnet_sdnn.loihi.comparison import stream_angles
from pilotnet_sdnn.loihi.fixed_point import read_network, start_state
from pilotnet_sdnn.paths import DRIVES, EXPORTED_NETWORK, FRAMES
from pilotnet_sdnn.video import footage

NOISE = np.random.default_rng(4).integers(0, 256, (30, 96, 160, 3), np.uint8)


def sdnn_drive(monkeypatch, *arguments: object) -> list[dict[str, str]]:
    monkeypatch.setattr(sys, "argv", ["sdnn-drive", *map(str, arguments)])
    command.main()
    return rows() if Path("angles.csv").exists() else []


def rows(path: Path | str = "angles.csv") -> list[dict[str, str]]:
    with Path(path).open() as file:
        return list(csv.DictReader(file))


def angles(table: list[dict[str, str]]) -> list[float]:
    return [float(row["angle"]) for row in table]


def expected(images: list[Image.Image], network: Path = Path("models/network.net")) -> list[float]:
    """By the definition."""
    integers = read_network(network)
    frames = np.stack([resize(image) for image in images])
    found, _ = stream_angles(integers, [frames], lambda layers, n: start_state(layers, n, True), corrected=True)
    return found.tolist()


def write_film(path: Path, frames: np.ndarray = NOISE, rate: int = 10, codec: str = "libx264", **options: str) -> Path:
    with av.open(path, "w", options=options) as container:
        stream = container.add_stream(codec, rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p" if codec == "libx264" else "bgr0"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode(None))
    return path


def pictures_of(path: Path) -> list[Image.Image]:
    with av.open(path) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("name", "size", "codec"),
    [("road.mp4", (96, 160), "libx264"), ("odd.mkv", (7, 333), "ffv1"), ("dot.mkv", (1, 1), "ffv1")],
)
def test_video(desk, monkeypatch, name, size, codec):
    path = write_film(desk / name, NOISE[:, : size[0]].repeat(3, 2)[:, :, : size[1]], codec=codec)
    table = sdnn_drive(monkeypatch, path)
    assert angles(table) == expected(pictures_of(path))
    assert [float(row["seconds"]) for row in table] == pytest.approx(np.arange(30) / 10, abs=2e-3)


def test_a_video_that_was_filmed_upside_down(desk, monkeypatch):
    path = write_film(desk / "road.mp4")
    turned = desk / "turned.mp4"
    with av.open(path) as source, av.open(turned, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(180)
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    upright = [image.rotate(180) for image in pictures_of(path)]
    assert angles(sdnn_drive(monkeypatch, turned)) == expected(upright)


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_images_in_the_order_of_their_numbers(desk, monkeypatch, kind):
    images = [Image.fromarray(frame) for frame in NOISE[:12]]
    (desk / "frames").mkdir()
    for number, image in enumerate(images):
        (desk / f"frames/frame{number}.png").write_bytes(encoded(image, "PNG"))
    source = desk / "frames"
    if kind == "zip":
        source = Path(shutil.make_archive(str(desk / "packed"), "zip", desk / "frames"))
    assert angles(sdnn_drive(monkeypatch, source)) == expected(images)


def test_a_drive_as_the_pipeline_reads_it(tiny_pipeline, monkeypatch, tmp_path):
    """The whole drive: the frames of data/frames; held-out road: the angles that stage simulate_loihi plotted."""
    monkeypatch.chdir(tiny_pipeline.path)
    table = tmp_path / "angles.csv"
    (packed,) = drive_files(DRIVES, "download")
    command_line = [sys.executable, "-m", "pilotnet_sdnn.commands.drive", "--csv", str(table)]
    tiny_pipeline.run(*command_line, str(packed))
    integers, dataset = read_network(EXPORTED_NETWORK), open_dataset(FRAMES, 16, "blocked")
    frames = dataset.drive.frames[:]
    whole, events = stream_angles(integers, [frames], lambda layers, n: start_state(layers, n, True), corrected=True)
    assert angles(rows(table)) == whole.tolist()
    assert [int(row["events"]) for row in rows(table)] == events.sum(1).tolist()

    longest = max(dataset.split.test, key=lambda stretch: stretch.frames)
    with open_drive(packed) as drive, zipfile.ZipFile(tmp_path / "part.zip", "w") as part:
        for label in read_labels(drive)[longest.start : longest.stop]:
            part.writestr(label.frame, drive.read(frame_member(label)))
    tiny_pipeline.run(*command_line, str(tmp_path / "part.zip"))
    deployed = [float(row["fixed_point_degrees"]) for row in rows("plots/deployment.csv")]
    assert [round(degrees, 2) for degrees in np.degrees(angles(rows(table)))] == deployed


def test_follow_prints_lines_of_json_and_nothing_else(desk, monkeypatch, capsys):
    table = sdnn_drive(monkeypatch, write_film(desk / "road.mp4"), "--follow")
    printed, summary = capsys.readouterr()
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [{name: str(value) for name, value in line.items()} for line in lines] == table
    assert "road.mp4: 30 frames in" in summary and "30 frames in" not in printed


def test_whoever_follows_may_leave(desk):
    write_film(desk / "road.mp4")
    done = subprocess.run(
        f"{sys.executable} -m pilotnet_sdnn.commands.drive road.mp4 --follow | head -n 2",
        shell=True, capture_output=True, text=True,
    )  # fmt: skip
    assert [json.loads(line)["frame"] for line in done.stdout.splitlines()] == [0, 1]
    assert "Traceback" not in done.stderr and "error" not in done.stderr


def test_summary(desk, monkeypatch, capsys):
    table = sdnn_drive(monkeypatch, write_film(desk / "road.mp4"))
    printed = capsys.readouterr().out
    synops, events = (np.mean([int(row[name]) for row in table]) for name in ("synops", "events"))
    assert f"a frame: {events:,.0f} events, {synops:,.0f} synops, {5_375_238 / synops:.1f}x fewer" in printed
    assert "from frame to angle: median" in printed and "p99" in printed and "late" not in printed


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_video_of_the_drive(desk, monkeypatch, suffix):
    film = write_film(desk / "road.mp4")
    plain = angles(sdnn_drive(monkeypatch, film))
    assert angles(sdnn_drive(monkeypatch, film, "--video", f"seen.{suffix}")) == plain
    if suffix == "mp4":
        assert iio.imread("seen.mp4", plugin="pyav").shape == (30, 720, 1280, 3)
        assert iio.immeta("seen.mp4", plugin="pyav")["fps"] == 10
    else:
        with Image.open("seen.gif") as gif:
            assert (gif.n_frames, gif.info["duration"]) == (30, 100)


def test_realtime_takes_as_long_as_the_video_and_counts_what_is_late(desk, monkeypatch, capsys):
    film = write_film(desk / "road.mp4", NOISE[:11])
    start = time.monotonic()
    sdnn_drive(monkeypatch, film, "--realtime")
    assert time.monotonic() - start > 1
    assert "late, after the next frame: " in capsys.readouterr().out
    monkeypatch.setattr(command, "resize", lambda image: time.sleep(0.11) or resize(image))
    sdnn_drive(monkeypatch, film, "--realtime")
    assert "late, after the next frame: 11 of 11 frames" in capsys.readouterr().out


def test_ctrl_c_ends_the_drive_and_everything_is_whole(desk):
    write_film(desk / "road.mp4", np.tile(NOISE, (10, 1, 1, 1)))
    command_line = [sys.executable, "-m", "pilotnet_sdnn.commands.drive", "road.mp4", "--realtime", "--follow"]
    process = subprocess.Popen([*command_line, "--video", "seen.mp4"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(5):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    count = 5 + len(printed.splitlines())
    assert len(rows()) == count and len(iio.imread("seen.mp4", plugin="pyav")) == count


def cut(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


@pytest.mark.parametrize("kind", ["faststart.mp4", "road.mkv"])
def test_a_video_that_is_cut_off(desk, monkeypatch, kind):
    film = write_film(desk / kind, **({"movflags": "faststart"} if kind.endswith("mp4") else {}))
    whole = angles(sdnn_drive(monkeypatch, film))
    with pytest.raises(SystemExit, match=rf"^error: .*{kind}: .*cut off.*copy it again$"):
        sdnn_drive(monkeypatch, cut(film, 0.6), "--video", "seen.mp4")
    written = angles(rows())
    assert 0 < len(written) < 30 and written == whole[: len(written)]
    assert len(iio.imread("seen.mp4", plugin="pyav")) == len(written)


def test_an_image_that_is_damaged(desk, monkeypatch):
    (desk / "frames").mkdir()
    for number in range(5):
        data = encoded(Image.fromarray(NOISE[number]), "PNG")
        (desk / f"frames/{number}.png").write_bytes(data if number != 3 else data[:100])
    with pytest.raises(SystemExit, match=r"^error: .*frames: 3.png: not a readable image"):
        sdnn_drive(monkeypatch, desk / "frames")
    assert angles(rows()) == expected([Image.fromarray(frame) for frame in NOISE[:3]])


def test_a_camera_that_is_unplugged(desk, monkeypatch, capsys):
    """ffmpeg's test pictures in its place: they end after a second, as no camera does."""
    real_open = av.open
    monkeypatch.setattr(av, "open", lambda source, format: real_open("testsrc=duration=1:rate=10", format="lavfi"))
    monkeypatch.setattr(footage, "_images", None)
    with pytest.raises(SystemExit, match=r"^error: /dev/null: the camera sends no more frames; was it unplugged\?$"):
        sdnn_drive(monkeypatch, "/dev/null")
    assert len(rows()) == 10
    assert "late, after the next frame: " in capsys.readouterr().out


@pytest.mark.skipif(not Path("/dev/video0").exists(), reason="there is no camera /dev/video0")
def test_camera(desk):
    command_line = [sys.executable, "-m", "pilotnet_sdnn.commands.drive", "/dev/video0", "--follow"]
    process = subprocess.Popen(command_line, stdout=subprocess.PIPE)
    lines = [json.loads(process.stdout.readline()) for _ in range(5)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert [line["frame"] for line in lines] == [0, 1, 2, 3, 4] and process.returncode == 0


def two_folders(desk: Path) -> None:
    for folder in ("left", "right"):
        (desk / "both" / folder).mkdir(parents=True)
        (desk / "both" / folder / "0.png").write_bytes(encoded(Image.new("RGB", (9, 9)), "PNG"))


def sound(desk: Path) -> None:
    with wave.open(str(desk / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 8000, "NONE", ""))
        file.writeframes(bytes(16000))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "absent.mp4",
            "absent.mp4: No such file or directory; expected a video, a folder or zip of frames",
        ),
        ("/dev/video99", r"/dev/video99: there is no such camera, found .*; plug it in"),
        ("params.yaml", r"params.yaml: not a readable video \(.*\); the file may be cut off, or of another kind"),
        ("empty.mp4", "empty.mp4: not a readable video"),
        ("cut.mp4", "cut.mp4: not a readable video"),
        ("cut.zip", "cut.zip: .*zip"),
        ("models", "models: no images in it"),
        ("both", "both: images in 2 folders .*'left', 'right'.*; name one of the folders"),
        ("sound.wav", "sound.wav: no pictures in it, only sound"),
    ],
)
def test_sources_that_cannot_be_read(desk, monkeypatch, source, message):
    (desk / "empty.mp4").touch()
    (desk / "cut.zip").write_bytes(b"PK\3\4")
    cut(write_film(desk / "cut.mp4"), 0.6)
    two_folders(desk)
    sound(desk)
    (desk / "angles.csv").write_text("of an earlier drive")
    with pytest.raises(SystemExit, match=f"^error: {message}") as error:
        sdnn_drive(monkeypatch, source)
    assert len(str(error.value).splitlines()) == 1
    assert (desk / "angles.csv").read_text() == "of an earlier drive"


def test_a_network_of_another_shape(desk, monkeypatch):
    networks.write(Path("models/network.net"), networks.PILOTNET._replace(image=(1, 33, 100), dense=[20, 2]))
    with pytest.raises(SystemExit, match=r"images of 33x100x3 to one angle; found 7 layers .*33x100x1 to 2 numbers"):
        sdnn_drive(monkeypatch, write_film(desk / "road.mp4"))


def test_video_files_that_cannot_be_written(desk, monkeypatch):
    with pytest.raises(SystemExit, match=r"seen\.avi: expected a file name that ends with \.mp4 or \.gif"):
        sdnn_drive(monkeypatch, write_film(desk / "road.mp4"), "--video", "seen.avi")


def test_a_network_and_a_table_elsewhere(desk, monkeypatch):
    Path("models/network.net").rename("elsewhere.net")
    film = write_film(desk / "road.mp4")
    sdnn_drive(monkeypatch, film, "--network", "elsewhere.net", "--csv", "new/table.csv")
    assert angles(rows("new/table.csv")) == expected(pictures_of(film), Path("elsewhere.net"))
