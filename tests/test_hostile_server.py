"""Servers that want a download's time, disk, memory or terminal: each gets one short line and a bounded share."""

import gzip
import hashlib
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from test_http import ZIP, Request, any_zip, server

from pilotnet_sdnn.drive import http, transfer
from pilotnet_sdnn.drive.http import download
from pilotnet_sdnn.errors import exit_on_error

MAX_BYTES = 20 * 2**20
PATIENCE = 30  # s that one of these downloads may take here, with limits made short


@pytest.fixture(autouse=True)
def short_limits(tmp_path, monkeypatch):
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(http, "MAX_PAUSE", 0.01)
    monkeypatch.setattr(http, "RETRIES", 1)
    monkeypatch.setattr(transfer, "TIMEOUT", (5, 5))
    monkeypatch.setattr(transfer, "WINDOW", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def hostile(*lines: str, body: bytes = b"", repeat: bytes = b"", pause: float = 0) -> Callable[[Request, int], None]:
    """A raw answer: head, body, and then `repeat` without end."""

    def answer(request: Request, n: int) -> None:
        request.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1") if lines else b"")
        request.wfile.write(body)
        while repeat:
            request.wfile.write(repeat)
            time.sleep(pause)

    return answer


OK = "HTTP/1.1 200 OK"
PIECE = bytes(2**16)
SERVERS = {
    "body without end": hostile(OK, repeat=PIECE),
    "body longer than it says": hostile(OK, "Content-Length: 100000000000", repeat=PIECE),
    "chunks without end": hostile(OK, "Transfer-Encoding: chunked", repeat=b"10000\r\n" + PIECE + b"\r\n"),
    "bomb of gzip": hostile(OK, "Content-Encoding: gzip", body=gzip.compress(bytes(50 * 2**20)) * 20),
    "a byte at a time": hostile(OK, "Content-Length: 1000000", repeat=b"x", pause=0.05),
    "no byte": hostile(OK, "Content-Length: 1000000", body=b"x", repeat=b"", pause=1),
    "header without end": hostile("HTTP/1.1 200 OK\r\nX: ", repeat=b"x", pause=0.02),
    "headers without end": hostile(OK, "X: y", repeat=b"X: y\r\n", pause=0.02),
    "100 Continue without end": hostile(repeat=b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.001),
    "status line without end": hostile(repeat=b"H", pause=0.02),
    "no HTTP": hostile(body=b"SSH-2.0-OpenSSH\r\n"),
    "Retry-After of a million years": hostile("HTTP/1.1 503 x", "Retry-After: 31557600000000", "Content-Length: 0"),
    "Retry-After of 5,000 digits": hostile("HTTP/1.1 429 x", f"Retry-After: {'9' * 5000}", "Content-Length: 0"),
    "Retry-After in the year 9999": hostile("HTTP/1.1 503 x", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT"),
    "Retry-After that is no date": hostile("HTTP/1.1 503 x", "Retry-After: Fri, 99 Foo 99999999999999 0:0:0 GMT"),
    "control characters in the reason": hostile("HTTP/1.1 404 \x1b[2J\x1b]0;gone\x07", "Content-Length: 0"),
    "control characters in the title": hostile(
        OK, "Content-Type: text/html", body=b"<html><title>\x1b[2J\xe2\x80\xae</title>"
    ),
    "a page of < ": hostile(OK, "Content-Type: text/html", body=b"<html>" + b"<" * 10**6),
    "a page of titles": hostile(OK, "Content-Type: text/html", body=b"<html>" + b"<title>" * 10**6),
    **{
        f"Location {target[:30]!a}": hostile("HTTP/1.1 302 Found", f"Location: {target}", "Content-Length: 0")
        for target in (
            "https://[::1", "https://", "https://a b/", "//", "http://\x80\x81/", "https://\x1b[2J/",
            "http://127.0.0.1:x/", "http://127.0.0.1:99999/", "x" * 60_000, "https://me:secret@[/",
            f"https://{'a.' * 200}invalid/", "javascript:x",
        )
    },
    **{
        f"Content-Length {length[:20]!a}": hostile(OK, f"Content-Length: {length}", body=ZIP[:1000])
        for length in ("-1", "1e3", "many", "9" * 5000, "\xb2", "0x10", "1, 2")
    },
    **{
        f"Content-Range {part[:30]!a}": hostile("HTTP/1.1 206 Part", f"Content-Range: {part}", body=ZIP[:1000])
        for part in (
            "", "bytes", "bytes 0-x/y", f"bytes {'9' * 5000}-9/9", "bytes 5-9/1000", "bytes \xb2-9/9", "bytes */0",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SERVERS)
def test_hostile_server_is_one_short_line(name, tmp_path, capfd):
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with server(SERVERS[name]) as (url, _):
        address = url.replace("http://", "http://me:secret@")
        with pytest.raises(SystemExit) as error, exit_on_error():
            download(address, any_zip, MAX_BYTES)
        assert time.monotonic() - start < PATIENCE
    message, told = str(error.value), capfd.readouterr()
    assert message.startswith("error: http://127.0.0.1:") and message.isprintable() and len(message) <= 300
    assert "secret" not in message + told.out + told.err and "\x1b" not in told.out + told.err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000  # KB
    kept = [path for path in Path(os.environ["XDG_CACHE_HOME"]).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) <= MAX_BYTES and not any(path.suffix == ".zip" for path in kept)


def test_slow_but_steady_server_is_waited_for():
    """More than a window's time, and in each window more than the least."""
    part = len(ZIP) // 20

    def answer(request: Request, n: int) -> None:
        request.head(200, Content_Length=len(ZIP))
        for at in range(0, len(ZIP), part):
            request.wfile.write(ZIP[at : at + part])
            time.sleep(0.15)

    with server(answer) as (url, asked):
        assert download(url, any_zip, MAX_BYTES).read_bytes() == ZIP
    assert len(asked) == 1


def test_download_ends_when_its_time_is_over(monkeypatch):
    monkeypatch.setattr(http, "MAX_HOURS", 1 / 3600)
    steady = hostile(OK, repeat=PIECE, pause=0.2)
    with (
        server(steady) as (url, asked),
        pytest.raises(SystemExit, match=r"download failed \(.* hours\)"),
        exit_on_error(),
    ):
        download(url, any_zip, 10**9)
    assert len(asked) == 1


def test_size_that_is_announced_is_compared_with_the_limit_first():
    with (
        server(lambda request, n: request.send(ZIP)) as (url, _),
        pytest.raises(SystemExit, match="larger than max_gigabytes allows"),
        exit_on_error(),
    ):
        download(url, any_zip, 1000)
    assert not list(Path(os.environ["XDG_CACHE_HOME"]).rglob("*.incoming"))


def test_cached_file_is_compared_with_the_checksum():
    source = f"#sha256={hashlib.sha256(ZIP).hexdigest()}"
    with server(lambda request, n: request.send(ZIP)) as (url, asked):
        path = download(url + source, any_zip, MAX_BYTES)
        path.write_bytes(ZIP[:-1] + b"?")
        assert download(url + source, any_zip, MAX_BYTES).read_bytes() == ZIP
        assert download(url + source, any_zip, MAX_BYTES).read_bytes() == ZIP
    assert len(asked) == 2
