"""Let `dvc` notice that a local drive has changed, by looking at it before the pipeline is read.

DVC itself cannot: a dependency must exist wherever the pipeline is used, drives do not, and a stage with
`always_changed` never has a clean `dvc status`. DVC has no plugins either. So this module, which the installation of
pilotnet-sdnn puts beside dvc, waits for dvc to import its repository.
"""

import contextlib
import sys
from pathlib import Path


class BeforeDvc:
    """An importer that imports nothing."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "dvc.repo":
            sys.meta_path.remove(self)  # type: ignore[arg-type]
            if Path("data/sources.json").exists():
                with contextlib.suppress(Exception):  # of another version of the package, say: dvc must go on
                    from pilotnet_sdnn.drive.known_sources import refresh

                    refresh()


sys.meta_path.insert(0, BeforeDvc())  # type: ignore[arg-type]
