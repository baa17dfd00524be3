"""A drive at a glance: statistics of its labels, and one picture that shows whether they match the frames."""

import math
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pilotnet_sdnn.dataset.store import FRAME_SHAPE, Frames
from pilotnet_sdnn.errors import counted, shortened
from pilotnet_sdnn.files import atomic_write
from pilotnet_sdnn.inspection.alignment import LAG_TOLERANCE, MAX_LAG, Alignment, inconclusive
from pilotnet_sdnn.inspection.checks import Check, conclusive, drop_outs, found_warnings

MIN_JUMP = 15.0  # degrees
MAX_SHOWN = 3  # warnings
VERDICT_LENGTH = 165  # characters, as wide as the picture
MAX_POINTS = 1000  # of a curve over the whole drive
CONTACT_SHEET = (3, 6)  # rows, one for each part of the drive, and columns, from left to right turns
QUANTILES = (0.01, 0.1, 0.35, 0.65, 0.9, 0.99)  # of the angles, one for each column
NEEDLE_DEGREES = 60.0  # deflection of the needle for the strongest angle
MAX_BINS = 61  # of the histogram; with fewer, on drives of less than a minute, its scale is linear


def jumps(angles: np.ndarray, segments: np.ndarray) -> np.ndarray:
    """Frames whose label jumps: its change differs by `MIN_JUMP` from the changes just before and after.

    Tight turns really reach 40 degrees a frame, but build up over some frames. A label that drops out for one
    frame jumps twice.

    Args:
        angles: (N,) radians.
        segments: (N,) segment of each frame; jumps between segments do not count.
    """
    steps = np.where(np.diff(segments) == 0, np.diff(np.degrees(angles.astype(float))), 0)
    around = np.pad(steps, 1)
    usual = np.median([around[:-2], around[1:-1], around[2:]], axis=0)
    return np.flatnonzero(np.abs(steps - usual) > MIN_JUMP) + 1


def drive_metrics(drive: Frames, alignment: Alignment, jumped: np.ndarray, checks: list[Check]) -> dict:
    """The content of metrics/drive.json."""
    judged = conclusive(checks)
    degrees = np.degrees(drive.angles.astype(float))
    return {
        "frames": len(degrees),
        "skipped_frames": drive.skipped,
        "segments": int(np.count_nonzero(np.diff(drive.segments))) + 1,
        "label_mean_degrees": float(degrees.mean()),
        "label_std_degrees": float(degrees.std()),
        "label_min_degrees": float(degrees.min()),
        "label_max_degrees": float(degrees.max()),
        "zero_share": float(np.mean(degrees == 0)),
        "jumps": len(jumped),
        "drop_outs": len(drop_outs(drive.angles, drive.segments)),
        "correlation": alignment.at_zero,
        "best_lag_frames": alignment.best_lag,
        "best_lag_correlation": alignment.best,
        "parts": len(judged),
        "lowest_correlation": min((check.alignment.best for check in judged), default=math.nan),
        "warnings": len(found_warnings(drive, checks)),
    }


