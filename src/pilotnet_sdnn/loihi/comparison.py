"""The exported network beside the trained one, on the same frames."""

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pilotnet_sdnn.loihi.fixed_point import ONE, IntegerLayer, State, encode, run
from pilotnet_sdnn.measure.following import by_tenth
from pilotnet_sdnn.progress import progress
from pilotnet_sdnn.sdnn.accuracy import steering_metrics
from pilotnet_sdnn.sdnn.lava import simulate_fixed_point
from pilotnet_sdnn.sdnn.network import LAYERS

InitialState = Callable[[list[IntegerLayer], int], list[State]]  # of a network, for a number of streams


def netx_messages(network_file: Path, frames: np.ndarray, corrected: bool = False) -> list[Tensor]:
    """What every layer sends in lava's own simulation of a stretch of frames, about 10 frames/s.

    Args:
        network_file: the exported network.
        frames: (1, T, 33, 100, 3) uint8.
        corrected: see `fixed_point.run`.

    Returns:
        messages like those of `fixed_point.run`: layer n answers a frame n steps later; here each answer is moved back
        to its frame.
    """
    inputs = encode(frames)[0].permute(3, 2, 1, 0).numpy()
    count, latency = frames.shape[1], len(LAYERS) - 1
    steps = simulate_fixed_point(network_file, inputs, count + latency, corrected)
    sent = list(progress(steps, total=count + latency, desc="netx", unit="step"))
    return [
        torch.from_numpy(np.stack(layer[n : n + count])).permute(0, *range(layer[0].ndim, 0, -1))[None]
        for n, layer in enumerate(zip(*sent, strict=True))
    ]


def first_difference(one: list[Tensor], other: list[Tensor]) -> str | None:
    """Where two runs of a network first differ, as frame and layer; None if nowhere."""
    parted = [(a != b).flatten(2).any(2)[0].nonzero() for a, b in zip(one, other, strict=True)]
    first = min(
        ((int(frames[0]), name) for frames, name in zip(parted, LAYERS, strict=True) if len(frames)), default=None
    )
    return f"frame {first[0]} of the stretch, {first[1]}" if first else None


def stream_angles(
    network: list[IntegerLayer], chunks: Iterable[np.ndarray], start: InitialState, corrected: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Run one stream through the integers, state carried from chunk to chunk.

    Args:
        network: from `read_network`.
        chunks: (T, 33, 100, 3) uint8 each, of any T.
        start: `start_state` or `zero_state`.
        corrected: see `fixed_point.run`.

    Returns:
        Predicted angles (F,) in radians, and events (F, 8) of layer-0 to layer-7.
    """
    states, done = start(network, 1), []
    for chunk in chunks:
        messages, states = run(network, encode(chunk[None]), states, corrected)
        sent = torch.stack([(message != 0).flatten(2).sum(2)[0] for message in messages[:-1]], -1)
        done.append((messages[-1].flatten().numpy() / ONE, sent.numpy()))
    angles, events = map(np.concatenate, zip(*done, strict=True))
    return angles, events


def agreement(labels: np.ndarray, floating: np.ndarray, fixed: np.ndarray, is_start: np.ndarray) -> dict:
    """Compare the steering of the fixed-point and the floating-point network, from angles (F,) in radians.

    `mse_ratio` is NaN where the floating-point network makes no error. Differences are in degrees of the steering
    wheel; those of the first and last tenth of the streams show drift.
    """
    fixed_mse, float_mse = (steering_metrics(labels, angles)["mse"] for angles in (fixed, floating))
    difference = np.degrees(fixed - floating.astype(float))
    tenths = np.sqrt(by_tenth(difference**2, is_start))
    return {
        "fixed_point_mse": fixed_mse,
        "float_mse": float_mse,
        "mse_ratio": fixed_mse / float_mse if float_mse else math.nan,
        "max_abs_difference": float(np.abs(difference).max()),
        "rms_difference_degrees": float(np.sqrt(np.mean(difference**2))),
        "rms_difference_first_tenth": float(tenths[0]),
        "rms_difference_last_tenth": float(tenths[-1]),
        "frames": labels.size,
    }
