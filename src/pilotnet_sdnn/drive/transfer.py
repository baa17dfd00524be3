"""One attempt to download the missing part of a file.

The server is not trusted: bytes, time and redirects are limited, and a file is never joined from two versions.
"""

import json
import re
import shutil
import signal
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from pilotnet_sdnn.drive.web_pages import confirmed_address, describe_known, describe_unknown, web_page
from pilotnet_sdnn.errors import UserError, without_password
from pilotnet_sdnn.files import write_text
from pilotnet_sdnn.progress import progress

TIMEOUT = (15.0, 60.0)  # s, to connect and between two reads
WINDOW = 90.0  # s in which at least MIN_BYTES must arrive
MIN_BYTES = 2**16
MAX_REDIRECTS = 10
PIECE = 2**16  # bytes per read: a broken connection loses at most one piece
FREE_DISK = 2**28  # bytes that a download leaves free


class Version(NamedTuple):
    """What identifies the version of a file on a server; None for what the server does not say."""

    size: int | None  # bytes of the whole file
    etag: str | None
    modified: str | None

    @property
    def validator(self) -> str | None:
        """The value for If-Range (RFC 9110, 13.1.5). A weak ETag does not promise the same bytes."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


class Request(NamedTuple):
    """What to download, and the limits."""

    url: str
    name: str  # the address in messages, without a password
    incoming: Path  # receives the bytes; a note beside it says which version they are of
    max_bytes: int
    deadline: float  # of time.monotonic()
    allow_http: bool  # a checksum protects the file


class Broken(requests.ConnectionError):
    """The answer does not match the request; another attempt may."""


class TooSlowError(Exception):
    """The server is too slow. This is not an OSError: requests and urllib3 would translate that."""


def continue_download(session: requests.Session, request: Request) -> None:
    """Download the missing part of the file.

    Raises:
        UserError: another attempt will not help.
        requests.RequestException, TooSlowError: it may.
    """
    resumed_without_proof = _transfer(session, request)
    if resumed_without_proof and not _intact(request):
        discard(request.incoming)
        raise Broken("the parts do not match; starting over")


def _transfer(session: requests.Session, request: Request) -> bool:
    """Receive the missing bytes and return whether only the zip's checksums can prove that the joined parts match."""
    kept, at = kept_part(request.incoming)
    if at and at == kept.size:
        return False
    headers = {"Range": f"bytes={at}-"} if at else {}
    if at and kept.validator:
        headers["If-Range"] = kept.validator
    counter = _Counter()
    with _minimum_rate(counter, request.deadline), _open(session, request, headers) as response:
        if response.status_code == 416:
            discard(request.incoming)
            raise Broken("the server has no further bytes; starting over")
        pieces = response.iter_content(PIECE)
        first = next(pieces, b"")
        if page := web_page(response, first):
            if confirmed := confirmed_address(response.url, page):
                return _transfer(session, request._replace(url=confirmed))
            if what := describe_known(page, response.url) or (response.ok and describe_unknown(page)):
                raise UserError(f"{request.name}: not a readable zip file but {what}")
        response.raise_for_status()
        version, start = _announced(response)
        if start and (start != at or not _same(version, kept)):
            discard(request.incoming)
            raise Broken("the file on the server has changed; starting over")
        _receive(request, version, start, chain([first], pieces), counter)
    size = size_of(request.incoming)
    if version.size is not None and size < version.size:
        raise Broken("the connection was lost")
    if version.size is not None and size > version.size:
        discard(request.incoming)
        raise Broken("the server sends more than it announced; starting over")
    return bool(start) and not version.validator


class _Counter:
    """Bytes received."""

    received = 0


@contextmanager
def _minimum_rate(counter: _Counter, deadline: float) -> Iterator[None]:
    """Raise `TooSlowError` in the block when `WINDOW` seconds bring less than `MIN_BYTES`, or at the deadline.

    The timeouts of a socket limit a single read only: a server that sends a byte a second, or headers and interim
    responses without end, never meets them. The alarm interrupts whatever the main thread waits for.
    """
    before = 0

    def check(number: int, frame: FrameType | None) -> None:
        nonlocal before
        if time.monotonic() > deadline:
            raise TooSlowError("the download takes too long")
        if counter.received - before < MIN_BYTES:
            raise TooSlowError(f"less than {MIN_BYTES:,} bytes came in {WINDOW:g} s")
        before = counter.received

    handler = signal.signal(signal.SIGALRM, check)
    signal.setitimer(signal.ITIMER_REAL, WINDOW, WINDOW)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def _open(session: requests.Session, request: Request, headers: dict[str, str]) -> requests.Response:
    """Ask for the file and follow redirects, none of them to an address less safe than the first."""
    previous, url = "", request.url
    for _ in range(MAX_REDIRECTS):
        check_address(url, previous, request.name, request.allow_http)
        try:
            response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT, allow_redirects=False)
            target = session.get_redirect_target(response)
            if target is None:
                return response
            response.close()
            previous, url = url, urljoin(url, target)
        except requests.RequestException:
            raise
        except (ValueError, HTTPError):  # of a malformed address
            raise UserError(f"{request.name}: it redirects to a malformed address; check it") from None
    raise UserError(f"{request.name}: redirects {MAX_REDIRECTS} times without an end; check the address")


