"""Share all runs with the team, so that nobody trains what a colleague has trained."""

import argparse
import logging.handlers
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dvc.config import NoRemoteError
from dvc.data_cloud import Remote
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc_objects.fs.local import LocalFileSystem

from pilotnet_sdnn.errors import UserError, exit_on_error, one_line
from pilotnet_sdnn.team.repository import find_root
from pilotnet_sdnn.team.shared_folder import check_writable, open_to_group, unreadable
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
        UserError: there is no repository or no remote, dvc.yaml or dvc.lock is damaged, the remote refuses or cannot
            be reached, or it holds damaged files. What was transferred stays, and the next call resumes.
    """
    root = find_root()
    try:
        repo = Repo(str(root))
        repo.index.check_graph()  # reads dvc.yaml and dvc.lock
    except DvcException as error:
        raise UserError(one_line(error)) from None
    with repo, _collected_problems() as problems:
        try:
            remote = repo.cloud.get_remote(remote_name)
        except NoRemoteError:
            raise UserError(
                "there is no default DVC remote: `dvc remote add -d NAME URL`, recipes in docs/team.md"
            ) from None
        except DvcException as error:
            raise UserError(f"{one_line(error)}; `dvc remote list` shows the remotes") from None
        url = remote.fs.unstrip_protocol(remote.path)
        with _one_line_errors(url, problems):
            print(f"{action} {'to' if action == 'push' else 'from'} {url}")
            if action == "push":
                prepare_folder(remote)
                push(repo, remote)
            else:
                pull(repo, remote, closed_files(remote))


def prepare_folder(remote: Remote) -> None:
    """Open the user's own files in a shared folder to the group, then check that all of it can be written."""
    if isinstance(remote.fs, LocalFileSystem):
        if shared := remote.config.get("shared") == "group":
            open_to_group(Path(remote.path))
        check_writable(Path(remote.path), shared)


def closed_files(remote: Remote) -> dict[str, str]:
    """What the user may not read in a shared folder, and why."""
    if not isinstance(remote.fs, LocalFileSystem):
        return {}
    return unreadable(Path(remote.path), remote.config.get("shared") == "group")


def _reason(error: BaseException) -> str:
    kind = "" if isinstance(error, UserError | DvcException) else f"{type(error).__name__}: "
    return kind + (str(error).strip() or "no reason given").splitlines()[0]


@contextmanager
def _collected_problems() -> Iterator[list[logging.LogRecord]]:
    """Collect DVC's log records instead of printing them: DVC logs why a transfer failed and raises nothing."""
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
def _one_line_errors(url: str, problems: list[logging.LogRecord]) -> Iterator[None]:
    """Turn what a server or its client library raises into one line with the remote and the first cause."""
    try:
        yield
    except Exception as error:  # each kind of remote has a library with its own exceptions, which may not be installed
        causes = [record.exc_info[1] for record in problems if record.exc_info and record.exc_info[1]]
        cause = "".join(f" ({_reason(first)})" for first in causes[:1])
        raise UserError(f"{url}: {_reason(error)}{cause}") from error


if __name__ == "__main__":
    main()
