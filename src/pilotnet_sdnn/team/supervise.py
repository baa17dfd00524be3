"""Run a command, and end it with all its processes once the process that asked for it has ended.

`python -m pilotnet_sdnn.team.supervise COMMAND ...`, with a pipe as its input: the pipe closes when its other end dies,
even of SIGKILL.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

GRACE = 60  # seconds to save a checkpoint


def main() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})  # a worker may have them blocked
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    asked = threading.Event()
    threading.Thread(target=_end_with_input, args=(process.pid, asked), daemon=True).start()
    code = process.wait()
    if asked.is_set():
        _end_all(process.pid)
    sys.exit(code)


def _end_with_input(group: int, asked: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    asked.set()
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)


def _end_all(group: int) -> None:
    """The stages may outlive their dvc until they have saved their state."""
    with suppress(ProcessLookupError):
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.1)
        os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
