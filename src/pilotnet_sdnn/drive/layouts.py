"""The layouts of drives: which one a zip or a folder has, and the labels in it.

| layout | labels file |
|---|---|
| Sully Chen 2017 | `data.txt`, lines `N.jpg degrees` |
| Sully Chen 2018 | `data.txt`, lines `N.jpg degrees,date time`; the frames may be in `data/` |
| Udacity simulator | `driving_log.csv`, steering from -1 to 1, frames `IMG/center_*.jpg` |
| csv | any other csv, with the columns named by `csv_columns` |
"""

import csv
import math
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

from pilotnet_sdnn.drive.archives import Archive, inside, quoted
from pilotnet_sdnn.drive.drive_zip import FOLDER
from pilotnet_sdnn.drive.labels import (
    MAX_TIME,
    NUMBER,
    BadLabels,
    Label,
    decode_text,
    numbered_lines,
    parse_degrees,
    parse_labels,
    parse_time,
)
from pilotnet_sdnn.errors import UserError, counted, shown

Columns = Mapping[str, str | int | None]  # frame, angle and time to the name or position of the column, or None

SULLY_CHEN = ("Sully Chen 2017", "Sully Chen 2018")
SIMULATOR = "Udacity simulator"
SIMULATOR_LOG = "driving_log.csv"
SIMULATOR_COLUMNS: Columns = {"frame": 0, "angle": 3, "time": 0}  # center,left,right,steering,throttle,brake,speed
UNITS = {"degrees": 1, "radians": 180 / math.pi, "-degrees": -1, "-radians": -180 / math.pi}
NO_COLUMNS: Columns = MappingProxyType({"frame": None, "angle": None, "time": None})
MAX_DEPTH = 20  # folders of a path to look into


class Reading(NamedTuple):
    """How to read drives, as in params.yaml."""

    on_bad_frame: str = "error"
    simulator_degrees: float = 25
    csv_columns: Columns = NO_COLUMNS
    csv_unit: str = "degrees"
    max_gigabytes: float = 50


class Table(NamedTuple):
    """A csv file with labels."""

    archive: Archive
    folder: str  # of the file and its frames: "" or "x/"
    name: str
    columns: Columns


class Drive(NamedTuple):
    """A drive in its original layout."""

    layout: str
    folder: str  # of the frames in the archive: "" or "x/"
    labels: list[Label]  # with nan degrees for frames to leave out
    bad: BadLabels


def read_layout(archive: Archive, reading: Reading, table: str | None = None) -> Drive:
    """Detect the layout of a drive and read its labels.

    Args:
        archive: the zip or folder.
        reading: how to read it.
        table: name of the csv file with the labels, if known.

    Raises:
        UserError: there are no labels, or they are invalid.
    """
    for folder in _folders(archive):
        csvs = [name for name in archive.children(folder) if name.lower().endswith(".csv")]
        tables = [name for name in ([table] if table else csvs) if archive.contains(folder + name)]
        if tables and reading.csv_columns["frame"] is not None:
            return _csv(archive, folder, _with_columns(archive, folder, tables, reading.csv_columns), reading)
        if not table and archive.contains(f"{folder}data.txt"):
            return _sully_chen(archive, folder, reading)
        if SIMULATOR_LOG in tables:
            return _simulator(archive, folder, reading)
        if tables:
            raise UserError(
                f"{archive.where}: {quoted(folder + tables[0])} has no known layout; name its columns, "
                f"csv_columns: {{frame: ..., angle: ..., time: null}}; its first line is "
                f"{_shown(_head(archive, folder + tables[0]))}"
            )
    found = ", ".join(map(quoted, archive.children("")[:5])) or "nothing"
    raise UserError(
        f"{archive.where}: no data.txt, no {FOLDER}/data.txt, no {SIMULATOR_LOG} and no other csv file; found {found}"
    )


def _with_columns(archive: Archive, folder: str, tables: list[str], columns: Columns) -> str:
    """The only csv file whose header has the columns."""
    if len(tables) == 1:
        return tables[0]
    names = {column for column in columns.values() if isinstance(column, str)}
    having = [name for name in tables if names <= set(_head(archive, folder + name))]
    if len(having) != 1:
        found = ", ".join(map(quoted, tables[:5]))
        raise UserError(
            f"{archive.where}: {len(having)} of its csv files ({found}) have the columns of csv_columns; keep one "
            "such file, or set source to the path of one"
        )
    return having[0]


def _head(archive: Archive, name: str) -> list[str]:
    """The first record of a csv file."""
    where = f"{archive.where}: {name}"
    return next(_rows(decode_text(archive.read(name), where), where), (0, []))[1]


def _folders(archive: Archive) -> Iterator[str]:
    """Folders that may hold the labels: the top, driving_dataset/, or the only folder around everything."""
    folder = ""
    for _ in range(3):
        yield folder
        if archive.contains(f"{folder}{FOLDER}/data.txt"):
            yield f"{folder}{FOLDER}/"
        around = [name for name in archive.children(folder) if name.endswith("/") and name[0] not in "._"]
        if len(around) != 1:
            return
        folder += around[0]


def _sully_chen(archive: Archive, folder: str, reading: Reading) -> Drive:
    name = f"{folder}data.txt"
    where = f"{archive.where}: {name}"
    bad = BadLabels(where, reading.on_bad_frame)
    labels = parse_labels(decode_text(archive.read(name), where), where, bad)
    layout = SULLY_CHEN[any(label.time is not None for label in labels)]
    if not archive.contains(folder + labels[0].frame) and archive.contains(f"{folder}data/{labels[0].frame}"):
        folder += "data/"
    for at, label in enumerate(labels):
        if not math.isnan(label.degrees) and not archive.contains(folder + label.frame):
            bad.add(label.line, f"no frame {quoted(folder + label.frame)}")
            labels[at] = label._replace(degrees=math.nan)
    return _usable(Drive(layout, folder, labels, bad))


