"""Every kind of source ends as the same zip, or as one line that says why not."""

import hashlib
import threading
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pilotnet_sdnn.drive import http, sources
from pilotnet_sdnn.drive.drive_zip import open_drive, origin, read_labels
from pilotnet_sdnn.errors import UserError, exit_on_error


@pytest.fixture(autouse=True)
def own_cache_and_no_patience(tmp_path, monkeypatch):
    monkeypatch.setattr(http, "RETRIES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def served(tmp_path):
    """A folder and the address of a web server over it."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def out(tmp_path):
    return tmp_path / "data" / "driving_dataset.zip"


def fetch(source, out):
    sources.fetch(str(source), out, frames=10, seed=1)


def refused(source, out, *words):
    """The source is refused in one line that has the words, and leaves nothing where the drive would be."""
    with pytest.raises(UserError) as error:
        fetch(source, out)
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_synthetic_drive_has_the_length_asked_for_and_the_same_bytes_again(out, tmp_path):
    fetch("synthetic", out)
    fetch("synthetic", tmp_path / "again.zip")
    assert out.read_bytes() == (tmp_path / "again.zip").read_bytes()
    with open_drive(out) as drive:
        assert [label.frame for label in read_labels(drive)] == [f"{i}.jpg" for i in range(10)]


def test_zip(tiny_drive, out):
    fetch(tiny_drive, out)
    assert out.read_bytes() == tiny_drive.read_bytes()


def test_zip_without_a_comment_gets_its_name_as_one(tiny_drive, out, tmp_path):
    with zipfile.ZipFile(tiny_drive) as drive, zipfile.ZipFile(tmp_path / "münchen.zip", "w") as plain:
        for entry in drive.infolist():
            plain.writestr(entry, drive.read(entry))
    fetch(tmp_path / "münchen.zip", out)
    with open_drive(out) as packed, zipfile.ZipFile(tiny_drive) as drive:
        assert origin(packed) == "münchen.zip"
        assert {name: packed.read(name) for name in packed.namelist()} == {n: drive.read(n) for n in drive.namelist()}


@pytest.mark.parametrize("level", ["", "driving_dataset"])
def test_folder_with_or_without_the_zips_own_folder(tiny_drive, out, tmp_path, level):
    with zipfile.ZipFile(tiny_drive) as drive:
        drive.extractall(tmp_path / "unpacked")
        labels = read_labels(drive)
    fetch(tmp_path / "unpacked" / level, out)
    with open_drive(out) as packed, open_drive(tiny_drive) as original:
        assert read_labels(packed) == labels
        assert packed.read("driving_dataset/7.jpg") == original.read("driving_dataset/7.jpg")


def test_relative_path_means_the_same_in_a_copy_made_for_an_experiment(tiny_drive, out, tmp_path, monkeypatch):
    (tmp_path / "drive.zip").write_bytes(tiny_drive.read_bytes())
    copy = tmp_path / "repository" / ".dvc" / "tmp" / "exps" / "tmp123"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    fetch("../drive.zip", out)
    assert out.exists()


def test_url(tiny_drive, served, out):
    folder, address = served
    (folder / "drive.zip").write_bytes(tiny_drive.read_bytes())
    fetch(f"{address}/drive.zip", out)
    assert out.read_bytes() == tiny_drive.read_bytes()


def test_what_was_downloaded_once_is_not_downloaded_again(tiny_drive, served, out):
    """`dvc exp run -S seed=1` must not cost another two gigabytes."""
    folder, address = served
    (folder / "drive.zip").write_bytes(tiny_drive.read_bytes())
    fetch(f"{address}/drive.zip", out)
    (folder / "drive.zip").unlink()
    out.unlink()
    fetch(f"{address}/drive.zip", out)
    assert out.read_bytes() == tiny_drive.read_bytes()


def test_download_that_was_cut_off_is_continued(tiny_drive, out):
    content, asked = tiny_drive.read_bytes(), []

    class Server(BaseHTTPRequestHandler):
        """Sends the file from where it is asked for; the first time only half of it."""

        def do_GET(self):
            asked.append(self.headers.get("Range"))
            start = int(asked[-1].removeprefix("bytes=").removesuffix("-")) if asked[-1] else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            self.wfile.write(content[start:] if start else content[: len(content) // 2])

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/drive.zip"
        refused(url, out, "download failed", "run again to resume")
        fetch(url, out)
        server.shutdown()
    assert out.read_bytes() == content
    assert asked[-1] is not None  # not from the beginning


def test_url_that_is_not_there_or_no_zip(served, out):
    folder, address = served
    refused(f"{address}/nothing.zip", out, "404", f"{address}/nothing.zip")
    (folder / "page.zip").write_text("<html>quota exceeded</html>")
    refused(f"{address}/page.zip", out, "not a readable zip")
    refused("http://127.0.0.1:1/drive.zip", out, "download failed")


def serve_as_pilotnet(monkeypatch, address, labels: bytes):
    monkeypatch.setattr(sources, "PILOTNET_URL", f"{address}/pilotnet.zip")
    monkeypatch.setattr(sources, "PILOTNET_LABELS_SHA256", hashlib.sha256(labels).hexdigest())


def test_pilotnet_is_verified_by_the_checksum_of_its_labels(tiny_drive, served, out, monkeypatch):
    folder, address = served
    (folder / "pilotnet.zip").write_bytes(tiny_drive.read_bytes())
    serve_as_pilotnet(monkeypatch, address, b"0.jpg 0\n")
    refused("pilotnet", out, "data.txt has sha256", "expected")
    with open_drive(tiny_drive) as drive:
        serve_as_pilotnet(monkeypatch, address, drive.read("driving_dataset/data.txt"))
    fetch("pilotnet", out)
    assert out.read_bytes() == tiny_drive.read_bytes()


def test_pilotnet_is_sully_chens_file_on_google_drive():
    assert sources.PILOTNET_URL == "https://drive.google.com/uc?id=1Ue4XohCOV5YXy57S_5tDfCVqzLr101M7"


def test_checksum_of_the_published_labels(real_labels):
    assert hashlib.sha256(real_labels.read_bytes()).hexdigest() == sources.PILOTNET_LABELS_SHA256


def test_unknown_source_and_missing_zip(out):
    refused("sintetic", out, "source: 'sintetic' is neither synthetic, pilotnet, a URL nor an existing file")
    refused("../nowhere/drive.zip", out, "nowhere/drive.zip")


HOSTILE_SOURCES = [
    "a\0b.zip", "~nobody-here/drive.zip", "loop", "x" * 5000, "\x1b[2J\u202e.zip", "/dev/zero", "/dev/null",
    "https://", "https:///drive.zip", "https://[::1/drive.zip", "https://a b/drive.zip", "https://host:port/drive.zip",
    "https://\x1b[2J/drive.zip", "http://127.0.0.1:99999/drive.zip", "https://me:secret@/drive.zip",
    "https://me:secret@host:port/drive.zip", "https://me:sec/secret@127.0.0.1/drive.zip#sha256=0",
    "https://me:secret@127.0.0.1/drive.zip#sha256=0", f"https://{'a' * 300}/drive.zip",
]  # fmt: skip


@pytest.mark.parametrize("source", HOSTILE_SOURCES)
def test_hostile_source_is_one_short_line(source, out, tmp_path, monkeypatch, tiny_drive):
    """Without the password, and the older drive is left as it was."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    fetch(tiny_drive, out)
    with pytest.raises(SystemExit) as error, exit_on_error():
        fetch(source, out)
    assert str(error.value).isprintable() and len(str(error.value)) <= 300
    assert "secret" not in str(error.value)
    assert out.read_bytes() == tiny_drive.read_bytes() and list(out.parent.iterdir()) == [out]


def test_zip_without_labels_or_with_a_label_without_its_frame(out, tmp_path):
    path = tmp_path / "drive.zip"
    with zipfile.ZipFile(path, "w") as drive:
        drive.writestr("driving_dataset/0.jpg", b"")
    refused(path, out, "no data.txt, no driving_dataset/data.txt")
    with zipfile.ZipFile(path, "a") as drive:
        drive.writestr("driving_dataset/data.txt", "0.jpg 1\n1.jpg 1\n")
    refused(path, out, "line 2", "1.jpg")


def test_folder_without_labels_or_with_a_label_without_its_frame(out, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    refused(folder, out, "no data.txt")
    (folder / "data.txt").write_text("0.jpg 1\n")
    refused(folder, out, "data.txt line 1", "0.jpg")


def test_older_drive_survives_a_failed_fetch(tiny_drive, out):
    fetch(tiny_drive, out)
    with pytest.raises(UserError):
        fetch("nowhere.zip", out)
    assert out.read_bytes() == tiny_drive.read_bytes()
