"""A drive: what its labels and frames may be, and what comes out of them."""

import hashlib
import io
import warnings
import zipfile

import numpy as np
import pytest
import torch
from drives import encoded, one_line, write_zip
from PIL import ExifTags, Image
from torchvision import transforms

from pilotnet_sdnn.dataset.resizing import resized_frames
from pilotnet_sdnn.drive import labels as drive_module
from pilotnet_sdnn.drive.drive_zip import (
    PILOTNET_LABELS_SHA256,
    odd_shapes,
    open_drive,
    origin,
    pack_drive,
    read_labels,
)
from pilotnet_sdnn.drive.images import decode_frame
from pilotnet_sdnn.drive.labels import BadLabels, Label, format_label, parse_labels, radians, segments

SQUARE = Image.new("RGB", (64, 64), (10, 20, 30))


def in_drive(*names: str) -> dict[str, bytes]:
    return {f"driving_dataset/{name}": b"" for name in names}


def drive_with(path, labels: str, **frames: bytes):
    with zipfile.ZipFile(path, "w") as drive:
        drive.writestr("driving_dataset/data.txt", labels)
        for name, data in frames.items():
            drive.writestr(f"driving_dataset/{name}.jpg", data)
    return path


def test_labels_are_degrees_and_come_out_in_radians():
    labels = parse_labels("0.jpg 180\n\n1.jpg -90.5\r\n", "data.txt")
    assert [(label.frame, label.degrees, label.line) for label in labels] == [("0.jpg", 180, 1), ("1.jpg", -90.5, 3)]
    np.testing.assert_array_equal(radians(labels), np.array([np.pi, -90.5 * np.pi / 180], np.float32))


@pytest.mark.parametrize("angle", ["left", "nan", "inf", "1,5,3"])
def test_label_that_is_no_number_is_named_by_line(angle):
    one_line(lambda: parse_labels(f"0.jpg 1\n1.jpg {angle}\n", "x.zip: data.txt"), "x.zip: data.txt line 2", angle)


@pytest.mark.parametrize("line", ["1.jpg", "1.jpg 3 4"])
def test_label_line_of_another_form_is_named(line):
    one_line(lambda: parse_labels(f"0.jpg 1\n{line}\n", "data.txt"), "line 2", "expected 'N.jpg degrees'", line)


def test_drive_without_data_txt(tmp_path):
    path = tmp_path / "drive.zip"
    with zipfile.ZipFile(path, "w") as drive:
        drive.writestr("driving_dataset/0.jpg", b"")
    with open_drive(path) as drive:
        one_line(lambda: read_labels(drive), str(path), "no driving_dataset/data.txt")


def test_label_without_its_frame(tmp_path):
    path = drive_with(tmp_path / "drive.zip", "0.jpg 1\n7.jpg 2\n", **{"0": b""})
    with open_drive(path) as drive:
        one_line(lambda: read_labels(drive), "line 2", "driving_dataset/7.jpg")


def test_undecodable_frame(tmp_path):
    path = drive_with(tmp_path / "drive.zip", "0.jpg 1\n", **{"0": b"not a picture"})
    with open_drive(path) as drive:
        one_line(
            lambda: list(resized_frames(drive, read_labels(drive), BadLabels("data.txt"))),
            "driving_dataset/0.jpg",
            "line 1",
        )


