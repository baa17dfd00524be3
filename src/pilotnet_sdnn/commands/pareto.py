"""Plot the accuracy of all runs against their operations, with the front of the best: sdnn-pareto"""

import argparse
import os
import textwrap
from pathlib import Path

import numpy as np

from pilotnet_sdnn.errors import UserError, counted, exit_on_error
from pilotnet_sdnn.files import write_csv
from pilotnet_sdnn.team.experiments import Run, SkippedRun, distinct, read_runs
from pilotnet_sdnn.team.pareto import comparable, differing, draw, labels, on_front, save, title
from pilotnet_sdnn.team.repository import enter_root

QUEUE = "uv run dvc exp run --queue -S 'lam=0.01,0.05' -S 'threshold=0.05,0.1', then uv run dvc queue start"


def main() -> None:
    parser = argparse.ArgumentParser(prog="sdnn-pareto", description=__doc__.partition(":")[0])
    parser.add_argument("folder", nargs="?", type=Path, help="for picture and table; default: pareto in the root")
    given = parser.parse_args().folder
    with exit_on_error():
        before = enter_root()
        folder = Path(os.path.relpath(before / given)) if given else Path("pareto")
        runs, skipped = read_runs()
        runs = distinct(runs)
        if not runs:
            raise UserError(f"no finished runs{_listed(skipped)}; make some: {QUEUE}")
        drawn, alone = _panels(comparable(runs))
        notes = [f"not drawn, on other held-out frames: {run.name} ({title([run])})" for run in alone]
        save(figure := draw(drawn, "\n".join(notes)), folder / "pareto.svg")
        save(figure, folder / "pareto.png")
        _write_table(folder / "pareto.csv", [*drawn, *([run] for run in alone)])

        for group in drawn:
            print(_front_table(group))
        if skipped:
            notes.append(f"skipped{_listed(skipped)}")
        for line in (*notes, f"{folder}: pareto.svg, pareto.png, and all runs in pareto.csv"):
            print(_wrapped(line))


def _panels(groups: list[list[Run]]) -> tuple[list[list[Run]], list[Run]]:
    """The groups to draw, and the runs that share their test frames with no other run."""
    drawn = [group for group in groups if len(group) > 1] or groups[:1]
    return drawn, [group[0] for group in groups[len(drawn) :]]


def _listed(skipped: list[SkippedRun]) -> str:
    reasons = dict.fromkeys(run.reason for run in skipped)
    parts = (f"{reason}: {', '.join(run.name for run in skipped if run.reason == reason)}" for reason in reasons)
    return f" ({'; '.join(parts)})" if skipped else ""


def _wrapped(line: str) -> str:
    return textwrap.fill(line, 80, subsequent_indent="  ", break_on_hyphens=False)


def _front_table(runs: list[Run]) -> str:
    """The runs on the front, fewest operations first, for a terminal of 80 columns."""
    texts, usual = labels(runs)
    order = sorted(np.flatnonzero(on_front(runs)), key=lambda i: (runs[i].synops, runs[i].mse))
    summary = f"{len(order)} of {counted(len(runs), 'run')} on the front" + (
        f"; {usual} unless stated" if usual else ""
    )
    lines = [_wrapped(title(runs)), _wrapped(summary), ""]
    lines += ["    synops  sparsity      MSE  run", "----------  --------  -------  ---"]
    for run, text in ((runs[i], texts[i]) for i in order):
        sparsity = f"{run.macs / run.synops:.1f}x" if run.synops else "-"
        named = text if run.name in text else f"{run.name}: {text}"
        row = f"{run.synops:10.0f}  {sparsity:>8}  {run.mse:7.5f}  {named}"
        lines.append(textwrap.fill(row, 80, subsequent_indent=31 * " "))
    if anns := [run.ann_mse for run in runs if run.ann_mse is not None]:
        lines.append(f"{runs[0].macs:10.0f}  {'1.0x':>8}  {min(anns):7.5f}  ANN baseline")
    return "\n".join(lines) + "\n"


def _write_table(path: Path, groups: list[list[Run]]) -> None:
    runs = [run for group in groups for run in group]
    front = [bool(best) for group in groups for best in on_front(group)]
    names = differing(runs)
    header = ("run", "drive", "test_frames", "mse", "synops_per_frame", "macs_per_frame", "ann_mse", "front", *names)
    rows = [
        [run.name, run.drive, run.test_frames[0], run.mse, run.synops, run.macs, run.ann_mse, best]
        + [run.params.get(name) for name in names]
        for run, best in zip(runs, front, strict=True)
    ]
    write_csv(path, header, rows)


if __name__ == "__main__":
    main()
