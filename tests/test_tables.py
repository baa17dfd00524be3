"""Tables as they are found in the wild, through stage download: each ends as the right labels, or as a clear line."""

import math

import numpy as np
import pytest
from drives import JPEG, stage_run, write_folder, write_zip

from pilotnet_sdnn.dataset.road import open_dataset
from pilotnet_sdnn.dataset.store import read_frames
from pilotnet_sdnn.drive.drive_zip import open_drive, origin, read_labels
from pilotnet_sdnn.drive.labels import BadLabels, segments
from pilotnet_sdnn.drive.times import interpolated, parse_times
from pilotnet_sdnn.drive_files import drive_files
from pilotnet_sdnn.paths import DRIVES
from pilotnet_sdnn.paths import FRAMES as FRAMES_FOLDER
from pilotnet_sdnn.stages import download, resize

COLUMNS = {"frame": "image", "angle": "angle"}
COUNT = 12
FRAMES = {f"{i}.jpg": JPEG + bytes([i]) for i in range(COUNT)}  # bytes after its end do not harm a JPEG
ANGLES = [-12.5, 0, 3.25, 40, -0.5, 7, 0, 0, 1.75, -20, 6, 2]


class Downloads:
    """Runs stage download on a folder `drive` and reads what it leaves."""

    def __init__(self, folder, monkeypatch, capsys) -> None:
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        self.log = ""

    def __call__(self, files: dict[str, str | bytes], source="drive", **params):
        """The labels that the later stages read. What was printed is `log`."""
        write_folder(self.folder / "drive", files)
        self.capsys.readouterr()
        try:
            stage_run(download.main, self.folder, self.monkeypatch, source=source, **params)
        finally:
            self.log = self.capsys.readouterr().out
        with open_drive(drive_files(self.folder / DRIVES, "download")[0]) as drive:
            self.origin = origin(drive)
            labels = read_labels(drive, BadLabels("data.txt"))
            self.images = [drive.read(f"driving_dataset/{label.frame}") for label in labels]
        return labels

    def refuses(self, files: dict[str, str | bytes], *words: str, **params) -> None:
        """The stage ends in one line that has the words."""
        with pytest.raises(SystemExit) as error:
            self(files, **params)
        message = str(error.value)
        assert len(message.splitlines()) == 1 and len(message) <= 300 and message.isprintable()
        for word in words:
            assert word in message


@pytest.fixture
def downloads(tmp_path, monkeypatch, capsys) -> Downloads:
    return Downloads(tmp_path, monkeypatch, capsys)


def degrees(labels) -> list[float]:
    return [label.degrees for label in labels]


def with_comma(number: float) -> str:
    return f"{number:g}".replace(".", ",")


def table(separator: str, *columns: list, head: str = "") -> str:
    """A csv of columns; numbers have decimal points."""
    texts = [[f"{value:g}" if isinstance(value, float | int) else value for value in column] for column in columns]
    return head + "".join(separator.join(row) + "\n" for row in zip(*texts, strict=True))


# Decimal commas


def test_decimal_commas_between_semicolons(downloads):
    text = table(";", list(FRAMES), [with_comma(a) for a in ANGLES], ["0,35"] * COUNT, head="image;angle;speed\n")
    assert degrees(downloads({"log.csv": text, **FRAMES}, csv_columns=COLUMNS)) == ANGLES
    assert "; decimal commas; angles in degrees" in downloads.log


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_separators_of_a_table_without_a_header_and_as_many_decimal_commas(downloads, separator):
    text = table(separator, list(FRAMES), [f"{angle:.1f}".replace(".", ",") for angle in ANGLES])
    labels = downloads({"log.csv": text, **FRAMES}, csv_columns={"frame": 0, "angle": 1})
    np.testing.assert_allclose(degrees(labels), ANGLES, atol=0.051)


def simulator(*rows: str, separator: str = ", ") -> dict[str, str | bytes]:
    """A simulator's log with these columns from the steering on."""
    names = [f"2016_12_01_13_30_48_{number:03}.jpg" for number in range(len(rows))]
    frames = [[f"IMG/{camera}_{name}" for camera in ("center", "left", "right")] for name in names]
    lines = [separator.join([*three, row]) for three, row in zip(frames, rows, strict=True)]
    return {"driving_log.csv": "\n".join(lines), **{name: JPEG for three in frames for name in three}}


