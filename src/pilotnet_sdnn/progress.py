"""How a running stage tells how far it is."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """A tqdm bar: lively on a terminal, an update every ten seconds in a log file."""
    lively = sys.stderr.isatty()
    return tqdm(
        iterable,
        mininterval=0.2 if lively else 10,
        ascii=not lively,
        ncols=None if lively else 100,
        dynamic_ncols=lively,
        **options,
    )
