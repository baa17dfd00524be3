"""Share all runs with the team: what one has trained, nobody trains again."""

import argparse
import logging.handlers
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dvc.config import NoRemoteError
from dvc.exceptions import DvcException, NotDvcRepoError
from dvc.repo import Repo

from pilotnet_sdnn.errors import NO_REPOSITORY, UserError, exit_on_error
from pilotnet_sdnn.team.sharing import pull, push


def main() -> None:
    parser = argparse.ArgumentParser(prog="sdnn-share", description="Share every run through the DVC remote.")
    parser.add_argument("action", choices=["push", "pull"], help="send what the remote lacks, or fetch what is new")
    parser.add_argument("-r", "--remote", help="name of the DVC remote, if not the default one")
    arguments = parser.parse_args()
    with exit_on_error():
        share(arguments.action, arguments.remote)


def share(action: str, remote_name: str | None = None) -> None:
    """Push to, or pull from, a remote of the DVC repository around the current folder.

    Raises:
        UserError: there is no repository or no remote, the remote refuses or cannot be reached, or something
            arrived damaged. What was transferred before stays; the next call goes on from there.
    """
    try:
        repo = Repo()
    except NotDvcRepoError:
        raise UserError(NO_REPOSITORY) from None
    except DvcException as error:  # such as a mistake in .dvc/config
        raise UserError(_told(error)) from None
    with repo, _collected_problems() as problems:
        try:
            remote = repo.cloud.get_remote(remote_name)
        except NoRemoteError:
            raise UserError("there is no default DVC remote: `dvc remote add -d NAME URL`, recipes in README") from None
        except DvcException as error:
            raise UserError(f"{_told(error)}; `dvc remote list` shows the remotes") from None
        url = remote.fs.unstrip_protocol(remote.path)
        with _remote_errors(url, problems):
            print(f"{action} {'to' if action == 'push' else 'from'} {url}")
            {"push": push, "pull": pull}[action](repo, remote)


def _told(error: BaseException) -> str:
    kind = "" if isinstance(error, UserError | DvcException) else f"{type(error).__name__}: "
    return kind + (str(error).strip() or "no reason given").splitlines()[0]


@contextmanager
def _collected_problems() -> Iterator[list[logging.LogRecord]]:
    """What DVC logs meanwhile, instead of on the terminal: it logs why a transfer failed, and raises nothing."""
    loggers = [logging.getLogger(name) for name in ("dvc", "dvc_data", "dvc_objects")]
    before = [logger.handlers for logger in loggers]
    collector = logging.handlers.BufferingHandler(sys.maxsize)
    for logger in loggers:
        logger.handlers = [collector]
    try:
        yield collector.buffer
    finally:
        for logger, handlers in zip(loggers, before, strict=True):
            logger.handlers = handlers


@contextmanager
def _remote_errors(url: str, problems: list[logging.LogRecord]) -> Iterator[None]:
    """Whatever a server or its client library says, as one line with the remote and the first cause."""
    try:
        yield
    except Exception as error:  # each kind of remote raises exceptions of its own library, which may not be installed
        causes = [record.exc_info[1] for record in problems if record.exc_info and record.exc_info[1]]
        told = "".join(f" ({_told(cause)})" for cause in causes[:1])
        raise UserError(f"{url}: {_told(error)}{told}") from error


if __name__ == "__main__":
    main()
