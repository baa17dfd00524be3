"""The labels of a drive: lines of data.txt in the layout of Sully Chen's datasets.

Each line labels one frame, in the order of time: `N.jpg degrees` as in his dataset of 2017, or
`N.jpg degrees,date time` as in that of 2018. Degrees are of the steering wheel, positive to the right. Where a drive
consists of several, or its frames come from elsewhere, names have folders: `2/17.jpg`. A line `17.jpg nan # reason`
stands for a frame that stage download left out.
"""

import math
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np

from pilotnet_sdnn.drive.archives import quoted
from pilotnet_sdnn.errors import UserError, counted, printable

MAX_LABELS = 2_000_000  # 28 hours at 20 frames a second
MAX_DEGREES = 1080  # three turns of the steering wheel; Sully Chen's labels reach 502
MAX_TIME = 1e11  # seconds since 1970, in the year 5138
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)  # float() also takes 1_0
COMMA_NUMBER = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
LINE = re.compile(r"(\S+)\s+([+-]?\d*,\d+(?![\d-])|[^\s,]+)(?:\s*,\s*(\S.*))?")  # frame, angle and time
LEFT_OUT = re.compile(r"(\S+)\s+nan(?:\s*#\s*(.*))?")  # a line that stage download writes
DATE_AND_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Label(NamedTuple):
    """One line of data.txt."""

    frame: str  # file name of the frame, relative to the folder of data.txt
    degrees: float  # of the steering wheel, positive to the right; nan if the frame is left out
    line: int  # of data.txt, from 1
    time: float | None = None  # seconds since 1970, if the line has a time
    problem: str = ""  # why it was left out
    place: int = 0  # among the labels, from 1; 0: unknown

    @property
    def drive(self) -> str:
        """The folder of the frame; each folder is a drive of its own."""
        return self.frame.rpartition("/")[0]

    @property
    def number(self) -> int:
        """N of `N.jpg`; non-numeric names, and numbers that are times, use their place among the labels."""
        stem = self.frame.rpartition("/")[2].partition(".")[0]
        return int(stem) if re.fullmatch("[0-9]{1,9}", stem) else self.place or self.line


class BadLabels:
    """Invalid labels and labels whose frames are missing or damaged: an error, or left out and counted."""

    def __init__(self, where: str, on_bad_frame: str = "error") -> None:
        """
        Args:
            where: name of the labels file, for messages.
            on_bad_frame: "error" or "skip".
        """
        self.where = where
        self.on_bad_frame = on_bad_frame
        self.count = 0
        self._left_out = 0  # of them, those that stage download left out
        self.first = ""  # the first of all of them, and its problem

    def add(self, line: int, problem: str) -> None:
        self.count += 1
        self.first = self.first or f"{self.where} line {line}: {problem}"

    def leave_out(self, label: Label, problem: str, table: str = "data.txt") -> Label:
        """Count a label of a table that cannot be used; the label to go on with, which tells why."""
        self.add(label.line, problem)
        return label._replace(degrees=math.nan, problem=f"{table} line {label.line}: {problem}")

    def add_left_out(self, label: Label) -> None:
        """Count a label that stage download left out, which it said in the words of the drive's own table."""
        self.count += 1
        self._left_out += 1
        self.first = self.first or label.problem

    def check(self) -> None:
        """
        Raises:
            UserError: there is a bad line, and on_bad_frame is not "skip".
        """
        bad = self.count - self._left_out
        if bad and self.on_bad_frame == "error":
            others = f" (and {counted(bad - 1, 'more bad line')})" if bad > 1 else ""
            raise UserError(
                f"{self.first}{others}; fix it, remove it, or set on_bad_frame: skip to leave such lines out"
            )

    def __str__(self) -> str:
        skip = " (on_bad_frame: skip)" if self.count > self._left_out else ""
        return printable(f"{counted(self.count, 'label')} left out{skip}, first {self.first or self.where}")