def test_truncated_frame(tmp_path):
    whole_frame = encoded(Image.effect_noise((455, 256), 50).convert("RGB"))
    path = drive_with(tmp_path / "drive.zip", "0.jpg 1\n", **{"0": whole_frame[: len(whole_frame) // 2]})
    with open_drive(path) as drive:
        one_line(
            lambda: list(resized_frames(drive, read_labels(drive), BadLabels("data.txt"))), "driving_dataset/0.jpg"
        )


def test_file_that_is_no_zip(tmp_path):
    path = tmp_path / "drive.zip"
    path.write_text("hello")
    one_line(lambda: open_drive(path), str(path), "not a readable zip")


def test_frames_are_what_the_tutorials_transform_sees(tiny_drive):
    """Bit-equal to torchvision's Resize([33, 100]) on the PIL image."""
    transform = transforms.Compose([transforms.Resize([33, 100]), transforms.PILToTensor()])
    with open_drive(tiny_drive) as drive:
        labels = read_labels(drive)[:20]
        frames = np.concatenate([block for _, block in resized_frames(drive, labels, BadLabels("data.txt"))])
        for label, frame in zip(labels, frames, strict=True):
            expected = transform(Image.open(io.BytesIO(drive.read(f"driving_dataset/{label.frame}"))))
            assert torch.equal(torch.tensor(frame).permute(2, 0, 1), expected)


def test_same_frames_give_the_same_bytes(tmp_path):
    frames = [("0.jpg", b"first", 1.5), ("1.jpg", b"second", -2.0)]
    for name in ("a.zip", "b.zip"):
        pack_drive(tmp_path / name, frames, "test")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_drive_says_what_it_is(tiny_drive, tmp_path):
    with open_drive(tiny_drive) as drive:
        assert origin(drive) == "synthetic road, seed 1, 160 frames"
    with open_drive(drive_with(tmp_path / "own.zip", "0.jpg 1\n")) as drive:
        assert origin(drive) == "labels " + hashlib.sha256(b"0.jpg 1\n").hexdigest()[:12]


def test_real_labels_are_the_published_ones(real_labels, tmp_path):
    text = real_labels.read_bytes()
    frames = {str(number): b"" for number in range(552)}
    with open_drive(drive_with(tmp_path / "part.zip", text, **frames)) as drive:
        assert origin(drive) == "552 of 45,406 frames of Sully Chen's drive of 2017"
    with open_drive(drive_with(tmp_path / "real.zip", text, **{str(n): b"" for n in range(45_406)})) as drive:
        assert origin(drive) == "Sully Chen's drive of 2017"
    labels = parse_labels(text.decode(), "data.txt")
    assert len(labels) == 45406
    assert len(PILOTNET_LABELS_SHA256) == 64


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf0.jpg 1\r\n# of my car\r\n\r\n1.jpg\t2  \r\n",
        "0.jpg 1\n1.jpg 2\n".encode("utf-16"),
        b"0.jpg 1\r1.jpg 2",
    ],
)
def test_labels_from_other_editors(tmp_path, data):
    path = write_zip(tmp_path / "a.zip", {"driving_dataset/data.txt": data, **in_drive("0.jpg", "1.jpg")})
    with open_drive(path) as drive:
        assert [(label.frame, label.degrees) for label in read_labels(drive)] == [("0.jpg", 1), ("1.jpg", 2)]


@pytest.mark.parametrize("data", [bytes(range(256)) * 50, "0.jpg 1\n".encode("utf-16-le"), encoded(SQUARE)])
def test_labels_that_are_no_text(tmp_path, data):
    path = write_zip(tmp_path / "a.zip", {"driving_dataset/data.txt": data})
    with open_drive(path) as drive:
        one_line(lambda: read_labels(drive), "data.txt: not a text file")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("1.jpg 1_0", "expected an angle in degrees, found '1_0'"),
        ("1.jpg \u0661", "expected an angle in degrees"),
        ("1.jpg 1081", "'1081' is not a steering angle"),
        ("1.jpg -1e300", "not a steering angle"),
        ("1.jpg -inf", "expected an angle in degrees"),
        ("0.jpg 2", "'0.jpg' already has a label, on line 1"),
        ("1.jpg 2,yesterday", "expected a date and time like 2018-07-01 17:09:44:912"),
        ("1.jpg 2,2018-13-01 17:09:44:912", "expected a date and time"),
        ("1.jpg 2 17:09", "expected 'N.jpg degrees'"),
        ("x" * 1_000_000, "expected 'N.jpg degrees', found 'xxx"),
        ("2.jpg 1", "no 'driving_dataset/2.jpg' in the zip"),
        ("/etc/passwd 1", "no 'driving_dataset//etc/passwd' in the zip"),
    ],
)
def test_line_that_cannot_be_used_is_named_or_left_out(tmp_path, line, problem):
    text = f"0.jpg 1\n{line}\n3.jpg 4\n"
    path = write_zip(tmp_path / "a.zip", {"driving_dataset/data.txt": text, **in_drive("0.jpg", "1.jpg", "3.jpg")})
    with open_drive(path) as drive:
        one_line(lambda: read_labels(drive), "data.txt line 2: ", problem, "on_bad_frame: skip")
        bad = BadLabels("data.txt", "skip")
        assert [label.degrees for label in read_labels(drive, bad)] == [1, 4]
    assert bad.count == 1


