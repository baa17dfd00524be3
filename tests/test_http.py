"""Downloads from servers that misbehave in every way a server can."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests

from pilotnet_sdnn.drive import http, transfer, web_pages
from pilotnet_sdnn.drive.drive_zip import open_drive
from pilotnet_sdnn.drive.http import download
from pilotnet_sdnn.errors import UserError


def zip_of(seed: int, size: int = 3 * 2**20) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("noise", np.random.default_rng(seed).bytes(size))
    return archive.getvalue()


ZIP, OTHER = zip_of(1), zip_of(2)  # of the same size
MAX_BYTES = 10**9
THIRD, HALF = 2**20, 24 * 2**16  # of it, in whole pieces


@pytest.fixture(autouse=True)
def quick_and_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(transfer, "TIMEOUT", (10, 10))
    monkeypatch.setattr(http, "RETRIES", 3)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Request(BaseHTTPRequestHandler):
    """A request, and the ways to answer it."""

    protocol_version = "HTTP/1.1"
    asked: list["Request"]
    answer: Callable

    def do_GET(self):
        self.close_connection = True
        self.asked.append(self)
        with suppress(BrokenPipeError, ConnectionResetError):  # who asked has hung up
            self.answer(self, len(self.asked))

    def log_message(self, *_):
        pass

    @property
    def start(self) -> int:
        return int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in {**headers, "Connection": "close"}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def send(self, content: bytes, start: int = 0, upto: int | None = None, etag: str | None = '"1"') -> None:
        """The content from `start` on, as far as `upto`: what lies behind it was promised too."""
        headers: dict[str, object] = {"Content_Length": len(content) - start, **({"ETag": etag} if etag else {})}
        if start:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.head(206 if start else 200, **headers)
        self.wfile.write(content[start:upto])

    def page(self, text: str, status: int = 200) -> None:
        self.head(status, Content_Type="text/html", Content_Length=len(text))
        self.wfile.write(text.encode())


@contextmanager
def server(answer: Callable[[Request, int], None]):
    """An address answered by `answer(request, number of the request)`, and what was asked of it."""
    handler = type("Handler", (Request,), {"asked": [], "answer": staticmethod(answer)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/drive.zip", handler.asked
        running.shutdown()


def any_zip(path: Path) -> None:
    open_drive(path).close()


def get(url: str) -> bytes:
    return download(url, any_zip, MAX_BYTES).read_bytes()


def refused(url: str, *words: str) -> None:
    with pytest.raises(UserError) as error:
        get(url)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
    assert not list(Path(os.environ["XDG_CACHE_HOME"]).rglob("*.zip"))


def test_connection_that_drops_midway_is_continued_where_it_broke():
    with server(lambda request, n: request.send(ZIP, request.start, n * THIRD if n < 3 else None)) as (url, asked):
        assert get(url) == ZIP
    assert [request.start for request in asked] == [0, THIRD, 2 * THIRD]
    assert [request.headers.get("If-Range") for request in asked] == [None, '"1"', '"1"']


def test_progress_starts_the_count_of_retries_anew():
    parts = 8  # more than the retries; each brings what counts as progress
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http, "PROGRESS", 100_000)
        with server(lambda request, n: request.send(ZIP, request.start, n * len(ZIP) // parts)) as (url, _):
            assert get(url) == ZIP


def test_file_that_changed_between_two_attempts_is_not_spliced():
    """A server that honours If-Range sends all of the new file."""

    def answer(request, n):
        if n == 1:
            request.send(ZIP, 0, HALF)
        else:
            same = request.headers.get("If-Range") == '"2"'
            request.send(OTHER, request.start if same else 0, None if n > 2 else HALF, etag='"2"')

    with server(answer) as (url, asked):
        assert get(url) == OTHER
    assert [request.start for request in asked] == [0, HALF, HALF]


@pytest.mark.parametrize("etags", [('"1"', '"2"'), (None, None), ('W/"1"', 'W/"2"')])
def test_file_that_changed_is_not_spliced_either_when_the_server_pays_no_heed(etags):
    """It sends the rest of the new file, of the same length, with another ETag, or with none at all."""

    def answer(request, n):
        first = n == 1
        request.send(ZIP if first else OTHER, request.start, HALF if first else None, etag=etags[not first])

    with server(answer) as (url, _):
        assert get(url) == OTHER


def test_file_that_became_longer_is_not_spliced():
    longer = zip_of(3, 4 * 2**20)

    def answer(request, n):
        request.send(ZIP if n == 1 else longer, request.start, HALF if n == 1 else None, etag=None)

    with server(answer) as (url, _):
        assert get(url) == longer


def test_server_that_ignores_range_sends_it_all_again():
    with server(lambda request, n: request.send(ZIP, 0, HALF if n == 1 else None)) as (url, asked):
        assert get(url) == ZIP
    assert asked[1].start == HALF


def test_server_that_says_that_there_is_no_more():
    def answer(request, n):
        if n == 1:
            request.send(ZIP + b"?", 0, len(ZIP))
        elif request.start:
            request.head(416, Content_Length=0)
        else:
            request.send(ZIP)

    with server(answer) as (url, _):
        assert get(url) == ZIP


def test_sizes_that_are_lies():
    with server(lambda request, n: request.send(ZIP + b"?", request.start, len(ZIP))) as (url, _):
        refused(
            url,
            "download failed",
            f"the connection was lost, {len(ZIP) // 2**16 * 2**16:,} of {len(ZIP) + 1:,} bytes",
            "run again to resume",
        )

    def short(request, n):
        request.head(200, Content_Length=HALF)
        request.wfile.write(ZIP)

    with server(short) as (url, _):
        refused(url, "not a readable zip")

    def other_part(request, n):
        if request.start:
            request.head(206, Content_Length=5, Content_Range=f"bytes 7-11/{len(ZIP)}")
            request.wfile.write(ZIP[7:12])
        else:
            request.send(ZIP, 0, HALF if n == 1 else None)

    with server(other_part) as (url, _):
        assert get(url) == ZIP


def test_stalling_server_is_left_and_asked_again(monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", (10, 1))

    def answer(request, n):
        request.send(ZIP, request.start, HALF if n == 1 else None)
        if n == 1:
            time.sleep(2)

    with server(answer) as (url, asked):
        assert get(url) == ZIP
    assert asked[1].start == HALF


def test_server_that_always_stalls_is_given_up(monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT", (10, 0.5))
    with server(lambda request, n: time.sleep(0.7)) as (url, asked):
        refused(url, "download failed", "stalled: no data for 0.5 s")
    assert len(asked) == 1 + http.RETRIES


@pytest.mark.parametrize("status", [429, 503])
def test_busy_server_is_asked_again_when_it_says(status, capsys):
    moments = []

    def answer(request, n):
        moments.append(time.monotonic())
        if n == 1:
            request.head(status, Retry_After=1, Content_Length=0)
        else:
            request.send(ZIP)

    with server(answer) as (url, _):
        assert get(url) == ZIP
    assert moments[1] - moments[0] >= 1
    assert f"{status}" in capsys.readouterr().err


def test_pauses_grow(monkeypatch):
    monkeypatch.setattr(http, "FIRST_PAUSE", 0.1)
    moments = []

    def answer(request, n):
        moments.append(time.monotonic())
        request.head(500, Content_Length=0)

    with server(answer) as (url, _):
        refused(url, "500", "download failed")
    pauses = np.diff(moments)
    assert pauses[1] >= 0.2 and pauses[2] >= 0.4


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_will_not_change_is_asked_once(status):
    with server(lambda request, n: request.page("<html>log in here, or not</html>", status)) as (url, asked):
        refused(url, f"{status}", url)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("<title>Google Drive - Quota exceeded</title>", "quota is exceeded"),
        ("<p>Sorry, too many users have viewed or downloaded this file recently.</p>", "quota is exceeded"),
        ("<title>Virus scan warning</title> Google Drive can&#39;t scan this file for viruses.", "virus scan"),
        ('<form>Email <input type="password"></form>', "a login page"),
        ("<title>Monday&#39;s\n drive</title>", 'a web page ("Monday\'s drive"); check the address'),
    ],
)
def test_web_page_instead_of_the_zip_is_told_for_what_it_is(page, words):
    text = f"<!DOCTYPE html><html>{page}</html>"
    with server(lambda request, n: request.page(text, 403 if "too many" in page else 200)) as (url, asked):
        refused(url, "not a readable zip", words)
    assert len(asked) == 1


def test_web_page_does_not_cost_what_is_there():
    def answer(request, n):
        if n == 2:
            request.page("<html><title>Google Drive - Quota exceeded</title></html>")
        else:
            request.send(ZIP, request.start, HALF if n == 1 else None)

    with server(answer) as (url, asked):
        refused(url, "quota")
        assert get(url) == ZIP
    assert asked[2].start == HALF


def test_google_drives_question_about_the_virus_scan_is_answered(monkeypatch):
    monkeypatch.setattr(web_pages, "GOOGLE_HOSTS", ("127.0.0.1",))
    form = (
        '<html>Google Drive can\'t scan this file for viruses. <form id="download-form" action="{}">'
        '<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="7"></form></html>'
    )

    def answer(request, n):
        if "uuid=7" in request.path and "confirm=t" in request.path:
            request.send(ZIP)
        else:
            request.page(form.format(f"http://127.0.0.1:{request.server.server_port}/confirmed"))

    with server(answer) as (url, _):
        assert get(url) == ZIP


def test_google_drive_is_asked_at_the_address_that_answers_with_the_file(monkeypatch):
    """Without a network: what would be asked for is refused before it is."""
    asked = []
    monkeypatch.setattr(transfer, "check_address", lambda url, *_: asked.append(url) or refuse())

    def refuse():
        raise UserError("seen")

    for link in ("https://drive.google.com/file/d/abc/view?usp=sharing", "https://drive.google.com/uc?id=abc"):
        refused(link, "seen")
    assert set(asked) == {"https://drive.usercontent.google.com/download?id=abc&export=download&confirm=t"}


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/drive.zip", "http://example.invalid/a.zip"])
def test_redirect_to_something_less_safe_is_refused(target):
    with server(lambda request, n: request.head(302, Location=target, Content_Length=0)) as (url, _):
        refused(url, "redirects to", target)


def test_redirect_from_https_to_http_is_refused_even_with_a_checksum():
    with pytest.raises(UserError, match="less safe"):
        transfer.check_address("http://127.0.0.1/a.zip", "https://example.invalid/a.zip", "name", allow_http=True)
    transfer.check_address("https://example.invalid/b.zip", "https://example.invalid/a.zip", "name", allow_http=False)


def test_redirects_are_followed_but_not_for_ever():
    def answer(request, n):
        if request.path == "/drive.zip":
            request.head(302, Location="/there.zip", Content_Length=0)
        elif request.path == "/there.zip":
            request.send(ZIP)
        else:
            request.head(302, Location=request.path, Content_Length=0)

    with server(answer) as (url, _):
        refused(url.replace("drive.zip", "round"), "redirects 10 times")
        assert get(url) == ZIP


def test_http_is_refused_unless_a_checksum_makes_up_for_it(monkeypatch):
    refused("http://example.invalid/drive.zip", "use https", "#sha256=")
    checksum = hashlib.sha256(ZIP).hexdigest()
    with server(lambda request, n: request.send(ZIP)) as (proxy, asked):
        monkeypatch.setenv("http_proxy", proxy.removesuffix("/drive.zip"))
        assert get(f"http://example.invalid/drive.zip#sha256={checksum}") == ZIP
    assert asked[0].path == "http://example.invalid/drive.zip"  # as a proxy is asked


def test_checksum_that_does_not_match():
    with server(lambda request, n: request.send(ZIP)) as (url, _):
        refused(f"{url}#sha256={'0' * 64}", hashlib.sha256(ZIP).hexdigest(), "expected 000", url)
        refused(f"{url}#sha256=abc", "64 hexadecimal digits")


def test_https_goes_through_the_proxy_of_the_environment_and_no_proxy_around_it(monkeypatch):
    asked = []

    class Proxy(BaseHTTPRequestHandler):
        def do_CONNECT(self):
            asked.append(self.path)
            self.send_error(403)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{proxy.server_port}"
        monkeypatch.setenv("HTTPS_PROXY", address)
        monkeypatch.setenv("HTTP_PROXY", address)
        refused("https://example.invalid/drive.zip", "proxy", "HTTPS_PROXY")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with server(lambda request, n: request.send(ZIP)) as (url, _):
            assert get(url) == ZIP
        proxy.shutdown()
    assert set(asked) == {"example.invalid:443"}


def test_certificate_that_nobody_vouches_for_is_not_asked_twice(monkeypatch):
    monkeypatch.setattr(requests.Session, "get", lambda *_, **__: (_ for _ in ()).throw(requests.exceptions.SSLError()))
    refused("https://example.invalid/drive.zip", "certificate")


def test_password_in_an_address_is_sent_but_not_shown():
    with (
        server(lambda request, n: request.head(404, Content_Length=0)) as (url, asked),
        pytest.raises(UserError) as error,
    ):
        get(url.replace("http://", "http://me:secret@"))
    assert "secret" not in str(error.value)
    assert asked[0].headers["Authorization"].startswith("Basic ")


def test_disk_without_room(monkeypatch):
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with server(lambda request, n: request.send(ZIP)) as (url, _):
        refused(url, "free some space", "3 MB left")


PROGRAM = """
import sys
from pilotnet_sdnn.drive.http import download
from pilotnet_sdnn.errors import exit_on_error
with exit_on_error():
    print(download(sys.argv[1], lambda path: None, 10**9))
