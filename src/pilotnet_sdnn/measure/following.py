"""Does a network follow the road, or answer once and hold still?

A sigma-delta network sends its first frame whole. One that then sends little has few events and, on short sequences, a
small error. These figures distinguish it from a network that follows.
"""

import numpy as np

MAX_LAG = 40  # frames, two seconds at 20 Hz
TENTHS = 10


def place_in_stream(is_start: np.ndarray) -> np.ndarray:
    """(F,) how many frames each one is after the start of its stream."""
    frames = np.arange(len(is_start))
    return frames - np.maximum.accumulate(np.where(is_start, frames, 0))


def held(angles: np.ndarray, is_start: np.ndarray, hold: int) -> np.ndarray:
    """(F,) angles of a driver who looks up only every `hold` frames, and holds still in between."""
    return angles[np.arange(len(angles)) - place_in_stream(is_start) % hold]


def lag(labels: np.ndarray, angles: np.ndarray, is_start: np.ndarray) -> int | None:
    """The lag in frames at which angles (F,) correlate best with labels (F,) of the same streams.

    Negative if angles come early; None if either does not vary.
    """
    stream = np.cumsum(is_start)

    def correlation(shift: int) -> float:
        later = np.arange(max(shift, 0), len(labels) + min(shift, 0))
        later = later[stream[later] == stream[later - shift]]
        a, b = angles[later].astype(float), labels[later - shift].astype(float)
        if len(a) < max(2, len(labels) / 2) or a.std() == 0 or b.std() == 0:  # too few pairs to mean anything
            return -np.inf
        return float(np.corrcoef(a, b)[0, 1])

    best = max(range(-MAX_LAG, MAX_LAG + 1), key=lambda shift: (correlation(shift), -abs(shift)))
    return best if correlation(best) > -np.inf else None


def by_tenth(errors: np.ndarray, is_start: np.ndarray) -> np.ndarray:
    """(10,) mean of errors (F,) in each tenth of the streams, NaN where no frame falls into one: does it drift?"""
    place, stream = place_in_stream(is_start), np.cumsum(is_start) - 1
    tenth = place * TENTHS // np.bincount(stream)[stream]
    frames = np.bincount(tenth, minlength=TENTHS)
    sums = np.bincount(tenth, errors, minlength=TENTHS)
    return np.divide(sums, frames, out=np.full(TENTHS, np.nan), where=frames > 0)


def following_metrics(labels: np.ndarray, angles: np.ndarray, is_start: np.ndarray, hold: int) -> dict:
    """What tells a network that follows from one that holds still, on streams of F frames.

    `held_mse` (sq. radians) is the MSE of holding each answer for `hold` frames: if the network's own MSE is no lower,
    the answers in between add nothing. `prediction_spread_degrees` and `label_spread_degrees` are standard deviations.
    `lag_frames`: see `lag`. `first_tenth_mse` and `last_tenth_mse` of the streams show drift.
    """
    errors = (angles.astype(float) - labels) ** 2
    tenths = by_tenth(errors, is_start)
    return {
        "held_mse": float(np.mean((held(angles, is_start, hold).astype(float) - labels) ** 2)),
        "prediction_spread_degrees": float(np.degrees(angles.astype(float).std())),
        "label_spread_degrees": float(np.degrees(labels.astype(float).std())),
        "lag_frames": lag(labels, angles, is_start),
        "first_tenth_mse": float(tenths[0]),
        "last_tenth_mse": float(tenths[-1]),
    }
