"""The summary of a report, for a terminal of 80 columns."""

import textwrap

from tabulate import tabulate

from pilotnet_sdnn.errors import printable
from pilotnet_sdnn.team.limits import LIMITS, Limits, MetricChange
from pilotnet_sdnn.team.report import Comparison, changed_gate, failures, rounded

HEADLINE = ("mse", "mae_degrees", "r2", "synops_per_frame", "synops_sparsity", "fixed_point_mse")
LONGEST_LIST = 8  # changed files
UNKNOWN = MetricChange(None, None)


def summary(comparison: Comparison, limits: Limits) -> str:
    """Six metrics, what they say together, the gate and the files that changed besides results."""
    rows = [
        (
            name,
            rounded(change.base),
            rounded(change.here),
            limits.difference(name, change),
            limits.verdict(name, change),
        )
        for name in HEADLINE
        for change in [comparison.metrics.get(name, UNKNOWN)]
        if change != UNKNOWN
    ]
    numbers = tabulate(
        rows, ("", "base", "here", "change", ""), disable_numparse=True,
        colalign=("left", "right", "right", "right", "left"),
    )  # fmt: skip
    return "\n".join([numbers, "", *map(_wrapped, [*_conclusions(comparison, limits), *_files(comparison)])])


def _conclusions(comparison: Comparison, limits: Limits) -> list[str]:
    parts = [
        f"{what} {limits.verdict(name, comparison.metrics.get(name, UNKNOWN)) or 'unchanged'}"
        for what, name in (("error", "mse"), ("operations", "synops_per_frame"))
    ]
    other_data = comparison.drives[0].files and comparison.drives[0].files != comparison.drives[1].files
    failed = failures(comparison, limits)
    return [
        f"verdict: {', '.join(parts)}" + (" (other data than the base's: not comparable)" if other_data else ""),
        f"gate: {'FAILED' if failed else 'passed'}" + ("" if limits.gate else f" ({LIMITS} has no limit)"),
        *(f"- {line}" for line in changed_gate(comparison.base_gate, limits.gate)),
    ]


def _files(comparison: Comparison) -> list[str]:
    files = [f"{path} ({state})" for path, state in comparison.files.items()]
    if len(files) > LONGEST_LIST:
        files[LONGEST_LIST:] = [f"and {len(files) - LONGEST_LIST} more"]
    lines = [f"changed besides results: {', '.join(files) or 'nothing'}"]
    if comparison.experiment:
        name, start = comparison.experiment
        lines.append(f"experiment {name} started from {start[:8]}, not from the base: do these files undo anything?")
    return lines


def _wrapped(line: str) -> str:
    return textwrap.fill(printable(line), 80, subsequent_indent="  ", break_on_hyphens=False)
