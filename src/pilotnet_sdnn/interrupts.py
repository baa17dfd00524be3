"""What Ctrl-C and SIGTERM do."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)

Handler = Callable[[int, FrameType | None], object]


@contextmanager
def interrupts_handled(handler: Handler) -> Iterator[None]:
    """Call `handler` on the two signals until the block ends."""
    before = {number: signal.signal(number, handler) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def exit_at_once_on_interrupts() -> None:
    """From now on, end the process in one line on either signal, without a traceback of what it was importing."""
    for number in INTERRUPTS:
        signal.signal(number, _exit_at_once)


def _exit_at_once(number: int, frame: FrameType | None) -> None:
    os.write(2, f"stopped by {signal.Signals(number).name}\n".encode())
    os._exit(1)


class StopRequest:
    """True once one of the two signals has arrived."""

    def __init__(self) -> None:
        self.name = ""

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Remember the signal."""
        self.name = signal.Signals(number).name

    def __bool__(self) -> bool:
        return bool(self.name)


@contextmanager
def stop_on_request() -> Iterator[StopRequest]:
    """Let the block check for the two signals between steps, instead of ending at once."""
    request = StopRequest()
    with interrupts_handled(request.receive):
        yield request


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Delay the two signals until the block ends. Processes started in the block begin with them blocked."""
    came: list[int] = []
    with interrupts_handled(lambda number, frame: came.append(number)):
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # blocked signals arrive now
    if came:
        signal.raise_signal(came[0])
