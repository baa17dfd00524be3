"""The report of a pull request, in Markdown that is readable as plain text too."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any, NamedTuple

from pilotnet_sdnn.errors import counted
from pilotnet_sdnn.team.charts import Charts
from pilotnet_sdnn.team.limits import LIMITS, Limit, Limits, MetricChange
from pilotnet_sdnn.team.lock import LockedDrive
from pilotnet_sdnn.team.markdown import inert, table

PACKAGES = ("torch", "numpy", "lava-dl", "lava-nc", "dvc")  # a new version of one may change numbers
NOTHING = "Nothing changed."
LONGEST_LIST = 50  # changed files
MOST_REASONS = 3  # why one stage is stale


class Versions(NamedTuple):
    base: dict[str, str]
    here: dict[str, str]


class Comparison(NamedTuple):
    """What a report compares: a base revision and the working tree."""

    base_name: str
    base: str  # the commit
    here: str  # what HEAD is, and whether there are uncommitted changes
    files: dict[str, str]  # path -> what happened to it; of those that are no results
    experiment: tuple[str, str] | None  # the name and the start of one that did not start from the base
    base_gate: list[Limit] | None  # None if the base has no valid limits.yaml
    params: dict[str, tuple[Any, Any]]
    metrics: dict[str, MetricChange]
    stale: dict[str, list[str]]  # stage -> what differs from dvc.lock
    drives: tuple[LockedDrive, LockedDrive]  # of the base, of here
    versions: Versions
    threads: Any
    charts: Charts


def failures(comparison: Comparison, limits: Limits) -> list[str]:
    """What the gate does not let pass, one line each."""
    failed = [
        f"{stage}: dvc.lock is stale, run dvc checkout and dvc repro: {_some(what)}"
        for stage, what in comparison.stale.items()
    ]
    for limit in limits.gate:
        change = comparison.metrics[limit.metric]
        if not limit.holds(change):
            failed.append(_limited(limit, change, limits))
    return failed


def _some(reasons: list[str]) -> str:
    more = f" and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
    return ", ".join(reasons[:MOST_REASONS]) + more


def render(comparison: Comparison, limits: Limits, pictures: str) -> str:
    """The report; its pictures are in the folder of that name."""
    sections = [
        _head(comparison),
        _gate(comparison, limits),
        _files(comparison),
        _other_data(*comparison.drives),
        _params(comparison.params),
        _metrics(comparison.metrics, limits),
        _operations(comparison.metrics, limits),
        _charts(comparison.charts, pictures),
        _data(*comparison.drives),
        _environment(comparison.versions, comparison.threads),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(comparison: Comparison) -> str:
    name = inert(comparison.base_name)
    return (
        f"# What changes against {name}\n\n"
        f"Base: {comparison.base[:8]}, where this work left {name}. Here: {comparison.here}. "
        f"Drive: {inert(comparison.drives[1].origin)}."
    )


def _gate(comparison: Comparison, limits: Limits) -> str:
    failed = failures(comparison, limits)
    lines = [f"- **{inert(line)}**" for line in failed]
    if not comparison.stale:
        lines.append("- dvc.lock is up to date with the code, the parameters and the metrics")
    for limit in limits.gate:
        change = comparison.metrics[limit.metric]
        if limit.holds(change):
            lines.append(f"- {inert(_limited(limit, change, limits))}")
        elif limits.verdict(limit.metric, change).startswith("noise"):
            lines.append(f"- {inert(limit.metric)} moved by less than machines differ: compare two runs of one machine")
    lines += [f"- **{inert(line)}**" for line in changed_gate(comparison.base_gate, limits.gate)]
    return f"## Gate: {'FAILED' if failed else 'passed'}\n\n" + "\n".join(lines)


def changed_gate(base: list[Limit] | None, here: list[Limit]) -> list[str]:
    """What is unlike the base in the limits themselves: whoever loosens one passes a gate that is not the team's."""
    if base is None:
        return []
    gone = [f"{LIMITS}: the limit {limit.metric} {limit} of the base is gone" for limit in base if limit not in here]
    return gone + [f"{LIMITS}: the limit {limit.metric} {limit} is new" for limit in here if limit not in base]


def _files(comparison: Comparison) -> str:
    """Files that are neither results nor expected of an experiment are what a reviewer must not miss."""
    text = "## Files changed besides results\n\n"
    if comparison.experiment:
        name, start = comparison.experiment
        text += (
            f"**The results are those of the experiment {inert(name)}, which started from {start[:8]}, not from the "
            "base: check that no file here undoes what was committed since.**\n\n"
        )
    if not comparison.files:
        return text + "None."
    lines = [f"- {inert(path)} ({state})" for path, state in comparison.files.items()]
    if len(lines) > LONGEST_LIST:
        lines[LONGEST_LIST:] = [f"- and {len(lines) - LONGEST_LIST} more: git diff --stat {comparison.base[:8]}"]
    return text + "\n".join(lines)


def _other_data(base: LockedDrive, here: LockedDrive) -> str:
    if not base.files or base.files == here.files:
        return ""
    return "**Other data:** this is not the drive of the base (see Data), so the metrics of the two do not compare."


