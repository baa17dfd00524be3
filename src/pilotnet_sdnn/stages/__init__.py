"""One module for each stage of dvc.yaml: it reads its inputs, calls the packages and writes its outputs.

Nothing else lives here, and nothing imports from here: dvc.yaml starts each module as `python -m`.
"""

import sys
from importlib.util import find_spec

from pilotnet_sdnn.interrupts import exit_at_once_on_interrupts

if sys.argv[0] == "-m":  # Python is looking for the stage to run; torch, which it imports first, takes seconds
    exit_at_once_on_interrupts()

if find_spec("ruamel") is None:  # `.venv/bin/dvc` without activation: `python` is then another one
    sys.exit(
        f"error: {sys.executable} does not have the packages of this project; start dvc by `uv run dvc`, or activate "
        ".venv first"
    )
