"""Zips and folders from a stranger: refused in one line, and never more read than is allowed."""

import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from drives import JPEG, files_in, one_line, write_folder, write_zip

from pilotnet_sdnn.drive import archives, sources
from pilotnet_sdnn.drive.archives import FolderArchive, ZipArchive, open_zip, read_member
from pilotnet_sdnn.drive.reading import Reading

DRIVE = {"driving_dataset/data.txt": "0.jpg 1\n1.jpg 2\n", "driving_dataset/0.jpg": JPEG, "driving_dataset/1.jpg": JPEG}


@pytest.fixture
def refused(tmp_path):
    """Asserts that a source is refused in one line with some words, and leaves nothing."""

    def check(source, *words, **reading):
        out = tmp_path / "out" / "driving_dataset.zip"
        one_line(lambda: sources.fetch(str(source), out, 1, 1, Reading(**reading)), *words)
        assert list(out.parent.iterdir()) == []

    return check


def patched(path, old: bytes, new: bytes, count: int = -1):
    """The file with some of its bytes others."""
    content = path.read_bytes()
    assert old in content and len(old) == len(new)
    path.write_bytes(content.replace(old, new, count))
    return path


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "driving_dataset/../../evil", "/etc/evil", "C:\\evil", "..\\evil", "a/..", "/x/"]
)
def test_entry_that_leads_out(tmp_path, refused, name):
    refused(write_zip(tmp_path / "a.zip", {**DRIVE, name: b"evil"}), "a.zip: entry", "leads out of the zip")
    assert not list(tmp_path.rglob("evil*"))


