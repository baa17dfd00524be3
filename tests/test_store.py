"""The packed frames: their store, the sequences and the split of lava-dl's PilotNet dataset."""

from collections.abc import Iterable

import numpy as np
import pytest

from pilotnet_sdnn.dataset.sequences import cut_sequences, repair_zero_labels
from pilotnet_sdnn.dataset.split import split_sequences, stretch_with_most
from pilotnet_sdnn.dataset.store import Block, read_frames, write_frames
from pilotnet_sdnn.drive.labels import parse_labels, radians
from pilotnet_sdnn.errors import UserError


def one_segment(frames: int) -> np.ndarray:
    """A drive without interruption."""
    return np.zeros(frames, int)


def write(path, images: Iterable[Block], angles: np.ndarray, segments: np.ndarray | None = None) -> None:
    """The frames file of a drive with these angles and segments of all its labels, from the frames that are good."""
    segments = one_segment(len(angles)) if segments is None else segments
    write_frames(path, images, len(angles), lambda numbers: (angles[numbers], segments[numbers]), origin="test")


def published_labels(degrees: list[float], sequence: int, train: bool) -> np.ndarray:
    """Labels as lava-dl's PilotNet dataset hands them out, written from its description in plain Python."""
    order = np.random.RandomState(seed=42).permutation(len(degrees) // sequence)
    cut = int(len(degrees) / sequence * 0.8), -int(len(degrees) / sequence * 0.2)
    starts = (order[: cut[0]] if train else order[cut[1] :]) * sequence
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
    split = split_sequences(one_segment(len(degrees)), 16, "random")
    assert (len(split.train), len(split.test)) == (2270, 567)
    np.testing.assert_allclose(ours[split.train], published_labels(degrees, 16, train=True), rtol=2e-7, atol=1e-9)
    np.testing.assert_allclose(ours[split.test], published_labels(degrees, 16, train=False), rtol=2e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("frames", "split"),
    [(80, "random"), (95, "random"), (5614, "random"), (240, "blocked"), (800, "blocked"), (5614, "blocked")],
)
def test_no_sequence_is_on_both_sides(frames, split):
    train, test = split_sequences(one_segment(frames), 16, split)
    assert len(train) and len(test)
    assert not set(train) & set(test)
    assert max(*train, *test) < frames // 16


def test_blocked_split_leaves_no_training_neighbour():
    train, test = split_sequences(one_segment(6000), 16, "blocked")
    assert np.abs(train[:, None] - test[None, :]).min() == 2  # one sequence lies between
    assert 0.15 < len(test) / (6000 // 16) < 0.25
    runs = np.split(test, np.flatnonzero(np.diff(test) > 1) + 1)
    assert [len(run) for run in runs] == [15] * 5


def test_random_split_has_training_neighbours():
    """Which is why the blocked one exists."""
    train, test = split_sequences(one_segment(6000), 16, "random")
    assert (np.abs(train[:, None] - test[None, :]).min(0) == 1).mean() > 0.9


@pytest.mark.parametrize("split", ["random", "blocked"])
def test_drive_that_is_too_short(split):
    with pytest.raises(UserError, match="15 frames, 0 sequences of 16: too few"):
        split_sequences(one_segment(15), 16, split)


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
    videos, labels = cut_sequences(drive, 16)
    np.testing.assert_array_equal(videos[:], images[:32].reshape(2, 16, 33, 100, 3))
    np.testing.assert_array_equal(labels, angles[:32].reshape(2, 16))


def test_sequences_stay_within_their_segments(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 33, 100, 3), np.uint8)
    segments = np.repeat([0, 1, 2, 3], [9, 3, 20, 8])  # of which 8, none, 20 and 8 are in whole sequences
    write(tmp_path / "frames.h5", [(np.arange(40), images)], np.arange(1, 41), segments)
    videos, angles = cut_sequences(read_frames(tmp_path / "frames.h5"), 4)
    firsts = [0, 4, 12, 16, 20, 24, 28, 32, 36]
    assert list(angles[:, 0] - 1) == firsts and len(videos) == 9
    np.testing.assert_array_equal(videos[:], [images[first : first + 4] for first in firsts])
    assert (np.diff(angles) == 1).all()


def test_sequences_are_indexed_as_an_array(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 33, 100, 3), np.uint8)
    write(tmp_path / "frames.h5", [(np.arange(40), images)], np.ones(40))
    videos, _ = cut_sequences(read_frames(tmp_path / "frames.h5"), 4)
    array = images.reshape(10, 4, 33, 100, 3)
    for chosen in (3, -1, np.int64(2), slice(2, 7, 2), [9, 0, 0], np.array([[1, 2], [3, 4]]), np.array([], int)):
        np.testing.assert_array_equal(videos[chosen], array[chosen])
    with pytest.raises(IndexError):
        videos[10]


def test_zero_label_is_not_repaired_from_another_segment(tmp_path):
    angles = np.array([1, 1, 1, 0, 9, 0, 9, 9], np.float32)
    for segments, repaired in (
        (one_segment(8), [1, 1, 1, 5, 9, 9, 9, 9]),
        ([0] * 4 + [1] * 4, [1, 1, 1, 0, 9, 9, 9, 9]),
    ):
        write(tmp_path / "frames.h5", [(np.arange(8), np.zeros((8, 33, 100, 3)))], angles, np.array(segments))
        _, labels = cut_sequences(read_frames(tmp_path / "frames.h5"), 4)
        assert list(labels.ravel()) == repaired


@pytest.mark.parametrize("split", ["random", "blocked"])
def test_split_of_several_segments_numbers_their_sequences(split):
    segments = np.repeat(np.arange(40), [150, 90] * 20)  # 9 and 5 sequences of 16, and some frames over
    train, test = split_sequences(segments, 16, split)
    assert not set(train) & set(test)
    assert set(train) | set(test) <= set(range(280))
    assert abs(len(test) / 280 - 0.2) < 0.02


def test_one_segment_is_split_as_ever():
    """Also where frames are over at its end, which lava-dl's cut depends on."""
    for frames in range(80, 400):
        cut = int(frames / 16 * 0.8), int(frames / 16 * 0.2)
        assert tuple(map(len, split_sequences(one_segment(frames), 16, "random"))) == cut


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
    videos, _ = cut_sequences(read_frames(path), 16)
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


@pytest.mark.parametrize("content", [None, b"not hdf5"])
def test_missing_or_foreign_store(tmp_path, content):
    path = tmp_path / "frames.h5"
    if content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"frames\.h5: not a readable frames file"):
        read_frames(path)


def test_stretch_with_most_of_the_chosen_stays_within_a_segment():
    segments = np.repeat([0, 1], [4, 6])
    assert stretch_with_most(np.array([3, 4, 9]), segments, 3).tolist() == [1, 2, 3]  # not 3, 4, 5
    assert stretch_with_most(np.array([3, 8, 9]), segments, 3).tolist() == [7, 8, 9]
    assert stretch_with_most(np.array([3]), segments, 20).tolist() == [4, 5, 6, 7, 8, 9]  # the longest there is