@pytest.mark.parametrize("separator", [", ", ","])
def test_simulator_log_with_decimal_commas_that_are_followed_by_no_space(downloads, separator):
    rows = ["-0,373, 0,35, 0, 12,3", "0, 0, 0, 12", "1, 0,5, 0,1, 9,75", "0,25, 0, 0, 30,1"]
    labels = downloads(simulator(*rows, separator=separator))
    np.testing.assert_allclose(degrees(labels), [-9.325, 0, 25, 6.25])
    assert "; decimal commas" in downloads.log


def test_simulator_log_of_whole_numbers(downloads):
    labels = downloads(simulator("-0,0,0,1", "1,0,0,05", "-1,0,0,1", separator=","))
    assert degrees(labels) == [0, 25, -25]
    assert "decimal commas" not in downloads.log


def test_simulator_log_whose_decimal_commas_cannot_be_told_is_refused(downloads):
    rows = ["-0,373,0,35,0,12,3", "0,0,0,0", "0,25,0,1,0,30,1"]
    cause = ("expected 7 columns", "commas seem to be separators and decimal commas", "write decimal points")
    for on_bad_frame in ("error", "skip"):
        downloads.refuses(simulator(*rows, separator=","), *cause, on_bad_frame=on_bad_frame)


def test_csv_whose_header_shows_that_a_comma_is_decimal(downloads):
    text = table(",", list(FRAMES), [f"{angle:.2f}".replace(".", ",") for angle in ANGLES], head="image,angle\n")
    assert degrees(downloads({"log.csv": text, **FRAMES}, csv_columns=COLUMNS)) == ANGLES


@pytest.mark.parametrize("angles", [("-0,373", "0,25"), ("1,05", "7,5")])
def test_parts_of_a_decimal_in_columns_by_number_are_not_two_columns(downloads, angles):
    text = "".join(f"{frame},{angle},3,9\n" for frame, angle in zip(FRAMES, angles, strict=False))
    downloads.refuses({"log.csv": text, **FRAMES}, "decimal commas", angles[0], csv_columns={"frame": 0, "angle": 1})


def test_whole_numbers_between_commas_stay_columns(downloads):
    text = table(",", list(FRAMES), range(COUNT), [3] * COUNT, [17] * COUNT)
    labels = downloads({"log.csv": text, **FRAMES}, csv_columns={"frame": 0, "angle": 1}, csv_unit="degrees")
    assert degrees(labels) == list(range(COUNT))


@pytest.mark.parametrize("behind", ["", ",2018-07-01 17:09:44:{:03}"])
def test_decimal_commas_in_data_txt(downloads, behind):
    rows = [f"{n} {with_comma(a)}{behind.format(i)}" for i, (n, a) in enumerate(zip(FRAMES, ANGLES, strict=True))]
    labels = downloads({"data.txt": "\n".join(rows), **FRAMES})
    assert degrees(labels) == ANGLES
    assert (labels[1].time is None) == (behind == "")
    assert "decimal commas" in downloads.log


def test_fraction_of_eight_digits_in_data_txt_is_no_date(downloads):
    labels = downloads({"data.txt": "0.jpg 1,20180701\n1.jpg -0,20180702\n", **FRAMES})
    np.testing.assert_allclose(degrees(labels), [1.201807, -0.201807])


def test_time_behind_an_angle_in_data_txt_is_no_fraction(downloads):
    text = "0.jpg 1,1530464984\n1.jpg 2,1530464985\n"
    downloads.refuses({"data.txt": text, **FRAMES}, "data.txt line 1", "expected an angle in degrees")


def test_points_and_commas_in_one_table_are_refused(downloads):
    words = ("some angles have decimal commas ('2,5'), others decimal points ('1.5')",)
    downloads.refuses({"data.txt": "0.jpg 1.5\n1.jpg 2,5\n", **FRAMES}, *words)
    text = "image;angle\n0.jpg;1.5\n1.jpg;2,5\n"
    (downloads.folder / "drive/data.txt").unlink()
    downloads.refuses({"log.csv": text, **FRAMES}, *words, csv_columns=COLUMNS)


