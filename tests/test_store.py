"""The packed frames: their store, the sequences and the split of lava-dl's PilotNet dataset."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np
import pytest

from pilotnet_sdnn.dataset.road import Dataset, open_dataset
from pilotnet_sdnn.dataset.sequences import Sequences, frames_of_segments, repair_zero_labels
from pilotnet_sdnn.dataset.split import Split, Stretch, cut, split_drive
from pilotnet_sdnn.dataset.store import Block, read_frames, write_frames
from pilotnet_sdnn.drive.labels import parse_labels, radians
from pilotnet_sdnn.errors import UserError, exit_on_error


def one_segment(frames: int) -> np.ndarray:
    """A drive without interruption."""
    return np.zeros(frames, int)


def write(path, images: Iterable[Block], angles: np.ndarray, segments: np.ndarray | None = None) -> None:
    """The frames file of a drive with these angles and segments of all its labels, from the frames that are good."""
    segments = one_segment(len(angles)) if segments is None else segments
    write_frames(path, images, len(angles), lambda numbers: (angles[numbers], segments[numbers]), origin="test")


def all_sequences(path, length: int) -> tuple[Sequences, np.ndarray]:
    """A drive cut into sequences, each segment for itself."""
    drive = read_frames(path)
    stretches = [Stretch(int(frames[0]), int(frames[-1]) + 1) for frames in frames_of_segments(drive.segments)]
    return Dataset(drive, drive.angles, Split([], [])).sequences(stretches, length)


def published_labels(degrees: list[float], sequence: int, train: bool) -> np.ndarray:
    """Labels as lava-dl's PilotNet dataset hands them out, written from its description in plain Python."""
    order = np.random.RandomState(seed=42).permutation(len(degrees) // sequence)
    train_count, test_count = int(len(degrees) / sequence * 0.8), int(len(degrees) / sequence * 0.2)
    starts = np.sort(order[:train_count] if train else order[-test_count:]) * sequence
    handed_out = []
    for start in starts:
        for i in range(sequence):
            label = degrees[start + i]
            if abs(label) < 1e-5 and i != 0:
                label = 0.5 * (degrees[start + i - 1] + degrees[start + i + 1])
            handed_out.append(label * np.pi / 180)
    return np.array(handed_out).reshape(-1, sequence)


def test_random_split_of_the_published_labels_index_for_index(real_labels):
    labels = parse_labels(real_labels.read_text(), "data.txt")
    degrees = [label.degrees for label in labels]
    count = len(degrees) // 16
    ours = repair_zero_labels(radians(labels), 16)[: count * 16].reshape(count, 16)
    train, test = (cut(part, 16) // 16 for part in split_drive(one_segment(len(degrees)), 16, "random"))
    assert (len(train), len(test)) == (2270, 567)
    np.testing.assert_allclose(ours[train], published_labels(degrees, 16, train=True), rtol=2e-7, atol=1e-9)
    np.testing.assert_allclose(ours[test], published_labels(degrees, 16, train=False), rtol=2e-7, atol=1e-9)


def test_zero_labels_become_the_mean_of_their_neighbours():
    labels = np.array([0, 1, 0, 3, 0, 0, 5, 0], np.float32)
    #     first of a sequence: kept ^           ^ first of the next, kept       ^ last of the drive: kept
    np.testing.assert_array_equal(repair_zero_labels(labels, 4), np.array([0, 1, 2, 3, 0, 2.5, 5, 0], np.float32))


def test_repair_looks_past_the_end_of_a_sequence():
    labels = np.array([1, 1, 1, 0, 9, 1, 1, 1, 1], np.float32)
    assert repair_zero_labels(labels, 4)[3] == 5


@pytest.mark.parametrize("length", range(1, 34))
def test_repair_takes_drives_of_any_length(length):
    assert np.array_equal(repair_zero_labels(np.zeros(length, np.float32), 16), np.zeros(length, np.float32))


def test_store_gives_back_what_was_written(tmp_path):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 33, 100, 3), np.uint8)
    angles = random.normal(size=40).astype(np.float32) + 3
    path = tmp_path / "frames.h5"
    write(path, [(np.arange(30), images[:30]), (np.arange(30, 40), images[30:])], angles)
    drive = read_frames(path)
    assert drive.origin == "test"
    videos, labels = all_sequences(path, 16)
    np.testing.assert_array_equal(videos[:], images[:32].reshape(2, 16, 33, 100, 3))
    np.testing.assert_array_equal(labels, angles[:32].reshape(2, 16))


