"""The layouts that drives come in: each is found, named, and ends as the same zip with the same degrees."""

import zipfile

import numpy as np
import pytest
from drives import JPEG, files_in, one_line, write_folder, write_zip

from pilotnet_sdnn.drive import sources
from pilotnet_sdnn.drive.drive_zip import open_drive, origin, read_labels
from pilotnet_sdnn.drive.labels import BadLabels, segments
from pilotnet_sdnn.drive.reading import Reading

FRAMES = {f"{i}.jpg": JPEG + bytes([i]) for i in range(4)}  # bytes after its end do not harm a JPEG
DEGREES = [0, -12.5, 501.78, 3]
SULLY_2017 = "0.jpg 0\n1.jpg -12.5\n2.jpg 501.78\n3.jpg 3\n"
SULLY_2018 = "".join(
    f"{i}.jpg {degrees},2018-07-01 17:09:44:{time}\n"
    for i, (degrees, time) in enumerate(zip(DEGREES, (912, 945, 978, 999), strict=True))
)
COLUMNS = {"frame": "image", "angle": "angle", "time": None}


@pytest.fixture
def out(tmp_path):
    return tmp_path / "data" / "driving_dataset.zip"


def fetched(out, source, on_bad_frame="error", csv_unit="degrees", **reading):
    """The labels and the JPEGs that a source leaves for the later stages."""
    reading = Reading(on_bad_frame=on_bad_frame, csv_unit=csv_unit, **reading)
    sources.fetch(source, out, frames=10, seed=1, reading=reading)
    with open_drive(out) as drive:
        labels = read_labels(drive, BadLabels("data.txt", on_bad_frame))
        return labels, [drive.read(f"driving_dataset/{label.frame}") for label in labels]


def degrees(labels):
    return [label.degrees for label in labels]


@pytest.mark.parametrize("prefix", ["", "driving_dataset/", "my drive/", "outer/driving_dataset/"])
@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_sully_chen_2017_with_or_without_folders_around_it(tmp_path, out, capsys, write, prefix):
    files = {"data.txt": SULLY_2017, **FRAMES}
    source = write(tmp_path / "source", {prefix + name: content for name, content in files.items()})
    labels, images = fetched(out, str(source))
    assert degrees(labels) == DEGREES
    assert [label.frame for label in labels] == list(FRAMES)
    assert images == list(FRAMES.values())
    assert "Sully Chen 2017 layout, 4 labelled frames" in capsys.readouterr().out


@pytest.mark.parametrize("prefix", ["", "data/"])
@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_sully_chen_2018_keeps_the_times(tmp_path, out, capsys, write, prefix):
    frames = {f"07012018/{prefix}{name}": jpeg for name, jpeg in FRAMES.items()}
    source = write(tmp_path / "source", {"07012018/data.txt": SULLY_2018, **frames})
    labels, images = fetched(out, str(source))
    assert degrees(labels) == DEGREES
    assert images == list(FRAMES.values())
    assert labels[0].time == pytest.approx(np.datetime64("2018-07-01T17:09:44.912").astype(float) / 1000)
    np.testing.assert_allclose(np.diff([label.time for label in labels]), [0.033, 0.033, 0.021], atol=1e-6)
    assert "Sully Chen 2018 layout, 4 labelled frames" in capsys.readouterr().out
    assert zipfile.ZipFile(out).read("driving_dataset/data.txt").decode().startswith("0.jpg 0")


def simulator(folder, header="", stamps=("30_48_287", "30_48_404", "30_52_404")):
    """A `driving_log.csv` as the simulator writes it, with the frames' paths below `folder`."""
    slash = "\\" if "\\" in folder else "/"
    rows = [
        ",".join(f" {folder}IMG{slash}{camera}_2016_12_01_13_{stamp}.jpg" for camera in ("center", "left", "right"))
        + f",{steering},0.5,0,22.1\n"
        for stamp, steering in zip(stamps, (0, -0.1, 1), strict=True)
    ]
    frames = {
        f"IMG/{camera}_2016_12_01_13_{stamp}.jpg": JPEG + camera.encode()
        for stamp in stamps
        for camera in ("center", "left", "right")
    }
    return {"driving_log.csv": header + "".join(rows), **frames}


@pytest.mark.parametrize("header", ["", "center,left,right,steering,throttle,brake,speed\n"])
@pytest.mark.parametrize("folder", ["", "/home/me/recorded/", "C:\\Users\\me\\recorded\\"])
@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_udacity_simulator_wherever_it_was_recorded(tmp_path, out, capsys, write, folder, header):
    source = write(tmp_path / "source", simulator(folder, header))
    labels, images = fetched(out, str(source), simulator_degrees=20)
    assert degrees(labels) == [0, -2, 20]
    assert images == [JPEG + b"center"] * 3
    np.testing.assert_allclose(np.diff([label.time for label in labels]), [0.117, 4], atol=1e-6)
    assert "Udacity simulator layout, 3 labelled frames" in capsys.readouterr().out
    with open_drive(out) as drive:
        assert origin(drive) == "Udacity simulator drive, 3 frames"
    np.testing.assert_array_equal(segments(labels, 1, 1), [0, 0, 1])  # four seconds are a gap