def check_address(url: str, previous: str, name: str, allow_http: bool) -> None:
    """Refuse an address that is malformed or not safe.

    Raises:
        UserError: it is not https. Http is allowed to this machine only, or with a checksum.
    """
    where = f"{name}: it redirects to {without_password(url)}, which" if previous else f"{name}:"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise UserError(f"{where} is not an address; expected https://host/file.zip") from None
    if parts.scheme not in ("http", "https"):
        raise UserError(f"{where} is not on the web; expected an https address")
    if not host or not re.fullmatch(r"[\w.:%-]+", host):
        raise UserError(f"{where} names no host; expected https://host/file.zip")
    if parts.scheme == "https":
        return
    if previous.startswith("https:"):
        raise UserError(f"{where} is less safe than the address given; ask who runs the server")
    if not (allow_http or _this_machine(host)):
        raise UserError(
            f"{where} http can be altered in transit; use https, or append the file's checksum to the address: "
            "#sha256=..."
        )


def _this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _announced(response: requests.Response) -> tuple[Version, int]:
    """Which file the server sends, and from which byte on."""
    headers = response.headers
    encoded = headers.get("Content-Encoding", "identity") != "identity"
    start, size = 0, "" if encoded else headers.get("Content-Length", "")
    if response.status_code == 206:
        found = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)", headers.get("Content-Range", ""))
        if not found:
            raise Broken("the server does not say which part it sends")
        start, size = int(found[1]), found[2]
    whole = int(size) if re.fullmatch("[0-9]{1,18}", size) else None
    return Version(whole, headers.get("ETag"), headers.get("Last-Modified")), start


def _same(now: Version, before: Version) -> bool:
    """Whether nothing that the server says of the file has changed; it may omit things for a part."""
    return all(None in pair or pair[0] == pair[1] for pair in zip(now, before, strict=True))


def _receive(request: Request, version: Version, start: int, pieces: Iterator[bytes], counter: _Counter) -> None:
    """Append the pieces to the file, within the limits."""
    incoming = request.incoming
    _check_space(request, start, version.size or 0)
    if not start:
        discard(incoming)  # first, so that a note never stands beside bytes of another file
        write_text(_note(incoming), json.dumps(version))
    with (
        incoming.open("ab" if start else "wb", buffering=0) as file,
        progress(total=version.size, initial=start, desc="download", unit="B", unit_scale=True) as bar,
    ):
        size = start
        for piece in pieces:
            _check_space(request, size, size + len(piece))
            file.write(piece)
            size += len(piece)
            counter.received += len(piece)
            bar.update(len(piece))


def _check_space(request: Request, here: int, total: int) -> None:
    """
    Raises:
        UserError: the file is larger than allowed, or than the disk has room for.
    """
    if total > request.max_bytes:
        discard(request.incoming)
        raise UserError(
            f"{request.name}: larger than max_gigabytes allows ({request.max_bytes / 1e9:g}); raise it in params.yaml "
            "if you trust the server"
        )
    free = shutil.disk_usage(request.incoming.parent).free - FREE_DISK
    if total - here > free:
        raise UserError(
            f"{request.name}: {(total - here) / 1e6:,.0f} MB left to download, but {request.incoming.parent} has room "
            f"for {max(free, 0) / 1e6:,.0f} MB; free some space, or set XDG_CACHE_HOME to another disk"
        )


def _intact(request: Request) -> bool:
    """Whether every file of the zip has its checksum."""
    try:
        with zipfile.ZipFile(request.incoming) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
            return unpacked <= request.max_bytes and archive.testzip() is None
    except Exception:  # zipfile raises whatever damaged bytes lead it to
        return False


def _note(incoming: Path) -> Path:
    """The note that says which version the bytes in `incoming` are of."""
    return incoming.with_suffix(".json")


def kept_part(incoming: Path) -> tuple[Version, int]:
    """The version being downloaded and the number of its bytes received so far."""
    try:
        return Version(*json.loads(_note(incoming).read_text(encoding="utf-8"))), size_of(incoming)
    except (OSError, ValueError, TypeError):
        return Version(None, None, None), 0


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def discard(incoming: Path) -> None:
    """Delete the partial download."""
    incoming.unlink(missing_ok=True)
    _note(incoming).unlink(missing_ok=True)
