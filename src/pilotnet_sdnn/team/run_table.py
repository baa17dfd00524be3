"""Runs side by side, within the columns of a terminal."""

import textwrap
from typing import Any

from tabulate import tabulate

from pilotnet_sdnn.errors import printable
from pilotnet_sdnn.team.experiments import WORKSPACE, Run

LONGEST_NAME = 20


def here(runs: list[Run]) -> Run | None:
    """The run that the others are compared with: the workspace's, or else its commit's."""
    present = [run for run in runs if run.name == WORKSPACE] or [run for run in runs if not run.base]
    return present[0] if present else None


def compared(run: Run, present: Run | None) -> str:
    """Whether a run is better or worse than the present one, in error, in operations or in both."""
    if present is None or run is present:
        return ""
    if run.test_frames != present.test_frames:
        return "other road"
    signs = {_sign(run.mse - present.mse), _sign(run.synops - present.synops)} - {0}
    return {(): "same", (-1,): "better", (1,): "worse"}.get(tuple(signs), "mixed")


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def fields(run: Run) -> dict[str, Any]:
    """The fields of a run, by the names that --json and --csv give them."""
    return {
        "name": run.name,
        "base": run.base,
        "revision": run.revision,
        "changed": dict(run.changed),
        "mse": run.mse,
        "r2": run.r2,
        "synops_per_frame": run.synops,
        "synops_sparsity": run.macs / run.synops if run.synops else None,
        "test_frames": run.test_frames[0],
        "drive": run.drive,
    }


def run_table(runs: list[Run], present: Run | None, width: int) -> str:
    """A line for each run, and one more for the parameters that it changes."""
    head = ("run", "base", "MSE", "r2", "synops", "sparsity", "than here")
    rows = [
        (
            textwrap.shorten(printable(run.name), LONGEST_NAME, placeholder="") or printable(run.name)[:LONGEST_NAME],
            run.base[:7],
            f"{run.mse:.5f}",
            "" if run.r2 is None else f"{run.r2:.3f}",
            f"{run.synops:.0f}",
            f"{run.macs / run.synops:.1f}x" if run.synops else "",
            compared(run, present),
        )
        for run in runs
    ]
    sides = ("left", "left", "right", "right", "right", "right", "left")
    first, rule, *lines = tabulate(rows, head, disable_numparse=True, colalign=sides).splitlines()
    text = [first, rule]
    for run, line in zip(runs, lines, strict=True):
        text.append(line)
        if run.changed:
            changed = printable(", ".join(f"{name} {value}" for name, value in run.changed.items()))
            text.append(textwrap.fill(changed, width, initial_indent="  ", subsequent_indent="  "))
    return "\n".join(line.rstrip() for line in text)
