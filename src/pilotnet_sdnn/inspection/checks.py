"""Do labels and frames match in each drive and in each stretch of it? A wrong part must not hide among good ones."""

from typing import NamedTuple

import numpy as np

from pilotnet_sdnn.dataset.sequences import frames_of_segments
from pilotnet_sdnn.dataset.store import DriveRange, Frames
from pilotnet_sdnn.errors import counted, shortened
from pilotnet_sdnn.inspection.alignment import MIN_FRAMES, Alignment, align, inconclusive, warnings

STRETCH = 1300  # frames: long segments are checked in stretches of this length up to twice as long
MIN_DROP = 1.0  # degrees
DROP_TO_NOISE = 12.0
NEAR = 8  # frames
KIND = 30  # first characters of a warning, which tell the fault


class Check(NamedTuple):
    """The alignment of a whole drive, or of a stretch of it without a gap."""

    drive: DriveRange
    start: int
    stop: int
    alignment: Alignment

    @property
    def whole(self) -> bool:
        """Whether it is of the whole drive."""
        return (self.start, self.stop) == (self.drive.start, self.drive.stop)


def check_parts(frames: Frames, turns: np.ndarray) -> list[Check]:
    """Check each drive, then each stretch of at least `MIN_FRAMES` frames in it, long segments in several.

    Args:
        frames: all drives.
        turns: (N,) columns per frame, from `turning`.
    """
    checks = []
    for drive in frames.drives:
        parts = {
            (int(part[0]), int(part[-1]) + 1)
            for segment in frames_of_segments(frames.segments[drive.start : drive.stop])
            for part in np.array_split(segment + drive.start, max(len(segment) // STRETCH, 1))
            if len(part) >= MIN_FRAMES
        }
        whole = drive.start, drive.stop
        for start, stop in [whole, *sorted(parts - {whole})]:
            alignment = align(turns[start:stop], frames.angles[start:stop], frames.segments[start:stop])
            checks.append(Check(drive, start, stop, alignment))
    return checks


def found_warnings(frames: Frames, checks: list[Check]) -> list[str]:
    """One line for each suspected fault, with the drive and the lines of its labels.

    What is wrong with a whole drive is not told again of its stretches; neighbouring stretches with the same fault are
    told once.
    """
    found: list[tuple[Check, str]] = []
    for check in checks:
        for warning in warnings(check.alignment):
            at = _same_fault(found, check, warning)
            if at is None:
                found.append((check, warning))
            elif not found[at][0].whole:
                found[at] = found[at][0]._replace(stop=check.stop), found[at][1]
    return [f"{place(frames, check)}: {warning}" for check, warning in found]


def _same_fault(found: list[tuple[Check, str]], check: Check, warning: str) -> int | None:
    """The place of an earlier warning that says the same of the whole drive or of the stretch just before."""
    for at, (other, text) in enumerate(found):
        same = other.drive == check.drive and text[:KIND] == warning[:KIND]
        if same and (other.whole or other.stop == check.start):
            return at
    return None


def place(frames: Frames, check: Check) -> str:
    """Where the part of a check is: the drive, its lines and its frames."""
    name = drive_name(frames, check.drive)
    if check.whole:
        return name
    first, last = check.start, check.stop - 1
    lines = f"lines {frames.lines[first]:,} to {frames.lines[last]:,}"
    return f"{name}, {lines}, frames {frames.name(first)} to {frames.name(last)}"


def drive_name(frames: Frames, drive: DriveRange) -> str:
    """The name of a drive, with its place in the list if there are several."""
    name = shortened(drive.origin, 60)
    count = len(frames.drives)
    return f"drive {frames.drives.index(drive) + 1} of {count} ({name})" if count > 1 else name


def conclusive(checks: list[Check]) -> list[Check]:
    """The checks that have an answer."""
    return [check for check in checks if not inconclusive(check.alignment)]


def drop_outs(angles: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Frames whose label leaves those around it for a single frame.

    It is away from the mean of its two neighbours, by more than `MIN_DROP`, than the neighbours differ, and than
    `DROP_TO_NOISE` times what is usual within `NEAR` frames; and the neighbours are away from theirs the other way,
    which they are not at the peak of a turn.

    Args:
        angles: (N,) radians.
        segments: (N,) segment of each frame.
    """
    degrees = np.degrees(angles.astype(float))
    count = len(degrees)
    if count < 3:
        return np.empty(0, int)
    off = np.full(count, np.nan)
    inside = (segments[:-2] == segments[1:-1]) & (segments[1:-1] == segments[2:])
    off[1:-1][inside] = (degrees[1:-1] - (degrees[:-2] + degrees[2:]) / 2)[inside]
    size = np.nan_to_num(np.abs(off))
    across = np.pad(np.abs(degrees[2:] - degrees[:-2]), 1)
    padded = np.pad(size, NEAR, mode="symmetric")
    usual = np.median([padded[NEAR + by : NEAR + by + count] for by in range(-NEAR, NEAR + 1) if abs(by) > 1], axis=0)
    beside = np.pad(off, 1, constant_values=np.nan)
    opposite = [np.isnan(other) | (other * off <= -(off**2) / 4) for other in (beside[:-2], beside[2:])]
    away = (size > MIN_DROP) & (size > across) & (size > DROP_TO_NOISE * usual)
    return np.flatnonzero(away & opposite[0] & opposite[1])


def said_of_drop_outs(frames: Frames, dropped: np.ndarray) -> str:
    """What the log says about drop-outs; there is at least one."""
    first = int(dropped[0])
    around = ", ".join(f"{angle:.4g}" for angle in np.degrees(frames.angles[first - 1 : first + 2]))
    drive = next(drive for drive in frames.drives if first < drive.stop)
    zeros = int(np.count_nonzero(frames.angles[dropped] == 0))
    where = f"{drive_name(frames, drive)}, frame {frames.name(first)}, line {frames.lines[first]:,}"
    return (
        f"{counted(len(dropped), 'label')} drop out for a single frame, {zeros:,} of them to exactly 0; first: {where} "
        f"({around} degrees)"
    )


def equal_labels(frames: Frames) -> list[str]:
    """A line for each drive of several frames whose labels are all the same."""
    return [
        f"{drive_name(frames, drive)}: all {drive.stop - drive.start:,} labels are "
        f"{np.degrees(frames.angles[drive.start]):g} degrees; nothing can be learned from them"
        for drive in frames.drives
        if drive.stop - drive.start > 1 and np.ptp(frames.angles[drive.start : drive.stop]) == 0
    ]