"""


def start(url: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_ctrl_c_keeps_what_is_there_for_the_next_run():
    halfway, go_on = threading.Event(), threading.Event()

    def answer(request, n):
        request.send(ZIP, request.start, HALF if n == 1 else None)
        if n == 1:
            halfway.set()
            go_on.wait(10)

    with server(answer) as (url, asked):
        process = start(url)
        assert halfway.wait(20)
        time.sleep(0.3)  # until it has written what came
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
        go_on.set()
        assert process.returncode == 1
        assert told.splitlines()[-1] == f"error: {url}: stopped; run again to resume"
        assert get(url) == ZIP
    assert 0 < asked[1].start <= HALF


def test_two_processes_at_once_download_it_once():
    begun, go_on = threading.Event(), threading.Event()

    def answer(request, n):
        begun.set()
        go_on.wait(20)
        request.send(ZIP)

    with server(answer) as (url, asked):
        first = start(url)
        assert begun.wait(20)
        second = start(url)
        assert second.stderr.readline() == f"{url}: another process is downloading it; waiting\n"
        go_on.set()
        told = [process.communicate(timeout=20)[0] for process in (first, second)]
    assert len(asked) == 1
    assert [Path(out.splitlines()[-1]).read_bytes() == ZIP for out in told] == [True, True]


def test_cache_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match="where downloads are kept: Not a directory; set XDG_CACHE_HOME"):
        download("https://localhost/drive.zip", lambda path: None, 1000)
