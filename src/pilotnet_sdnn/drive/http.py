"""A zip from the web: continued where it broke off, and checked before it gets its name."""

import hashlib
import html
import json
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from itertools import chain
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urldefrag, urljoin, urlsplit, urlunsplit

import requests
import zc.lockfile
from gdown.download import get_url_from_gdrive_confirmation
from gdown.exceptions import FileURLRetrievalError
from gdown.parse_url import parse_url
from urllib3.exceptions import InvalidHeader, MaxRetryError
from urllib3.util import Retry

from pilotnet_sdnn.errors import UserError, one_line
from pilotnet_sdnn.files import write_text
from pilotnet_sdnn.paths import user_cache
from pilotnet_sdnn.progress import progress

RETRIES = 6  # in a row that got nowhere
PAUSE = 1.0  # s; the second retry waits twice as long, the third four times, ...
LONGEST_PAUSE = 300  # s, also if the server asks for more
TIMEOUT = (15.0, 60.0)  # s, to connect and between two pieces
TRANSIENT = {408, 429, 500, 502, 503, 504}
REDIRECTS = 10
PIECE = 2**16  # bytes read at a time: no more than this is lost when a connection breaks off
WORTH = 2**20  # bytes that a retry must bring not to count as one that got nowhere
GOOGLE = ("drive.google.com", "drive.usercontent.google.com", "docs.google.com")


