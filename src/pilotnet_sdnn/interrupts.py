"""Ctrl-C and SIGTERM as a request that is met between two steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Takes over the two signals; true once one of them has come."""

    def __init__(self) -> None:
        self.name = ""
        for number in INTERRUPTS:
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name

    def __bool__(self) -> bool:
        return bool(self.name)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Put off the two signals until the block ends. Processes that are started in it begin with them blocked."""
    came: list[int] = []
    handlers = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in INTERRUPTS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # what was blocked comes now
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])
