"""The report of a pull request in Markdown that reads as plain text, too."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pilotnet_sdnn.team.charts import Chart
from pilotnet_sdnn.team.limits import Change, Limit, Limits
from pilotnet_sdnn.team.lock import LockedDrive

PACKAGES = ("torch", "torchvision", "numpy", "lava-dl", "lava-nc", "dvc")  # that change numbers when they change
NOTHING = "Nothing changed."
_NUMERIC = re.compile(r"([-+]?[\d.]+(e[-+]?\d+)?( %)?|none|)")


class Versions(NamedTuple):
    base: dict[str, str]
    here: dict[str, str]


class Comparison(NamedTuple):
    """Everything that a report tells of a base and the working tree."""

    title: str
    params: dict[str, tuple[Any, Any]]
    metrics: dict[str, Change]
    stale: dict[str, list[str]]  # stage -> what differs from dvc.lock
    drives: tuple[LockedDrive, LockedDrive]  # of the base, of here
    versions: Versions
    threads: Any
    charts: list[Chart]
    same_charts: list[str]


def failures(comparison: Comparison, limits: Limits) -> list[str]:
    """What the gate does not let pass, one line each."""
    failed = [
        f"{stage}: dvc.lock is stale, run `dvc checkout` and `dvc repro`: {', '.join(what)}"
        for stage, what in comparison.stale.items()
    ]
    for limit in limits.gate:
        change = comparison.metrics[limit.metric]
        if not limit.holds(change):
            failed.append(_limited(limit, change))
    return failed


def render(comparison: Comparison, limits: Limits, pictures: str) -> str:
    """The report; its pictures are in the folder of that name."""
    sections = [
        f"{comparison.title} Drive: {comparison.drives[1].origin}.",
        _gate(comparison, limits),
        _other_data(*comparison.drives),
        _params(comparison.params),
        _metrics(comparison.metrics, limits),
        _operations(comparison.metrics),
        _charts(comparison.charts, comparison.same_charts, pictures),
        _data(*comparison.drives),
        _environment(comparison.versions, comparison.threads),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _gate(comparison: Comparison, limits: Limits) -> str:
    failed = failures(comparison, limits)
    lines = [f"- **{line}**" for line in failed]
    if not comparison.stale:
        lines.append("- dvc.lock is up to date with the code, the parameters and the metrics")
    for limit in limits.gate:
        change = comparison.metrics[limit.metric]
        if limit.holds(change):
            lines.append(f"- {_limited(limit, change)}")
        elif limits.verdict(limit.metric, change).startswith("noise"):
            lines.append(f"- {limit.metric} moved by less than machines differ: compare two runs of one machine")
    return f"## Gate: {'FAILED' if failed else 'passed'}\n\n" + "\n".join(lines)


def _other_data(base: LockedDrive, here: LockedDrive) -> str:
    if not base.files or base.files == here.files:
        return ""
    return "**Other data:** this is not the drive of the base (see Data), so the metrics of the two do not compare."


def _params(changes: dict[str, tuple[Any, Any]]) -> str:
    rows = [(name, *map(_cell, change)) for name, change in sorted(changes.items())]
    return "## Parameters\n\n" + (table(("parameter", "base", "here"), rows) if rows else NOTHING)


def _cell(value: Any) -> str:
    """A parameter, which may be any text, as a cell of a table."""
    return "none" if value is None else " ".join(str(value).split()).replace("|", "\\|")


def _metrics(metrics: dict[str, Change], limits: Limits) -> str:
    """The metrics of the whole network; those of its parts, which have a dot in their names, are folded away."""
    changed = sorted((name for name, change in metrics.items() if change.old != change.new), key=limits.rank)
    if not changed:
        return f"## Metrics\n\n{NOTHING}"
    whole, parts = ([name for name in changed if ("." in name) == dotted] for dotted in (False, True))
    text = "## Metrics\n\n" + _metrics_table(whole, metrics, limits) if whole else "## Metrics"
    if parts:
        text += f"\n\n<details><summary>{len(parts)} more: by layer, worst frames, energy, as published</summary>\n\n"
        text += _metrics_table(parts, metrics, limits) + "\n\n</details>"
    return text + "\n\nNoise: less than what machines of two families differ by. On one machine there is none."


def _metrics_table(names: list[str], metrics: dict[str, Change], limits: Limits) -> str:
    rows = [
        (name, _number(change.old), _number(change.new), _delta(change), limits.way(name), limits.verdict(name, change))
        for name in names
        for change in [metrics[name]]
    ]
    return table(("metric", "base", "here", "change", "good", ""), rows)


def _operations(metrics: dict[str, Change]) -> str:
    """Events and synaptic operations by layer, per frame."""
    layers = sorted({name.split(".")[1] for name in metrics if name.startswith("layers.")}, key=_natural)
    rows = [
        (layer, *_counts(metrics, f"layers.{layer}.events"), *_counts(metrics, f"layers.{layer}.synops"))
        for layer in layers
    ]
    if all(row[1] == row[2] and row[4] == row[5] for row in rows):
        return ""
    rows.append(("total", *_counts(metrics, "events_per_frame"), *_counts(metrics, "synops_per_frame")))
    head = ("layer", "events", "here", "change", "synops", "here", "change")
    return "## Operations by layer\n\nPer frame, base and here; the first frame of sequences left out.\n\n" + table(
        head, rows
    )


def _natural(layer: str) -> tuple[str, int]:
    name, _, number = layer.rpartition("-")
    return name, int(number) if number.isdecimal() else 0


def _counts(metrics: dict[str, Change], name: str) -> tuple[str, str, str]:
    change = metrics.get(name, Change(None, None))
    old, new = map(_count, change)
    return old, new, _delta(change)


def _count(value: float | None) -> str:
    """Two decimals, as in the table of operations, and three digits of what is rare."""
    if value is None:
        return "none"
    return f"{value:.2f}".rstrip("0").rstrip(".") if value >= 1 else f"{value:.3g}"


def _charts(charts: list[Chart], same: list[str], pictures: str) -> str:
    text = "## Plots"
    for chart in charts:
        text += f"\n\n![{chart.name}]({pictures}/{chart.file_name})"
    return f"{text}\n\nUnchanged: {', '.join(same)}." if same else text


def _data(base: LockedDrive, here: LockedDrive) -> str:
    lines = [f"- the drive: {_arrow(base.origin, here.origin)}"]
    for path in sorted(base.files | here.files):
        lines.append(f"- `{path}` md5 {_arrow(base.files.get(path, 'none'), here.files.get(path, 'none'))}")
    return "## Data\n\n" + "\n".join(lines)


def _arrow(old: str, new: str) -> str:
    return f"{new}, as in the base" if old == new else f"{old} -> {new}"


def _environment(versions: Versions, threads: Any) -> str:
    locked = [
        (package, versions.base.get(package, "none"), versions.here.get(package, "none"), _installed(package))
        for package in PACKAGES
    ]
    return f"""\
