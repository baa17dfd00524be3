"""Training sequences as they are changed at random."""

import numpy as np
import pytest
import torch

from pilotnet_sdnn.dataset.augmentation import Augmentation, augment
from pilotnet_sdnn.dataset.batches import Batches

OFF = Augmentation(mirror=0, brightness=0, contrast=0, shift=0, shift_degrees=1)
ALL = Augmentation(mirror=0.5, brightness=0.2, contrast=0.3, shift=8, shift_degrees=1)
NUMBERS = np.arange(6)


@pytest.fixture
def drive() -> tuple[np.ndarray, np.ndarray]:
    """(6, 4, 33, 100, 3) uint8 noise and (6, 4) angles."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (6, 4, 33, 100, 3), np.uint8), random.normal(size=(6, 4)).astype(np.float32)


def test_switched_off_it_changes_nothing(drive):
    frames, angles = augment(OFF, *drive, NUMBERS, seed=1, epoch=0)
    assert np.array_equal(frames, drive[0]) and np.array_equal(angles, drive[1])


def test_mirrored_the_angle_is_negated_and_mirrored_twice_all_is_as_it_was(drive):
    always = OFF._replace(mirror=1)
    frames, angles = augment(always, *drive, NUMBERS, seed=1, epoch=0)
    assert np.array_equal(frames, drive[0][:, :, :, ::-1]) and np.array_equal(angles, -drive[1])
    again, back = augment(always, frames, angles, NUMBERS, seed=1, epoch=0)
    assert np.array_equal(again, drive[0]) and np.array_equal(back, drive[1])


def test_half_are_mirrored(drive):
    drawn = np.concatenate([augment(OFF._replace(mirror=0.5), *drive, NUMBERS, 1, epoch)[1] for epoch in range(50)])
    assert 0.4 < (drawn == np.tile(-drive[1], (50, 1))).mean() < 0.6


def test_tones_change_alike_in_all_frames_of_a_sequence_and_differ_between_sequences(drive):
    still = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)  # every tone, in each frame
    video = np.resize(still, (6, 4, 33, 100, 3))
    frames, angles = augment(OFF._replace(brightness=0.2, contrast=0.3), video, drive[1], NUMBERS, 1, 0)
    assert len({sequence.tobytes() for sequence in frames}) == 6
    assert np.array_equal(angles, drive[1])
    for before, after in zip(video, frames, strict=True):  # a tone becomes one tone in all frames
        assert len(np.unique(np.stack([before.ravel(), after.ravel()]), axis=1).T) == 256


def test_brightness_and_contrast_by_hand(drive):
    """Brightness adds at most 0.2 of white; contrast moves middle grey least of all."""
    grey = np.full_like(drive[0], 100)
    change = augment(OFF._replace(brightness=0.2), grey, drive[1], NUMBERS, 1, 0)[0].astype(int) - 100
    assert 10 < np.abs(change).max() <= 51
    middle = np.full_like(drive[0], 128)
    assert (np.abs(augment(OFF._replace(contrast=1), middle, drive[1], NUMBERS, 1, 0)[0].astype(int) - 128) <= 1).all()


def test_a_picture_shifted_to_the_right_steers_to_the_right_by_the_same_in_every_frame(drive):
    frames, angles = augment(OFF._replace(shift=8, shift_degrees=2), *drive, NUMBERS, 1, 0)
    columns = np.degrees(angles - drive[1]) / 2
    assert np.allclose(columns, columns[:, :1], atol=1e-4) and len(np.unique(columns.round())) > 2
    for before, after, shift in zip(drive[0], frames, columns[:, 0].round().astype(int), strict=True):
        assert abs(shift) <= 8
        if shift >= 0:
            assert np.array_equal(after[:, :, shift:], before[:, :, : 100 - shift])
            assert (after[:, :, :shift] == before[:, :, :1]).all()
        else:
            assert np.array_equal(after[:, :, :shift], before[:, :, -shift:])
            assert (after[:, :, shift:] == before[:, :, -1:]).all()


def test_what_is_drawn_follows_from_seed_epoch_and_sequence_alone(drive):
    """So a run that resumes in the middle of an epoch sees what it would have seen."""

    def changed(order: np.ndarray, seed: int = 1, epoch: int = 3) -> list[np.ndarray]:
        data = Batches(*drive, order, 2, torch.device("cpu"), lambda *b: augment(ALL, *b, seed, epoch))
        return [part.numpy() for batch in data for part in batch[:2]]

    order = np.array([4, 1, 0, 3, 5, 2])
    whole, rest = changed(order), changed(order[2:])
    assert all(np.array_equal(a, b) for a, b in zip(whole[2:], rest, strict=True))
    assert not np.array_equal(whole[0], changed(order, seed=2)[0])
    assert not np.array_equal(whole[0], changed(order, epoch=4)[0])


def test_the_drive_itself_is_left_as_it_is(drive):
    before = drive[0].copy(), drive[1].copy()
    augment(ALL, *drive, NUMBERS, seed=1, epoch=0)
    assert np.array_equal(drive[0], before[0]) and np.array_equal(drive[1], before[1])