def test_simulator_says_which_line_is_wrong(tmp_path, out):
    files = simulator("/home/me/")
    for wrong, problem in (("1.5", "expected steering from -1 to 1"), ("left", "expected an angle")):
        files["driving_log.csv"] = simulator("/home/me/")["driving_log.csv"].replace(",-0.1,", f",{wrong},")
        write_folder(tmp_path / "source", files)
        one_line(lambda: fetched(out, str(tmp_path / "source")), "driving_log.csv line 2", problem, wrong)


@pytest.mark.parametrize("sign", [1, -1])
def test_csv_with_columns_by_name(tmp_path, out, sign):
    table = "time;angle;note;image\n0.0;0.5;a;cam/0.jpg\n0.05;-1;b;cam/1.jpg\n"
    source = write_zip(tmp_path / "a.zip", {"log.csv": table, "cam/0.jpg": b"first", "cam/1.jpg": b"second"})
    labels, images = fetched(
        out, str(source), csv_columns={**COLUMNS, "time": "time"}, csv_unit="radians", label_sign=sign
    )
    np.testing.assert_allclose(degrees(labels), np.degrees([sign * 0.5, sign * -1.0]), atol=1e-6)
    assert images == [b"first", b"second"]
    assert [label.time for label in labels] == [0, 0.05]


def test_csv_without_a_header_with_columns_by_number(tmp_path, out):
    """As in https://github.com/Eric-Gonzalez/driving-data."""
    table = "-4.876853, 0.2440463, 0, 29.73833, frames/0.png\n-6.258122, 0.2530782, 0, 29.72401, frames/1.png\n"
    source = write_folder(tmp_path / "a", {"log.csv": table, "frames/0.png": b"first", "frames/1.png": b"second"})
    labels, images = fetched(out, str(source), csv_columns={"frame": 4, "angle": 0, "time": None})
    assert degrees(labels) == [-4.876853, -6.258122]
    assert images == [b"first", b"second"]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("1530464984.5", "1530464985.25"),
        ("1530464984500", "1530464985250"),
        ("1530464984500000000", "1530464985250000000"),
        ("2018-07-01T17:09:44.5", "2018-07-01T17:09:45.25"),
        ("2018-07-01 17:09:44:500", "2018-07-01 17:09:45:250"),
    ],
)
def test_csv_with_times_as_they_come(tmp_path, out, start, end):
    source = write_folder(tmp_path / "a", {"a.csv": f"image,angle,t\n0.jpg,1,{start}\n1.jpg,1,{end}\n", **FRAMES})
    labels, _ = fetched(out, str(source), csv_columns={**COLUMNS, "time": "t"})
    np.testing.assert_allclose([label.time for label in labels], [1530464984.5, 1530464985.25])


def test_of_several_csv_files_the_one_with_the_columns_or_the_one_that_is_named(tmp_path, out):
    files = {"labels.csv": "image,angle\n0.jpg,1\n", "gps.csv": "lat,lon\n1,2\n", "0.jpg": JPEG}
    folder = write_folder(tmp_path / "a", files)
    assert degrees(fetched(out, str(folder), csv_columns=COLUMNS)[0]) == [1]
    write_folder(folder, {"other.csv": "image,angle\n0.jpg,2\n"})
    one_line(lambda: fetched(out, str(folder), csv_columns=COLUMNS), "2 of its csv files", "other.csv")
    assert degrees(fetched(out, str(folder / "other.csv"), csv_columns=COLUMNS)[0]) == [2]


