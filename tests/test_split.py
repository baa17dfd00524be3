"""The split of a drive: lava-dl's own, and held-out road that no training frame touches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotnet_sdnn.dataset.split import GAP, Split, Stretch, cut, split_drive
from pilotnet_sdnn.errors import UserError


def one_segment(frames: int) -> np.ndarray:
    return np.zeros(frames, int)


def frames_in(stretches: list[Stretch]) -> list[int]:
    return [frame for start, stop in stretches for frame in range(start, stop)]


def tutorial_starts(frames: int, sequence: int) -> tuple[set[int], set[int]]:
    """First frames of lava-dl's training and test sequences, from its description in plain Python."""
    order = np.random.RandomState(seed=42).permutation(frames // sequence)
    train, test = order[: int(frames / sequence * 0.8)], order[-int(frames / sequence * 0.2) :]
    return {int(number) * sequence for number in train}, {int(number) * sequence for number in test}


@pytest.mark.parametrize(("frames", "sequence"), [(45_406, 16), (5614, 16), (6000, 16), (6000, 64), (95, 16)])
def test_random_split_has_the_tutorials_sequences(frames, sequence):
    split = split_drive(one_segment(frames), sequence, "random")
    ours = [cut(part, sequence).tolist() for part in split]
    assert (set(ours[0]), set(ours[1])) == tutorial_starts(frames, sequence)
    assert ours == [sorted(set(starts)) for starts in ours]  # each once, in the order of time


def test_random_split_merges_neighbours():
    train, test = split_drive(one_segment(6000), 16, "random")
    stretches = sorted(train + test)
    assert all(start % 16 == 0 and stop % 16 == 0 for start, stop in stretches)
    assert not {stretch.stop for stretch in train} & {stretch.start for stretch in train}
    assert len(train) < len(cut(train, 16)) / 2


def test_blocked_split_of_the_default_drive():
    train, test = split_drive(one_segment(6000), 16, "blocked")
    assert test == [(960, 1200), (2160, 2400), (3360, 3600), (4560, 4800), (5760, 6000)]
    assert train == [(0, 928), (1232, 2128), (2432, 3328), (3632, 4528), (4832, 5728)]


@pytest.mark.parametrize("sequence", [2, 16, 64, 200])
def test_blocked_split_does_not_depend_on_the_sequence(sequence):
    assert split_drive(one_segment(6000), sequence, "blocked") == split_drive(one_segment(6000), 16, "blocked")


@pytest.mark.parametrize(("frames", "held_out"), [(160, 1), (1000, 1), (2500, 2), (4999, 4), (5614, 5), (100_000, 5)])
def test_shorter_drives_hold_out_fewer_stretches(frames, held_out):
    test = split_drive(one_segment(frames), 16, "blocked").test
    assert len(test) == held_out
    assert frames < 1000 or all(stop - start >= 200 for start, stop in test)


segment_lengths = st.lists(st.integers(1, 700), min_size=1, max_size=12)


@given(segment_lengths, st.integers(2, 40), st.sampled_from(["blocked", "random"]))
def test_every_split(lengths, sequence, kind):
    """No frame on both sides, a gap between them where promised, and each stretch within its segment."""
    segments = np.repeat(np.arange(len(lengths)), lengths)
    try:
        split = split_drive(segments, sequence, kind)
    except UserError as error:
        assert f"the drive has {len(segments):,} frame" in str(error)
        return
    train, test = (frames_in(part) for part in split)
    assert len(cut(split.train, sequence)) and len(cut(split.test, sequence))
    assert len({*train, *test}) == len(train) + len(test)
    for start, stop in split.train + split.test:
        assert segments[start] == segments[stop - 1]
    if kind == "blocked":
        assert np.abs(np.subtract.outer(train, test)).min() > GAP


def test_blocked_split_cuts_held_out_road_at_segments():
    segments = np.repeat([0, 1, 2], [900, 50, 50])
    assert split_drive(segments, 16, "blocked") == Split([(0, 768)], [(800, 900), (900, 950), (950, 1000)])


def test_cut_drops_incomplete_sequences():
    assert cut([Stretch(0, 35), Stretch(50, 65), Stretch(70, 86)], 16).tolist() == [0, 16, 70]
    assert cut([], 16).tolist() == []


@pytest.mark.parametrize("kind", ["random", "blocked"])
@pytest.mark.parametrize(("length", "found"), [(1, "400 segments of at most 1 "), (10, "40 segments of at most 10 ")])
def test_drive_with_too_many_gaps_is_not_called_too_short(length, found, kind):
    with pytest.raises(UserError) as error:
        split_drive(np.arange(400) // length, 16, kind)
    assert found in str(error.value) and "gap_frames or gap_seconds" in str(error.value)
    assert "longer drive" not in str(error.value) and len(str(error.value)) < 290


@pytest.mark.parametrize("kind", ["random", "blocked"])
@pytest.mark.parametrize(
    ("frames", "counts"),
    [(1, "1 frame, 0 sequences"), (15, "15 frames, 0 sequences"), (31, "31 frames, 1 sequence")],
)
def test_drive_that_is_too_short(frames, counts, kind):
    with pytest.raises(UserError, match=f"the drive has {counts} of 16: too few"):
        split_drive(one_segment(frames), 16, kind)