@pytest.mark.parametrize("value", [0, 3.5])
def test_labels_that_are_all_equal_are_told(downloads, value):
    downloads({"data.txt": table(" ", list(FRAMES), [value] * COUNT), **FRAMES})
    assert f"WARNING: drive: all 12 labels are {value:g} degrees: nothing can be learned" in downloads.log
    downloads({"data.txt": table(" ", list(FRAMES), ANGLES), **FRAMES})
    assert "WARNING" not in downloads.log


# Columns and rows


def test_spaces_behind_commas_and_quotes(downloads):
    text = 'image,  angle, note\n"0.jpg",  -12.5, "a, b"\n 1.jpg , 30, "c"\n'
    assert degrees(downloads({"log.csv": text, **FRAMES}, csv_columns=COLUMNS)) == [-12.5, 30]


def test_empty_column_at_the_end_of_rows(downloads):
    text = "image,angle\n0.jpg,-12.5,\n1.jpg,30,\n"
    assert degrees(downloads({"log.csv": text, **FRAMES}, csv_columns=COLUMNS)) == [-12.5, 30]


def test_first_row_without_an_angle_is_no_header(downloads):
    text = table(",", list(FRAMES), ["", *ANGLES[1:]])
    files, columns = {"log.csv": text, **FRAMES}, {"frame": 0, "angle": 1}
    downloads.refuses(files, "log.csv line 1: expected an angle in degrees, found ''", csv_columns=columns)
    labels = downloads(files, csv_columns=columns, on_bad_frame="skip")
    assert degrees(labels) == ANGLES[1:]
    with_header = {"log.csv": "picture,steering\n" + table(",", list(FRAMES), ANGLES)}
    assert degrees(downloads(with_header, csv_columns=columns)) == ANGLES


def test_columns_that_may_hold_the_angle_are_named(downloads):
    text = "picture,steering_command,steering_wheel,speed\n0.jpg,1,2,3\n"
    downloads.refuses(
        {"log.csv": text, **FRAMES},
        "has no known layout",
        "'steering_command' or 'steering_wheel'",
        "csv_columns.angle",
    )
    text = "image,angle,angle\n0.jpg,1,2\n"
    downloads.refuses(
        {"log.csv": text}, "several columns are named 'angle'", "its angle to 1 or 2", csv_columns=COLUMNS
    )


def test_windows_paths(downloads):
    text = table(",", [f"C:\\Users\\me\\my drive\\{frame}" for frame in FRAMES], ANGLES, head="image,angle\n")
    assert degrees(downloads({"log.csv": text, **FRAMES}, csv_columns=COLUMNS)) == ANGLES
    assert downloads.images == list(FRAMES.values())


def cameras(name: str = "{camera}/{number}.jpg") -> dict[str, str | bytes]:
    """A table in which three cameras alternate, as in Udacity's; the last byte of a frame tells its camera."""
    rows, frames = [], {}
    for number, angle in enumerate(ANGLES):
        for side, camera in enumerate(("left", "center", "right")):
            frame = name.format(camera=camera, number=number)
            rows.append(f"{number / 20},{camera}_camera,{frame},{angle - side + 1}\n")
            frames[frame] = JPEG + bytes([number, side])
    return {"log.csv": "time,frame_id,image,angle\n" + "".join(rows), **frames}


def test_one_camera_of_several_in_a_table(downloads):
    columns = {**COLUMNS, "camera": "frame_id"}
    labels = downloads(cameras(), csv_columns=columns, csv_camera="center_camera")
    assert degrees(labels) == ANGLES
    assert downloads.images == [JPEG + bytes([number, 1]) for number in range(COUNT)]
    assert "12 of 36 rows are of camera center_camera" in downloads.log
    values = "'left_camera', 'center_camera', 'right_camera'"
    downloads.refuses(cameras(), "set csv_camera to one of", values, csv_columns=columns, csv_camera="front")
    downloads.refuses(cameras(), "set csv_camera to one of", values, csv_columns=columns)


def test_camera_that_has_a_number(downloads):
    files = cameras()
    files["log.csv"] = files["log.csv"].replace("center_camera", "1").replace("left_camera", "0")
    labels = downloads(files, csv_columns={**COLUMNS, "camera": "frame_id"}, csv_camera=1)
    assert degrees(labels) == ANGLES


def test_table_whose_name_ends_in_txt(downloads):
    text = table("\t", list(FRAMES), ANGLES, head="image\tangle\n")
    assert degrees(downloads({"labels.txt": text, **FRAMES}, source="drive/labels.txt", csv_columns=COLUMNS)) == ANGLES