## Environment

{table(("package", "uv.lock of base", "uv.lock here", "installed"), locked)}

Reported on Python {platform.python_version()}, {platform.system()} {platform.machine()}, {_cpu()}, \
{os.cpu_count()} cores; the pipeline uses {threads} threads. Metrics and plots are those that git has, from the \
machine that ran the pipeline."""


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _cpu() -> str:
    """The processor's name, which Linux tells in a file only."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"


def _limited(limit: Limit, change: Change) -> str:
    missing = [side for side, value in (("base", change.old), ("here", change.new)) if value is None]
    moved = f"missing or NaN: {' and '.join(missing)}" if missing else _delta(change) or "the same"
    return f"{limit.metric}: {_number(change.old)} -> {_number(change.new)} ({moved}); limit: {limit}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"


def _delta(change: Change) -> str:
    """The change in percent; as it is where the base is zero; nothing where there is none."""
    if change.old is None or change.new is None or change.old == change.new:
        return ""
    return f"{100 * change.share:+.1f} %" if change.old else f"{change.difference:+.6g}"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table with its columns aligned: those of numbers to the right, of words to the left."""
    lines = [head, *(tuple(map(str, row)) for row in rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(head))]
    right = [all(_NUMERIC.fullmatch(line[column]) for line in lines[1:]) for column in range(len(head))]
    rule = ["-" * (width - 1) + ":" if number else "-" * width for width, number in zip(widths, right, strict=True)]
    padded = [
        [c.rjust(w) if number else c.ljust(w) for c, w, number in zip(line, widths, right, strict=True)]
        for line in lines
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (padded[0], rule, *padded[1:]))