class Version(NamedTuple):
    """What tells a file on a server from a later one at the same address; None is what the server does not say."""

    size: int | None  # bytes of the whole file
    etag: str | None
    modified: str | None

    @property
    def validator(self) -> str | None:
        """What If-Range takes (RFC 9110, 13.1.5): a weak ETag does not promise the same bytes."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


class Broken(requests.ConnectionError):
    """What came is not what was asked for; it may be another time."""


def download(source: str, check: Callable[[Path], None]) -> Path:
    """The zip at an address, kept in the user's cache: a run with another seed does not get it again.

    What came before an error, Ctrl-C or a kill is kept for the next call, which goes on from there if the file on
    the server is still the same. A second process that wants the same address waits for the first.
    Proxies are those of the environment, HTTPS_PROXY and NO_PROXY.

    Args:
        source: https address, with `#sha256=...` behind it to check the file by. Plain http is taken with a
            checksum only, or from this machine.
        check: raises a `UserError` if the zip is not what it should be.

    Raises:
        UserError: it cannot be had or is not what it should be.
    """
    path = user_cache() / "drives" / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    incoming = path.with_suffix(".incoming")
    name, checksum = _without_password(urldefrag(source).url), _checksum(source)
    try:
        with _only_downloader(path.with_suffix(".lock"), name):
            if path.exists():
                print(f"{name}: already downloaded; delete {path} to get it again")
                return path
            _bring(urldefrag(source).url, name, incoming, http_too=checksum is not None)
            try:
                if checksum:
                    _compare(incoming, checksum, name)
                check(incoming)
            except UserError as error:
                _discard(incoming)
                raise UserError(str(error).replace(str(incoming), name)) from None
            incoming.replace(path)
            _discard(incoming)
            return path
    except KeyboardInterrupt:
        raise UserError(f"{name}: stopped; run again to continue it") from None


def _checksum(source: str) -> str | None:
    """The checksum that an address names, as pip has it."""
    fragment = urldefrag(source).fragment
    if not fragment.startswith("sha256="):
        return None
    checksum = fragment.removeprefix("sha256=").lower()
    if not re.fullmatch("[0-9a-f]{64}", checksum):
        raise UserError(f"{source}: expected 64 hexadecimal digits after #sha256=")
    return checksum


def _compare(path: Path, checksum: str, name: str) -> None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != checksum:
        raise UserError(f"{name}: it has sha256 {found}, expected {checksum}: not the file you meant, or damaged")


@contextmanager
def _only_downloader(lock_path: Path, name: str) -> Iterator[None]:
    """Wait until no other process downloads the same file."""
    told = False
    while True:
        try:
            lock = zc.lockfile.LockFile(lock_path)
            break
        except zc.lockfile.LockError:
            if not told:
                print(f"{name}: another process is downloading it; waiting for it", file=sys.stderr)
            told = True
            time.sleep(0.2)
    try:
        yield
    finally:
        lock.close()  # the file stays: to unlink it would let two others lock two files of that name


def _bring(url: str, name: str, incoming: Path, http_too: bool) -> None:
    """Have all of the file in `incoming`; again and again, with growing pauses, as long as it may help."""
    if drive_id := parse_url(url)[0]:  # confirm=t: yes, even though it is too big to scan for viruses
        url = f"https://drive.usercontent.google.com/download?id={drive_id}&export=download&confirm=t"
    fresh = Retry(total=RETRIES, backoff_factor=PAUSE, backoff_max=LONGEST_PAUSE, retry_after_max=LONGEST_PAUSE)
    retry, reached = fresh, _size(incoming)
    with requests.Session() as session:
        session.headers["Accept-Encoding"] = "identity"  # offsets are in the bytes of the file
        while True:
            try:
                return _continue(session, url, name, incoming, http_too)
            except requests.RequestException as error:
                problem, response = _reason(error), error.response
                hopeless = isinstance(error, requests.exceptions.SSLError | requests.exceptions.InvalidURL)
            if hopeless or (response is not None and response.status_code not in TRANSIENT):
                raise UserError(f"{name}: download failed ({problem}); check the address")
            kept, at = _kept(incoming)
            if at and kept.size:
                problem += f", {at:,} of {kept.size:,} bytes are here"
            if at >= reached + WORTH:
                retry, reached = fresh, at
            try:
                retry = retry.increment("GET", url, error=Exception(problem))
            except MaxRetryError:
                raise UserError(
                    f"{name}: download failed ({problem}); run again to continue it, or give a path as source"
                ) from None
            print(f"{name}: {problem}; trying again", file=sys.stderr)
            try:
                retry.sleep(response.raw if response is not None else None)
            except InvalidHeader:  # a Retry-After that is neither seconds nor a date
                retry.sleep()


def _continue(session: requests.Session, url: str, name: str, incoming: Path, http_too: bool) -> None:
    """Get what is missing of the file."""
    kept, at = _kept(incoming)
    if at and at == kept.size:
        return None
    headers = {"Range": f"bytes={at}-"} if at else {}
    if at and kept.validator:
        headers["If-Range"] = kept.validator
    with _open(session, url, headers, name, http_too) as response:
        pieces = response.iter_content(PIECE)
        if response.status_code == 416:
            _discard(incoming)
            raise Broken("the server has no more of it; starting over")
        first = next(pieces, b"")
        if page := _web_page(response, first):
            if confirmed := _confirmed(response.url, page):
                return _continue(session, confirmed, name, incoming, http_too)
            if what := _what(page, response.url) or (response.ok and _titled(page)):
                raise UserError(f"{name}: not a readable zip file but {what}")
        response.raise_for_status()
        version, start = _announced(response)
        if start and (start != at or not _same(version, kept)):
            _discard(incoming)
            raise Broken("the file on the server has changed; starting over")
        _make_room(incoming.parent, (version.size or 0) - start, name)
        if not start:
            _discard(incoming)  # first, so that a note never stands beside bytes of another file
            write_text(_note(incoming), json.dumps(version))
        with (
            incoming.open("ab" if start else "wb", buffering=0) as file,
            progress(total=version.size, initial=start, desc="download", unit="B", unit_scale=True) as bar,
        ):
            for piece in chain([first], pieces):
                file.write(piece)
                bar.update(len(piece))
    size = _size(incoming)
    if version.size is not None and size < version.size:
        raise Broken("the connection broke off")
    doubtful = start and not version.validator and not _intact(incoming)
    if doubtful or (version.size is not None and size > version.size):
        _discard(incoming)
        raise Broken("what came does not fit together; starting over")
    return None


def _open(session: requests.Session, url: str, headers: dict, name: str, http_too: bool) -> requests.Response:
    """Ask for the file, at as many addresses as one sends us on to, none of them less safe than we were asked to be."""
    previous = ""
    for _ in range(REDIRECTS):
        _allow(url, previous, name, http_too)
        response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT, allow_redirects=False)
        target = session.get_redirect_target(response)
        if target is None:
            return response
        response.close()
        previous, url = url, urljoin(url, target)
    raise UserError(f"{name}: it sends us on from address to address, {REDIRECTS} times; check the address")


def _allow(url: str, previous: str, name: str, http_too: bool) -> None:
    where = f"{name}: it redirects to {_without_password(url)}, which" if previous else f"{name}:"
    parts = urlsplit(url)
    if parts.scheme == "https":
        return
    if parts.scheme != "http":
        raise UserError(f"{where} is not on the web; expected an https address")
    if previous.startswith("https:"):
        raise UserError(f"{where} is less safe than the address given; ask who runs the server")
    if not (http_too or _this_machine(parts.hostname or "")):
        raise UserError(
            f"{where} http can be changed on its way; use https, or put the file's checksum behind the address: "
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
    start, size = 0, None if encoded else headers.get("Content-Length")
    if response.status_code == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        if not found:
            raise Broken("the server does not say which part it sends")
        start, size = int(found[1]), found[2]
    version = Version(int(size) if size and size.isdigit() else None, headers.get("ETag"), headers.get("Last-Modified"))
    return version, start


def _same(now: Version, before: Version) -> bool:
    """Whether nothing that the server says of the file has changed; it may leave things out of a part."""
    return all(None in pair or pair[0] == pair[1] for pair in zip(now, before, strict=True))


def _intact(path: Path) -> bool:
    """Whether every file of the zip has its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # zipfile raises whatever damaged bytes lead it to
        return False