def _simulator(archive: Archive, folder: str, reading: Reading) -> Drive:
    def degrees(steering: str) -> float:
        angle = parse_degrees(steering, reading.simulator_degrees)
        if abs(float(steering)) > 1:
            raise ValueError(f"expected steering from -1 to 1, found {quoted(steering)}")
        return angle

    table = Table(archive, folder, SIMULATOR_LOG, SIMULATOR_COLUMNS)
    return _read_table(table, SIMULATOR, reading, degrees, _simulator_time)


def _simulator_time(frame: str) -> float | None:
    """The time in the name of a frame, `center_2016_12_01_13_30_48_287.jpg`."""
    stamp = re.search(r"(\d{4})_(\d\d)_(\d\d)_(\d\d)_(\d\d)_(\d\d)_(\d{3})\.\w+$", frame, re.ASCII)
    return parse_time("{}-{}-{} {}:{}:{}:{}".format(*stamp.groups())) if stamp else None


def _csv(archive: Archive, folder: str, name: str, reading: Reading) -> Drive:
    table = Table(archive, folder, name, reading.csv_columns)
    return _read_table(
        table, "csv", reading, lambda angle: parse_degrees(angle, UNITS[reading.csv_unit]), _date_or_number
    )


def _date_or_number(text: str) -> float:
    """Seconds since 1970; a number too big for seconds is in milli-, micro- or nanoseconds."""
    if not NUMBER.fullmatch(text):
        return parse_time(text)
    seconds = float(text)
    while MAX_TIME < seconds < 1e20:
        seconds /= 1000
    if not 0 <= seconds <= MAX_TIME:
        raise ValueError(f"expected a time, found {quoted(text)}")
    return seconds


def _read_table(
    table: Table,
    layout: str,
    reading: Reading,
    degrees: Callable[[str], float],
    time: Callable[[str], float | None],
) -> Drive:
    """The labels in a csv file.

    Args:
        table: the file and its columns.
        layout: name of the layout.
        reading: how to read it.
        degrees: parses the angle of the steering wheel.
        time: parses the seconds since 1970.
    """
    archive, folder, name, columns = table
    where = f"{archive.where}: {folder}{name}"
    bad = BadLabels(where, reading.on_bad_frame)
    rows = _rows(decode_text(archive.read(folder + name), where), where)
    head = next(rows, (0, []))
    at = _positions(columns, head[1], where)
    if not _is_header(columns, head[1], at):
        rows = chain([head], rows)
    lines: dict[str, int] = {}  # of each frame

    def label(line: int, fields: list[str]) -> Label:
        if len(fields) != len(head[1]):
            raise ValueError(f"expected {counted(len(head[1]), 'column')} as in the first line, found {len(fields)}")
        frame = _located(archive, folder, fields[at["frame"]])
        if lines.setdefault(frame, line) != line:
            raise ValueError(f"{quoted(frame)} already has a label, on line {lines[frame]}")
        return Label(frame, degrees(fields[at["angle"]]), line, time(fields[at["time"]]) if "time" in at else None)

    labels = []
    for line, fields in rows:
        try:
            labels.append(label(line, fields))
        except ValueError as error:
            bad.add(line, str(error))
            labels.append(Label("?", math.nan, line))
    return _usable(Drive(layout, folder, labels, bad))


def _rows(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """The records of a csv file, one per line, with line numbers; an invalid line gives an empty record."""
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    for number, line in numbered_lines(text, where):
        try:
            yield number, [field.strip() for field in next(csv.reader([line], delimiter=delimiter))]
        except csv.Error:  # a quoted field without an end
            yield number, []


def _positions(columns: Columns, head: list[str], where: str) -> dict[str, int]:
    """The positions of frame, angle and, if there is one, time in a record."""
    positions = {}
    for what, column in columns.items():
        if column is None:
            continue
        if column not in (head if isinstance(column, str) else range(len(head))):
            raise UserError(f"{where}: no column {shown(column)} for the {what}; its first line is {_shown(head)}")
        if isinstance(column, str) and head.count(column) > 1:
            raise UserError(f"{where}: several columns are named {shown(column)}; set csv_columns to column numbers")
        positions[what] = head.index(column) if isinstance(column, str) else column
    return positions


def _is_header(columns: Columns, head: list[str], at: dict[str, int]) -> bool:
    if any(isinstance(column, str) for column in columns.values()):
        return True
    return not NUMBER.fullmatch(head[at["angle"]])


def _located(archive: Archive, folder: str, path: str) -> str:
    """The name, below `folder`, of a frame in a csv file. Foreign paths match by suffix.

    Raises:
        ValueError: there is no such frame.
    """
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")][-MAX_DEPTH:]
    for name in [*("/".join(parts[start:]) for start in range(len(parts))), *(f"IMG/{part}" for part in parts[-1:])]:
        if inside(name) and archive.contains(folder + name):
            return name
    raise ValueError(f"no frame {quoted(path)}")


def _usable(drive: Drive) -> Drive:
    drive.bad.check()
    if all(math.isnan(label.degrees) for label in drive.labels):
        reason = f"; {drive.bad}" if drive.bad.count else ""
        raise UserError(f"{drive.bad.where}: no line is a valid label with a frame{reason}")
    return drive


def _shown(fields: list[str]) -> str:
    return quoted(", ".join(fields))