def test_cameras_that_alternate_are_not_taken_for_one(downloads):
    downloads.refuses(cameras(), "several cameras alternate ('left/0.jpg', 'center/0.jpg'", csv_columns=COLUMNS)


def test_camera_by_the_name_of_the_frame(downloads):
    files = cameras("{camera}_{number}.jpg")
    labels = downloads(files, csv_columns={**COLUMNS, "camera": "image"}, csv_camera="center_*")
    assert degrees(labels) == ANGLES
    assert downloads.images == [JPEG + bytes([number, 1]) for number in range(COUNT)]


# Frames


@pytest.mark.parametrize("ending", [".jpg", ".png", ".JPG"])
@pytest.mark.parametrize("name", ["{}", "frame_{}", "147942544013086{:04}"])
def test_names_of_frames_without_their_ending(downloads, name, ending):
    ids = [name.format(number) for number in range(COUNT)]
    frames = {f"{name}{ending}": image for name, image in zip(ids, FRAMES.values(), strict=True)}
    text = table(",", ids, ANGLES, head="image,angle\n")
    assert degrees(downloads({"log.csv": text, **frames}, csv_columns=COLUMNS)) == ANGLES
    assert downloads.images == list(FRAMES.values())


def test_numbers_of_frames_whose_files_have_leading_zeros(downloads):
    frames = {f"{number:06}.jpg": image for number, image in enumerate(FRAMES.values())}
    text = table(",", range(COUNT), ANGLES, head="image,angle\n")
    assert degrees(downloads({"log.csv": text, **frames}, csv_columns=COLUMNS)) == ANGLES


@pytest.mark.parametrize("ids", ["{}", "{}.jpg", "/home/me/{}.jpg"])
def test_frames_in_another_folder_than_the_csv(downloads, ids):
    frames = {f"pictures/front/{name}": image for name, image in FRAMES.items()}
    text = table(",", [ids.format(number) for number in range(COUNT)], ANGLES, head="image,angle\n")
    files = {"labels/log.csv": text, **frames}
    assert degrees(downloads(files, csv_columns=COLUMNS)) == ANGLES
    assert downloads.images == list(FRAMES.values())
    path = "drive/labels/log.csv"
    downloads.refuses(files, "log.csv line 2: no frame", source=path, csv_columns=COLUMNS)
    for folder in ("../pictures/front", str(downloads.folder / "drive/pictures/front")):
        assert degrees(downloads(files, source=path, csv_columns=COLUMNS, csv_frames=folder)) == ANGLES
        assert downloads.images == list(FRAMES.values())


def test_frames_of_one_name_in_several_folders(downloads):
    frames = {f"{side}/{name}": image + side.encode() for side in ("left", "right") for name, image in FRAMES.items()}
    files = {"log.csv": table(",", range(COUNT), ANGLES, head="image,angle\n"), **frames}
    downloads.refuses(files, "'0' may be 'left/0.jpg' or 'right/0.jpg'", "csv_frames", csv_columns=COLUMNS)
    assert degrees(downloads(files, csv_columns=COLUMNS, csv_frames="right")) == ANGLES
    assert downloads.images == [image + b"right" for image in FRAMES.values()]
    downloads.refuses(files, "csv_frames: '../elsewhere' leads out", csv_columns=COLUMNS, csv_frames="../elsewhere")


def test_frame_that_is_missing_is_not_taken_from_another_camera(downloads):
    frames = {f"{side}/{name}": image for side in ("left", "right") for name, image in FRAMES.items()}
    del frames["left/3.jpg"]
    text = table(",", [f"left/{name}" for name in FRAMES], ANGLES, head="image,angle\n")
    downloads.refuses({"log.csv": text, **frames}, "log.csv line 5: no frame 'left/3.jpg'", csv_columns=COLUMNS)


# Units


