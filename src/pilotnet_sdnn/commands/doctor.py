"""Find what a killed `dvc` has left behind, say it, and mend it on request; uncommitted work is never touched."""

import argparse
import subprocess
import sys
from itertools import chain
from pathlib import Path

import psutil
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo

from pilotnet_sdnn.errors import NO_REPOSITORY, UserError, exit_on_error, one_line
from pilotnet_sdnn.team.recovery import Finding, command_of, living, orphan_processes, orphans, remains

PATIENCE = 60  # seconds for an orphan to write its checkpoint and end


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="sdnn-doctor", description="Find what a killed dvc has left behind, and mend it."
    )
    parser.add_argument("--fix", action="store_true", help="mend everything that can be; else each is asked for")
    fix = parser.parse_args().fix
    with exit_on_error():
        try:
            root = Path(Repo.find_root()).resolve()
        except NotDvcRepoError:
            raise UserError(NO_REPOSITORY) from None
        try:
            sys.exit(0 if is_healthy(root, fix) else 1)
        except DvcException as error:  # such as a mistake in .dvc/config
            raise UserError(one_line(error)) from None


def is_healthy(root: Path, fix: bool = False) -> bool:
    """Report on the repository at `root`, and mend what is agreed to; whether nothing is wrong, or is any more."""
    for process in living(root):
        print(
            f"`{command_of(process)}` is running, process {process.pid}: its traces are no remains, nothing is touched"
        )
    found = False
    for finding in chain(orphans(root), remains(root)):
        found = True
        print("\n      ".join([f"- {finding.problem}", *finding.commands]))
        if finding.commands and (fix or _agreed()) and not mended(root, finding):
            break  # what comes later would take away the evidence for this one
    if not found:
        print("healthy: no killed dvc has left anything behind")
        return True
    left = [*orphans(root), *remains(root)]
    if left and not fix:
        print("`sdnn-doctor --fix` runs these commands")
    elif left:
        print(f"not all is mended: {len(left)} of these are left")
    else:
        print("all is mended")
    return not left


def mended(root: Path, finding: Finding) -> bool:
    """Run the commands of a finding; whether all of them succeeded."""
    if busy := living(root):  # started while the question was open
        print(f"  left as it is: `{command_of(busy[0])}` is running now")
        return False
    killed = [process for process in orphan_processes(root) if f"kill {process.pid}" in finding.commands]
    for command in finding.commands:
        done = subprocess.run(command, shell=True, cwd=root, capture_output=True, text=True)
        if done.returncode:
            print(f"  `{command}` failed: {(done.stderr or done.stdout).strip()}")
            return False
    psutil.wait_procs(killed, PATIENCE)
    return True


def _agreed() -> bool:
    return sys.stdin.isatty() and input("  run this? [y/N] ").strip().lower() in ("y", "yes")


if __name__ == "__main__":
    main()
