"""The exported network beside the trained one, on the same frames."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pilotnet_sdnn.dataset.sequences import Sequences
from pilotnet_sdnn.loihi.fixed_point import ONE, Layer, State, encode, run
from pilotnet_sdnn.measure.steering import steering_metrics
from pilotnet_sdnn.progress import progress
from pilotnet_sdnn.sdnn.lava import simulate_fixed_point
from pilotnet_sdnn.sdnn.network import LAYERS

BATCH = 8  # sequences at a time; the results do not depend on it


def netx_messages(network_file: Path, frames: np.ndarray) -> list[Tensor]:
    """What every layer sends in lava's own simulation of a stretch of frames, about ten of them a second.

    Args:
        network_file: the exported network.
        frames: (1, T, 33, 100, 3) uint8.

    Returns:
        messages as of `fixed_point.run`: layer n's answer to a frame comes n steps after it, and stands with it here.
    """
    inputs = encode(frames)[0].permute(3, 2, 1, 0).numpy()
    count, latency = frames.shape[1], len(LAYERS) - 1
    steps = simulate_fixed_point(network_file, inputs, count + latency)
    sent = list(progress(steps, total=count + latency, desc="netx", unit="step"))
    return [
        torch.from_numpy(np.stack(layer[n : n + count])).permute(0, *range(layer[0].ndim, 0, -1))[None]
        for n, layer in enumerate(zip(*sent, strict=True))
    ]


def first_difference(one: list[Tensor], other: list[Tensor]) -> str | None:
    """Where two runs of a network part: the first frame, and the first layer in it. None: nowhere."""
    parted = [(a != b).flatten(2).any(2)[0].nonzero() for a, b in zip(one, other, strict=True)]
    first = min(
        ((int(frames[0]), name) for frames, name in zip(parted, LAYERS, strict=True) if len(frames)), default=None
    )
    return f"frame {first[0]} of the stretch, {first[1]}" if first else None


def angles_and_events(messages: list[Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Predicted angles (S, T) in radians, and events (S, T, 8) of layer-0 to layer-7."""
    events = [(sent != 0).flatten(2).sum(2) for sent in messages[:-1]]
    return messages[-1].squeeze(2).numpy() / ONE, torch.stack(events, -1).numpy()


def agreement(labels: np.ndarray, floating: np.ndarray, fixed: np.ndarray) -> dict:
    """How a fixed-point network steers beside the floating-point one, from angles (S, T) in radians.

    `mse_ratio` is NaN where the floating-point network makes no error. `max_abs_difference` is in degrees of
    the steering wheel.
    """
    fixed_mse, float_mse = (steering_metrics(labels, angles)["mse"] for angles in (fixed, floating))
    difference = np.degrees(fixed - floating.astype(float))
    return {
        "fixed_point_mse": fixed_mse,
        "float_mse": float_mse,
        "mse_ratio": fixed_mse / float_mse if float_mse else math.nan,
        "max_abs_difference": float(np.abs(difference).max()),
        "rms_difference_degrees": float(np.sqrt(np.mean(difference**2))),
        "frames": labels.size,
    }


def run_sequences(
    network: list[Layer], videos: np.ndarray | Sequences, start: Callable[[list[Layer], int], list[State]]
) -> tuple[np.ndarray, np.ndarray]:
    """`angles_and_events` of the fixed-point network in sequences (S, T, 33, 100, 3), each from the same state."""
    starts = progress(range(0, len(videos), BATCH), desc="fixed point", unit="batch")
    batches = (videos[i : i + BATCH] for i in starts)
    done = [angles_and_events(run(network, encode(batch), start(network, len(batch)))[0]) for batch in batches]
    angles, events = map(np.concatenate, zip(*done, strict=True))
    return angles, events
