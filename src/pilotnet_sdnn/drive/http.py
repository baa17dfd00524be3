"""Download a zip: resume a broken transfer, and check the file before it gets its final name."""

import hashlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urldefrag

import requests
import zc.lockfile
from urllib3.exceptions import InvalidHeader, MaxRetryError
from urllib3.util import Retry

from pilotnet_sdnn.drive import transfer
from pilotnet_sdnn.drive.transfer import (
    Request,
    TooSlowError,
    check_address,
    continue_download,
    discard,
    kept_part,
    size_of,
)
from pilotnet_sdnn.drive.web_pages import direct_address
from pilotnet_sdnn.errors import UserError, one_line, printable, without_password
from pilotnet_sdnn.paths import user_cache

RETRIES = 6  # in a row without progress
PROGRESS = 2**20  # bytes that count as progress
FIRST_PAUSE = 1.0  # s; each further retry doubles it
MAX_PAUSE = 120  # s, also if the server asks for more
MAX_HOURS = 24  # of one download
TRANSIENT = {408, 429, 500, 502, 503, 504}


def download(source: str, check: Callable[[Path], None], max_bytes: int) -> Path:
    """The zip at an address, kept in the user's cache, so that a run with another seed does not download it again.

    After an error, Ctrl-C or a kill, the next call resumes if the file on the server is still the same. A second
    process that downloads the same address waits for the first. HTTPS_PROXY and NO_PROXY apply.

    Args:
        source: https address, optionally with the file's checksum, `#sha256=...`. Plain http needs the checksum,
            unless it is this machine.
        check: raises a `UserError` if the zip is not the expected one.
        max_bytes: limit for the size of the file.

    Raises:
        UserError: the download failed, or the file is not the expected one.
    """
    name = printable(without_password(source.partition("#")[0]))
    check_address(source, "", name, allow_http=True)
    checksum = _checksum(source, name)
    path = _writable(user_cache() / "drives") / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}.zip"
    deadline = time.monotonic() + 3600 * MAX_HOURS
    incoming = path.with_suffix(".incoming")
    url = direct_address(urldefrag(source).url)
    try:
        with _only_downloader(path.with_suffix(".lock"), name):
            if path.exists():
                if not checksum or _sha256(path) == checksum:
                    print(f"{name}: already downloaded; delete {path} to download it again")
                    return path
                print(f"{name}: the copy in the cache has another checksum; downloading it again")
                path.unlink()
            _with_retries(Request(url, name, incoming, max_bytes, deadline, allow_http=checksum is not None))
            try:
                if checksum and (found := _sha256(incoming)) != checksum:
                    raise UserError(f"{name}: sha256 is {found}, expected {checksum}: not the file you meant")
                check(incoming)
            except UserError as error:
                discard(incoming)
                raise UserError(str(error).replace(str(incoming), name)) from None
            incoming.replace(path)
            discard(incoming)
            return path
    except KeyboardInterrupt:
        raise UserError(f"{name}: stopped; run again to resume") from None


def _writable(folder: Path) -> Path:
    """The folder, made if need be.

    Raises:
        UserError: this user cannot write to it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK | os.X_OK) else "Permission denied"
    except OSError as error:
        reason = error.strerror or one_line(error)
    if reason:
        raise UserError(
            f"{folder}, where downloads are kept: {reason}; set XDG_CACHE_HOME to a folder you can write to"
        )
    return folder


def _checksum(source: str, name: str) -> str | None:
    """The checksum in an address, in pip's notation."""
    fragment = urldefrag(source).fragment
    if not fragment.startswith("sha256="):
        return None
    checksum = fragment.removeprefix("sha256=").lower()
    if not re.fullmatch("[0-9a-f]{64}", checksum):
        raise UserError(f"{name}: expected 64 hexadecimal digits after #sha256=")
    return checksum


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _only_downloader(lock_path: Path, name: str) -> Iterator[None]:
    """Wait until no other process downloads the same file."""
    announced = False
    while True:
        try:
            lock = zc.lockfile.LockFile(lock_path)
            break
        except zc.lockfile.LockError:
            if not announced:
                print(f"{name}: another process is downloading it; waiting", file=sys.stderr)
            announced = True
            time.sleep(0.2)
    try:
        yield
    finally:
        lock.close()  # the file stays: after an unlink, two others could lock two files of that name


def _with_retries(request: Request) -> None:
    """Download the file; retry with growing pauses while that may help."""
    fresh = Retry(total=RETRIES, backoff_factor=FIRST_PAUSE, backoff_max=MAX_PAUSE, retry_after_max=MAX_PAUSE)
    retry, reached = fresh, size_of(request.incoming)
    with requests.Session() as session:
        session.headers["Accept-Encoding"] = "identity"  # offsets are in the bytes of the file
        while True:
            try:
                return continue_download(session, request)
            except requests.RequestException as error:
                problem, response = _reason(error), error.response
                hopeless = isinstance(error, requests.exceptions.SSLError | ValueError)
            except TooSlowError as error:
                problem, response, hopeless = str(error), None, False
            if hopeless or (response is not None and response.status_code not in TRANSIENT):
                raise UserError(f"{request.name}: download failed ({problem}); check the address")
            kept, at = kept_part(request.incoming)
            if at and kept.size:
                problem += f", {at:,} of {kept.size:,} bytes received"
            if at >= reached + PROGRESS:
                retry, reached = fresh, at
            try:
                retry = retry.increment("GET", request.url, error=Exception(problem))
            except MaxRetryError:
                raise _give_up(request, problem) from None
            if time.monotonic() > request.deadline:
                raise _give_up(request, f"{problem}, after {MAX_HOURS:.3g} hours")
            print(f"{request.name}: {problem}; retrying", file=sys.stderr)
            try:
                retry.sleep(response.raw if response is not None else None)
            except (InvalidHeader, ValueError, OverflowError):  # Retry-After is neither seconds nor a date
                retry.sleep()


def _give_up(request: Request, problem: str) -> UserError:
    return UserError(f"{request.name}: download failed ({problem}); run again to resume, or set source to a path")


def _reason(error: requests.RequestException) -> str:
    """Why it failed, in a few words without control characters and passwords."""
    if error.response is not None:
        return printable(f"{error.response.status_code} {error.response.reason}"[:80])
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection was lost"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy in HTTPS_PROXY or HTTP_PROXY refuses the connection"
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {transfer.TIMEOUT[0]:g} s"
    if isinstance(error, requests.Timeout) or "Read timed out" in str(error):
        return f"it stalled: no data for {transfer.TIMEOUT[1]:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return f"its certificate is not valid: {_innermost(error)}"
    return _innermost(error)


def _innermost(error: BaseException) -> str:
    while error.args and isinstance(inner := getattr(error.args[-1], "reason", error.args[-1]), BaseException):
        error = inner
    return without_password(one_line(error))[:150]