def curves(drive: Frames, turns: np.ndarray, jumped: np.ndarray) -> dict[str, np.ndarray]:
    """The drive averaged to at most `MAX_POINTS` points, for a chart.

    Returns:
        Columns of equal length: `frame`, the number of the first of each point, its own in a single drive; `name`, its
        file name; `degrees`, `least_degrees` and `most_degrees`,
        mean, minimum and maximum of its labels; `turn`, columns per frame; `jumps`.
    """
    degrees = np.degrees(drive.angles.astype(float))
    every = -(-len(degrees) // MAX_POINTS)
    starts = np.arange(0, len(degrees), every)
    sizes = np.diff(np.append(starts, len(degrees)))
    seen = np.isfinite(turns)
    return {
        "frame": frame_axis(drive)[starts],
        "name": np.array([drive.name(start) for start in starts]),
        "degrees": np.add.reduceat(degrees, starts) / sizes,
        "least_degrees": np.minimum.reduceat(degrees, starts),
        "most_degrees": np.maximum.reduceat(degrees, starts),
        "turn": np.add.reduceat(np.where(seen, turns, 0), starts) / np.maximum(np.add.reduceat(seen, starts), 1),
        "jumps": np.histogram(jumped, np.append(starts, len(degrees)))[0],
    }


def frame_axis(drive: Frames) -> np.ndarray:
    """(N,) numbers of the frames: their own if they rise throughout, as in a single drive, else their positions."""
    positions = np.arange(len(drive.angles))
    own = drive.own_numbers(positions)
    return own if len(drive.drives) < 2 and (np.diff(own) > 0).all() else positions


def draw(
    path: Path,
    drive: Frames,
    alignment: Alignment,
    chart: dict[str, np.ndarray],
    jumped: np.ndarray,
    checks: list[Check],
) -> None:
    """Draw plots/drive.png, 1200x1000 pixels for any length of drive; the same drive gives the same bytes."""
    figure = Figure(figsize=(12, 10), dpi=100)
    _draw_header(figure, drive, alignment, jumped, checks)
    sheet = figure.add_gridspec(*CONTACT_SHEET, left=0.01, right=0.99, bottom=0.5, top=0.9, wspace=0.04, hspace=0.2)
    _draw_contact_sheet(np.asarray(sheet.subplots()), drive)
    _draw_over_time(figure.add_axes((0.06, 0.28, 0.88, 0.18)), chart, drive)
    _draw_histogram(figure.add_axes((0.06, 0.05, 0.42, 0.17)), drive)
    _draw_lags(figure.add_axes((0.55, 0.05, 0.39, 0.17)), alignment)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _draw_header(figure: Figure, drive: Frames, alignment: Alignment, jumped: np.ndarray, checks: list[Check]) -> None:
    title = (
        f"{drive.origin[:90]}: {counted(len(drive.angles), 'frame')} used, {drive.skipped:,} left out, "
        f"{counted(len(jumped), 'jump')}, {counted(len(drop_outs(drive.angles, drive.segments)), 'drop-out')}"
    )
    figure.text(0.5, 0.975, title, ha="center", va="center", fontsize=13, parse_math=False)
    if found := found_warnings(drive, checks):
        more = [f"and {len(found) - MAX_SHOWN:,} more"] if len(found) > MAX_SHOWN else []
        lines = [shortened(line, VERDICT_LENGTH) for line in found[:MAX_SHOWN]]
        verdict, colour = "\n".join(lines + more), "firebrick"
    elif not conclusive(checks) and (reason := inconclusive(alignment)):
        verdict, colour = f"inconclusive whether labels match frames: {reason}", "0.4"
    else:
        verdict, colour = f"labels match frames: correlation {alignment.at_zero:.2f}", "seagreen"
    figure.text(0.5, 0.945, verdict, ha="center", va="center", fontsize=9, color=colour, parse_math=False)


def _draw_contact_sheet(axes: np.ndarray, drive: Frames) -> None:
    """Frames from left to right turns, for each part of the drive."""
    strongest = max(float(np.quantile(np.abs(drive.angles), max(QUANTILES))), 1e-6)
    for row, part in zip(axes, np.array_split(np.arange(len(drive.angles)), len(axes)), strict=True):
        for ax, quantile in zip(row, QUANTILES, strict=True):
            ax.axis("off")
            if len(part) == 0:
                continue
            order = np.argsort(drive.angles[part], kind="stable")
            number = int(part[order[round(quantile * (len(part) - 1))]])
            name = shortened(drive.name(number), 24)
            ax.set_title(f"{np.degrees(drive.angles[number]):+.1f}°  ({name})", fontsize=9, pad=3, parse_math=False)
            _draw_frame(ax, drive.frames[number], float(drive.angles[number]), strongest)


def _draw_frame(ax: Axes, frame: np.ndarray, angle: float, strongest: float) -> None:
    height, width, _ = FRAME_SHAPE
    ax.imshow(frame, aspect=width / height * 9 / 16, interpolation="bicubic")
    direction = np.radians(np.clip(angle / strongest, -1.4, 1.4) * NEEDLE_DEGREES)
    foot = np.array([width / 2, height - 1.5])
    tip = foot + np.array([np.sin(direction) * height / 2 * width / height * 9 / 16, -np.cos(direction) * height / 2])
    for colour, thickness in (("black", 5), ("gold", 2.5)):
        ax.plot(*zip(foot, tip, strict=True), color=colour, lw=thickness, solid_capstyle="round")
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))


def _draw_over_time(ax: Axes, chart: dict[str, np.ndarray], drive: Frames) -> None:
    ax.fill_between(chart["frame"], chart["least_degrees"], chart["most_degrees"], color="tab:blue", lw=0.8)
    numbers = frame_axis(drive)
    several = len(drive.drives) > 1
    ax.set(xlabel="frame, counted through all drives" if several else "frame")
    ax.set_xlim(numbers[0], max(numbers[-1], numbers[0] + 1))
    ax.locator_params(axis="x", integer=True)
    ax.set_ylabel("label, degrees, positive to the right", color="tab:blue")
    turns = ax.twinx()
    turns.plot(chart["frame"], chart["turn"], color="tab:orange", lw=0.9, alpha=0.9)
    turns.set_ylabel("camera turns, columns/frame", color="tab:orange")
    for axis, values in ((ax, [chart["least_degrees"], chart["most_degrees"]]), (turns, chart["turn"])):
        reach = max(1.5 * float(np.quantile(np.abs(values), 0.99)), 1e-3)  # a few wild values must not flatten the rest
        axis.set_ylim(-reach, reach)
    for boundary in np.flatnonzero(np.diff(drive.segments))[:MAX_POINTS] + 1:
        ax.axvline(numbers[boundary], color="0.7", lw=0.5, zorder=0)
    jumped = chart["frame"][chart["jumps"] > 0]
    if len(jumped):
        top = np.full(len(jumped), ax.get_ylim()[1])
        markers = ax.plot(jumped, top, "v", color="red", ms=5, clip_on=False, label="labels jump")
        turns.legend(handles=markers, loc="lower right", fontsize=8)


def _draw_histogram(ax: Axes, drive: Frames) -> None:
    degrees = np.degrees(drive.angles.astype(float))
    bins = min(int(2 * math.sqrt(len(degrees))), MAX_BINS)
    ax.hist(degrees, bins=bins, log=bins == MAX_BINS, color="tab:blue")
    if bins < MAX_BINS:
        ax.locator_params(axis="y", integer=True)
    zeros = np.mean(degrees == 0)
    ax.set(xlabel=f"label, degrees (exactly zero: {zeros:.1%})", ylabel="frames")


def _draw_lags(ax: Axes, alignment: Alignment) -> None:
    ax.axvspan(-LAG_TOLERANCE, LAG_TOLERANCE, color="0.93")
    ax.axhline(0, color="0.7", lw=0.8)
    ax.plot(alignment.lags, alignment.correlations, color="tab:orange")
    ax.plot(alignment.best_lag, alignment.best, "o", color="tab:orange")
    ax.set(xlabel="lag of the camera behind the label, frames", ylabel="correlation", ylim=(-1, 1))
    ax.set_xlim(-1.1 * MAX_LAG, 1.1 * MAX_LAG)