def test_radians_and_fractions_are_not_taken_for_degrees(downloads):
    fractions = {"log.csv": table(",", list(FRAMES), np.array(ANGLES) / 40, head="image,angle\n"), **FRAMES}
    asks = "angles of at most 1 may be -1..1, radians or degrees; set csv_unit"
    downloads.refuses(fractions, asks, csv_columns=COLUMNS)
    labels = downloads(fractions, csv_columns=COLUMNS, csv_unit="-1..1", simulator_degrees=40)
    np.testing.assert_allclose(degrees(labels), ANGLES, atol=1e-6)
    assert "steering from -1 to 1, times 40 degrees" in downloads.log
    labels = downloads(fractions, csv_columns=COLUMNS, csv_unit="radians")
    np.testing.assert_allclose(degrees(labels), np.degrees(np.array(ANGLES) / 40), atol=1e-6)
    labels = downloads(fractions, csv_columns=COLUMNS, csv_unit="degrees")
    np.testing.assert_allclose(degrees(labels), np.array(ANGLES) / 40, atol=1e-6)
    large = {"log.csv": table(",", list(FRAMES), np.array(ANGLES) / 10, head="image,angle\n")}
    downloads.refuses(large, "angles of at most 4 may be radians or degrees", csv_columns=COLUMNS)


def test_fraction_beyond_one_is_named(downloads):
    text = table(",", list(FRAMES), ANGLES, head="image,angle\n")
    downloads.refuses(
        {"log.csv": text, **FRAMES},
        "log.csv line 2: expected steering from -1 to 1, found '-12.5'",
        csv_columns=COLUMNS,
        csv_unit="-1..1",
    )


@pytest.mark.parametrize(("name", "factor"), [("steering_rad", 180 / math.pi), ("SteeringDegrees", 1)])
def test_unit_in_the_name_of_a_column(downloads, name, factor):
    text = table(",", list(FRAMES), np.array(ANGLES) / 40, head=f"image,{name}\n")
    labels = downloads({"log.csv": text, **FRAMES}, csv_columns={**COLUMNS, "angle": name})
    np.testing.assert_allclose(degrees(labels), np.array(ANGLES) / 40 * factor, atol=2e-6)


@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_sign_of_the_labels_in_any_layout(downloads, write):
    write(downloads.folder / "sully", {"driving_dataset/data.txt": table(" ", list(FRAMES), ANGLES), **in_drive()})
    labels = downloads({}, source="sully", label_sign=-1)
    assert degrees(labels) == [-angle for angle in ANGLES]
    assert "sign reversed (label_sign)" in downloads.log and downloads.images == list(FRAMES.values())
    assert degrees(downloads(simulator("0.5, 0, 0, 1", "-1, 0, 0, 1"), label_sign=-1)) == [-12.5, 25]


def in_drive() -> dict[str, bytes]:
    return {f"driving_dataset/{name}": image for name, image in FRAMES.items()}


# Times


@pytest.mark.parametrize(
    ("unit", "start", "scale"),
    [
        ("seconds", 1479425440.05, 1),
        ("milliseconds", 1479425440050, 1e3),
        ("microseconds", 1479425440050000, 1e6),
        ("nanoseconds", 1479425440050000000, 1e9),
        ("seconds", 0, 1),
        ("milliseconds", 0, 1e3),
        ("microseconds", 12345, 1e6),
        ("nanoseconds", 2_000_000_000, 1e9),
    ],
)
def test_times_in_any_unit_since_1970_or_the_start(downloads, unit, start, scale):
    seconds = np.array([0, 0.05, 0.1, 0.15, 0.2, 0.25, 3.3, 3.35, 3.4, 3.45, 3.5, 3.55])
    stamps = [
        f"{start + second * scale:.2f}" if scale == 1 else str(start + round(second * scale)) for second in seconds
    ]
    text = table(",", list(FRAMES), ANGLES, stamps, head="image,angle,t\n")
    labels = downloads({"log.csv": text, **FRAMES}, csv_columns={**COLUMNS, "time": "t"})
    assert f"times in {unit}" in downloads.log
    np.testing.assert_allclose([label.time - labels[0].time for label in labels], seconds, atol=0.0011)
    assert labels[0].time == pytest.approx(start / scale, abs=0.001)


def test_times_in_the_names_of_frames(downloads):
    """They are only used for gaps: frames of another clock, or of none, keep their labels."""
    stamps = [1479425440130861401 + number * 50_000_000 + (number > 6) * 10**10 for number in range(COUNT)]
    frames = {f"center/{stamp}.png": image for stamp, image in zip(stamps, FRAMES.values(), strict=True)}
    text = table(",", [f"center/{stamp}" for stamp in stamps], ANGLES, head="image,angle\n")
    labels = downloads({"log.csv": text, **frames}, csv_columns=COLUMNS)
    assert degrees(labels) == ANGLES
    assert "times in nanoseconds, from the names of frames" in downloads.log
    assert segments(labels, 1, 1).tolist() == [0] * 7 + [1] * 5


