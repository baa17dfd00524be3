"""Accuracy against operations: the runs that no other run beats in both, and a picture of them all."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path as MplPath
from matplotlib.patheffects import withStroke
from matplotlib.text import Annotation, Text
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from pilotnet_sdnn.errors import counted
from pilotnet_sdnn.files import atomic_write
from pilotnet_sdnn.team.experiments import Run

BLUE, GREY, ORANGE = "#1f6fb4", "#8a8a8a", "#d9730d"
PANEL = (9, 5.2)  # inches, of one group of runs
DPI = 130  # at another one, texts are wider or narrower than measured
GAPS = (8, 16, 26, 40, 60, 85, 115, 150, 200)  # distances to try between a point and its label, in points
ROUNDS = 5  # of moving labels to better places


def pareto_front(costs: np.ndarray) -> np.ndarray:
    """Which of N points no other point beats: none is as low in every cost and lower in one. Equal points all stay.

    Args:
        costs: (N, costs), the lower the better.

    Returns:
        (N,) bool.
    """
    others, points = costs[:, None], costs[None]
    beats = np.all(others <= points, -1) & np.any(others < points, -1)
    return np.logical_not(np.any(beats, 0))


def on_front(runs: list[Run]) -> np.ndarray:
    """(N,) bool: which runs are on the front of MSE and synops."""
    return pareto_front(np.array([(run.mse, run.synops) for run in runs], float).reshape(-1, 2))


def comparable(runs: list[Run]) -> list[list[Run]]:
    """The runs by the test frames they were measured on, most runs first: only there do MSEs compare."""
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.test_frames, []).append(run)
    return sorted(groups.values(), key=len, reverse=True)


def differing(runs: list[Run]) -> list[str]:
    """Names of the parameters that are not the same in all runs."""
    names = dict.fromkeys(name for run in runs for name in run.params)
    return [name for name in names if len({repr(run.params.get(name)) for run in runs}) > 1]


def labels(runs: list[Run]) -> tuple[list[str], str]:
    """For each run the parameters that distinguish it, and the usual values, which labels leave out.

    A value is usual if more than half of the runs share it. A run without a parameter of its own, and runs with the
    same ones, get their names.
    """
    usual = {}
    for name in differing(runs):
        value, count = Counter(repr(run.params.get(name)) for run in runs).most_common(1)[0]
        usual[name] = value if count > len(runs) / 2 else None
    texts = [
        ", ".join(f"{k} {run.params[k]}" for k, v in usual.items() if k in run.params and repr(run.params[k]) != v)
        for run in runs
    ]
    equal = Counter(texts)
    named = [
        text if text and equal[text] == 1 else f"{run.name}{': ' if text else ''}{text}"
        for text, run in zip(texts, runs, strict=True)
    ]
    return named, ", ".join(f"{name} {value.strip(chr(39))}" for name, value in usual.items() if value)


def draw(groups: list[list[Run]], note: str) -> Figure:
    """A picture with one panel for each group of comparable runs, and a note below."""
    figure = Figure((PANEL[0], PANEL[1] * len(groups)), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = figure.subplots(len(groups), squeeze=False)[:, 0]
    annotations = [draw_runs(ax, runs) for ax, runs in zip(panels, groups, strict=True)]
    if note:
        figure.supxlabel(note, fontsize=8, color=GREY)
    canvas.draw()  # the sizes of texts are known from here on
    for ax, texts in zip(panels, annotations, strict=True):
        spread_labels(ax, texts, canvas)
    return figure


def draw_runs(ax: Axes, runs: list[Run]) -> list[Annotation]:
    """Runs as points, their front, and what they are measured by.

    Returns:
        The runs' labels, each still on its point.
    """
    front = on_front(runs)
    synops, mse = np.array([run.synops for run in runs]), np.array([run.mse for run in runs])
    if synops.all():
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    else:  # a network that sends nothing at all
        ax.set_xscale("symlog", linthresh=min(synops[synops > 0], default=1))
    ax.scatter(synops[~front], mse[~front], 28, color=GREY, zorder=3)
    best = np.flatnonzero(front)[np.lexsort((mse[front], synops[front]))]
    ax.plot(synops[best].repeat(2)[1:], mse[best].repeat(2)[:-1], color=BLUE, zorder=2)  # in steps
    ax.plot(synops[best], mse[best], "o", color=BLUE, ms=7, zorder=4, label="Pareto front")
    ax.margins(0.12, 0.15)
    _draw_references(ax, runs)
    texts, usual = labels(runs)
    ax.set_title(title(runs) + (f"\n{usual}, where not said" if usual else ""), fontsize=9)
    ax.xaxis.set_major_formatter(EngFormatter())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlabel="synaptic operations per frame", ylabel="MSE, sq. radians")
    ax.grid(alpha=0.25)
    ax.legend(frameon=False, fontsize=8)
    return [label(ax, run, text, BLUE if best else "0.35") for run, text, best in zip(runs, texts, front, strict=True)]


def _draw_references(ax: Axes, runs: list[Run]) -> None:
    """Lines for the ANN baseline and for always guessing the mean label; the legend names those outside the axes."""
    x, y = ax.get_xlim(), ax.get_ylim()  # of the runs alone: the baseline's many operations would squeeze them together
    macs = max(run.macs for run in runs)
    anns = [run.ann_mse for run in runs if run.ann_mse is not None]
    for name, mse, dashes in (
        ("ANN baseline", min(anns, default=None), "--"),
        ("always the mean label", runs[0].test_frames[1], ":"),
    ):
        if mse is not None:
            place = " (above)" if mse > y[1] else " (below)" if mse < y[0] else ""
            ax.axhline(mse, color=ORANGE, lw=1, ls=dashes, zorder=1, label=f"{name}, MSE {mse:.4g}{place}")
    place = " (to the right)" if macs > x[1] else ""
    ax.axvline(macs, color=ORANGE, lw=1, ls="-.", zorder=1, label=f"ANN's {macs / 1e6:.2f} million MACs a frame{place}")
    ax.set(xlim=x, ylim=y)


def title(runs: list[Run]) -> str:
    """What the MSE of comparable runs is measured on, and how long they trained if all trained equally long."""
    params = runs[0].params
    trained = [] if "epochs" in differing(runs) else [counted(params.get("epochs", 0), "epoch")]
    parts = [counted(int(runs[0].test_frames[0] or 0), "held-out frame"), f"{params.get('split')} split", *trained]
    return f"{runs[0].drive}: {', '.join(parts)}"


def label(ax: Axes, run: Run, text: str, color: str) -> Annotation:
    """The text of a run, tied to its point by a thin line."""
    annotation = ax.annotate(
        text, (run.synops, run.mse), (0, 0), textcoords="offset points", ha="center", va="center", zorder=5,
        fontsize=7.5, color=color, path_effects=[withStroke(linewidth=2, foreground="white")],
        arrowprops={"arrowstyle": "-", "color": "0.7", "lw": 0.6, "shrinkA": 0, "shrinkB": 4},
    )  # fmt: skip
    annotation.set_in_layout(False)
    return annotation


class _Label(NamedTuple):
    """The label of a point, in pixels."""

    point: np.ndarray
    size: np.ndarray
    centres: np.ndarray  # (P, 2): its places, the nearest first

    def box(self, place: int) -> Bbox:
        return Bbox([self.centres[place] - self.size / 2, self.centres[place] + self.size / 2])

    def tie(self, place: int) -> np.ndarray:
        return np.array([self.point, self.centres[place]])


def spread_labels(ax: Axes, annotations: list[Annotation], canvas: FigureCanvasAgg) -> None:
    """Put each label as near to its point as points, lines, other labels and their ties leave room.

    Each is placed clear of the labels before it; then labels move while any finds a better place.
    """
    renderer, pixels = canvas.get_renderer(), canvas.figure.dpi / 72
    points = ax.transData.transform([annotation.xy for annotation in annotations])
    dots = [Bbox([point - 5 * pixels, point + 5 * pixels]) for point in points]
    legends = [legend.get_window_extent(renderer)] if (legend := ax.get_legend()) else []
    lines = [line.get_transform().transform_path(line.get_path()) for line in ax.lines]
    turns = [np.array((np.cos(turn), np.sin(turn))) for turn in np.radians(np.arange(0, 360, 30))]
    labels = []
    for annotation, point in zip(annotations, points, strict=True):
        size = np.array(Text.get_window_extent(annotation, renderer).size) + 3 * pixels
        centres = [point + (gap * pixels + size / 2) * turn for gap in GAPS for turn in turns]
        labels.append(_Label(point, size, np.array(centres)))

    chosen: dict[int, int] = {}
    for _ in range(ROUNDS):
        before = dict(chosen)
        for at, label in enumerate(labels):
            others = [(labels[other], place) for other, place in chosen.items() if other != at]
            taken = [*legends, *(other.box(place) for other, place in others)]
            ties = np.array([other.tie(place) for other, place in others]).reshape(-1, 2, 2)
            crowding = _crowding(label, lines, dots, taken, ties)
            crowding += [10_000 * (not _inside(label.box(place), ax.bbox)) for place in range(len(crowding))]
            chosen[at] = int(np.argmin(crowding))
        if chosen == before:
            break
    for at, annotation in enumerate(annotations):
        annotation.xyann = tuple((labels[at].centres[chosen[at]] - points[at]) / pixels)
        if chosen[at] < len(turns) and annotation.arrow_patch:  # so near that matplotlib draws the tie through the text
            annotation.arrow_patch.set_visible(False)


def _crowding(label: _Label, lines: list[MplPath], dots: list[Bbox], taken: list[Bbox], ties: np.ndarray) -> np.ndarray:
    """(P,): how crowded a label is at each of its places. Covered text is worst, then ties that cross."""
    places = range(len(label.centres))
    boxes = [label.box(place) for place in places]
    obstacles = [_diagonals(box) for box in [*taken, *(dot for dot in dots if not dot.contains(*label.point))]]
    crossed = _crossings(np.array([label.tie(place) for place in places]), np.concatenate([ties, *obstacles]))
    for side in (0, 1):
        crossed += _crossings(np.array([_diagonals(box)[side] for box in boxes]), ties)
    covered = [box.count_overlaps([*dots, *taken]) for box in boxes]
    on_lines = [sum(line.intersects_bbox(box, filled=False) for line in lines) for box in boxes]
    return np.array(on_lines) + 4 * crossed + 200 * np.array(covered)


def _diagonals(box: Bbox) -> np.ndarray:
    """(2, 2, 2): a line through the box crosses at least one of its two diagonals."""
    return np.array([[(box.x0, box.y0), (box.x1, box.y1)], [(box.x0, box.y1), (box.x1, box.y0)]])


def _crossings(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,): how many of M segments (M, 2, 2) each of N segments (N, 2, 2) crosses."""

    def side(segments: np.ndarray, points: np.ndarray) -> np.ndarray:
        along, to = segments[..., 1, :] - segments[..., 0, :], points - segments[..., 0, :]
        return np.sign(along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0])

    a, b = some[:, None], others[None]
    apart = side(a, b[..., 0, :]) * side(a, b[..., 1, :]) < 0
    return np.sum(apart & (side(b, a[..., 0, :]) * side(b, a[..., 1, :]) < 0), 1)


def _inside(box: Bbox, frame: Bbox) -> bool:
    return frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1)


def save(figure: Figure, path: Path) -> None:
    """Write a picture, of the kind that the path ends with; equal pictures have equal bytes."""
    kind = path.suffix[1:]
    with atomic_write(path) as temporary, mpl.rc_context({"svg.hashsalt": "pareto"}):
        figure.savefig(temporary, format=kind, metadata={"Date": None} if kind == "svg" else None)
