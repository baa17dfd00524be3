"""Csv files as they are found: any separator, decimal commas, spaces behind commas, with or without a header."""

import csv
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import NamedTuple

from pilotnet_sdnn.drive.archives import Archive, quoted
from pilotnet_sdnn.drive.labels import COMMA_NUMBER, NUMBER, decimal_commas, decode_text, numbered_lines
from pilotnet_sdnn.errors import UserError, counted, shown

Columns = Mapping[str, str | int | None]  # what (frame, angle, time, camera) to the name or position of its column

SEPARATORS = ";\t|,"
SEPARATING_COMMA = re.compile(r"\s*(?:(?<!\d),|,(?!\d))\s*")  # where a comma between two digits is a decimal comma
SAMPLE = 50  # lines that show which separator a file has
ANGLE_NAMES = ("angle", "steer", "wheel")  # parts of the names that columns of angles have


class Table(NamedTuple):
    """A csv file."""

    archive: str  # name of the zip or folder
    name: str  # of the file in it
    lines: list[tuple[int, str]]  # without comments and blank lines, with their numbers from 1
    split: Callable[[str], list[str]]  # a line into fields; [] if it is invalid

    detected: list[str]  # what the log says about it

    @property
    def where(self) -> str:
        """Its name, for messages."""
        return f"{self.archive}: {self.name}"

    @property
    def head(self) -> list[str]:
        """The fields of the first line."""
        return self.split(self.lines[0][1]) if self.lines else []


class Row(NamedTuple):
    """What a line says, "" where the table has no such column."""

    line: int
    frame: str = ""
    angle: str = ""
    time: str = ""
    problem: str = ""  # why it cannot be used


def open_table(archive: Archive, name: str, width: int | None = None) -> Table:
    """Detect how a csv file separates its columns.

    A comma is taken for a decimal comma only where the whole file leaves no other reading: all lines then have the
    same number of columns, or `width` of them, and without it many have more, or commas between columns have spaces.

    Args:
        archive: the zip or folder.
        name: of the file.
        width: the number of columns that it must have, if known.

    Raises:
        UserError: commas between digits can be neither separators nor decimal commas.
    """
    where = f"{archive.where}: {name}"
    lines = list(numbered_lines(decode_text(archive.read(name), where), where))
    separator = _separator([line for _, line in lines[:SAMPLE]])
    plain = Table(archive.where, name, lines, lambda line: _fields(line, separator), [])
    if separator != "," or not any(re.search(r"\d,\d", line) for _, line in lines):
        return plain
    expected = width or len(plain.head)
    wider = sum(len(_trimmed(plain.split(line), expected)) > expected for _, line in lines)
    with_decimal_commas = Table(archive.where, name, lines, _split_at_separating_commas, [])
    spaced = all(re.search(r",\s", line) for _, line in lines)
    cut = "" if width and not wider else _cut_number(plain)
    if (wider > max(1, len(lines) / 10) or spaced or cut) and _fits(with_decimal_commas, width):
        return with_decimal_commas
    if cut or wider > len(lines) / 2:
        found = f"as in {quoted(cut)}" if cut else f"{wider:,} of {counted(len(lines), 'line')} have more columns"
        raise UserError(
            f"{where}: expected {counted(expected, 'column')}, but commas seem to be separators and decimal commas: "
            f"{found}; write decimal points, or semicolons between columns"
        )
    return plain


def _separator(sample: list[str]) -> str:
    """The separator that gives every line the same number of fields, or else the commonest in the first line."""
    for separator in SEPARATORS:
        counts = {len(_fields(line, separator)) for line in sample}
        if len(counts) == 1 and counts != {1}:
            return separator
    return max(SEPARATORS, key=(sample or [""])[0].count)


def _fields(line: str, separator: str) -> list[str]:
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=separator, skipinitialspace=True))]
    except csv.Error:  # a quoted field without an end
        return []


def _trimmed(fields: list[str], width: int) -> list[str]:
    """Fields without empty ones behind the last column."""
    return fields if any(fields[width:]) else fields[:width]


def _split_at_separating_commas(line: str) -> list[str]:
    return SEPARATING_COMMA.split(line.strip())


def _fits(table: Table, width: int | None) -> bool:
    """Whether all lines have the same number of fields, and commas in them are decimal commas, one in a number."""
    fields = [table.split(line) for _, line in table.lines]
    with_comma = [field for row in fields for field in row if "," in field]
    same_width = {len(row) for row in fields} == {width or len(fields[0])}
    return same_width and len(with_comma) > 0 and all(map(COMMA_NUMBER.fullmatch, with_comma))