def test_csv_whose_columns_are_not_said_or_not_there(tmp_path, out):
    folder = write_folder(tmp_path / "a", {"labels.csv": "picture,steer\n0.jpg,1\n", "0.jpg": JPEG})
    one_line(lambda: fetched(out, str(folder)), "labels.csv", "csv_columns.frame=...", "picture, steer")
    one_line(
        lambda: fetched(out, str(folder), csv_columns=COLUMNS), "no column 'image' for the frame", "picture, steer"
    )
    columns = {"frame": 0, "angle": 7, "time": None}
    one_line(lambda: fetched(out, str(folder), csv_columns=columns), "no column 7 for the angle")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("1.jpg", "expected 2 columns as in the first line, found 1"),
        ("1.jpg,1,2", "found 3"),
        ("0.jpg,1", "'0.jpg' already has a label, on line 3"),
        ("7.jpg,1", "no frame '7.jpg'"),
        (",1", "no frame ''"),
        ("1.jpg,nan", "expected an angle"),
        ("1.jpg,1e9", "not a steering angle"),
        ("../1.jpg,1e9", "not a steering angle"),  # 1.jpg is found, and nothing above the folder
        ('"1.jpg,1', "expected 2 columns"),
        ("1.jpg," + "9" * 200_000, "expected 2 columns"),  # a field too long for the csv module
    ],
)
def test_row_that_cannot_be_used_is_named_or_left_out(tmp_path, out, row, problem):
    text = f"# a comment\nimage,angle\n0.jpg,1\n\n{row}\n2.jpg,3\n"
    folder = write_folder(tmp_path / "a", {"labels.csv": text, **FRAMES})
    one_line(lambda: fetched(out, str(folder), csv_columns=COLUMNS), "labels.csv line 5", problem)
    labels, _ = fetched(out, str(folder), "skip", csv_columns=COLUMNS)
    assert degrees(labels) == [1, 3]
    np.testing.assert_array_equal(segments(labels, 1, 1), [0, 1])  # what was left out is a gap


def test_frames_whose_names_would_end_a_name_in_data_txt(tmp_path, out):
    rows = "angle,image\n1,my frame.jpg\n2,my%20frame.jpg\n3,#3.jpg\n"
    files = {"my frame.jpg": b"a", "my%20frame.jpg": b"b", "#3.jpg": b"c"}
    folder = write_folder(tmp_path / "a", {"labels.csv": rows, **files})
    labels, images = fetched(out, str(folder), csv_columns=COLUMNS)
    assert degrees(labels) == [1, 2, 3]
    assert images == [b"a", b"b", b"c"]


def in_drive(content: bytes, count: int) -> dict[str, bytes]:
    return {f"driving_dataset/{i}.jpg": content + str(i).encode() for i in range(count)}


def test_the_same_drive_gives_the_same_bytes_wherever_it_is(tmp_path, out):
    for place in ("here", "there"):
        fetched(tmp_path / f"{place}.zip", str(write_folder(tmp_path / place / "b", simulator("/home/me/"))))
    assert (tmp_path / "here.zip").read_bytes() == (tmp_path / "there.zip").read_bytes()


def test_columns_of_one_name_are_refused(tmp_path, out):
    text = "image,angle,angle\n0.jpg,1,2\n"
    source = write_zip(tmp_path / "a.zip", {"labels.csv": text, **FRAMES})
    one_line(lambda: fetched(out, str(source), csv_columns=COLUMNS), "several columns are named 'angle'")
    assert degrees(fetched(out, str(source), csv_columns={"frame": 0, "angle": 2, "time": None})[0]) == [2]


def test_zip_that_mixes_slashes_is_packed_anew(tmp_path, out):
    frames = {f"driving_dataset\\{name}": content for name, content in FRAMES.items()}
    source = write_zip(tmp_path / "a.zip", {"driving_dataset/data.txt": SULLY_2017, **frames})
    labels, images = fetched(out, str(source))
    assert degrees(labels) == DEGREES and images == list(FRAMES.values())


def test_thousands_of_missing_frames_are_one_line(tmp_path, out):
    text = "".join(f"{i}.jpg {i % 30}\n" for i in range(5000))
    source = write_zip(tmp_path / "a.zip", {"driving_dataset/data.txt": text, **in_drive(JPEG, 3)})
    one_line(
        lambda: fetched(out, str(source)), "data.txt line 4", "no frame 'driving_dataset/3.jpg'", "4,996 more bad lines"
    )


def test_lines_without_a_frame_are_left_out_and_counted(tmp_path, out, capsys):
    text = "".join(f"{i}.jpg {i}\n" for i in range(6))
    source = write_zip(tmp_path / "a.zip", {"driving_dataset/data.txt": text, **in_drive(JPEG, 2)})
    labels, _ = fetched(out, str(source), "skip")
    assert degrees(labels) == [0, 1]
    assert files_in(out) == files_in(source)
    assert "4 labels left out (on_bad_frame: skip), first " in capsys.readouterr().out


def test_real_drives_go_through(tmp_path, out, capsys, real_drive, real_labels):
    """The frames of one, and the labels of the other with stubs for its frames."""
    sources.fetch(str(real_drive), out, 1, 1)
    assert files_in(out) == files_in(real_drive)
    sully = write_zip(
        tmp_path / "sully.zip", {"driving_dataset/data.txt": real_labels.read_bytes(), **in_drive(b"", 45406)}
    )
    sources.fetch(str(sully), out, 1, 1)
    assert files_in(out) == files_in(sully)
    printed = capsys.readouterr().out
    assert "Sully Chen 2017 layout, 5,614 labelled frames" in printed
    assert "Sully Chen 2017 layout, 45,406 labelled frames" in printed