def test_no_label_left(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"driving_dataset/data.txt": "0.jpg 1\n1.jpg nan\n"})
    with open_drive(path) as drive:
        one_line(
            lambda: read_labels(drive, BadLabels("data.txt", "skip")), "no line is a valid label", "2 labels left out"
        )


def test_labels_without_end(monkeypatch):
    monkeypatch.setattr(drive_module, "MAX_LABELS", 1000)
    one_line(lambda: parse_labels("0.jpg 1\n" * 1001, "data.txt"), "data.txt: more than 1,000 lines")


def test_stretches_of_road():
    """A new one where the drive, the number or the time jumps, or goes back."""

    def stretches(*frames, gap_frames=1, gap_seconds=1):
        labels = [Label(name, 0, line, *time) for line, (name, *time) in enumerate(frames, 1)]
        return segments(labels, gap_frames, gap_seconds).tolist()

    assert stretches(("0.jpg",), ("1.jpg",), ("2.jpg",)) == [0, 0, 0]
    assert stretches(("1/0.jpg",), ("1/1.jpg",), ("2/2.jpg",), ("2/3.jpg",)) == [0, 0, 1, 1]
    assert stretches(("0.jpg",), ("3.jpg",), ("4.jpg",)) == [0, 1, 1]
    assert stretches(("0.jpg",), ("3.jpg",), ("7.jpg",), gap_frames=3) == [0, 0, 1]
    assert stretches(("5.jpg",), ("4.jpg",)) == [0, 1]
    assert stretches(("0.jpg", 10.0), ("1.jpg", 11.0), ("2.jpg", 12.5), ("3.jpg", 12.4)) == [0, 0, 1, 2]
    assert stretches(("0.jpg", 10.0), ("1.jpg",), ("2.jpg", 99.0)) == [0, 0, 0]
    assert stretches(("a.jpg",), ("b.jpg",)) == [0, 0]  # no numbers: the lines count
    assert stretches(("1479425440130861401.jpg",), ("1479425440180861401.jpg",)) == [0, 0]  # a time, not a number
    assert stretches(("7.jpg",)) == [0]
    assert segments([Label("0.jpg", 0, 1)], 1, 1).dtype == np.int32


def test_real_drives_are_one_stretch_each(real_drive, real_labels):
    with open_drive(real_drive) as drive:
        labels = read_labels(drive)
        assert len(labels) == 5614
        assert segments(labels, 1, 1)[-1] == 0
        assert odd_shapes(drive, labels) == []
    assert segments(parse_labels(real_labels.read_text(), "data.txt"), 1, 1)[-1] == 0


def test_labels_are_written_as_they_are_read():
    for label in (Label("2/0.jpg", -1.25, 1), Label("1.jpg", 2, 1, 1530464984.912), Label("1.jpg", 2, 1, 0.05)):
        assert parse_labels(format_label(label), "data.txt") == [label._replace(place=1)]


RED = Image.new("RGB", (455, 256), (200, 30, 30))


