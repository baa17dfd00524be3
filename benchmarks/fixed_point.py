"""How much faster fixed_point.py is than netx on the same frames, and what lava-nc's drift costs on the whole drive.

uv run python benchmarks/fixed_point.py, after `dvc repro`. The two take turns; netx is timed from its first
step on, without the seconds it takes to start. The drive is then run as one stretch, as a camera would that is
never switched off, with the neurons of lava-nc 0.10 and with those of later versions, which do not drift.
"""

import statistics
import time

import numpy as np
import torch

from pilotnet_sdnn.fixed_point import ONE, Layer, encode, read_network, run, start_state
from pilotnet_sdnn.frames import Frames, read_frames, repair_zero_labels
from pilotnet_sdnn.lava import simulate_fixed_point
from pilotnet_sdnn.params import load_params
from pilotnet_sdnn.paths import EXPORTED_NETWORK, FRAMES

ROUNDS = 3
COUNT = 64  # frames
PARTS = 4  # of the drive


def main() -> None:
    torch.set_num_threads(1)
    network = read_network(EXPORTED_NETWORK)
    drive = read_frames(FRAMES)
    frames = drive.frames[:COUNT][None]
    rounds = [(_netx_seconds(frames), _fixed_point_seconds(network, frames)) for _ in range(ROUNDS)]
    netx, ours = (statistics.median(seconds) for seconds in zip(*rounds, strict=True))
    ratio = statistics.median(slow / fast for slow, fast in rounds)
    print(f"netx {1 / netx:.2f} frames/s, fixed_point.py {1 / ours:.0f} frames/s on one thread: {ratio:.0f}x")

    labels = repair_zero_labels(drive.angles, load_params().sequence)
    print(
        f"{drive.origin}: {len(labels)} frames in one stretch, MSE and mean error in degrees of each of {PARTS} parts"
    )
    for name, corrected in (("lava-nc 0.10", False), ("corrected", True)):
        parts = np.array_split(_drive_through(network, drive, corrected) - labels, PARTS)
        print(f"{name:13}", *(f"{(part**2).mean():.5f} {np.degrees(part.mean()):+.2f}" for part in parts), sep="  ")


def _netx_seconds(frames: np.ndarray) -> float:
    """Of a step."""
    steps = simulate_fixed_point(EXPORTED_NETWORK, encode(frames)[0].permute(3, 2, 1, 0).numpy(), COUNT)
    next(steps)
    start = time.perf_counter()
    for _ in steps:
        end = time.perf_counter()
    return (end - start) / (COUNT - 1)


def _fixed_point_seconds(network: list[Layer], frames: np.ndarray) -> float:
    """Of a frame."""
    start = time.perf_counter()
    run(network, encode(frames), start_state(network, 1))
    return (time.perf_counter() - start) / COUNT


def _drive_through(network: list[Layer], drive: Frames, corrected: bool) -> np.ndarray:
    """Angles in radians of the whole drive."""
    state, angles = start_state(network, 1), []
    for first in range(0, len(drive.angles), COUNT):
        sent, state = run(network, encode(drive.frames[first : first + COUNT][None]), state, corrected)
        angles.append(sent[-1].flatten().numpy() / ONE)
    return np.concatenate(angles)


if __name__ == "__main__":
    main()