def test_times_with_decimal_commas_beside_whole_angles(downloads):
    stamps = [f"{number / 20:g}".replace(".", ",") for number in range(COUNT)]
    text = table(";", list(FRAMES), range(COUNT), stamps, head="image;angle;t\n")
    labels = downloads({"log.csv": text, **FRAMES}, csv_columns={**COLUMNS, "time": "t"}, csv_unit="degrees")
    np.testing.assert_allclose([label.time for label in labels], np.arange(COUNT) / 20, atol=0.001)


def test_dates_are_times(downloads):
    stamps = [f"2016-11-17T23:30:40.{number:02}5Z" for number in range(COUNT)]
    text = table(",", list(FRAMES), ANGLES, stamps, head="image,angle,t\n")
    labels = downloads({"log.csv": text, **FRAMES}, csv_columns={**COLUMNS, "time": "t"})
    assert "times are dates" in downloads.log and labels[1].time - labels[0].time == pytest.approx(0.01, abs=1e-6)
    stamps[3] = "yesterday"
    text = table(",", list(FRAMES), ANGLES, stamps, head="image,angle,t\n")
    downloads.refuses(
        {"log.csv": text}, "line 5: expected a time, found 'yesterday'", csv_columns={**COLUMNS, "time": "t"}
    )


def test_unit_of_times_is_that_of_the_column_and_not_of_a_number():
    """The first number alone could be seconds."""
    times = parse_times(["0", "50", "100", "", "200"])
    assert times.unit == "milliseconds"
    np.testing.assert_allclose(times.seconds, [0, 0.05, 0.1, math.nan, 0.2])


def test_dates_of_another_calendar_in_names_of_frames_only_cost_the_gaps(downloads):
    files = simulator("0.1, 0, 0, 1", "0.2, 0, 0, 1", "0.3, 0, 0, 1")
    files = {name.replace("2016_12_01", "1395_02_31"): content for name, content in files.items()}
    files["driving_log.csv"] = files["driving_log.csv"].replace("2016_12_01", "1395_02_31")
    labels = downloads(files)
    np.testing.assert_allclose(degrees(labels), [2.5, 5, 7.5])
    assert [label.time for label in labels] == [None] * 3
    assert "no time in 3 of 3 names of frames, so gaps are not seen there" in downloads.log


# Labels at another rate than frames


def at_other_times(unit: float = 1e9) -> tuple[str, np.ndarray]:
    """A csv with an angle every 20 ms for 2 s, with a gap from 0.8 s to 1.6 s, and the times of frames at 20 Hz."""
    start = 1479425440
    seconds = np.arange(0, 2.01, 0.02)
    seconds = seconds[(seconds < 0.801) | (seconds > 1.599)]
    lines = [f"{round((start + second) * unit)},{30 * second - 20:.4f}\n" for second in seconds]
    return "timestamp,angle\n" + "".join(lines), np.arange(0.01, 1.99, 0.05)


@pytest.mark.parametrize("table_of_frames", [False, True])
def test_labels_at_another_rate_than_frames_are_interpolated(downloads, table_of_frames):
    angles, seconds = at_other_times()
    stamps = [round((1479425440 + second) * 1e9) for second in seconds]
    files = {"steering.csv": angles} | {f"center/{stamp}.jpg": JPEG for stamp in stamps}
    columns = {"angle": "angle", "time": "timestamp"}
    if table_of_frames:
        columns["frame"] = "file"
        files["camera.csv"] = table(",", list(map(str, stamps)), [f"{s}.jpg" for s in stamps], head="timestamp,file\n")
    labels = downloads(files, csv_columns=columns)
    expected = [second for second in seconds if not 0.8 < second < 1.6]
    np.testing.assert_allclose(degrees(labels), 30 * np.array(expected) - 20, atol=1e-3)
    times = np.array([label.time for label in labels])
    np.testing.assert_allclose(times - 1479425440, expected, atol=0.001)
    assert (
        "labels interpolated to the frames; 16 frames left out, not between two labels at most 0.5 s apart"
        in downloads.log
    )