def test_sequences_stay_within_their_segments(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 33, 100, 3), np.uint8)
    segments = np.repeat([0, 1, 2, 3], [9, 3, 20, 8])  # of which 8, none, 20 and 8 are in whole sequences
    write(tmp_path / "frames.h5", [(np.arange(40), images)], np.arange(1, 41), segments)
    videos, angles = all_sequences(tmp_path / "frames.h5", 4)
    firsts = [0, 4, 12, 16, 20, 24, 28, 32, 36]
    assert list(angles[:, 0] - 1) == firsts and len(videos) == 9
    np.testing.assert_array_equal(videos[:], [images[first : first + 4] for first in firsts])
    assert (np.diff(angles) == 1).all()


def test_sequences_are_indexed_as_an_array(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 33, 100, 3), np.uint8)
    write(tmp_path / "frames.h5", [(np.arange(40), images)], np.ones(40))
    videos, _ = all_sequences(tmp_path / "frames.h5", 4)
    array = images.reshape(10, 4, 33, 100, 3)
    for chosen in (3, -1, np.int64(2), slice(2, 7, 2), [9, 0, 0], np.array([[1, 2], [3, 4]]), np.array([], int)):
        np.testing.assert_array_equal(videos[chosen], array[chosen])
    with pytest.raises(IndexError):
        videos[10]


@pytest.mark.parametrize(
    ("segments", "split", "kept"),
    [
        ([0] * 100, "random", {0, 4, 16, 99}),  # lava-dl keeps the first of a sequence and the last of the drive
        ([0] * 100, "blocked", {0, 99}),
        ([0] * 17 + [1] * 83, "random", {0, 4, 16, 17, 21, 99}),
        ([0] * 17 + [1] * 83, "blocked", {0, 16, 17, 99}),  # no label comes from another segment
    ],
)
def test_zero_labels_of_a_dataset(tmp_path, segments, split, kept):
    angles = np.ones(100, np.float32)
    angles[[0, 2, 4, 16, 17, 21, 99]] = 0
    write(tmp_path / "frames.h5", [(np.arange(100), np.zeros((100, 33, 100, 3)))], angles, np.array(segments))
    dataset = open_dataset(tmp_path / "frames.h5", 4, split)
    assert set(np.flatnonzero(dataset.angles == 0)) == kept


def test_frames_that_were_left_out_are_counted(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 33, 100, 3), np.uint8)
    numbers = np.array([0, 2, 3, 4, 8, 9])
    write(
        tmp_path / "frames.h5",
        [(numbers[:2], images[:2]), (numbers[2:], images[2:])],
        np.arange(10),
        np.arange(10) // 5,
    )
    drive = read_frames(tmp_path / "frames.h5")
    np.testing.assert_array_equal(drive.frames[:], images)
    assert list(drive.numbers) == list(drive.angles) == list(numbers)
    assert list(drive.segments) == [0, 0, 0, 0, 1, 1] and drive.skipped == 4


def test_file_that_became_shorter_is_not_taken_for_frames(tmp_path):
    path = tmp_path / "frames.h5"
    write(path, [(np.arange(40), np.zeros((40, 33, 100, 3), np.uint8))], np.ones(40))
    videos, _ = all_sequences(path, 16)
    with path.open("r+b") as file:
        file.truncate(200_000)
    with pytest.raises(UserError, match="the file was truncated"):
        videos[1]


def test_store_has_the_same_bytes_every_time(tmp_path):
    for name in ("a.h5", "b.h5"):
        write(tmp_path / name, [(np.arange(3), np.zeros((3, 33, 100, 3), np.uint8))], np.ones(3))
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_frames_that_fail_leave_nothing_behind(tmp_path):
    def failing():
        yield np.arange(1), np.zeros((1, 33, 100, 3), np.uint8)
        raise UserError("bad frame")

    with pytest.raises(UserError):
        write(tmp_path / "frames.h5", failing(), np.ones(2))
    assert list(tmp_path.iterdir()) == []


def replaced(name: str, **options):
    """Another dataset, or whatever else, under this name."""

    def damage(store: h5py.File) -> None:
        del store[name]
        store.create_dataset(name, **options)

    return damage


def linked(name: str, link: object):
    def damage(store: h5py.File) -> None:
        del store[name]
        store[name] = link

    return damage


def virtual(store: h5py.File) -> None:
    del store["angles"]
    layout = h5py.VirtualLayout((40,), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "angles", (40,))
    store.create_virtual_dataset("angles", layout)


def with_value(name: str, index: int, value: float):
    def damage(store: h5py.File) -> None:
        store[name][index] = value

    return damage


