"""Whether labels and frames belong together: steering to the right turns the camera to the right."""

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from scipy.stats import rankdata

from pilotnet_sdnn.dataset.store import BLOCK, FRAME_SHAPE, Frames

HORIZON = 16  # rows from the top that move as the camera turns; the road below moves with the speed as well
LAGS = 30  # frames, in either direction

# Measured on stretches of Udacity CH2_001 and of the synthetic road: of 1,200 frames and more, each had a correlation
# of 0.63 and more and its best lag from -2 to 2 (of 600 frames: from -7 to 3). With the labels of another part of the
# drive, long stretches had 0.08 to 0.37, and with those of 600 frames chance came to 0.7. Where the labels varied
# by less than 2 degrees, the correlation was down to 0.3.
ENOUGH_FRAMES = 1200
ENOUGH_DEGREES = 2.0  # standard deviation of the labels
ENOUGH_TURN = 0.05  # standard deviation of the turning, columns per frame
BELONGS = 0.4
LAG_TOLERANCE = 5  # frames


class Alignment(NamedTuple):
    """How the turning of the camera goes with the labels, as rank correlations (Spearman)."""

    lags: np.ndarray  # (2 LAGS + 1,) frames by which the turning is later than the label
    correlations: np.ndarray  # (2 LAGS + 1,), nan where nothing varies
    frames: int  # that count
    label_std: float  # degrees
    turn_std: float  # columns per frame

    @property
    def at_zero(self) -> float:
        return float(self.correlations[LAGS])

    @property
    def best_lag(self) -> int:
        """Where the correlation is strongest, of either sign; 0 where there is none."""
        strengths = np.nan_to_num(np.abs(self.correlations))
        return int(self.lags[strengths.argmax()]) if strengths.any() else 0

    @property
    def best(self) -> float:
        return float(self.correlations[LAGS + self.best_lag])


def turning(drive: Frames, advance: Callable[[int], object] = lambda count: None) -> np.ndarray:
    """How far the camera turned to the right since the frame before, seen by what moved to the left.

    The subpixel peak of the phase correlation of the two pictures' upper halves (OpenCV's phaseCorrelate).

    Args:
        drive: its frames are read a block at a time.
        advance: told how many frames have been seen since the last time.

    Returns:
        (N,) columns of 100; nan for the first frame of a segment and where nothing can be seen.
    """
    turns = np.full(len(drive.angles), math.nan)
    window = cv2.createHanningWindow((FRAME_SHAPE[1], HORIZON), cv2.CV_32F)
    before = None
    for start in range(0, len(turns), BLOCK):
        block = drive.frames[start : start + BLOCK, :HORIZON]
        for number, frame in enumerate(block, start):
            picture = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
            if before is not None and drive.segments[number] == drive.segments[number - 1]:
                (moved, _), response = cv2.phaseCorrelate(before, picture, window)
                turns[number] = -moved if response > 0 else math.nan
            before = picture
        advance(len(block))
    return turns


def align(turns: np.ndarray, angles: np.ndarray, segments: np.ndarray) -> Alignment:
    """Correlate turning and labels at every lag, within segments.

    Ranks are correlated, so a few wild labels or misjudged frames change little.

    Args:
        turns: (N,) of `turning`.
        angles: (N,) radians, as labelled.
        segments: (N,) numbers of the segments.
    """
    seen = np.isfinite(turns)
    ranks = np.full(len(turns), math.nan)
    ranks[seen] = rankdata(turns[seen])
    labels = rankdata(angles)
    lags = np.arange(-LAGS, LAGS + 1)
    correlations = [_correlation_at(lag, ranks, labels, segments) for lag in lags.tolist()]
    few = seen.sum() < 2
    return Alignment(
        lags,
        np.array(correlations),
        int(seen.sum()),
        0.0 if few else float(np.degrees(angles[seen].std(dtype=float))),
        0.0 if few else float(turns[seen].std()),
    )


def _correlation_at(lag: int, turns: np.ndarray, labels: np.ndarray, segments: np.ndarray) -> float:
    first, last = slice(max(len(turns) - abs(lag), 0)), slice(abs(lag), None)
    later, earlier = (last, first) if lag > 0 else (first, last)
    paired = (segments[later] == segments[earlier]) & np.isfinite(turns[later])
    turn, label = turns[later][paired], labels[earlier][paired]
    if len(turn) < 2 or np.ptp(turn) == 0 or np.ptp(label) == 0:
        return math.nan
    return float(np.corrcoef(turn, label)[0, 1])


def cannot_tell(alignment: Alignment) -> str | None:
    """Why nothing can be said of the drive, or None."""
    if alignment.frames < ENOUGH_FRAMES:
        return f"the drive has fewer than {ENOUGH_FRAMES:,} frames whose movement can be seen"
    if alignment.label_std < ENOUGH_DEGREES:
        return f"the labels hardly change (standard deviation {alignment.label_std:.2g} degrees; are they degrees?)"
    if alignment.turn_std < ENOUGH_TURN:
        return "the picture hardly moves"
    return None


def warnings(alignment: Alignment) -> list[str]:
    """What seems to be wrong with the drive and what to do, a line each; none where nothing can be told."""
    if cannot_tell(alignment):
        return []
    lag, best = alignment.best_lag, alignment.best
    if abs(best) < BELONGS:
        return [
            f"labels and frames do not seem to belong together: steering explains no movement of the picture "
            f"(correlation {best:.2f} at best); check that each frame stands beside its own label"
        ]
    found = []
    if best < 0:
        found.append(
            f"the labels seem to have the opposite sign (correlation {best:.2f}): the picture moves to the right where "
            f"they say right; negate them, + is to the right"
        )
    if abs(lag) > LAG_TOLERANCE:
        early, from_where = ("early", "before") if lag > 0 else ("late", "after")
        found.append(
            f"the labels seem to be {abs(lag)} frames {early} (correlation {best:.2f} there, {alignment.at_zero:.2f} "
            f"as labelled); give each frame the label of {abs(lag)} frames {from_where} it"
        )
    return found
