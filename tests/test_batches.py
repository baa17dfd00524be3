"""The order in which training sees the road: lanes that follow it for a while, then jump."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from pilotnet_sdnn.dataset.augmentation import Augmentation
from pilotnet_sdnn.dataset.batches import Batches, following, lanes, streams_of, training_batches

CPU = torch.device("cpu")


def batches_of(stretches: list[int], size: int, carry: int, epoch: int = 0) -> Batches:
    """Those of an epoch, over stretches of so many sequences; a sequence's frames and angles hold its number."""
    numbers = np.arange(sum(stretches), dtype=np.float32)
    follows = ~np.isin(numbers, np.cumsum([0, *stretches]))
    road = Batches(numbers.reshape(-1, 1, 1, 1, 1), numbers[:, None], np.arange(len(numbers)), size, CPU)
    return training_batches(road, follows, carry, Augmentation(0, 0, 0, 0, 0), seed=1, epoch=epoch)


stretches = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@given(stretches=stretches, size=st.integers(1, 7), carry=st.integers(1, 5), epoch=st.integers(0, 9))
def test_every_sequence_is_seen_once_and_continues_where_its_lane_was(stretches, size, carry, epoch):
    before, streak, seen = np.empty(0), np.zeros(size, int), []
    starts = np.cumsum([0, *stretches])
    for batch in batches_of(stretches, size, carry, epoch):
        now, continues = batch.angles[:, 0].numpy(), batch.continues.numpy()
        follows = (now[: len(before)] == before[: len(now)] + 1) & ~np.isin(now, starts)[: len(before)]
        assert not (continues[: len(before)] & ~follows).any() and not continues[len(before) :].any()
        streak = np.where(continues, streak[: len(now)] + 1, 1)
        assert streak.max() <= carry
        seen += now.tolist()
        before = now
    assert sorted(seen) == list(range(sum(stretches)))


def test_a_sequence_follows_only_the_one_before_it_in_its_segment():
    """The second segment begins right behind the first one's last sequence, the third after three frames left over."""
    segments = np.repeat([0, 1, 2], [64, 67, 64])
    starts = np.array([0, 32, 64, 96, 131, 163])
    assert following(starts, 32, segments).tolist() == [False, True, False, True, False, True]


def test_lanes_by_hand():
    """Two stretches of five and two sequences, streams of two; the first stream of a stretch is one shorter."""
    follows = np.array([False, True, True, True, True, False, True])
    streams = streams_of(follows, carry=2, phase=1)
    assert [stream.tolist() for stream in streams] == [[0], [1, 2], [3, 4], [5], [6]]

    class Unshuffled:
        permutation = staticmethod(range)

    order, stream = lanes(streams, 2, Unshuffled)  # type: ignore[arg-type]
    assert order.tolist() == [0, 4, 1, 5, 2, 6, 3]  # lane 0: 0 1 2 3, lane 1: 4 5 6
    assert stream.tolist() == [0, 3, 1, 5, 1, 6, 3]


def test_epochs_differ_and_repeat():
    def order(epoch: int) -> list[float]:
        return [number for batch in batches_of([8, 8], 4, 4, epoch) for number in batch.angles[:, 0].tolist()]

    assert order(0) == order(0) != order(1)


def test_the_batches_after_some_are_the_same_ones():
    data = batches_of([9, 4], 3, 4)
    for all_of_them, rest in zip(list(data)[2:], data.after(2), strict=True):
        assert all(torch.equal(*pair) for pair in zip(all_of_them[:3], rest[:3], strict=True))
    assert len(data.after(2)) == len(data) - 2


def test_parts_of_batches_are_every_so_many_sequences():
    """Of batches of three, the last one with a single sequence; the second part of that is empty."""
    data = batches_of([9, 4], 3, 4)
    parts = [list(replace(data, part=slice(number, None, 2))) for number in range(2)]
    for whole, first, second in zip(data, *parts, strict=True):
        assert whole.sequences == first.sequences == second.sequences == len(whole.angles)
        for all_of_them, own, others in zip(whole[:3], first[:3], second[:3], strict=True):
            assert torch.equal(all_of_them[0::2], own) and torch.equal(all_of_them[1::2], others)
    assert len(second.frames) == 0
