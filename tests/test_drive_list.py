"""A list of drives: each is packed once, whatever is added, replaced, moved or dropped, here or by a colleague."""

import re
import shutil

import numpy as np
import pytest
from clone import TINY, Clone, clone_of_working_tree
from drives import encoded, one_line, write_folder, write_zip
from PIL import Image

from pilotnet_sdnn.dataset.store import read_frames
from pilotnet_sdnn.drive.collection import fetch_all
from pilotnet_sdnn.drive.reading import Reading
from pilotnet_sdnn.drive_files import DriveFolder

FRAMES = 5
UP_TO_DATE = "Data and pipelines are up to date"


def drive(shade: int) -> dict[str, str | bytes]:
    """A drive of frames of one grey that steers as many degrees as it is bright."""
    jpeg = encoded(Image.new("RGB", (455, 256), (shade,) * 3))
    labels = "".join(f"{n}.jpg {shade}\n" for n in range(FRAMES))
    return {f"{n}.jpg": jpeg for n in range(FRAMES)} | {"data.txt": labels}


@pytest.fixture(scope="module")
def two_drives(tmp_path_factory) -> Clone:
    """A clone that has resized the drives a and b, a folder and a zip."""
    folder = tmp_path_factory.mktemp("drives")
    write_folder(folder / "a", drive(10))
    write_zip(folder / "b.zip", {f"driving_dataset/{name}": content for name, content in drive(20).items()})
    clone = clone_of_working_tree(folder / "clone", **TINY, source=f"[{folder}/a, {folder}/b.zip]")
    resize(clone)
    return clone


@pytest.fixture
def clone(two_drives, tmp_path) -> Clone:
    """A copy of it, beside copies of the drives."""
    shutil.copytree(two_drives.path.parent, tmp_path / "all", symlinks=True)
    return Clone(tmp_path / "all/clone")


def use(clone: Clone, *names: str) -> None:
    clone.set(source=f"[{', '.join(str(clone.path.parent / name) for name in names)}]")


def resize(clone: Clone) -> dict[str, int]:
    """Run download and resize; how many drives each of them took the time for."""
    printed = clone.run("dvc", "repro", "resize")
    return {
        "packed": len(re.findall(r"^data/raw/\S+: ", printed, flags=re.M)),
        "resized": len(re.findall(r"^resize: *100%", printed, flags=re.M)),
    }


def shades(clone: Clone) -> list[int]:
    """The grey of each drive that training sees, after checking that its labels say the same."""
    frames = read_frames(clone.path / "data/frames")
    np.testing.assert_allclose(np.degrees(frames.angles), frames.frames[:, 16, 50, 0], rtol=1e-6)
    assert [each.stop - each.start for each in frames.drives] == [FRAMES] * len(frames.drives)
    return [int(frames.frames[each.start, 0, 0, 0]) for each in frames.drives]


def test_drives_are_seen_in_the_order_of_the_list(two_drives):
    assert shades(two_drives) == [10, 20]
    frames = read_frames(two_drives.path / "data/frames")
    assert list(frames.segments) == [0] * FRAMES + [1] * FRAMES and list(frames.numbers) == 2 * list(range(FRAMES))
    np.testing.assert_array_equal(frames.frames[3:7, 0, 0, 0], [10, 10, 20, 20])
    np.testing.assert_array_equal(frames.frames[-1], np.full((33, 100, 3), 20))
    assert frames.frames[7:2].shape == (0, 33, 100, 3)


def test_a_new_drive_is_the_only_one_packed(clone):
    """Those that are dropped, come back, change places or move stay as they are, and their frames are stored once."""
    write_folder(clone.path.parent / "c", drive(30))
    use(clone, "c", "a", "b.zip")
    assert resize(clone) == {"packed": 1, "resized": 1}
    assert shades(clone) == [30, 10, 20]
    before = stored(clone)
    assert before < 1.1 * sum(path.stat().st_size for path in (clone.path / "data").rglob("*.*")) + 50_000
    use(clone, "b.zip")
    assert resize(clone) == {"packed": 0, "resized": 0}
    (clone.path.parent / "elsewhere").mkdir()
    (clone.path.parent / "a").rename(clone.path.parent / "elsewhere/a")
    use(clone, "b.zip", "elsewhere/a")
    assert resize(clone) == {"packed": 0, "resized": 0}
    assert shades(clone) == [20, 10]
    assert stored(clone) - before < 10_000  # bytes, of listings and of records of runs