@pytest.mark.parametrize(
    ("image", "kind", "options", "expected"),
    [
        (RED, "PNG", {}, (200, 30, 30)),
        (RED, "BMP", {}, (200, 30, 30)),
        (RED.convert("L"), "PNG", {}, (81, 81, 81)),  # ITU-R 601: 0.299 * 200 + 0.587 * 30 + 0.114 * 30
        (RED.convert("L"), "JPEG", {}, (81, 81, 81)),
        (RED.convert("P"), "PNG", {}, (200, 30, 30)),  # dithered
        (RED.convert("CMYK"), "JPEG", {"quality": 100}, (200, 30, 30)),
        (Image.new("RGBA", (455, 256), (200, 30, 30, 0)), "PNG", {}, (0, 0, 0)),
        (Image.new("RGBA", (455, 256), (200, 100, 50, 128)), "PNG", {}, (100, 50, 25)),
        (Image.fromarray(np.full((256, 455), 0x8040, np.uint16)), "PNG", {}, (128, 128, 128)),
        (Image.new("1", (455, 256), 1), "PNG", {}, (255, 255, 255)),
    ],
)
def test_images_of_other_kinds_become_rgb(image, kind, options, expected):
    decoded = decode_frame(encoded(image, kind, **options), "0.jpg")
    assert (decoded.mode, decoded.size) == ("RGB", (455, 256))
    np.testing.assert_allclose(np.asarray(decoded).reshape(-1, 3).mean(0), expected, atol=1.5)


def test_rotation_that_exif_tells_is_applied():
    image = Image.new("RGB", (40, 20))
    image.paste((255, 255, 255), (0, 0, 20, 20))  # white on the left
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned clockwise: white on top
    upright = np.asarray(decode_frame(encoded(image, exif=exif, quality=95), "0.jpg"))
    assert upright.shape == (40, 20, 3)
    assert upright[:18].mean() > 250 and upright[22:].mean() < 5


@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_data_do_no_harm():
    data = encoded(RED, exif=b"Exif\0\0MM\0*\0\0\0\x08").replace(b"MM\0*", b"MM)*")
    assert decode_frame(data, "0.jpg").size == RED.size


def test_png_whose_header_is_cut_off():
    """Pillow calls that a ValueError, where other damage is an OSError or a SyntaxError."""
    data = encoded(RED, "PNG")
    one_line(lambda: decode_frame(data[:8] + b"\0\0\0\5" + data[12:], "0.png"), "0.png: not a readable image")


def test_size_and_shape_of_a_frame_stay_as_they_are():
    assert decode_frame(encoded(SQUARE), "0.jpg").size == (64, 64)
    assert decode_frame(encoded(Image.new("L", (1, 1))), "0.jpg").size == (1, 1)


def test_enormous_image_is_refused_before_it_is_decoded():
    data = encoded(Image.new("1", (10_000, 10_000)), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_line(lambda: decode_frame(data, "a.zip: 7.png (line 8)"), "a.zip: 7.png (line 8)", "10000x10000 pixels")


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "EPS"])
def test_image_of_a_kind_no_camera_writes(kind):
    one_line(lambda: decode_frame(encoded(RED, kind), "0.jpg"), "0.jpg: not a readable image")


def test_frames_of_another_shape_are_told_once_for_each_drive(tmp_path):
    frames = {f"driving_dataset/{k}/{n}.jpg": encoded(SQUARE) for k in (1, 2) for n in range(3)}
    frames["driving_dataset/3/0.jpg"] = encoded(RED)
    text = "".join(f"{name.removeprefix('driving_dataset/')} 1\n" for name in frames)
    with open_drive(write_zip(tmp_path / "a.zip", {"driving_dataset/data.txt": text, **frames})) as drive:
        assert [line.partition(",")[0] for line in odd_shapes(drive, read_labels(drive))] == [
            "1/0.jpg is 64x64",
            "2/0.jpg is 64x64",
        ]
