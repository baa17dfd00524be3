"""Do labels and frames match? Steering to the right must turn the camera to the right."""

import math
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from scipy.stats import rankdata

from pilotnet_sdnn.dataset.store import FRAME_SHAPE, FRAMES_PER_READ, Frames

HORIZON = 16  # rows from the top that show turning alone; the road below them also moves with the speed
MAX_LAG = 30  # frames, in either direction

# Measured on stretches of Udacity CH2_001 and of the synthetic drive. Every stretch of at least 1,200 frames had a
# correlation of at least 0.63 and its best lag between -2 and 2 (600 frames: between -7 and 3). With labels from
# another part of the drive, long stretches had 0.08 to 0.37, stretches of 600 frames up to 0.7 by chance. Where the
# labels varied by less than 2 degrees, the correlation fell to 0.3.
MIN_FRAMES = 1200
MIN_LABEL_STD = 2.0  # degrees
MIN_TURN_STD = 0.05  # columns per frame
MIN_CORRELATION = 0.4
LAG_TOLERANCE = 5  # frames


class Alignment(NamedTuple):
    """Rank correlations (Spearman) between the turning of the camera and the labels."""

    lags: np.ndarray  # (2 MAX_LAG + 1,) frames by which the turning follows the label
    correlations: np.ndarray  # (2 MAX_LAG + 1,), nan where nothing varies
    frames: int  # with a measured turning
    label_std: float  # degrees
    turn_std: float  # columns per frame

    @property
    def at_zero(self) -> float:
        return float(self.correlations[MAX_LAG])

    @property
    def best_lag(self) -> int:
        """The lag of the strongest correlation of either sign; 0 if there is none."""
        strengths = np.nan_to_num(np.abs(self.correlations))
        return int(self.lags[strengths.argmax()]) if strengths.any() else 0

    @property
    def best(self) -> float:
        return float(self.correlations[MAX_LAG + self.best_lag])


def turning(drive: Frames, advance: Callable[[int], object] = lambda count: None) -> np.ndarray:
    """How far the camera turned to the right since the previous frame, measured by what moved to the left.

    It is the subpixel peak of the phase correlation of the two pictures' upper halves (OpenCV's phaseCorrelate).

    Args:
        drive: frames are read in blocks.
        advance: called with the number of frames in each block, for a progress bar.

    Returns:
        (N,) columns of 100; nan for the first frame of a segment and where nothing can be measured.
    """
    turns = np.full(len(drive.angles), math.nan)
    # In double precision: in single, the fifth digit depends on the processor and on which library computes the FFT.
    window = cv2.createHanningWindow((FRAME_SHAPE[1], HORIZON), cv2.CV_64F)
    before = None
    for start in range(0, len(turns), FRAMES_PER_READ):
        block = drive.frames[start : start + FRAMES_PER_READ, :HORIZON]
        for number, frame in enumerate(block, start):
            picture = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(float)
            if before is not None and drive.segments[number] == drive.segments[number - 1]:
                (moved, _), response = cv2.phaseCorrelate(before, picture, window)
                turns[number] = -moved if response > 0 else math.nan
            before = picture
        advance(len(block))
    return turns.round(9)  # turns that differ only in their last bits get the same rank


def align(turns: np.ndarray, angles: np.ndarray, segments: np.ndarray) -> Alignment:
    """Correlate turning and labels at every lag, within segments.

    Correlating ranks keeps the influence of a few wild labels or misjudged frames small.

    Args:
        turns: (N,) columns per frame, from `turning`.
        angles: (N,) radians, as labelled.
        segments: (N,) segment of each frame.
    """
    seen = np.isfinite(turns)
    ranks = np.full(len(turns), math.nan)
    ranks[seen] = rankdata(turns[seen])
    labels = rankdata(angles)
    lags = np.arange(-MAX_LAG, MAX_LAG + 1)
    correlations = [_correlation_at(lag, ranks, labels, segments) for lag in lags.tolist()]
    too_few = seen.sum() < 2
    return Alignment(
        lags,
        np.array(correlations),
        int(seen.sum()),
        0.0 if too_few else float(np.degrees(angles[seen].std(dtype=float))),
        0.0 if too_few else float(turns[seen].std()),
    )


def _correlation_at(lag: int, turns: np.ndarray, labels: np.ndarray, segments: np.ndarray) -> float:
    first, last = slice(max(len(turns) - abs(lag), 0)), slice(abs(lag), None)
    later, earlier = (last, first) if lag > 0 else (first, last)
    paired = (segments[later] == segments[earlier]) & np.isfinite(turns[later])
    turn, label = turns[later][paired], labels[earlier][paired]
    if len(turn) < 2 or np.ptp(turn) == 0 or np.ptp(label) == 0:
        return math.nan
    return float(np.corrcoef(turn, label)[0, 1])


def inconclusive(alignment: Alignment) -> str | None:
    """Why the check has no answer for this drive, or None."""
    if alignment.frames < MIN_FRAMES:
        return f"the drive has fewer than {MIN_FRAMES:,} frames whose movement can be seen"
    if alignment.label_std < MIN_LABEL_STD:
        return f"the labels hardly change (standard deviation {alignment.label_std:.2g} degrees; are they degrees?)"
    if alignment.turn_std < MIN_TURN_STD:
        return "the picture hardly moves"
    return None


def warnings(alignment: Alignment) -> list[str]:
    """One line for each suspected fault of the drive and its fix; none if the check is inconclusive."""
    if inconclusive(alignment):
        return []
    lag, best = alignment.best_lag, alignment.best
    if abs(best) < MIN_CORRELATION:
        return [
            f"labels and frames do not seem to match: steering does not explain the movement of the picture "
            f"(correlation at most {best:.2f}); check that each frame has its own label"
        ]
    found = []
    if best < 0:
        found.append(
            f"the labels seem to have the opposite sign (correlation {best:.2f}): the picture moves to the right where "
            f"they say right; + is to the right: set label_sign: -1 (of several drives, a list)"
        )
    if abs(lag) > LAG_TOLERANCE:
        early, from_where = ("early", "before") if lag > 0 else ("late", "after")
        found.append(
            f"the labels seem to be {abs(lag)} frames {early} (correlation {best:.2f} there, {alignment.at_zero:.2f} "
            f"as labelled); give each frame the label of {abs(lag)} frames {from_where} it"
        )
    return found
