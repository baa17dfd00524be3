"""The world of the synthetic drive: a winding road, its scenery, and the car that follows it.

Everything that varies, from the curvature of the road to the height of the hills, is a sum of sinusoids with
seeded phases. The road is therefore statistically the same everywhere and known in closed form at any distance,
and a drive of any length needs no memory. The car is a kinematic bicycle. Its driver pursues a point of the lane
ahead.

Lengths are metres and angles radians unless stated otherwise. x is to the right and z ahead. Angles and
curvatures are positive to the right.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

FRAME_RATE = 20  # frames/s
SPEED = 13.0  # m/s
WHEELBASE = 2.7
STEERING_RATIO = 15.0  # angle of the steering wheel / angle of the road wheels
LOOKAHEAD = 14.0  # distance of the point that the driver pursues


class Waves(NamedTuple):
    """A sum of sinusoids."""

    amplitude: np.ndarray
    wavelength: np.ndarray
    phase: np.ndarray

    def __call__(self, x: np.ndarray | float) -> np.ndarray:
        """The height of the waves at each x."""
        turns = np.asarray(x)[..., None] / self.wavelength
        return (self.amplitude * np.sin(2 * math.pi * turns + self.phase)).sum(-1)

    def integral(self) -> "Waves":
        """The waves whose slope is this."""
        return Waves(self.amplitude * self.wavelength / (2 * math.pi), self.wavelength, self.phase - math.pi / 2)


class World(NamedTuple):
    """The road and scenery of a seed."""

    seed: int
    curvature: Waves  # 1/m over metres of road
    heading: Waves  # its integral
    wander: Waves  # desired position in the lane, over seconds
    exposure: Waves  # logarithm of the brightness, over seconds
    weather: Waves  # from blue to overcast, over seconds
    ridges: tuple[tuple[Waves, Waves], ...]  # two summands of each height in pixels, over bearing


class Car(NamedTuple):
    """The state of the car at a frame."""

    time: float  # s
    distance: float  # along the road
    offset: float  # from the middle of the lane
    heading: float
    steering: float  # angle of the road wheels


class Path(NamedTuple):
    """The middle of the lane relative to the car, at one or many distances along it."""

    x: np.ndarray
    z: np.ndarray
    heading: np.ndarray

    def beside(self, offset: float) -> tuple[np.ndarray, np.ndarray]:
        """x and z of the points this far to the right of the path."""
        return self.x + offset * np.cos(self.heading), self.z - offset * np.sin(self.heading)


def build_world(seed: int) -> World:
    """Draw the random road and scenery of a seed."""
    rng = np.random.default_rng(seed)

    def waves(std: float, *wavelengths: float) -> Waves:
        count = len(wavelengths)
        amplitude = np.full(count, std * math.sqrt(2 / count))
        phase = rng.uniform(0, 2 * math.pi, count)
        return Waves(amplitude, np.array(wavelengths) * rng.uniform(0.9, 1.1, count), phase)

    curvature = waves(0.0105, 65, 90, 120, 160)  # short waves: bends balance within half a minute
    return World(
        seed=seed,
        curvature=curvature,
        heading=curvature.integral(),
        wander=waves(0.2, 7, 10, 14),
        exposure=waves(0.1, 7, 12, 31),
        weather=waves(0.8, 25, 60),
        ridges=(
            (waves(5, 0.8, 0.45, 0.24), waves(5, 0.7, 0.4)),
            (waves(3, 0.6, 0.3, 0.13), waves(3, 0.5, 0.2)),
            (waves(1, 0.2, 0.09, 0.05), waves(1, 0.1, 0.04)),
        ),
    )


def look_ahead(world: World, car: Car, arcs: np.ndarray) -> Path:
    """The course of the road ahead.

    Args:
        arcs: (N,) distances along the road, the first one 0.

    Returns:
        A path of N points, relative to the car.
    """
    # Less than a right angle, so that the path passes each depth once. What lies beyond is out of view.
    heading = np.clip(world.heading(car.distance + arcs) - car.heading, -1.4, 1.4)

    def integral(slope: np.ndarray) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(arcs))])

    x, z = Path(np.zeros(1), np.zeros(1), heading[:1]).beside(-car.offset)
    return Path(x + integral(np.sin(heading)), z + integral(np.cos(heading)), heading)


def pursue(world: World, car: Car) -> float:
    """The angle of the road wheels that takes the car to the point of the lane that its driver pursues.

    The car gets there on a circle. Its curvature is 2 x / (x^2 + z^2) (pure pursuit: Coulter 1992, CMU-RI-TR-92-01),
    and a bicycle's path has curvature tan(steering) / wheelbase.
    """
    aim = Path(*(along[-1] for along in look_ahead(world, car, np.linspace(0, LOOKAHEAD, 15))))
    x, z = aim.beside(float(world.wander(car.time)))
    return math.atan(WHEELBASE * 2 * x / (x * x + z * z))


def move(world: World, car: Car) -> Car:
    """The car one frame later: a kinematic bicycle in coordinates along and across the road."""
    advance = SPEED / FRAME_RATE
    drift = car.heading - float(world.heading(car.distance))
    return Car(
        time=car.time + 1 / FRAME_RATE,
        distance=car.distance + advance * math.cos(drift) / (1 - car.offset * float(world.curvature(car.distance))),
        offset=car.offset + advance * math.sin(drift),
        heading=car.heading + advance * math.tan(car.steering) / WHEELBASE,
        steering=car.steering,
    )


def trajectory(world: World) -> Iterator[Car]:
    """Drive without end, a `Car` for each frame."""
    car = Car(time=0.0, distance=0.0, offset=0.0, heading=float(world.heading(0)), steering=0.0)
    while True:
        car = car._replace(steering=pursue(world, car))
        yield car
        car = move(world, car)
