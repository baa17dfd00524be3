"""Training sequences changed at random: another road, another light, another place in the lane.

What is drawn for a sequence follows from the seed, the epoch and the sequence's number alone, so a run
that was killed draws the same again. It is the same for all frames of a sequence: what jumped from
frame to frame would be an event at every neuron.
"""

from typing import NamedTuple

import numpy as np


class Augmentation(NamedTuple):
    """How far sequences are changed; all zero leaves them as they are."""

    mirror: float  # share of the sequences that are mirrored, their angles negated
    brightness: float  # most that is added to or taken off a pixel, as a share of white
    contrast: float  # most by which a pixel's distance from middle grey grows or shrinks, as a share of it
    shift: int  # most columns that the picture moves to the left or to the right
    shift_degrees: float  # of the steering wheel per column, that bring a car which is off its line back to it


def augment(
    amounts: Augmentation, frames: np.ndarray, angles: np.ndarray, numbers: np.ndarray, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Change N sequences of T frames, each in its own way.

    A road that moves to the right in the picture is what a camera sees that points further left, so
    the label moves to the right, which is +. Columns that come into sight repeat the last one.

    Args:
        amounts: how far they may be changed.
        frames: (N, T, 33, 100, 3) uint8.
        angles: (N, T) radians.
        numbers: (N,) of the sequences in the drive.
        seed: of the run.
        epoch: that runs.

    Returns:
        Changed copies of frames and angles.
    """
    if not any(amounts[:4]):
        return frames, angles
    changed, angles = np.empty_like(frames), angles.copy()
    width = frames.shape[3]
    for video, out, label, number in zip(frames, changed, angles, numbers, strict=True):
        random = np.random.default_rng((seed, epoch, int(number) + 1))  # + 1: a 0 at the end would change nothing
        mirrored = random.random() < amounts.mirror
        offset, stretch = random.uniform(-1, 1, 2) * (amounts.brightness, amounts.contrast)
        columns = int(random.integers(-amounts.shift, amounts.shift, endpoint=True))
        label += np.radians(columns * amounts.shift_degrees)
        toned = _look_up(video, _tones(offset, stretch)) if amounts.brightness or amounts.contrast else video
        if mirrored:
            label *= -1
            source = np.clip(np.arange(width) - columns, 0, width - 1)
            np.take(toned, source[::-1], axis=2, out=out, mode="clip")
        else:
            _move(toned, columns, out)
    return changed, angles


def _move(video: np.ndarray, columns: int, out: np.ndarray) -> None:
    """Move the pictures of (T, 33, 100, 3) to the right, where columns are positive; many times faster than a take."""
    width = video.shape[2]
    columns = max(1 - width, min(columns, width - 1))
    right, left = max(columns, 0), max(-columns, 0)
    out[:, :, right : width - left] = video[:, :, left : width - right]
    out[:, :, :right] = video[:, :, :1]
    out[:, :, width - left :] = video[:, :, -1:]


def _tones(offset: float, stretch: float) -> bytes:
    """The new value of each of the 256 old ones."""
    grey = 127.5
    tones = (np.arange(256) - grey) * (1 + stretch) + grey + 255 * offset
    return tones.round().clip(0, 255).astype(np.uint8).tobytes()


def _look_up(video: np.ndarray, table: bytes) -> np.ndarray:
    """`table[video]`; bytes.translate is several times faster than numpy's indexing."""
    return np.frombuffer(video.tobytes().translate(table), np.uint8).reshape(video.shape)