def _cut_number(table: Table) -> str:
    """Two fields that are the parts of a number with a decimal comma, `-0,373` or `1,05`; "" if there are none.

    Only in tables without a header, which would say how many columns there are, and without decimal points.
    """
    rows = [table.split(line) for _, line in table.lines]
    if not any(map(NUMBER.fullmatch, rows[0])) or any(re.fullmatch(r"[+-]?\d*\.\d+", f) for row in rows for f in row):
        return ""
    for fields in rows:
        for whole, fraction in pairwise(fields):
            if re.fullmatch(r"[+-]?\d+,\d+", f"{whole},{fraction}") and (whole == "-0" or re.match(r"0\d", fraction)):
                return f"{whole},{fraction}"
    return ""


def read_rows(table: Table, columns: Columns, camera: str | int | None, is_frame: Callable[[str], bool]) -> list[Row]:
    """The lines of a table, those of one camera if it has several.

    Args:
        table: the csv file.
        columns: where frame, angle, time and camera are.
        camera: the value in the column of the camera; `*` stands for any text.
        is_frame: whether there is a frame of this name; then the first line is no header.

    Raises:
        UserError: there is no such column or camera, or numbers have decimal points and commas.
    """
    head = table.head
    at = positions(columns, head, table.where)
    lines = table.lines[1:] if _is_header(columns, head, at, is_frame) else table.lines
    wanted = re.escape("" if camera is None else str(camera)).replace(r"\*", ".*")
    chosen = re.compile(wanted) if "camera" in at else None
    cameras: dict[str, None] = {}
    rows = []
    for line, text in lines:
        fields = _trimmed(table.split(text), len(head))
        if len(fields) != len(head):
            found = f"expected {counted(len(head), 'column')} as in the first line, found {len(fields)}"
            rows.append(Row(line, problem=found))
            continue
        if chosen:
            cameras.setdefault(fields[at["camera"]])
            if not chosen.fullmatch(fields[at["camera"]]):
                continue
        rows.append(Row(line, **{what: fields[at[what]] for what in ("frame", "angle", "time") if what in at}))
    if chosen:
        table.detected.append(f"{len(rows):,} of {len(lines):,} rows are of camera {camera}")
    if chosen and not any(chosen.fullmatch(name) for name in cameras):
        found = ", ".join(map(quoted, list(cameras)[:8]))
        raise UserError(
            f"{table.where}: set csv_camera to one of the values in column {shown(columns['camera'])}: {found}; "
            f"it is {shown(camera)}"
        )
    commas = decimal_commas([row.angle for row in rows], table.where)
    if commas:
        table.detected.append("decimal commas")
    return [
        row._replace(angle=_with_point(row.angle) if commas else row.angle, time=_with_point(row.time)) for row in rows
    ]


def _with_point(number: str) -> str:
    return number.replace(",", ".") if COMMA_NUMBER.fullmatch(number) else number


def positions(columns: Columns, head: list[str], where: str) -> dict[str, int]:
    """The positions of frame, angle, time and camera in a record.

    Raises:
        UserError: there is no such column, or several.
    """
    found = {}
    for what, column in columns.items():
        if column is None:
            continue
        if column not in (head if isinstance(column, str) else range(len(head))):
            raise UserError(f"{where}: no column {shown(column)} for the {what}; its first line is {_shown(head)}")
        if isinstance(column, str) and head.count(column) > 1:
            numbers = " or ".join(str(number) for number, name in enumerate(head) if name == column)
            raise UserError(
                f"{where}: several columns are named {shown(column)}; set csv_columns to column numbers, its {what} "
                f"to {numbers}"
            )
        found[what] = head.index(column) if isinstance(column, str) else column
    return found


def named_columns(columns: Columns) -> set[str]:
    return {column for column in columns.values() if isinstance(column, str)}


def angle_columns(head: list[str]) -> list[str]:
    """The columns that may hold angles, by their names."""
    return [name for name in head if any(part in name.lower() for part in ANGLE_NAMES)]


def _is_header(columns: Columns, head: list[str], at: dict[str, int], is_frame: Callable[[str], bool]) -> bool:
    """With columns by number, the first line is a header unless it has an angle or names a frame."""
    if named_columns(columns):
        return True
    angle = head[at["angle"]]
    numeric = NUMBER.fullmatch(angle) or COMMA_NUMBER.fullmatch(angle)
    return not numeric and not ("frame" in at and is_frame(head[at["frame"]]))


def _shown(fields: list[str]) -> str:
    return quoted(", ".join(fields))
