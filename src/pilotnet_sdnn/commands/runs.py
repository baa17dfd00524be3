"""List all runs, from every commit, or take one over: sdnn-runs"""

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Callable
from typing import Any

from pilotnet_sdnn.errors import UserError, exit_on_error, printable
from pilotnet_sdnn.team.experiments import Run, read_runs
from pilotnet_sdnn.team.repository import enter_root
from pilotnet_sdnn.team.run_table import compared, fields, here, run_table
from pilotnet_sdnn.team.takeover import differences, find_run, reproduce, take_params

SORT_KEYS: dict[str, Callable[[Run], Any]] = {
    "mse": lambda run: run.mse,
    "r2": lambda run: -(run.r2 or 0),
    "synops": lambda run: run.synops,
    "sparsity": lambda run: run.synops / run.macs,
    "name": lambda run: run.name,
    "base": lambda run: run.base,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="sdnn-runs", description=__doc__.rpartition(":")[0])
    parser.add_argument("--sort", choices=SORT_KEYS, default="mse", help="sort key, best run first; default: mse")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="all fields and parameters, as a list")
    form.add_argument("--csv", action="store_true", help="all fields, a line for each run")
    actions = parser.add_subparsers(dest="action")
    taking = actions.add_parser(
        "take", help="apply an experiment's parameters and results to the present commit",
        description="Apply an experiment's parameters and results to the present commit. Other files stay as they are.",
    )  # fmt: skip
    taking.add_argument("name", help="name or commit of the experiment")
    arguments = parser.parse_args()
    with exit_on_error():
        enter_root()
        if arguments.action == "take":
            take(arguments.name)
        else:
            show(arguments.sort, "json" if arguments.json else "csv" if arguments.csv else "table")


def show(sort: str, form: str) -> None:
    """Print all runs as a table, as JSON or as CSV.

    Raises:
        UserError: there is no finished run, or no repository.
    """
    runs, skipped = read_runs()
    if not runs:
        raise UserError("no finished runs; make one: uv run dvc exp run -S lam=0.05")
    runs.sort(key=SORT_KEYS[sort])
    present = here(runs)
    rows = [{**fields(run), "than_here": compared(run, present)} for run in runs]
    if form == "json":
        print(json.dumps([{**row, "params": run.params} for row, run in zip(rows, runs, strict=True)], indent=2))
    elif form == "csv":
        writer = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "changed": json.dumps(row["changed"])} for row in rows)
    else:
        print(run_table(runs, present, shutil.get_terminal_size().columns))
        for run in skipped:
            print(f"skipped, {run.reason}: {printable(run.name)}")


def take(name: str) -> None:
    """Put parameters and results of an experiment into the workspace.

    Raises:
        UserError: there is no such run, params.yaml has unsaved edits, or `dvc repro` failed.
    """
    runs, _ = read_runs()
    run = find_run(runs, name)
    take_params(run, runs)
    reproduce()
    for line in differences(run):
        print(printable(line))
    print(f"{printable(run.name)} is taken over; `sdnn-report` compares it, `git commit -a` keeps it")


if __name__ == "__main__":
    main()
