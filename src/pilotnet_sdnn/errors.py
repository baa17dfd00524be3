"""Report user-fixable errors in one line, without a traceback."""

import re
import reprlib
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pilotnet_sdnn.interrupts import interrupts_handled

MAX_LENGTH = 300  # characters of a line about an error
PROBLEM_LENGTH = 120  # characters shown of a library's message
NO_REPOSITORY = "this is no DVC repository: run the command inside your clone"


class UserError(Exception):
    """One line that says what is wrong, where, what was expected and how to fix it."""


def printable(text: str) -> str:
    """Escape what a terminal would obey: control characters, line ends, marks of writing direction."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def shown(value: object) -> str:
    """A value for a message: one short line, however large the value is."""
    try:
        return printable(_short.repr(value))
    except ValueError:  # a whole number of more digits than Python prints
        return f"a {type(value).__name__} of many digits"


def counted(number: int, thing: str) -> str:
    """`1 frame`, `-1 frame`, `2,000 frames`, `5 stretches`, `20 epochs`."""
    plural = "es" if thing.endswith("tch") else "s"
    return f"{number:,} {thing}{plural * (abs(number) != 1)}"


def shortened(text: str, length: int) -> str:
    """The text, cut in the middle if it is longer: the end often says how to fix the error."""
    head = 2 * length // 3
    return text if len(text) <= length else f"{text[: head - 5]} ... {text[head - length :]}"


def without_password(text: str) -> str:
    """An address, or a message with one, without its password.

    A port that is not a number may be part of a password with a slash in it, so all up to the last @ goes.
    """
    return re.sub(r"//(?:[^\s/?#]*@|[^\s/?#:]*:(?!\d*(?:[\s/?#]|$))\S*@)", "//", text)


def one_line(error: BaseException) -> str:
    """The message of a library's error in one line, or its type if the message is empty."""
    return printable(" ".join(str(error).split())) or type(error).__name__


def check_present(path: Path, stage: str) -> None:
    """Check that a file of the pipeline exists: a library that opens it could not say how to get it.

    Raises:
        UserError: it does not; with how to get it.
    """
    if not path.exists():
        raise UserError(
            f"{path} is not in this clone: `sdnn-share pull`, then `dvc checkout`, fetches it if the team has run "
            f"this; `dvc repro {stage}` creates it"
        )


def damaged(path: Path, problem: object, stage: str) -> UserError:
    """The error for a file of the pipeline whose content is not what `stage` writes.

    Raises:
        MemoryError: memory was the problem, not the file.
    """
    if isinstance(problem, MemoryError):
        raise problem
    what = one_line(problem) if isinstance(problem, BaseException) else str(problem)
    return UserError(  # with -f, because what a colleague's record gave is the same from the cache
        f"{path} is damaged or of another kind: {shortened(what, PROBLEM_LENGTH)}; `dvc repro {stage}` restores it, "
        f"`dvc repro -f {stage}` makes it anew"
    )


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn a `UserError`, an error of the system, Ctrl-C or SIGTERM into one line on stderr and exit code 1.

    DVC then regards the stage as failed and records nothing.
    """
    with interrupts_handled(signal.default_int_handler):
        try:
            yield
        except (UserError, OSError) as error:
            sys.exit(shortened(printable(shortened(f"error: {error}", 10 * MAX_LENGTH)), MAX_LENGTH))
        except MemoryError:
            sys.exit("error: out of memory; close other programs, or raise the limit (ulimit -v)")
        except RecursionError:  # of YAML and JSON, which DVC reads as well
            sys.exit("error: a file is nested too deeply to be read; `git diff HEAD` shows what changed in yours")
        except KeyboardInterrupt as interrupt:
            sys.exit(str(interrupt) or "stopped")
