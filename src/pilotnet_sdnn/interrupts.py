"""Ctrl-C and SIGTERM as a request that is met between two steps."""

import signal
from types import FrameType


class StopRequest:
    """Takes over the two signals; true once one of them has come."""

    def __init__(self) -> None:
        self.name = ""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.name = signal.Signals(number).name

    def __bool__(self) -> bool:
        return bool(self.name)