def test_link_in_a_zip(tmp_path, refused):
    link = zipfile.ZipInfo("driving_dataset/2.jpg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    path = write_zip(tmp_path / "a.zip", DRIVE)
    with zipfile.ZipFile(path, "a") as drive:
        drive.writestr(link, "/etc/passwd")
    refused(path, "entry 'driving_dataset/2.jpg' is a link")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name(tmp_path, refused):
    path = write_zip(tmp_path / "a.zip", DRIVE)
    with zipfile.ZipFile(path, "a") as drive:
        drive.writestr("driving_dataset/0.jpg", b"another")
    refused(path, "entry 'driving_dataset/0.jpg' appears twice")


def test_encrypted_entry(tmp_path, refused):
    path = write_zip(tmp_path / "a.zip", {"driving_dataset/data.txt": "0.jpg 1\n"})
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)
    refused(path, "is encrypted; unpack the zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_without_a_bound(tmp_path, refused, method):
    refused(write_zip(tmp_path / "a.zip", DRIVE, compression=method), "is compressed by method", "pack it again")


def test_bomb_by_what_it_declares(tmp_path, refused):
    zeros = {f"driving_dataset/{i}.jpg": bytes(2_000_000) for i in range(3)}
    path = write_zip(tmp_path / "a.zip", {**DRIVE, **zeros}, compression=zipfile.ZIP_DEFLATED)
    refused(path, "unpacks to 0.0 GB, more than max_gigabytes allows (0.005)", max_gigabytes=0.005)


def test_frame_bigger_than_a_frame_can_be(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_FILE", 1000)
    path = write_zip(tmp_path / "a.zip", {"x.jpg": bytes(1001)}, compression=zipfile.ZIP_DEFLATED)
    one_line(lambda: ZipArchive(path, 10**9).read("x.jpg"), "has 1,001 bytes, more than the 1,000 allowed")
    write_folder(tmp_path / "b", {"x.jpg": bytes(1001)})
    one_line(lambda: FolderArchive(tmp_path / "b").read("x.jpg"), "more than the 1,000 bytes allowed")


BOMB = """
import sys, zipfile, resource
from pathlib import Path
from pilotnet_sdnn.drive.archives import open_zip, read_member
from pilotnet_sdnn.errors import UserError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_member(open_zip(Path(sys.argv[1])), "x.jpg")
except UserError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)
"""


def test_bomb_that_declares_little_is_not_unpacked(tmp_path):
    """100 MB of zeros, said to be 1,000 bytes: the kilobytes read for that are all that is ever unpacked."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb, bomb.open("x.jpg", "w") as file:
        for _ in range(100):
            file.write(bytes(2**20))
    patched(path, (100 * 2**20).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    done = subprocess.run([sys.executable, "-c", BOMB, path], capture_output=True, text=True, check=True)
    kilobytes, message = done.stdout.split(" ", 1)
    assert int(kilobytes) < 20_000
    assert "'x.jpg' is damaged" in message


def test_frame_with_a_wrong_checksum(tmp_path):
    path = patched(write_zip(tmp_path / "a.zip", {"x.jpg": b"as it was"}), b"as it was", b"as it is!")
    one_line(lambda: read_member(open_zip(path), "x.jpg"), "a.zip: 'x.jpg' is damaged", "CRC")


def test_frame_shorter_than_declared(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x.jpg": bytes(1000)}, compression=zipfile.ZIP_DEFLATED)
    patched(path, (1000).to_bytes(4, "little"), (1001).to_bytes(4, "little"))
    one_line(lambda: read_member(open_zip(path), "x.jpg"), "'x.jpg' is damaged (fewer bytes than declared)")


@pytest.mark.parametrize("kept", [0.2, 0.99])
def test_zip_that_was_cut_off(tmp_path, refused, kept):
    path = write_zip(tmp_path / "a.zip", DRIVE)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    refused(path, "a.zip: not a readable zip file, or cut off; download it again")


def test_zip_in_a_zip(tmp_path, refused):
    inner = write_zip(tmp_path / "inner.zip", DRIVE).read_bytes()
    refused(
        write_zip(tmp_path / "outer.zip", {"inner.zip": inner}),
        "no data.txt, no driving_dataset/data.txt",
        "found 'inner.zip'",
    )


def test_entry_without_a_name_is_no_file(tmp_path):
    path = write_zip(tmp_path / "a.zip", DRIVE)
    with zipfile.ZipFile(path, "a") as drive:
        drive.writestr(zipfile.ZipInfo(""), b"nothing")
    sources.fetch(str(path), tmp_path / "out.zip", 1, 1)
    assert files_in(tmp_path / "out.zip") == files_in(path)


def test_zip_that_a_mac_made_or_windows(tmp_path):
    path = write_zip(tmp_path / "a.zip", {**DRIVE, "__MACOSX/driving_dataset/._0.jpg": b"", ".DS_Store": b""})
    sources.fetch(str(path), tmp_path / "out.zip", 1, 1)
    assert files_in(tmp_path / "out.zip") == files_in(path)
    write_zip(path, {name.replace("/", "\\"): content for name, content in DRIVE.items()})
    sources.fetch(str(path), tmp_path / "out.zip", 1, 1)
    assert sorted(zipfile.ZipFile(tmp_path / "out.zip").namelist()) == sorted(DRIVE)


@pytest.mark.parametrize("frame", ["/etc/hostname", "../secret.jpg", "link.jpg", "loop.jpg", "up/secret.jpg", "fifo"])
def test_labels_that_lead_out_of_a_folder(tmp_path, refused, frame):
    folder = write_folder(tmp_path / "a", {"data.txt": f"0.jpg 1\n{frame} 2\n", "0.jpg": JPEG})
    (tmp_path / "secret.jpg").write_bytes(JPEG)
    (folder / "link.jpg").symlink_to("../secret.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    (folder / "up").symlink_to("..")
    os.mkfifo(folder / "fifo")  # would be read for ever
    reasons = {"link.jpg": "is a link to '../secret.jpg', which is outside", "up/secret.jpg": "'up' is a link to '..'"}
    refused(folder, "data.txt line 2", f"no frame '{frame}'", reasons.get(frame, ""))


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("/etc/passwd"), os.mkfifo, Path.mkdir])
@pytest.mark.parametrize("name", ["data.txt", "driving_log.csv"])
def test_labels_that_are_no_file_of_the_folder(tmp_path, refused, name, make):
    make(write_folder(tmp_path / "a", {"0.jpg": JPEG}) / name)
    links = (tmp_path / "a" / name).is_symlink()
    found = f"{name!r} is a link to '/etc/passwd', which is outside" if links else "no data.txt, no driving_dataset"
    refused(tmp_path / "a", found)


def test_link_that_stays_in_the_folder_is_followed(tmp_path):
    folder = write_folder(tmp_path / "a", {"data.txt": "frames/0.jpg 1\n", "disk/0.jpg": JPEG})
    (folder / "frames").symlink_to("disk")
    sources.fetch(str(folder), tmp_path / "out.zip", 1, 1)
    assert zipfile.ZipFile(tmp_path / "out.zip").read("driving_dataset/frames/0.jpg") == JPEG


def test_folder_of_more_than_is_allowed(tmp_path, refused):
    folder = write_folder(tmp_path / "a", {"data.txt": "0.jpg 1\n1.jpg 1\n", "0.jpg": JPEG, "1.jpg": JPEG})
    refused(folder, "more than max_gigabytes allows", max_gigabytes=1.5 * len(JPEG) / 1e9)


def test_source_that_is_neither_file_nor_folder(refused):
    refused("/dev/null", "neither a file nor a folder")


def test_name_with_a_line_break_stays_in_its_line(tmp_path, refused):
    refused(write_zip(tmp_path / "a.zip", {"../a\nb\x1b[2J": b""}), "entry '../a\\nb\\x1b[2J' leads out")


def test_damaged_frame_of_a_drive_that_is_packed_again(tmp_path, refused):
    files = {name.removeprefix("driving_dataset/"): content for name, content in DRIVE.items()} | {
        "1.jpg": b"as it was"
    }
    path = patched(write_zip(tmp_path / "a.zip", files), b"as it was", b"as it is!")
    refused(path, "data.txt line 2: ", "'1.jpg' is damaged")
    sources.fetch(str(path), tmp_path / "out.zip", 1, 1, Reading(on_bad_frame="skip"))
    assert zipfile.ZipFile(tmp_path / "out.zip").read("driving_dataset/data.txt") == (
        b"0.jpg 1.000000\n"
        b"1.jpg nan # data.txt line 2: '1.jpg' is damaged (Bad CRC-32 for file '1.jpg'); get the drive again\n"
    )
