"""Labels in csv files: the log of Udacity's simulator, and any other table whose columns are named."""

import math
import os
import posixpath
import re
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from pilotnet_sdnn.drive.archives import Archive, inside, quoted
from pilotnet_sdnn.drive.drive_zip import SIMULATOR
from pilotnet_sdnn.drive.frame_files import FrameFiles
from pilotnet_sdnn.drive.labels import NUMBER, BadLabels, Label, parse_degrees, parse_time
from pilotnet_sdnn.drive.reading import FROM_MINUS_1_TO_1, Drive, Reading
from pilotnet_sdnn.drive.tables import Columns, Row, Table, open_table, read_rows
from pilotnet_sdnn.drive.times import LABEL_GAP, Times, interpolated, parse_times
from pilotnet_sdnn.errors import UserError

SIMULATOR_LOG = "driving_log.csv"
SIMULATOR_COLUMNS: Columns = {"frame": 0, "angle": 3}
SIMULATOR_WIDTH = 7  # center, left, right, steering, throttle, brake, speed
RADIANS_AT_MOST = 9.0  # 516 degrees, more than any published label
MAX_CAMERAS = 8


def read_simulator(archive: Archive, folder: str, reading: Reading) -> Drive:
    """The drive whose `driving_log.csv` is in a folder."""
    table = open_table(archive, folder + SIMULATOR_LOG, SIMULATOR_WIDTH)
    if len(table.head) != SIMULATOR_WIDTH:
        raise UserError(
            f"{table.where}: expected the {SIMULATOR_WIDTH} columns of a simulator's log in the first line, found "
            f"{len(table.head)}; for another kind of csv, set csv_columns"
        )
    files = FrameFiles(archive, folder)
    rows = read_rows(table, SIMULATOR_COLUMNS, None, files.names_one)
    times = [_time_in_name(row.frame) for row in rows]
    without = sum(time is None for time in times)
    said = [f"no time in {without:,} of {len(rows):,} names of frames, so gaps are not seen there"] if without else []
    bad = BadLabels(table.where, reading.on_bad_frame)
    labels = _labels(rows, table, files, _from_minus_1_to_1(reading), bad)
    timed = [label._replace(time=time) for label, time in zip(labels, times, strict=True)]
    return _drive(SIMULATOR, folder, timed, bad, table.detected + said)


def _time_in_name(frame: str) -> float | None:
    """The time in the name of a frame, `center_2016_12_01_13_30_48_287.jpg`."""
    stamp = re.search(r"(\d{4})_(\d\d)_(\d\d)_(\d\d)_(\d\d)_(\d\d)_(\d{3})\.\w+$", frame, re.ASCII)
    try:
        return parse_time("{}-{}-{} {}:{}:{}:{}".format(*stamp.groups())) if stamp else None
    except ValueError:  # of another calendar; times only serve to find gaps
        return None


def read_csv(archive: Archive, folder: str, names: list[str], reading: Reading) -> Drive:
    """The drive whose csv files, with the columns in `csv_columns`, are in a folder."""
    columns = reading.csv_columns
    tables = [open_table(archive, folder + name) for name in names]
    files = FrameFiles(archive, folder, _frames_folder(archive, folder, reading))
    table = _having(tables, columns)
    if table is None or columns["frame"] is None:
        return _at_other_times(archive, folder, tables, files, reading)
    rows = read_rows(table, columns, reading.csv_camera, files.names_one)
    bad = BadLabels(table.where, reading.on_bad_frame)
    degrees, unit = angles_in_degrees(rows, table, str(columns["angle"]), reading)
    said = [*table.detected, unit]
    times = None
    if columns["time"] is not None:
        times = parse_times([row.time for row in rows])
        rows = _with_times(rows, times)
        said.append(times.said)
    elif rows and all(stamps := [_stamp(row.frame) for row in rows]):
        times = parse_times(stamps)
        said.append(f"{times.said}, from the names of frames")
    labels = _labels(rows, table, files, degrees, bad)
    if times is not None:
        labels = [label._replace(time=time) for label, time in zip(labels, times.seconds.tolist(), strict=True)]
    if reading.camera_column is None:
        _check_one_camera(labels, table)
    return _drive("csv", folder, labels, bad, said)