def stored(clone: Clone) -> int:
    """Bytes on the disk of the cache and of data/, without counting again what is linked."""
    files = [path for folder in (".dvc/cache", "data") for path in (clone.path / folder).rglob("*") if path.is_file()]
    return sum({path.stat().st_ino: path.stat().st_size for path in files}.values())


@pytest.mark.slow
def test_a_failing_drive_does_not_cost_the_others(clone):
    write_folder(clone.path.parent / "c", drive(30))
    write_folder(clone.path.parent / "d", {"data.txt": "0.jpg 1\n", "0.jpg": b"no JPEG"})
    use(clone, "a", "c", "d")
    assert "not a readable image" in clone.run("dvc", "repro", "resize", code=255)
    use(clone, "a", "c")
    assert resize(clone) == {"packed": 0, "resized": 0}
    assert shades(clone) == [10, 30]


def test_dvc_notices_what_changes_behind_a_local_source(clone):
    """A label or an image in the folder, the zip; not a new time of a file, nor that a drive is gone."""
    folder = clone.path.parent
    use(clone, "a", "b.zip")
    resize(clone)
    (folder / "a/3.jpg").touch()
    assert UP_TO_DATE in clone.run("dvc", "status", "resize", "download")
    write_folder(folder / "a", drive(12))
    assert "data/sources.json" in clone.run("dvc", "status", "download")
    write_zip(folder / "b.zip", {f"driving_dataset/{name}": content for name, content in drive(21).items()})
    assert resize(clone) == {"packed": 2, "resized": 2}
    assert shades(clone) == [12, 21]
    write_folder(folder / "a", drive(10))
    assert resize(clone) == {"packed": 0, "resized": 0}  # as it was before
    shutil.rmtree(folder / "a")
    assert UP_TO_DATE in clone.run("dvc", "status", "resize", "download")
    assert "Running stage" not in clone.run("dvc", "repro", "resize")
    use(clone, "b.zip", "a")
    assert resize(clone) == {"packed": 0, "resized": 0}
    assert shades(clone) == [21, 10]


@pytest.mark.slow
def test_what_a_colleague_packed_is_not_packed_again(clone, tmp_path):
    """The team lacks the zip and has the folder somewhere else."""
    clone.run("dvc", "remote", "add", "--local", "-d", "team", str(tmp_path / "store"))
    use(clone, "a", "b.zip")
    assert resize(clone) == {"packed": 0, "resized": 0}
    clone.run("sdnn-share", "push")
    (tmp_path / "home").mkdir()
    colleague = clone.colleague(tmp_path / "home/clone")
    colleague.run("dvc", "remote", "add", "--local", "-d", "team", str(tmp_path / "store"))
    colleague.run("sdnn-share", "pull")
    write_folder(tmp_path / "home/a", drive(10))
    write_folder(tmp_path / "home/c", drive(30))
    (clone.path.parent / "b.zip").unlink()
    colleague.set(source=f"[../a, {clone.path.parent}/b.zip, ../c]")
    assert resize(colleague) == {"packed": 1, "resized": 1}
    assert shades(colleague) == [10, 20, 30]


def test_one_drive_twice_is_refused(tmp_path):
    one_line(lambda: fetch_all(["a", "b", "a"], DriveFolder(tmp_path), 1, 1, Reading()), "'a' appears twice")


@pytest.mark.slow
def test_list_of_drives_from_the_command_line(clone):
    folder = clone.path.parent
    printed = clone.run("dvc", "exp", "run", "-S", f"source=[{folder}/b.zip,{folder}/a]", "resize")
    assert "packing the drive" not in printed and "in 2 segments" in printed
    assert shades(clone) == [20, 10]
    clone.run("dvc", "exp", "run", "-S", f"source={folder}/b.zip", "resize")
    assert shades(clone) == [20]


@pytest.mark.slow
def test_damaged_file_in_the_cache_is_made_again(clone):
    for path in (clone.path / ".dvc/cache/files/md5").rglob("*"):
        if path.is_file() and path.suffix != ".dir" and path.stat().st_size > 10_000:
            path.chmod(0o644)
            path.write_bytes(b"damaged")
    use(clone, "b.zip")
    assert resize(clone)["resized"] == 1
    assert shades(clone) == [20]
