"""Write report.md for the reviewer of a pull request: what the working tree changes against a base revision."""

import argparse
import sys
from pathlib import Path

from dvc.repo import Repo

from pilotnet_sdnn.errors import UserError, counted, exit_on_error, printable
from pilotnet_sdnn.files import atomic_write, write_text
from pilotnet_sdnn.params import read_mapping
from pilotnet_sdnn.paths import LOCK, PARAMS
from pilotnet_sdnn.team.charts import Chart, find_charts
from pilotnet_sdnn.team.limits import LIMITS, Limit, Limits, load_limits, parse_limits
from pilotnet_sdnn.team.lock import locked_drive, locked_stages
from pilotnet_sdnn.team.report import Comparison, Versions, failures, render
from pilotnet_sdnn.team.repository import enter_root, file_at, git
from pilotnet_sdnn.team.revisions import (
    changed_files,
    experiment_here,
    locked_versions,
    merge_base,
    metrics_changes,
    params_changes,
    stale_stages,
)
from pilotnet_sdnn.team.summary import summary

REPORT = Path("report.md")
PICTURES = Path("report")


def main() -> None:
    parser = argparse.ArgumentParser(prog="sdnn-report", description=__doc__)
    parser.add_argument("base", nargs="?", default="main", help="branch, tag or commit; compare with its merge base")
    parser.add_argument("--gate", action="store_true", help=f"exit with 1 if {LIMITS} is broken or dvc.lock stale")
    arguments = parser.parse_args()
    with exit_on_error():
        enter_root()
        limits = load_limits()
        comparison = compare(arguments.base, limits)
        write_report(render(comparison, limits, PICTURES.name), comparison.charts.changed)
        plots = counted(len(comparison.charts.changed), "changed plot")
        print(f"{summary(comparison, limits)}\n{REPORT}: the full report, with {plots}", flush=True)
        failed = failures(comparison, limits)
        for line in failed:
            print(f"gate: {printable(line)}", file=sys.stderr)
        if failed and arguments.gate:
            sys.exit(1)


def compare(base_name: str, limits: Limits) -> Comparison:
    """The working tree against its merge base with a revision.

    Raises:
        UserError: git or DVC cannot compare them, or a limit names a metric that neither has.
    """
    base = merge_base(base_name)
    threads = read_mapping(PARAMS).get("threads")  # read before DVC does: DVC expands YAML aliases without a limit
    drive = locked_drive(locked_stages(_text(LOCK)))
    versions = Versions(_base_versions(base), locked_versions(_text(Path("uv.lock"))))
    _tell(f"comparing with {base[:8]}: stages")
    stale = stale_stages()  # first, because its errors are the clearest for a broken pipeline
    _tell("metrics and parameters")
    metrics = metrics_changes(base)
    limits.check_metrics(metrics)
    params = params_changes(base)
    _tell("plots")
    charts = find_charts(base)
    dirty = " with uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return Comparison(
        base_name=base_name,
        base=base,
        here=f"{git('rev-parse', '--short=8', 'HEAD')}{dirty}",
        files=changed_files(base, _results()),
        experiment=experiment_here(base),
        base_gate=_base_gate(base),
        params=params,
        metrics=metrics,
        stale=stale,
        drives=(locked_drive(locked_stages(file_at(base, LOCK))), drive),
        versions=versions,
        threads=threads,
        charts=charts,
    )


def _tell(what: str) -> None:
    """Show progress: each step takes DVC seconds."""
    print(f"{what} ...", file=sys.stderr, flush=True)


def _results() -> set[str]:
    """What the pipeline writes, relative to the root."""
    with Repo() as repo:
        return {str(LOCK), *(out.def_path for out in repo.index.outs)}


def _base_gate(base: str) -> list[Limit] | None:
    try:
        return parse_limits(text).gate if (text := file_at(base, LIMITS)) else None
    except UserError:
        return None


def _base_versions(base: str) -> dict[str, str]:
    try:
        return locked_versions(file_at(base, "uv.lock"))
    except UserError:
        return {}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def write_report(text: str, charts: list[Chart]) -> None:
    """Write the pictures, then the text, and then delete the pictures of the previous report.

    In this order report.md has all its pictures even if the command is killed.
    """
    for chart in charts:
        with atomic_write(PICTURES / chart.file_name) as temporary:
            temporary.write_bytes(chart.png)
    write_text(REPORT, text)
    shown = {chart.file_name for chart in charts}
    for old in PICTURES.glob("*.png"):
        if old.name not in shown:
            old.unlink()


if __name__ == "__main__":
    main()