def _stamp(frame: str) -> str:
    """The digits of a frame whose name is a time, `center/1479425440130861401.jpg`, else ""."""
    found = re.fullmatch(r"(?:.*[/\\])?(\d{10,19})(?:\.\w+)?", frame)
    return found[1] if found else ""


def _at_other_times(archive: Archive, folder: str, tables: list[Table], files: FrameFiles, reading: Reading) -> Drive:
    """The drive whose frames and angles have times of their own: angles are interpolated to the frames.

    The frames are those of another table or, if `csv_columns` names no column for them, those whose names are times.
    """
    columns = reading.csv_columns
    table = _having(tables, {**columns, "frame": None, "camera": None})
    frames_table = _having(tables, {**columns, "angle": None}) if columns["frame"] is not None else None
    if columns["time"] is None or table is None or (columns["frame"] is not None and frames_table is None):
        found = ", ".join(quoted(table.name) for table in tables[:5])
        raise UserError(
            f"{archive.where}: none of its csv files ({found}) has the columns of csv_columns; keep one that has them, "
            "set source to its path, or name a time that is in both a table of frames and one of angles"
        )

    # angles
    rows = read_rows(table, {"angle": columns["angle"], "time": columns["time"]}, None, files.names_one)
    bad = BadLabels(table.where, reading.on_bad_frame)
    degrees, unit = angles_in_degrees(rows, table, str(columns["angle"]), reading)
    times = parse_times([row.time for row in rows])
    samples = _labels(_with_times(rows, times), table, None, degrees, bad)
    known = np.isfinite([sample.degrees for sample in samples])
    if not known.any():
        raise UserError(f"{table.where}: no line has an angle and a time; {bad}")

    # frames
    if frames_table:
        frame_rows = read_rows(frames_table, {**columns, "angle": None}, reading.csv_camera, files.names_one)
        frame_times = parse_times([row.time for row in frame_rows])
        shots = _labels(_with_times(frame_rows, frame_times), frames_table, files, lambda _: 0.0, bad)
        if reading.camera_column is None:
            _check_one_camera(shots, frames_table)
    else:
        stamps = files.named_by_times()
        frame_times = parse_times(list(stamps.values()))
        shots = [Label(name, 0.0, line) for line, name in enumerate(stamps, 1)]

    at = frame_times.seconds
    angles = np.array([sample.degrees for sample in samples])
    values = interpolated(times.seconds[known], angles[known], at, LABEL_GAP)
    if not np.isfinite(values).any():
        raise UserError(
            f"{table.where}: no frame has a time within {LABEL_GAP:g} s of a label: frames from {at[0]:.3f} to "
            f"{at[-1]:.3f}, labels from {times.seconds[0]:.3f} to {times.seconds[-1]:.3f} seconds"
        )
    far = f"not between two labels at most {LABEL_GAP:g} s apart"
    labels = [
        shot if math.isnan(shot.degrees) else shot._replace(degrees=value, time=time, problem=far * math.isnan(value))
        for shot, value, time in zip(shots, values.tolist(), at.tolist(), strict=True)
    ]
    said = [
        *table.detected,
        unit,
        times.said,
        f"labels interpolated to the frames; {np.isnan(values).sum():,} frames left out, {far}",
    ]
    return _drive("csv", folder, labels, bad, said)


def _frames_folder(archive: Archive, folder: str, reading: Reading) -> str | None:
    """`csv_frames`, seen from the top of the archive."""
    if reading.csv_frames is None:
        return None
    frames = reading.csv_frames.replace("\\", "/")
    if posixpath.isabs(frames):
        frames = os.path.relpath(frames, posixpath.join(archive.where, folder))
    path = posixpath.normpath(posixpath.join(folder, frames))
    if not inside(path):
        raise UserError(
            f"{archive.where}: csv_frames: {quoted(reading.csv_frames)} leads out of it; give the folder that holds "
            "both the csv and the frames as source, and csv_frames relative to the csv"
        )
    return "" if path == "." else f"{path}/"


def _having(tables: list[Table], columns: Columns) -> Table | None:
    """The only table that has the named columns, or the only table."""
    if len(tables) == 1:
        return tables[0]
    names = {column for column in columns.values() if isinstance(column, str)}
    having = [table for table in tables if names <= set(table.head)]
    if len(having) > 1:
        found = ", ".join(quoted(table.name) for table in having[:5])
        raise UserError(
            f"{having[0].archive}: {len(having)} of its csv files ({found}) have the columns of csv_columns; keep one "
            "such file, or set source to the path of one"
        )
    return having[0] if having else None


