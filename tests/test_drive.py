"""A drive: what its labels and frames may be, and what comes out of them."""

import io
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from pilotnet_sdnn.drive import (
    PILOTNET_LABELS_SHA256,
    open_drive,
    origin,
    pack_drive,
    parse_labels,
    radians,
    read_labels,
    resized_frames,
)
from pilotnet_sdnn.errors import UserError


def jpeg(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "JPEG")
    return data.getvalue()


def drive_with(path, labels: str, **frames: bytes):
    with zipfile.ZipFile(path, "w") as drive:
        drive.writestr("driving_dataset/data.txt", labels)
        for name, data in frames.items():
            drive.writestr(f"driving_dataset/{name}.jpg", data)
    return path


def one_line(call, *words):
    with pytest.raises(UserError) as error:
        call()
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_labels_are_degrees_and_come_out_in_radians():
    labels = parse_labels("0.jpg 180\n\n1.jpg -90.5\r\n", "data.txt")
    assert [(label.frame, label.degrees, label.line) for label in labels] == [("0.jpg", 180, 1), ("1.jpg", -90.5, 3)]
    np.testing.assert_array_equal(radians(labels), np.array([np.pi, -90.5 * np.pi / 180], np.float32))


@pytest.mark.parametrize("angle", ["left", "nan", "inf", "1,5"])
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
        one_line(lambda: list(resized_frames(drive, read_labels(drive))), "driving_dataset/0.jpg", "line 1")


def test_truncated_frame(tmp_path):
    whole_frame = jpeg(Image.effect_noise((455, 256), 50).convert("RGB"))
    path = drive_with(tmp_path / "drive.zip", "0.jpg 1\n", **{"0": whole_frame[: len(whole_frame) // 2]})
    with open_drive(path) as drive:
        one_line(lambda: list(resized_frames(drive, read_labels(drive))), "driving_dataset/0.jpg")


def test_file_that_is_no_zip(tmp_path):
    path = tmp_path / "drive.zip"
    path.write_text("hello")
    one_line(lambda: open_drive(path), str(path), "not a readable zip")


def test_frames_are_what_the_tutorials_transform_sees(tiny_drive):
    """Bit-equal to torchvision's Resize([33, 100]) on the PIL image."""
    transform = transforms.Compose([transforms.Resize([33, 100]), transforms.PILToTensor()])
    with open_drive(tiny_drive) as drive:
        labels = read_labels(drive)[:20]
        for label, frame in zip(labels, resized_frames(drive, labels), strict=True):
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
        assert origin(drive).startswith("drive with labels sha256:")


def test_real_labels_are_the_published_ones(real_labels, tmp_path):
    text = real_labels.read_bytes()
    with open_drive(drive_with(tmp_path / "real.zip", text)) as drive:
        assert origin(drive) == "Sully Chen's drive of 2017"
    labels = parse_labels(text.decode(), "data.txt")
    assert len(labels) == 45406
    assert len(PILOTNET_LABELS_SHA256) == 64
