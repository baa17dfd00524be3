"""The progress of a running stage, on a terminal and in a log."""

import io
import sys
from collections.abc import Iterable, Iterator, Sized
from typing import Any, TypeVar

from tqdm import tqdm


class _LogLines(io.TextIOBase):
    """Without a terminal to redraw a bar on, each refresh is a line of its own."""

    def write(self, text: str) -> int:
        if line := text.strip():
            sys.stderr.write(line + "\n")
        return len(text)


def progress(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """A tqdm bar: live on a terminal, a line every ten seconds in a log."""
    if sys.stderr.isatty():
        return tqdm(iterable, dynamic_ncols=True, **options)
    return tqdm(iterable, file=_LogLines(), mininterval=10, ncols=100, ascii=True, **options)


Chunk = TypeVar("Chunk", bound=Sized)


def advancing(bar: tqdm, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """The chunks; the bar moves by the length of each once it has been used."""
    for chunk in chunks:
        yield chunk
        bar.update(len(chunk))
