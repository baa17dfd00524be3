"""A synthetic drive, for when there is no camera: a car on a winding road and the view of its dashboard camera."""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from pilotnet_sdnn.drive.synthetic_rendering import render
from pilotnet_sdnn.drive.synthetic_world import STEERING_RATIO, build_world, trajectory


def drive(frames: int, seed: int) -> Iterator[tuple[np.ndarray, float]]:
    """Drive along the road of a seed, at 20 frames per second.

    Yields:
        (256, 455, 3) uint8 RGB image, and angle of the steering wheel in degrees, positive to the right.
    """
    world = build_world(seed)
    for car in itertools.islice(trajectory(world), frames):
        yield render(world, car), math.degrees(car.steering) * STEERING_RATIO
