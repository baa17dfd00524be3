"""Untrusted text in Markdown: whoever opens a pull request chooses names, paths and parameters."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tabulate import tabulate

from pilotnet_sdnn.errors import printable

LONGEST = 300  # characters of one text
_HARMLESS = re.compile(r"(?i)(?!.*(?:gh-|www\.|:/))[\w.+-][\w .,;:%/()'>+-]*", re.ASCII)
_NUMBER = re.compile(r"([-+]?[\d.]+(e[-+]?\d+)?( %)?|none|)")


def inert(text: Any) -> str:
    """One line that Markdown shows as it is: plain if it has no markup, else as code.

    In code there are no headings, HTML, entities, pictures, links, mentions or references. A broken bar replaces the
    bar that would end the cell of a table.
    """
    line = printable(" ".join(str(text)[: 2 * LONGEST].split())).replace("|", "¦")
    if len(line) > LONGEST:
        line = line[: LONGEST - 1] + "…"
    if not line or _HARMLESS.fullmatch(line):
        return line
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line.startswith(("`", " ")) or line.endswith(("`", " ")) else ""
    return f"{fence}{space}{line}{space}{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table whose cells are inert: numbers are right-aligned, words left-aligned."""
    cells = [[inert(cell) for cell in row] for row in rows]
    numbers = [all(_NUMBER.fullmatch(row[column]) for row in cells) for column in range(len(head))]
    sides = ["right" if number else "left" for number in numbers]
    return tabulate(cells, head, tablefmt="pipe", disable_numparse=True, colalign=sides)
