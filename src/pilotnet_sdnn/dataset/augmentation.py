"""Random changes of training streams: mirrored road, other light, other position in the lane.

The changes of a stream depend only on the seed, the epoch and the stream's number, so a resumed run repeats them. All
frames of a stream change alike: a jump from one frame to the next would be an event at every neuron.
"""

from typing import NamedTuple

import numpy as np


class Augmentation(NamedTuple):
    """How much streams change; all zero changes nothing."""

    mirror: float  # share of streams that are mirrored, with negated angles
    brightness: float  # maximum brightness shift, as a share of white
    contrast: float  # maximum relative change of a pixel's distance from middle grey
    shift: int  # maximum horizontal shift, columns
    shift_degrees: float  # of the steering wheel per column, which bring the car back to its line


def augment(
    amounts: Augmentation, frames: np.ndarray, angles: np.ndarray, numbers: np.ndarray, seed: int, epoch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Change N sequences of T frames, each as its stream changes.

    In a picture shifted to the right, the camera points further left, so the label moves to the right, which is
    positive. Uncovered columns repeat the column at the edge.

    Args:
        amounts: limits of the changes.
        frames: (N, T, 33, 100, 3) uint8.
        angles: (N, T) radians.
        numbers: (N,) numbers of their streams.
        seed: seed of the run.
        epoch: the epoch, from 0.

    Returns:
        Changed copies of frames and angles.
    """
    if not any(amounts[:4]):
        return frames, angles
    changed, angles = np.empty_like(frames), angles.copy()
    width = frames.shape[3]
    for video, out, label, number in zip(frames, changed, angles, numbers, strict=True):
        random = np.random.default_rng((seed, epoch, int(number) + 1))  # + 1: numpy ignores a trailing 0
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
    """Shift the pictures of (T, 33, 100, 3) to the right by `columns`; many times faster than np.take."""
    width = video.shape[2]
    columns = max(1 - width, min(columns, width - 1))
    right, left = max(columns, 0), max(-columns, 0)
    out[:, :, right : width - left] = video[:, :, left : width - right]
    out[:, :, :right] = video[:, :, :1]
    out[:, :, width - left :] = video[:, :, -1:]


def _tones(offset: float, stretch: float) -> bytes:
    """A table of the new value for each of the 256 pixel values."""
    grey = 127.5
    tones = (np.arange(256) - grey) * (1 + stretch) + grey + 255 * offset
    return tones.round().clip(0, 255).astype(np.uint8).tobytes()


def _look_up(video: np.ndarray, table: bytes) -> np.ndarray:
    """`table[video]`; bytes.translate is several times faster than numpy's indexing."""
    return np.frombuffer(video.tobytes().translate(table), np.uint8).reshape(video.shape)