def test_labels_of_another_time_than_the_frames(downloads):
    angles, _ = at_other_times()
    files = {"steering.csv": angles} | {f"{1579425440000 + number * 50}.jpg": JPEG for number in range(COUNT)}
    downloads.refuses(
        files, "no frame has a time within 0.5 s of a label", csv_columns={"angle": "angle", "time": "timestamp"}
    )


def test_interpolation():
    times, values = np.array([3.0, 0, 1, 2]), np.array([30.0, 0, 10, 20])
    at = np.array([-0.1, 0, 0.5, 2.25, 3, 3.1])
    np.testing.assert_allclose(interpolated(times, values, at, 1), [math.nan, 0, 5, 22.5, 30, math.nan])
    np.testing.assert_allclose(interpolated(times, values, at, 0.9), [math.nan, 0, math.nan, math.nan, 30, math.nan])
    np.testing.assert_allclose(interpolated(times[:1], values[:1], at, 1)[[0, 4]], [math.nan, 30])


# Sources that are not what they seem


def test_data_txt_and_the_folders_above_it_as_source(downloads):
    files = {
        f"2018/may/{name}": content
        for name, content in (("data.txt", table(" ", list(FRAMES), ANGLES)), *FRAMES.items())
    }
    files["notes/read me.md"] = "My drives"
    for source in ("drive", "drive/2018", "drive/2018/may", "drive/2018/may/data.txt"):
        assert degrees(downloads(files, source=source)) == ANGLES
    files = {"2018/june/data.txt": "0.jpg 1\n", "2018/june/0.jpg": JPEG}
    downloads.refuses(files, "2 folders in it have labels ('2018/june/', '2018/may/')", "source: [")


def test_file_that_is_no_drive(downloads):
    (downloads.folder / "drive.doc").write_text("My drive")
    downloads.refuses({}, "drive.doc: not a readable zip file, it begins with 'My drive'; expected", source="drive.doc")
    downloads.refuses({"notes.txt": "My drive\n"}, "notes.txt line 1: expected an angle", source="drive/notes.txt")


def test_links_that_lead_out_are_called_links(downloads):
    write_folder(downloads.folder / "elsewhere", {"data.txt": table(" ", list(FRAMES), ANGLES), **FRAMES})
    downloads.folder.joinpath("drive").mkdir()
    for name in ("data.txt", "driving_log.csv", "driving_dataset"):
        link = downloads.folder / "drive" / name
        link.symlink_to("../elsewhere" if name == "driving_dataset" else "../elsewhere/data.txt")
        downloads.refuses(
            {}, f"{name!r} is a link to ", "elsewhere", "outside of the drive's folder and therefore refused"
        )
        link.unlink()
    downloads.folder.joinpath("drive/frames").symlink_to("../elsewhere")
    downloads.refuses({"data.txt": "frames/0.jpg 1\n"}, "line 1: no frame 'frames/0.jpg': 'frames' is a link to")
    text = "image,angle\nframes/0.jpg,12\n"
    (downloads.folder / "drive/data.txt").unlink()
    downloads.refuses({"log.csv": text}, "line 2: no frame 'frames/0.jpg': 'frames' is a link", csv_columns=COLUMNS)
    downloads.folder.joinpath("drive/frames").unlink()
    downloads.folder.joinpath("drive/frames").symlink_to("nowhere")
    downloads.refuses({"log.csv": text}, "'frames' is a link to 'nowhere', which does not exist", csv_columns=COLUMNS)


def test_folder_gives_a_drive_its_name(downloads):
    downloads({"data.txt": table(" ", list(FRAMES), ANGLES), **FRAMES})
    assert downloads.origin == "drive"
    assert "drive, 12 labelled frames" in downloads.log
    downloads({"data.txt": table(" ", list(FRAMES), ANGLES), **FRAMES}, source="drive/data.txt")
    assert downloads.origin == "drive/data.txt"