def angles_in_degrees(
    rows: list[Row], table: Table, column: str, reading: Reading
) -> tuple[Callable[[str], float], str]:
    """What turns an angle into degrees, and what it is; detected where `csv_unit` does not say it.

    Raises:
        UserError: it cannot be detected.
    """
    unit = reading.csv_unit
    if unit is None:
        column = column.lower()
        sizes = [abs(float(row.angle)) for row in rows if NUMBER.fullmatch(row.angle)]
        usual = float(np.quantile(sizes, 0.99)) if sizes else 0.0  # a few wild values say nothing
        if "deg" in column or "rad" in column:
            unit = "degrees" if "deg" in column else "radians"
        elif usual == 0 or usual > RADIANS_AT_MOST:
            unit = "degrees"
        else:
            fraction = f"{FROM_MINUS_1_TO_1}, " * (max(sizes) <= 1)
            raise UserError(
                f"{table.where}: angles of at most {max(sizes):.3g} may be {fraction}radians or degrees; set csv_unit "
                "to what they are"
            )
    if unit == FROM_MINUS_1_TO_1:
        said = f"steering from -1 to 1, times {reading.simulator_degrees:g} degrees (simulator_degrees)"
        return _from_minus_1_to_1(reading), said
    scale = 180 / math.pi if unit == "radians" else 1.0
    return lambda angle: parse_degrees(angle, scale), f"angles in {unit}"


def _from_minus_1_to_1(reading: Reading) -> Callable[[str], float]:
    def degrees(steering: str) -> float:
        angle = parse_degrees(steering, reading.simulator_degrees)
        if abs(float(steering)) > 1:
            raise ValueError(f"expected steering from -1 to 1, found {quoted(steering)}")
        return angle

    return degrees


def _with_times(rows: list[Row], times: Times) -> list[Row]:
    """The rows; those without a time cannot be used."""
    missing = np.isnan(times.seconds).tolist()
    return [
        row._replace(problem=row.problem or f"expected a time, found {quoted(row.time)}") if no_time else row
        for row, no_time in zip(rows, missing, strict=True)
    ]


def _labels(
    rows: list[Row], table: Table, files: FrameFiles | None, degrees: Callable[[str], float], bad: BadLabels
) -> list[Label]:
    """A label for each row; those that cannot be used have nan degrees and are counted.

    Args:
        rows: of the table.
        table: for messages.
        files: the frames; None if the table has none.
        degrees: parses an angle.
        bad: counts what cannot be used.
    """
    lines: dict[str, int] = {}  # of each frame
    labels = []
    for row in rows:
        try:
            if row.problem:
                raise ValueError(row.problem)
            frame = files.find(row.frame) if files else "?"
            if files and lines.setdefault(frame, row.line) != row.line:
                raise ValueError(f"{quoted(frame)} already has a label, on line {lines[frame]}")
            labels.append(Label(frame, degrees(row.angle), row.line))
        except ValueError as error:
            labels.append(bad.leave_out(Label("?", math.nan, row.line), str(error), table.name))
    return labels


def _check_one_camera(labels: list[Label], table: Table) -> None:
    """
    Raises:
        UserError: the names of the frames alternate, as in a table of several cameras.
    """
    frames = [label.frame for label in labels if not math.isnan(label.degrees)]
    kinds = [re.sub(r"\d+", "#", frame) for frame in frames]
    changes = sum(before != after for before, after in pairwise(kinds))
    if len(kinds) > MAX_CAMERAS >= len(set(kinds)) and changes > len(kinds) / 4:
        raise UserError(
            f"{table.where}: frames of several cameras alternate ({', '.join(map(quoted, frames[:3]))}); choose one: "
            "csv_columns.camera names the column that tells them apart, csv_camera its value (* stands for any text)"
        )


def _drive(layout: str, folder: str, labels: list[Label], bad: BadLabels, detected: list[str]) -> Drive:
    """A drive whose frames have names in the archive; they become relative to `folder` if all are below it."""
    if not all(label.frame.startswith(folder) for label in labels if not math.isnan(label.degrees)):
        folder = ""
    return Drive(
        layout, folder, [label._replace(frame=label.frame.removeprefix(folder)) for label in labels], bad, detected
    )
