"""The times of a table: dates, or numbers whose unit shows in their size or in how far apart they are."""

import math
from typing import NamedTuple

import numpy as np

from pilotnet_sdnn.drive.labels import MAX_TIME, NUMBER, parse_time

UNITS = {"seconds": 1.0, "milliseconds": 1e-3, "microseconds": 1e-6, "nanoseconds": 1e-9}
THIS_AGE = (9e8, 5e9)  # seconds since 1970: from 1998 to 2128
LONGEST_STEP = 60.0  # seconds between two frames, in times since 1970
LABEL_GAP = 0.5  # seconds between two labels, between which a label is interpolated
LONGEST_FRAME = 3.0  # seconds between two frames, in times since anything else


class Times(NamedTuple):
    """The times of a table."""

    seconds: np.ndarray  # (N,) since 1970, or since anything else; nan where there is no time
    unit: str  # "dates", a name in `UNITS`, or "" if there is no time

    @property
    def said(self) -> str:
        """What the log says about them."""
        return f"times in {self.unit}" if self.unit in UNITS else "times are dates"


def parse_times(texts: list[str]) -> Times:
    """Detect the unit of times and convert them.

    Numbers that are dates of this age in one of the units are times since 1970 in it. Others start anywhere, and count
    in the largest unit in which frames are at most `LONGEST_FRAME` apart.

    Args:
        texts: (N,) as in the table.
    """
    numbers = np.array([float(text) if NUMBER.fullmatch(text) else math.nan for text in texts])
    numeric = np.isfinite(numbers)
    unit = _unit(numbers[numeric]) if numeric.any() else ""
    seconds = numbers * UNITS.get(unit, math.nan)
    for at in np.flatnonzero(~numeric):
        try:
            seconds[at], unit = parse_time(texts[at]), unit or "dates"
        except ValueError:
            continue
    return Times(np.where((seconds >= 0) & (seconds <= MAX_TIME), seconds, math.nan), unit)


def _unit(numbers: np.ndarray) -> str:
    steps = np.diff(numbers)
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    middle = float(np.median(numbers))
    for name, seconds in UNITS.items():
        if THIS_AGE[0] <= middle * seconds <= THIS_AGE[1] and step * seconds <= LONGEST_STEP:
            return name
    return next((name for name, seconds in UNITS.items() if step * seconds <= LONGEST_FRAME), "nanoseconds")


def interpolated(times: np.ndarray, values: np.ndarray, at: np.ndarray, gap: float) -> np.ndarray:
    """Values at other times, linear between the two samples around.

    Args:
        times: (S,) seconds of the samples, in any order.
        values: (S,) of the samples.
        at: (N,) seconds.
        gap: seconds; nan where the two samples are further apart, and before the first and after the last.
    """
    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    after = np.clip(np.searchsorted(times, at), 1, len(times) - 1)
    near = (times[after] - times[after - 1] <= gap) | np.isin(at, times)
    inside = (at >= times[0]) & (at <= times[-1])
    return np.where(inside & near, np.interp(at, times, values), math.nan)
