"""How much faster fixed_point.py is than netx on the same frames, and what start, thresholds and drift cost.

uv run python benchmarks/fixed_point.py, after `dvc repro`. The two take turns; netx is timed from its first step on,
without the seconds it takes to start. Layer by layer, on the longest held-out stretch, follows what becomes of the
messages with the start of the hardware, with thresholds as lava-dl exports them, and with the neurons that
`corrected_neurons` does not name. The drive is then run as one stream, with the neurons of lava-nc 0.10 and with
corrected ones, which do not drift.
"""

import statistics
import time

import numpy as np
import torch

from pilotnet_sdnn.dataset.road import Dataset, open_dataset
from pilotnet_sdnn.dataset.split import Stretch
from pilotnet_sdnn.loihi.fixed_point import (
    ONE,
    STATE_BITS,
    IntegerLayer,
    encode,
    read_network,
    run,
    start_state,
    zero_state,
)
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import EXPORTED_NETWORK, FRAMES
from pilotnet_sdnn.sdnn.lava import simulate_fixed_point

ROUNDS = 3
COUNT = 64  # frames
PARTS = 4  # of the drive


def main() -> None:
    torch.set_num_threads(1)
    network = read_network(EXPORTED_NETWORK)
    params = load_params()
    dataset = open_dataset(FRAMES, params.sequence, params.split)
    frames = dataset.drive.frames[:COUNT][None]
    rounds = [(_netx_seconds(frames), _fixed_point_seconds(network, frames)) for _ in range(ROUNDS)]
    netx, ours = (statistics.median(seconds) for seconds in zip(*rounds, strict=True))
    ratio = statistics.median(slow / fast for slow, fast in rounds)
    print(f"netx {1 / netx:.2f} frames/s, fixed_point.py {1 / ours:.0f} frames/s on one thread: {ratio:.0f}x")

    _compare_layers(network, dataset, params.corrected_neurons)

    labels = dataset.angles
    print(
        f"{dataset.drive.origin}: {len(labels)} frames in one stretch, MSE and mean error in degrees of each of "
        f"{PARTS} parts"
    )
    for name, corrected in (("lava-nc 0.10", False), ("corrected", True)):
        parts = np.array_split(_drive_through(network, dataset, corrected) - labels, PARTS)
        print(f"{name:13}", *(f"{(part**2).mean():.5f} {np.degrees(part.mean()):+.2f}" for part in parts), sep="  ")


def _netx_seconds(frames: np.ndarray) -> float:
    """Of a step."""
    steps = simulate_fixed_point(EXPORTED_NETWORK, encode(frames)[0].permute(3, 2, 1, 0).numpy(), COUNT)
    next(steps)
    start = time.perf_counter()
    for _ in steps:
        end = time.perf_counter()
    return (end - start) / (COUNT - 1)


def _fixed_point_seconds(network: list[IntegerLayer], frames: np.ndarray) -> float:
    """Of a frame."""
    start = time.perf_counter()
    run(network, encode(frames), start_state(network, 1))
    return (time.perf_counter() - start) / COUNT


def _compare_layers(network: list[IntegerLayer], dataset: Dataset, corrected: bool) -> None:
    first, stop = max(dataset.split.test, key=lambda stretch: stretch.frames)
    inputs = encode(dataset.drive.frames[first:stop][None])
    cut = [
        layer if layer.threshold is None else layer._replace(threshold=layer.threshold >> 12 << 12) for layer in network
    ]
    expected, _ = run(network, inputs, zero_state(network, 1), corrected)
    print(
        f"{dataset.drive.origin}: frames {first} to {stop - 1}, against the trained network: of each layer the share "
        "of other messages, the RMS difference of what receivers have, in thresholds, and events a frame"
    )
    for name, layers, state, kind in (
        ("start of the hardware", network, start_state(network, 1, corrected), corrected),
        ("thresholds cut to 1/64", cut, zero_state(network, 1), corrected),
        ("the other neurons", network, zero_state(network, 1), not corrected),
    ):
        sent, _ = run(layers, inputs, state, kind)
        print(name)
        for number, layer in enumerate(network[:-1]):
            ours, theirs = sent[number], expected[number]
            already = state[number].sent[:, None] >> STATE_BITS
            apart = (ours.cumsum(1) + already - theirs.cumsum(1)).double() / 2**12 / ((layer.threshold or 0) / ONE)
            events = (ours[:, 1:] != 0).sum() / (stop - first - 1)
            print(f"  {number}  {(ours != theirs).double().mean():7.2%}  {_rms(apart):.3f}  {events:.1f}")
        print(f"  angle, degrees RMS  {np.degrees(_rms((sent[-1] - expected[-1]).double() / ONE)):.2f}")


def _rms(values: torch.Tensor) -> float:
    return values.square().mean().sqrt().item()


def _drive_through(network: list[IntegerLayer], dataset: Dataset, corrected: bool) -> np.ndarray:
    """Angles in radians of the whole drive."""
    state, angles = start_state(network, 1, corrected), []
    for frames in dataset.chunks(Stretch(0, len(dataset.angles))):
        sent, state = run(network, encode(frames[None]), state, corrected)
        angles.append(sent[-1].flatten().numpy() / ONE)
    return np.concatenate(angles)


if __name__ == "__main__":
    main()
