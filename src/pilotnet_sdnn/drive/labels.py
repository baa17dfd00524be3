"""A drive: camera frames and steering labels in the layout of Sully Chen's datasets.

A drive is a zip with `driving_dataset/data.txt`, one line for each frame in the order of time, and the
frames beside it. A line is `N.jpg degrees`, as in his dataset of 2017, or `N.jpg degrees,date time`, as
in that of 2018. Degrees are of the steering wheel, + to the right. Where several drives are together, or
frames came from elsewhere, their names have folders: `2/17.jpg`. A line whose angle is `nan` is of a
frame that was left out.
"""

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np

from pilotnet_sdnn.drive.archives import quoted
from pilotnet_sdnn.errors import UserError

MAX_LABELS = 2_000_000  # 28 hours at 20 frames a second
MAX_DEGREES = 1080  # three turns of the steering wheel; Sully Chen's labels reach 502
MAX_TIME = 1e11  # seconds since 1970, in the year 5138
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Label(NamedTuple):
    """One line of data.txt."""

    frame: str  # file name of the frame, below the folder of data.txt
    degrees: float  # of the steering wheel, + to the right; nan where the frame is left out
    line: int  # of data.txt, counted from 1
    time: float | None = None  # seconds since 1970, if the line says when

    @property
    def drive(self) -> str:
        """Folder of the frame: another one is another drive."""
        return self.frame.rpartition("/")[0]

    @property
    def number(self) -> int:
        """Of the frame: N of `N.jpg`, or the line where the name is not a number (or one that tells the time)."""
        stem = self.frame.rpartition("/")[2].partition(".")[0]
        return int(stem) if re.fullmatch("[0-9]{1,9}", stem) else self.line


class BadLabels:
    """Label lines that cannot be used, each without or with a damaged frame: an error, or left out and counted."""

    def __init__(self, where: str, on_bad_frame: str = "error") -> None:
        """
        Args:
            where: name of the file with labels, for messages.
            on_bad_frame: "error" or "skip".
        """
        self.where = where
        self.on_bad_frame = on_bad_frame
        self.count = 0
        self._first = ""

    def add(self, line: int, problem: str) -> None:
        self.count += 1
        self._first = self._first or f"{self.where} line {line}: {problem}"

    def check(self) -> None:
        """
        Raises:
            UserError: there is a bad line and they are not to be skipped.
        """
        if self.count and self.on_bad_frame == "error":
            others = f" (and {self.count - 1:,} more bad lines)" if self.count > 1 else ""
            raise UserError(f"{self._first}{others}; mend it, remove it, or set on_bad_frame: skip to leave such out")

    def __str__(self) -> str:
        return f"{self.count:,} label{'s' * (self.count > 1)} left out (on_bad_frame: skip), the first: {self._first}"


def decode_text(data: bytes, where: str) -> str:
    """The text in a file with labels: UTF-8, or UTF-16 with its mark; lines end in a newline, whatever they ended in.

    Raises:
        UserError: it is no text.
    """
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = data.decode(encoding, "replace")
    if "\0" in text:
        raise UserError(f"{where}: not a text file; expected labels as UTF-8 text")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def numbered_lines(text: str, where: str) -> Iterator[tuple[int, str]]:
    """The lines of a file with labels that are neither blank nor comments, with their numbers from 1.

    Raises:
        UserError: they are too many.
    """
    if text.count("\n") > MAX_LABELS:
        raise UserError(f"{where}: more than {MAX_LABELS:,} lines; split the drive")
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, line


