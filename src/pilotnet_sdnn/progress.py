"""How a running stage tells how far it is."""

import sys

from tqdm import tqdm


def progress(iterable=None, **options) -> tqdm:
    """A tqdm bar: lively on a terminal, a line every half minute in a log file."""
    lively = sys.stderr.isatty()
    return tqdm(
        iterable,
        mininterval=0.2 if lively else 30,
        ascii=not lively,
        ncols=None if lively else 100,
        dynamic_ncols=lively,
        **options,
    )
