"""Networks that follow the road and networks that hold still, told apart on cases made by hand."""

import numpy as np
import pytest

from pilotnet_sdnn.measure.following import by_tenth, following_metrics, held, lag, place_in_stream


def starts(*lengths: int) -> np.ndarray:
    """The starts of streams of these lengths."""
    return np.concatenate([np.arange(length) == 0 for length in lengths])


def test_places_are_counted_from_the_start_of_each_stream():
    assert place_in_stream(starts(3, 1, 2)).tolist() == [0, 1, 2, 0, 0, 1]


def test_an_answer_is_held_and_given_anew_at_every_start():
    angles = np.array([1, 2, 3, 4, 5, 60, 70], np.float32)
    assert held(angles, starts(5, 2), hold=2).tolist() == [1, 1, 3, 3, 5, 60, 60]


@pytest.mark.parametrize("delay", [0, 3, -2])
def test_lag_of_a_driver_who_is_late_or_early(delay):
    road = np.random.default_rng(1).normal(size=220).cumsum()
    labels = np.concatenate([road[10:110], road[110:210]])
    angles = np.concatenate([road[10 - delay : 110 - delay], road[110 - delay : 210 - delay]])
    assert lag(labels, angles, starts(100, 100)) == delay


def test_without_movement_there_is_no_lag():
    assert lag(np.arange(50.0), np.zeros(50), starts(50)) is None


def test_lag_of_streams_shorter_than_the_longest_lag():
    labels = np.random.default_rng(1).normal(size=12).cumsum()
    assert lag(labels, labels, starts(7, 5)) == 0


def test_error_in_each_tenth_of_the_streams():
    """The error grows by one each tenth, in a stream of 20 frames and in one of 10."""
    errors = np.concatenate([np.repeat(np.arange(10.0), 2), np.arange(10.0)])
    assert by_tenth(errors, starts(20, 10)).tolist() == list(range(10))


def test_a_stream_shorter_than_ten_frames_leaves_tenths_without_a_figure():
    assert np.isnan(by_tenth(np.ones(4), starts(4))).sum() == 6


def test_a_network_that_holds_still_gains_nothing_from_its_later_answers():
    labels = np.sin(np.arange(64) / 5).astype(np.float32)
    is_start = starts(64)
    still = following_metrics(labels, held(labels, is_start, 16), is_start, hold=16)
    follows = following_metrics(labels, labels, is_start, hold=16)
    assert still["held_mse"] == pytest.approx(np.mean((held(labels, is_start, 16) - labels) ** 2))
    assert follows["held_mse"] == still["held_mse"]  # of an own error of 0
    assert (
        follows["prediction_spread_degrees"]
        == follows["label_spread_degrees"]
        == pytest.approx(np.degrees(labels.std()))
    )
    assert follows["first_tenth_mse"] == follows["last_tenth_mse"] == 0
    assert follows["lag_frames"] == 0