DAMAGES = {
    "float32 frames": replaced("frames", shape=(40, 33, 100, 3), dtype=np.float32),
    "two-dimensional frames": replaced("frames", shape=(40, 9900), dtype=np.uint8),
    "frames of another size": replaced("frames", shape=(40, 66, 200, 3), dtype=np.uint8),
    "fewer frames": replaced("frames", data=np.zeros((39, 33, 100, 3), np.uint8)),
    "no frames": replaced("frames", shape=(0, 33, 100, 3), dtype=np.uint8),
    "frames that take 10 TB": replaced("frames", shape=(10**9, 33, 100, 3), dtype=np.uint8),
    "angles that take 4 TB": replaced("angles", shape=(10**12,), dtype=np.float32),
    "frames in chunks": replaced("frames", data=np.zeros((40, 33, 100, 3), np.uint8), chunks=(1, 33, 100, 3)),
    "compressed angles": replaced("angles", data=np.zeros(40, np.float32), compression="gzip"),
    "angles as text": replaced("angles", data=["1"] * 40),
    "angles as references": replaced("angles", shape=(40,), dtype=h5py.ref_dtype),
    "angles in another file": replaced("angles", shape=(40,), dtype=np.float32, external=[("/etc/passwd", 0, 160)]),
    "angles that are a group": lambda store: (store.move("angles", "other"), store.create_group("angles")),
    "external link": linked("frames", h5py.ExternalLink("other.h5", "frames")),
    "soft link": linked("angles", h5py.SoftLink("/segments")),
    "loop of links": linked("angles", h5py.SoftLink("/angles")),
    "virtual dataset": virtual,
    "NaN": with_value("angles", 7, np.nan),
    "infinite angle": with_value("angles", 7, -np.inf),
    "negative segment": with_value("segments", 0, -1),
    "huge segment": with_value("segments", 39, 2**31 - 1),
    "segments downwards": with_value("segments", 3, 1),
    "number twice": with_value("numbers", 3, 2),
    "negative number": with_value("numbers", 0, -5),
    "no origin": lambda store: store.attrs.pop("origin"),
    "origin as number": lambda store: store.attrs.update(origin=7),
    "skipped as text": lambda store: store.attrs.update(skipped="many"),
    "empty file": lambda store: store.clear(),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_store_is_one_short_line(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = Path("data/frames.h5")
    write(path, [(np.arange(40), np.zeros((40, 33, 100, 3), np.uint8))], np.ones(40))
    with h5py.File(path, "r+") as store:
        DAMAGES[name](store)
    refused_at_the_door(path)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99, 0.9999])
def test_store_that_was_cut_off_is_one_short_line(tmp_path, monkeypatch, share):
    monkeypatch.chdir(tmp_path)
    path = Path("data/frames.h5")
    write(path, [(np.arange(40), np.zeros((40, 33, 100, 3), np.uint8))], np.ones(40))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused_at_the_door(path)


def test_foreign_store_is_one_short_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    Path("data/text.h5").write_bytes(b"not hdf5")
    refused_at_the_door(Path("data/text.h5"))
    with pytest.raises(UserError, match=r"^data: no file of a drive in it; `dvc repro resize` makes them$"):
        read_frames(Path("data"))


def refused_at_the_door(path: Path) -> None:
    with pytest.raises(SystemExit) as error, exit_on_error():
        open_dataset(path, 4, "blocked")
    message = str(error.value)
    assert f"{path}: not a readable frames file (" in message and "`dvc repro resize` rebuilds it" in message
    assert message.isprintable() and len(message) <= 300


def test_store_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"frames\.h5 is not in this clone: .*`dvc repro resize` creates it"):
        read_frames(tmp_path / "frames.h5")


def test_drives_may_be_more_than_open_files(tmp_path):
    """Each of 100 drives has a frame for each of two sequences; the process may open 100 files."""
    images = np.arange(100, dtype=np.uint8)
    for number in range(100):
        frame = np.full((8, 33, 100, 3), images[number])
        write(tmp_path / f"drives/{number + 1}-0123456789abcdef.h5", [(np.arange(8), frame)], np.ones(8))
    program = f"""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from pathlib import Path
import numpy as np
from pilotnet_sdnn.dataset.sequences import Sequences
from pilotnet_sdnn.dataset.store import read_frames
drive = read_frames(Path({str(tmp_path / "drives")!r}))
both = [Sequences(drive.frames, np.arange(0, 800, 8) + start, 4) for start in (0, 4)]
print([int(videos[99][0, 0, 0, 0]) for videos in both], len(drive.frames))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[99, 99] 800\n", done.stderr