def parse_labels(text: str, where: str, bad: BadLabels | None = None) -> list[Label]:
    """The labels of a data.txt.

    Args:
        text: its content.
        where: its name for error messages.
        bad: gathers the lines that cannot be used, whose labels then have nan degrees; without it the
            first such line is an error.

    Raises:
        UserError: a line is not `N.jpg degrees` or `N.jpg degrees,date time`, or there is none.
    """
    strict = bad is None
    bad = bad or BadLabels(where)
    labels: list[Label] = []
    lines: dict[str, int] = {}  # of each frame
    for line, content in numbered_lines(text, where):
        label = _parse_line(content, line, bad)
        first = lines.setdefault(label.frame, line)
        if first != line and not math.isnan(label.degrees):
            bad.add(line, f"{quoted(label.frame)} has a label already, on line {first}")
            label = label._replace(degrees=math.nan)
        labels.append(label)
    if strict:
        bad.check()
    if not labels:
        raise UserError(f"{where}: no labels in it; expected a line 'N.jpg degrees' for each frame")
    return labels


def _parse_line(content: str, line: int, bad: BadLabels) -> Label:
    fields = re.fullmatch(r"(\S+)\s+([^\s,]+)(?:\s*,\s*(\S.*))?", content.strip())
    if not fields:
        bad.add(line, f"expected 'N.jpg degrees', found {quoted(content.strip())}")
        return Label("?", math.nan, line)
    frame, angle, time = fields.groups()
    try:
        return Label(frame, parse_degrees(angle), line, None if time is None else parse_time(time))
    except ValueError as error:
        bad.add(line, f"{error} in {quoted(content.strip())}")
        return Label(frame, math.nan, line)


def parse_degrees(angle: str, scale: float = 1) -> float:
    """An angle of the steering wheel in degrees, from a number and the degrees that 1 stands for.

    Raises:
        ValueError: it is no number, or more than `MAX_DEGREES` either way; its text says so.
    """
    try:
        degrees = float(angle) * scale
    except ValueError:
        degrees = math.nan
    if not math.isfinite(degrees):
        raise ValueError(f"expected an angle in degrees, found {quoted(angle)}")
    if abs(degrees) > MAX_DEGREES:
        raise ValueError(f"{quoted(angle)} is no angle of a steering wheel: {degrees:g} degrees, at most {MAX_DEGREES}")
    return degrees


def parse_time(text: str) -> float:
    """Seconds since 1970 of a date and time, UTC where it has no zone.

    As in Sully Chen's dataset of 2018 (`2018-07-01 17:09:44:912`, the last are milliseconds) or ISO 8601.

    Raises:
        ValueError: it is neither; its text says so.
    """
    text = text.strip()
    if published := re.fullmatch(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d):(\d{1,3})", text, re.ASCII):
        text = f"{published[1]}.{int(published[2]):03}"
    try:
        time = datetime.fromisoformat(text)
        seconds = ((time if time.tzinfo else time.replace(tzinfo=UTC)) - EPOCH).total_seconds()
    except (ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds <= MAX_TIME:
        raise ValueError(f"expected a date and time like 2018-07-01 17:09:44:912, found {quoted(text)}")
    return seconds


def format_label(label: Label) -> str:
    """The line of data.txt that says a label, with its end."""
    if label.time is None:
        return f"{label.frame} {label.degrees:.6f}\n"
    time = EPOCH.replace(tzinfo=None) + timedelta(milliseconds=round(label.time * 1000))
    return f"{label.frame} {label.degrees:.6f},{time.isoformat(' ', 'milliseconds').replace('.', ':')}\n"


def segments(labels: list[Label], gap_frames: int, gap_seconds: float) -> np.ndarray:
    """(N,) int32: which uninterrupted stretch of road each label belongs to, counted from 0.

    A new one starts at a new drive, where the frame number goes back or rises by more than `gap_frames`,
    and where the time goes back or on by more than `gap_seconds`.
    """
    drives = np.array([label.drive for label in labels])
    numbers = np.diff([label.number for label in labels])
    times = np.diff([math.nan if label.time is None else label.time for label in labels])  # nan compares false
    breaks = (drives[1:] != drives[:-1]) | (numbers < 1) | (numbers > gap_frames) | (times < 0) | (times > gap_seconds)
    return np.concatenate([[0], np.cumsum(breaks)]).astype(np.int32)


def radians(labels: list[Label]) -> np.ndarray:
    """(N,) float32 angles."""
    return (np.array([label.degrees for label in labels]) * np.pi / 180).astype(np.float32)
