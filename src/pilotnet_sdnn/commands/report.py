"""Write report.md: what the working tree changes, against a base revision, for a pull request's reviewer."""

import argparse
import sys
from pathlib import Path

from pilotnet_sdnn.errors import exit_on_error
from pilotnet_sdnn.files import atomic_write, write_text
from pilotnet_sdnn.params import read_mapping
from pilotnet_sdnn.paths import LOCK, PARAMS
from pilotnet_sdnn.team.charts import Chart, changed_charts
from pilotnet_sdnn.team.limits import LIMITS, Limits, load_limits
from pilotnet_sdnn.team.lock import locked_drive, locked_stages
from pilotnet_sdnn.team.report import Comparison, Versions, failures, render
from pilotnet_sdnn.team.revisions import (
    file_at,
    git,
    locked_versions,
    merge_base,
    metrics_changes,
    params_changes,
    stale_stages,
)

REPORT = Path("report.md")
PICTURES = Path("report")


def main() -> None:
    parser = argparse.ArgumentParser(prog="sdnn-report", description=__doc__)
    parser.add_argument("base", nargs="?", default="main", help="branch, tag or commit; compared is the merge base")
    parser.add_argument("--gate", action="store_true", help=f"exit with 1 if {LIMITS} or a stale dvc.lock says so")
    arguments = parser.parse_args()
    with exit_on_error():
        limits = load_limits()
        comparison = compare(arguments.base, limits)
        write_report(render(comparison, limits, PICTURES.name), comparison.charts)
        failed = failures(comparison, limits)
        changed = sum(change.old != change.new for change in comparison.metrics.values())
        counts = f"parameters {len(comparison.params)}, metrics {changed}, plots {len(comparison.charts)}"
        print(f"{REPORT}: changed are {counts}", flush=True)
        for line in failed:
            print(f"gate: {line}", file=sys.stderr)
        if failed and arguments.gate:
            sys.exit(1)


def compare(base_name: str, limits: Limits) -> Comparison:
    """The working tree against its merge base with a revision.

    Raises:
        UserError: git or DVC cannot compare them, or a limit is of a metric that neither has.
    """
    base = merge_base(base_name)
    stale = stale_stages()  # first: it says most clearly what is wrong with a broken pipeline
    metrics = metrics_changes(base)
    limits.check_metrics(metrics)
    charts, same_charts = changed_charts(base)
    dirty = " with uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else ""
    return Comparison(
        title=(
            f"# What changes against {base_name}\n\n"
            f"Base: {base[:8]}, where this work left {base_name}. Here: {git('rev-parse', '--short=8', 'HEAD')}{dirty}."
        ),
        params=params_changes(base),
        metrics=metrics,
        stale=stale,
        drives=(locked_drive(locked_stages(file_at(base, str(LOCK)))), locked_drive(locked_stages(_text(LOCK)))),
        versions=Versions(locked_versions(file_at(base, "uv.lock")), locked_versions(_text(Path("uv.lock")))),
        threads=read_mapping(PARAMS).get("threads"),
        charts=charts,
        same_charts=same_charts,
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def write_report(text: str, charts: list[Chart]) -> None:
    """Pictures first, the text second, and then the pictures of the text before it go.

    So report.md has its pictures whenever this is cut off.
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