def _params(changes: dict[str, tuple[Any, Any]]) -> str:
    rows = [
        (name, *("none" if value is None else value for value in change)) for name, change in sorted(changes.items())
    ]
    return "## Parameters\n\n" + (table(("parameter", "base", "here"), rows) if rows else NOTHING)


def _metrics(metrics: dict[str, MetricChange], limits: Limits) -> str:
    """The metrics of the whole network; those of its parts, which have a dot in their names, are folded away."""
    changed = sorted((name for name, change in metrics.items() if change.base != change.here), key=limits.rank)
    if not changed:
        return f"## Metrics\n\n{NOTHING}"
    whole, parts = ([name for name in changed if _is_part(name) == part] for part in (False, True))
    text = "## Metrics\n\n" + _metrics_table(whole, metrics, limits) if whole else "## Metrics"
    if parts:
        text += f"\n\n<details><summary>{len(parts)} more: by layer, worst frames, energy, as published</summary>\n\n"
        text += _metrics_table(parts, metrics, limits) + "\n\n</details>"
    return text + "\n\nNoise: less than what machines of two families differ by. On one machine there is none."


def _is_part(name: str) -> bool:
    """Whether a metric, or one as `file:name`, is of a part of the network."""
    return "." in name.rpartition(":")[2]


def _metrics_table(names: list[str], metrics: dict[str, MetricChange], limits: Limits) -> str:
    rows = [
        (name, rounded(change.base), rounded(change.here), limits.difference(name, change), limits.way(name), verdict)
        for name in names
        for change in [metrics[name]]
        for verdict in [limits.verdict(name, change)]
    ]
    return table(("metric", "base", "here", "change", "good", ""), rows)


def _operations(metrics: dict[str, MetricChange], limits: Limits) -> str:
    """Events and synaptic operations by layer, per frame."""
    layers = sorted({name.split(".")[1] for name in metrics if name.startswith("layers.")}, key=_natural)
    rows = [
        (layer, *(cell for kind in ("events", "synops") for cell in _counts(metrics, f"layers.{layer}.{kind}", limits)))
        for layer in layers
    ]
    if all(row[1] == row[2] and row[4] == row[5] for row in rows):
        return ""
    totals = (_counts(metrics, f"{kind}_per_frame", limits) for kind in ("events", "synops"))
    rows.append(("total", *(cell for total in totals for cell in total)))
    head = ("layer", "events", "here", "change", "synops", "here", "change")
    return "## Operations by layer\n\nPer frame of held-out road, base and here.\n\n" + table(head, rows)


def _natural(layer: str) -> tuple[str, int]:
    name, _, number = layer.rpartition("-")
    return name, int(number) if number.isdecimal() else 0


def _counts(metrics: dict[str, MetricChange], name: str, limits: Limits) -> tuple[str, str, str]:
    change = metrics.get(name, MetricChange(None, None))
    return _count(change.base), _count(change.here), limits.difference(name, change)


def _count(value: float | None) -> str:
    """Two decimals, as in the table of operations, and three digits of what is rare."""
    if value is None:
        return "none"
    return f"{value:.2f}".rstrip("0").rstrip(".") if value >= 1 else f"{value:.3g}"


def _charts(charts: Charts, pictures: str) -> str:
    parts = ["## Plots", *(f"![{inert(chart.name)}]({pictures}/{chart.file_name})" for chart in charts.changed)]
    for what, names in (("Unchanged", charts.same), ("Too large to draw", charts.left_out)):
        if names:
            parts.append(f"{what}: {', '.join(map(inert, names))}.")
    return "\n\n".join(parts)


def _data(base: LockedDrive, here: LockedDrive) -> str:
    lines = [f"- the drive: {_arrow(base.origin, here.origin)}"]
    for path in sorted(base.files | here.files):
        lines.append(f"- {inert(path)} md5 {_arrow(base.files.get(path, 'none'), here.files.get(path, 'none'))}")
    return "## Data\n\n" + "\n".join(lines)


def _arrow(old: str, new: str) -> str:
    return f"{inert(new)}, as in the base" if old == new else f"{inert(old)} -> {inert(new)}"


def _environment(versions: Versions, threads: Any) -> str:
    locked = [
        (package, versions.base.get(package, "none"), versions.here.get(package, "none"), _installed(package))
        for package in PACKAGES
    ]
    return f"""\
## Environment

{table(("package", "uv.lock of base", "uv.lock here", "installed"), locked)}

Reported on Python {platform.python_version()}, {platform.system()} {platform.machine()}, {_cpu()}, \
{counted(os.cpu_count() or 1, "core")}; threads: {inert(threads)}. Metrics and plots are those that git has, from the \
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


def _limited(limit: Limit, change: MetricChange, limits: Limits) -> str:
    missing = [side for side, value in (("base", change.base), ("here", change.here)) if value is None]
    moved = limits.difference(limit.metric, change) or "the same"
    if missing:
        moved = f"missing or NaN: {' and '.join(missing)}"
    return f"{limit.metric}: {rounded(change.base)} -> {rounded(change.here)} ({moved}); limit: {limit}"


def rounded(value: float | None) -> str:
    """A metric to six significant digits, as text."""
    return "none" if value is None else f"{value:.6g}"
