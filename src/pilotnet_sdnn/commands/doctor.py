"""Find what a killed `dvc` left behind, report it and repair it on request; uncommitted work is never lost."""

import argparse
import shlex
import subprocess
import sys
from itertools import chain
from pathlib import Path

import psutil
from dvc.exceptions import DvcException

from pilotnet_sdnn.errors import UserError, counted, exit_on_error, one_line, printable
from pilotnet_sdnn.team.processes import command_of, dvc_processes, orphan_stages
from pilotnet_sdnn.team.recovery import Finding, leftovers, orphans
from pilotnet_sdnn.team.repository import find_root
from pilotnet_sdnn.team.working_tree import cautions

PATIENCE = 60  # seconds for an orphan to write its checkpoint and end


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="sdnn-doctor", description="Find what a killed dvc left behind, and repair it."
    )
    parser.add_argument(
        "--fix", action="store_true", help="repair without asking; by default, each repair is asked for"
    )
    fix = parser.parse_args().fix
    with exit_on_error():
        root = find_root().resolve()
        try:
            sys.exit(0 if is_healthy(root, fix) else 1)
        except DvcException as error:  # such as a mistake in .dvc/config
            raise UserError(one_line(error)) from None


def is_healthy(root: Path, fix: bool = False) -> bool:
    """Report what is wrong in the repository at `root`, repair what the user agrees to; return whether all is well."""
    for process in dvc_processes(root):
        print(
            printable(f"`{command_of(process)}` is running, process {process.pid}: its files and locks are left alone")
        )
    found = False
    for finding in chain(orphans(root), leftovers(root)):
        found = True
        print(f"- {printable(finding.problem)}")
        for command in finding.commands:
            print(f"      {printable(shlex.join(command))}")
        if finding.commands and (fix or _agreed()) and not repaired(root, finding):
            break  # a later repair would remove the evidence for this one
    left = [*orphans(root), *leftovers(root)] if found else []
    notes = list(cautions(root))
    print(_verdict(found, left, notes, fix))
    for note in notes:
        print(f"- {printable(note)}")
    return not left


def _verdict(found: bool, left: list[Finding], notes: list[str], fix: bool) -> str:
    if left and not fix and any(finding.commands for finding in left):
        return "`sdnn-doctor --fix` runs these commands"
    if left:
        return f"{counted(len(left), 'problem')} left for you to decide"
    if found:
        return "everything is repaired"
    return (
        "no killed dvc has left anything behind, but:" if notes else "healthy: no killed dvc has left anything behind"
    )


def repaired(root: Path, finding: Finding) -> bool:
    """Run the commands of a finding and return whether all of them succeeded."""
    if busy := dvc_processes(root):  # started while the question was open
        print(printable(f"  not repaired: `{command_of(busy[0])}` is running now"))
        return False
    killed = [process for process in orphan_stages(root) if ["kill", str(process.pid)] in finding.commands]
    for command in finding.commands:
        program = [sys.executable, "-m", "dvc"] if command[0] == "dvc" else command[:1]
        done = subprocess.run([*program, *command[1:]], cwd=root, capture_output=True, text=True)
        if done.returncode:
            print(printable(f"  `{shlex.join(command)}` failed: {(done.stderr or done.stdout).strip()}"))
            return False
    psutil.wait_procs(killed, PATIENCE)
    return True


def _agreed() -> bool:
    return sys.stdin.isatty() and input("  run this? [y/N] ").strip().lower() in ("y", "yes")


if __name__ == "__main__":
    main()