def decode_text(data: bytes, where: str) -> str:
    """The text of a labels file, UTF-8 or UTF-16 with a byte order mark, with line ends as newlines.

    Raises:
        UserError: it is not text.
    """
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = data.decode(encoding, "replace")
    if "\0" in text:
        raise UserError(f"{where}: not a text file; expected labels as UTF-8 text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def numbered_lines(text: str, where: str) -> Iterator[tuple[int, str]]:
    """The lines of a labels file that are neither blank nor comments, with their numbers from 1.

    Raises:
        UserError: there are too many.
    """
    if text.count("\n") > MAX_LABELS:
        raise UserError(f"{where}: more than {MAX_LABELS:,} lines; split the drive")
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line


def parse_labels(text: str, where: str, bad: BadLabels | None = None, packed: bool = False) -> list[Label]:
    """The labels of a data.txt.

    Args:
        text: its content.
        where: its name, for messages.
        bad: collects invalid lines, whose labels then have nan degrees; without it, the first is an error.
        packed: stage download wrote it or read it; lines with `nan` are what it left out, not invalid.

    Raises:
        UserError: a line is not `N.jpg degrees` or `N.jpg degrees,date time`, or there is none.
    """
    strict = bad is None
    bad = bad or BadLabels(where)
    labels: list[Label] = []
    lines: dict[str, int] = {}  # of each frame
    numbered = [(line, content.strip()) for line, content in numbered_lines(text, where)]
    angles = [found[2] for _, content in numbered if (found := LINE.fullmatch(content))]
    with_commas = decimal_commas(angles, where) and not _are_times(angles)
    for line, content in numbered:
        label = _left_out(content, line, bad) if packed else None
        label = label or _parse_line(content, line, bad, with_commas)
        first = lines.setdefault(label.frame, line)
        if first != line and not math.isnan(label.degrees):
            label = bad.leave_out(label, f"{quoted(label.frame)} already has a label, on line {first}")
        labels.append(label._replace(place=len(labels) + 1))
    if strict:
        bad.check()
    if not labels:
        raise UserError(f"{where}: no labels; expected a line 'N.jpg degrees' for each frame")
    return labels


def _left_out(content: str, line: int, bad: BadLabels) -> Label | None:
    found = LEFT_OUT.fullmatch(content)
    if not found:
        return None
    label = Label(found[1], math.nan, line, problem=found[2] or f"{bad.where} line {line}: its angle is nan")
    bad.add_left_out(label)
    return label


def _parse_line(content: str, line: int, bad: BadLabels, with_commas: bool) -> Label:
    fields = LINE.fullmatch(content)
    if not fields:
        return bad.leave_out(Label("?", math.nan, line), f"expected 'N.jpg degrees', found {quoted(content)}")
    frame, angle, time = fields.groups()
    try:
        degrees = parse_degrees(angle.replace(",", ".") if with_commas else angle)
        return Label(frame, degrees, line, None if time is None else parse_time(time))
    except ValueError as error:
        return bad.leave_out(Label(frame, math.nan, line), f"{error} in {quoted(content)}")


def decimal_commas(angles: Iterable[str], where: str) -> bool:
    """Whether numbers have decimal commas.

    Raises:
        UserError: some have decimal points.
    """
    comma, point = "", ""
    for angle in angles:
        comma = comma or angle * bool(COMMA_NUMBER.fullmatch(angle))
        point = point or angle * ("." in angle and bool(NUMBER.fullmatch(angle)))
    if comma and point:
        raise UserError(
            f"{where}: some angles have decimal commas ({quoted(comma)}), others decimal points ({quoted(point)}); "
            "write all with points"
        )
    return bool(comma)


def _are_times(angles: list[str]) -> bool:
    """Whether what is behind the commas is a time in seconds, milli-, micro- or nanoseconds since 1970."""
    behind = [angle.partition(",")[2] for angle in angles if "," in angle]
    return len({text[:4] for text in behind}) == 1 and {len(text) for text in behind} <= {10, 13, 16, 19}


def parse_degrees(angle: str, scale: float = 1) -> float:
    """The angle of the steering wheel in degrees: a number times `scale`.

    Raises:
        ValueError: it is not a number, or beyond `MAX_DEGREES`; with the message to show.
    """
    degrees = float(angle) * scale if NUMBER.fullmatch(angle) else math.nan
    if not math.isfinite(degrees):
        raise ValueError(f"expected an angle in degrees, found {quoted(angle)}")
    if abs(degrees) > MAX_DEGREES:
        raise ValueError(f"{quoted(angle)} is not a steering angle: {degrees:g} degrees, more than {MAX_DEGREES}")
    return degrees


def parse_time(text: str) -> float:
    """Seconds since 1970 of a date and time, UTC if it has no zone.

    The format is that of Sully Chen's dataset of 2018 (`2018-07-01 17:09:44:912`, ending in milliseconds) or ISO 8601.

    Raises:
        ValueError: it is neither; with the message to show.
    """
    text = text.strip()
    if published := re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d):(\d{1,3})", text, re.ASCII):
        text = f"{published[1]}.{int(published[2]):03}"
    try:
        if not DATE_AND_TIME.match(text):  # fromisoformat() also takes 20180701, the decimals of "1,20180701"
            raise ValueError
        time = datetime.fromisoformat(text)
        seconds = ((time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH).total_seconds()
    except (ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds <= MAX_TIME:
        raise ValueError(f"expected a date and time like 2018-07-01 17:09:44:912, found {quoted(text)}")
    return seconds


def format_label(label: Label) -> str:
    """The line of data.txt for a label, with its newline."""
    if math.isnan(label.degrees):
        return f"{label.frame} nan # {printable(label.problem)}\n"
    if label.time is None:
        return f"{label.frame} {label.degrees:.6f}\n"
    time = EPOCH.replace(tzinfo=None) + timedelta(milliseconds=round(label.time * 1000))
    return f"{label.frame} {label.degrees:.6f},{time.isoformat(' ', 'milliseconds').replace('.', ':')}\n"


def segments(labels: list[Label], gap_frames: int, gap_seconds: float) -> np.ndarray:
    """(N,) int32: the segment of each label, a part of the drive without a gap, counted from 0.

    A new segment starts with a new drive, where the frame number falls or rises by more than `gap_frames`, and where
    the time falls or rises by more than `gap_seconds`.
    """
    drives = np.array([label.drive for label in labels])
    numbers = np.diff([label.number for label in labels])
    times = np.diff([math.nan if label.time is None else label.time for label in labels])  # nan compares false
    breaks = (drives[1:] != drives[:-1]) | (numbers < 1) | (numbers > gap_frames) | (times < 0) | (times > gap_seconds)
    return np.concatenate([[0], np.cumsum(breaks)]).astype(np.int32)


def same_labels(labels: list[Label]) -> str:
    """A warning if all usable labels are the same, which nothing can learn from, else ""."""
    degrees = [label.degrees for label in labels if not math.isnan(label.degrees)]
    if len(degrees) < 2 or len(set(degrees)) > 1:
        return ""
    return (
        f"all {len(degrees):,} labels are {degrees[0]:g} degrees: nothing can be learned from them; check the column "
        "of the angle, its unit and its decimal points"
    )


def radians(labels: list[Label]) -> np.ndarray:
    """(N,) float32 angles."""
    return (np.array([label.degrees for label in labels]) * np.pi / 180).astype(np.float32)