def _make_room(folder: Path, needed: int, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{name}: {needed / 1e6:,.0f} MB are to come and {folder} has room for {free / 1e6:,.0f} MB; make room, "
            "or set XDG_CACHE_HOME to another disk"
        )


def _web_page(response: requests.Response, first: bytes) -> str | None:
    """The text of what came, if it is a web page."""
    start = first.removeprefix(b"\xef\xbb\xbf").lstrip()[:20].lower()
    says_so = response.headers.get("Content-Type", "").startswith("text/html") and not start.startswith(b"pk")
    return first.decode("utf-8", "replace") if says_so or start.startswith((b"<!doctype html", b"<html")) else None


def _confirmed(url: str, page: str) -> str | None:
    """Where Google Drive's page about the missing virus scan leads if one answers yes."""
    if urlsplit(url).hostname not in GOOGLE or "virus" not in page:
        return None
    try:
        confirmed = get_url_from_gdrive_confirmation(page)
    except FileURLRetrievalError:
        return None
    return confirmed if confirmed != url else None


def _what(page: str, url: str) -> str | None:
    """Which well-known page came instead of the zip, and what to do; None for any other."""
    text = " ".join(html.unescape(re.sub("<[^>]*>", " ", page)).split()).lower()
    if "quota exceeded" in text or "too many users have viewed or downloaded" in text:
        return "Google Drive's page that its quota is exceeded, too many have downloaded it; try again in a day"
    if "scan this file for viruses" in text or "virus scan warning" in text:
        return "Google Drive's page about a virus scan; download it with a browser and give its path as source"
    if urlsplit(url).hostname == "accounts.google.com" or re.search(r"type=.?password", page):
        return "a page to log in; share the file with anyone who has the link, or download it and give its path"
    return None


def _titled(page: str) -> str:
    title = re.search(r"<title[^>]*>(.*?)</title>", page, re.IGNORECASE | re.DOTALL)
    called = f" ({' '.join(html.unescape(title[1]).split())[:80]!r})" if title else ""
    return f"a web page{called}; check the address"


def _reason(error: requests.RequestException) -> str:
    """Why it failed, in a few words."""
    if error.response is not None:
        return f"{error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy that HTTPS_PROXY or HTTP_PROXY names does not let us through"
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {TIMEOUT[0]:g} s"
    if isinstance(error, requests.Timeout) or "Read timed out" in str(error):
        return f"it stalled: nothing came for {TIMEOUT[1]:g} s"
    if isinstance(error, requests.exceptions.SSLError):
        return f"its certificate is not valid: {_innermost(error)}"
    return _innermost(error)


def _innermost(error: BaseException) -> str:
    while error.args and isinstance(inner := getattr(error.args[-1], "reason", error.args[-1]), BaseException):
        error = inner
    return one_line(error)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _note(incoming: Path) -> Path:
    """Where it is noted which file the bytes in `incoming` are of."""
    return incoming.with_suffix(".json")


def _kept(incoming: Path) -> tuple[Version, int]:
    """Which file was being downloaded, and how many bytes of it are here."""
    try:
        return Version(*json.loads(_note(incoming).read_text(encoding="utf-8"))), _size(incoming)
    except (OSError, ValueError, TypeError):
        return Version(None, None, None), 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _discard(incoming: Path) -> None:
    incoming.unlink(missing_ok=True)
    _note(incoming).unlink(missing_ok=True)