def test_bad_line_is_quoted_by_the_later_stages_as_in_the_table(downloads):
    text = "# of my car\n" + table(",", [*FRAMES, "99.jpg"], [*ANGLES, 5], head="image,angle\n").replace(
        ",7\n", ",left\n"
    )
    downloads({"log.csv": text, **FRAMES}, csv_columns=COLUMNS, on_bad_frame="skip")
    first = "log.csv line 8: expected an angle in degrees, found 'left'"
    assert "2 labels left out (on_bad_frame: skip)" in downloads.log and first in downloads.log
    stage_run(resize.main, downloads.folder, downloads.monkeypatch, on_bad_frame="skip")
    printed = downloads.capsys.readouterr().out
    assert f"warning: 2 labels left out, first {first}" in printed and "nan" not in printed


def test_bad_line_of_data_txt_is_quoted_by_the_later_stages(downloads):
    text = table(" ", [*FRAMES, "99.jpg"], [*ANGLES, 5]).replace(" 7\n", " left\n")
    for problem, files in (
        ("data.txt line 6: expected an angle in degrees, found 'left'", {"data.txt": text, **FRAMES}),
        (
            "data.txt line 2: no frame 'frames/1.jpg'",
            {"data.txt": "frames/0.jpg 4\nframes/1.jpg 4\n", "frames/0.jpg": JPEG},
        ),
    ):
        downloads(files, on_bad_frame="skip")
        stage_run(resize.main, downloads.folder, downloads.monkeypatch, on_bad_frame="skip")
        printed = downloads.capsys.readouterr().out
        assert f"left out, first {problem}" in printed and "nan" not in printed


# Labels of exactly zero


def keyboard(count: int = 100) -> list[float]:
    """Steering by keyboard: mostly zero, now and then a key for a frame or two."""
    return [0.5 if number % 7 in (3, 4) else -0.25 if number % 11 == 5 else 0 for number in range(count)]


@pytest.mark.parametrize(
    ("layout", "zero_labels", "repaired"),
    [
        ("simulator", "auto", False),
        ("csv", "auto", False),
        ("data.txt", "auto", True),
        ("simulator", "repair", True),
        ("data.txt", "keep", False),
    ],
)
def test_zero_is_a_label_but_in_sensors_drives(downloads, layout, zero_labels, repaired):
    steering = keyboard()
    names = [f"{number}.jpg" for number in range(len(steering))]
    files = {
        "simulator": simulator(*(f"{angle}, 0, 0, 1" for angle in steering)),
        "csv": {"log.csv": table(",", names, steering, head="image,angle\n"), **dict.fromkeys(names, JPEG)},
        "data.txt": {"data.txt": table(" ", names, [25 * a for a in steering]), **dict.fromkeys(names, JPEG)},
    }[layout]
    downloads(files, csv_columns=COLUMNS if layout == "csv" else {}, csv_unit="-1..1")
    stage_run(resize.main, downloads.folder, downloads.monkeypatch, zero_labels=zero_labels)
    zeros = f"{steering.count(0)} labels of exactly 0, "
    assert zeros + ("taken for drop-outs" if repaired else "kept") in downloads.capsys.readouterr().out
    dataset = open_dataset(downloads.folder / FRAMES_FOLDER, 4, "blocked")
    degrees = np.degrees(dataset.angles)
    if repaired:
        assert np.count_nonzero(degrees == 0) < steering.count(0)
    else:
        np.testing.assert_allclose(degrees, 25 * np.array(steering), atol=1e-5)


def test_lines_and_names_of_frames_stay_those_of_the_table(downloads):
    """A comment, a header, a blank line, another camera and a bad line are before the frames that are used."""
    rows = [
        "# my car",
        "image,camera,angle",
        "",
        "a.jpg,left,1",
        "b.jpg,front,left",
        "c.jpg,front,12",
        "17.jpg,front,7",
    ]
    files = {"log.csv": "\n".join(rows), **{f"{name}.jpg": JPEG for name in ("a", "b", "c", "17")}}
    columns = {**COLUMNS, "camera": "camera"}
    downloads(files, csv_columns=columns, csv_camera="front", on_bad_frame="skip")
    stage_run(resize.main, downloads.folder, downloads.monkeypatch, on_bad_frame="skip")
    frames = read_frames(downloads.folder / FRAMES_FOLDER)
    assert frames.lines.tolist() == [6, 7]
    assert [frames.name(frame) for frame in range(2)] == ["c.jpg", "17.jpg"]
    assert frames.segments.tolist() == [0, 1]
    assert frames.own_numbers(np.array([1])).tolist() == [17] and frames.own_numbers(np.array([0, 1])).tolist() == [
        6,
        7,
    ]
