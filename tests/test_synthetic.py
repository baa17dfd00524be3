"""The made drive: physics by the trajectory, and what the camera sees by looking for it in the picture."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest

from pilotnet_sdnn.drive import synthetic_rendering
from pilotnet_sdnn.drive.synthetic import drive
from pilotnet_sdnn.drive.synthetic_rendering import (
    CAMERA_HEIGHT,
    DASH,
    DASH_PERIOD,
    FOCAL_LENGTH,
    HORIZON,
    LANE,
    LINE,
    WIDTH,
    render,
)
from pilotnet_sdnn.drive.synthetic_world import (
    FRAME_RATE,
    SPEED,
    STEERING_RATIO,
    WHEELBASE,
    Car,
    Waves,
    World,
    build_world,
    move,
    pursue,
    trajectory,
)

SEEDS = range(10)


def angles(seed: int, frames: int) -> np.ndarray:
    """Steering-wheel angles in degrees, without rendering what goes with them."""
    cars = itertools.islice(trajectory(build_world(seed)), frames)
    return np.array([math.degrees(car.steering) * STEERING_RATIO for car in cars])


def views(seed: int, frames: int, every: int) -> Iterator[tuple[np.ndarray, Car]]:
    """One in so many frames of a drive, and what the car does there."""
    world = build_world(seed)
    for car in itertools.islice(trajectory(world), 0, frames, every):
        yield render(world, car), car


def circle(radius: float) -> World:
    """A world in which the road is a circle, to the right if positive, and the driver does not wander."""
    wavelength = 1e9  # what goes like sin(2 pi s / wavelength) is straight as far as anyone drives

    def wave(amplitude: float, phase: float) -> Waves:
        return Waves(np.array([amplitude]), np.array([wavelength]), np.array([phase]))

    curvature, heading = wave(1 / radius, math.pi / 2), wave(wavelength / (2 * math.pi * radius), 0)
    return build_world(0)._replace(curvature=curvature, heading=heading, wander=wave(0, 0))


STRAIGHT = circle(1e9)
START = Car(time=0, distance=0, offset=0, heading=0, steering=0)


def right_line(image: np.ndarray, row: int) -> int | None:
    """The column, if any, at which the rightmost line of the road begins: much lighter than the asphalt left of it."""
    asphalt = np.median(image[250, 150:300])
    light = image[row].min(1) > 1.7 * asphalt
    grey = np.ptp(image[row], axis=1) < 25
    begins = light[5:] & ~light[4:-1] & grey[:-5]
    return int(np.flatnonzero(begins)[-1]) + 5 if begins.any() else None


def shift(before: np.ndarray, after: np.ndarray, most: int) -> int:
    """By how many columns to the right the picture has moved, by the least squared difference."""
    width = before.shape[1]
    middle = before[:, most:-most]
    return min(
        range(-most, most + 1),
        key=lambda move: np.square(after[:, most + move : width - most + move] - middle).sum(),
    )


def test_a_drive_is_the_frames_of_a_seed():
    frames = list(drive(12, seed=3))
    synthetic_rendering._objects.cache_clear()
    assert len(frames) == 12
    for (image, angle), (same_image, same_angle) in zip(frames[:8], drive(8, seed=3), strict=True):
        assert image.shape == (256, 455, 3) and image.dtype == np.uint8
        assert isinstance(angle, float)
        assert angle == same_angle and image.tobytes() == same_image.tobytes()
    [(other_image, other_angle)] = drive(1, seed=4)
    assert other_angle != frames[0][1] and other_image.tobytes() != frames[0][0].tobytes()


def test_the_angle_is_that_of_the_trajectory():
    assert [angle for _, angle in drive(3, seed=5)] == angles(5, 3).tolist()


@pytest.mark.parametrize("seed", SEEDS)
def test_even_a_short_drive_steers_both_ways(seed):
    degrees = angles(seed, 500)
    assert 10 < degrees.std() < 40
    assert 0.3 < (degrees > 0).mean() < 0.7
    assert np.abs(np.diff(degrees)).max() < 4
    assert np.abs(degrees).max() < 90


def test_the_car_stays_in_its_lane():
    for seed in SEEDS:
        cars = itertools.islice(trajectory(build_world(seed)), 500)
        assert max(abs(car.offset) for car in cars) < LANE / 2 - 0.5


@pytest.mark.parametrize("radius", [100, -100])
def test_on_a_circle_the_angle_is_that_of_a_bicycle(radius):
    [car] = itertools.islice(trajectory(circle(radius)), 400, 401)
    assert car.steering == pytest.approx(math.atan(WHEELBASE / radius), rel=0.02)
    assert car.offset == pytest.approx(0, abs=0.1)
    assert car.heading == pytest.approx(car.distance / radius, abs=0.02)


def test_on_the_inside_of_a_bend_the_car_gets_farther_along_the_road():
    inside, middle = (move(circle(50), START._replace(offset=offset)).distance for offset in (5, 0))
    assert middle == pytest.approx(SPEED / FRAME_RATE)
    assert inside == pytest.approx(middle * 50 / 45)


def test_the_driver_wanders_in_the_lane():
    world = STRAIGHT._replace(wander=build_world(0).wander)
    offsets = [car.offset for car in itertools.islice(trajectory(world), 600)]
    assert 0.1 < np.std(offsets) < 0.4


def test_the_driver_sees_a_bend_coming():
    bend = Waves(np.array([0.02]), np.array([100.0]), np.array([0.0]))
    world = STRAIGHT._replace(curvature=bend, heading=bend.integral())
    car = START._replace(heading=float(world.heading(0)))
    assert world.curvature(car.distance) == 0
    assert pursue(world, car) > 0.5 * math.atan(WHEELBASE * 0.01)


def test_the_driver_steers_back_to_the_lane():
    assert pursue(STRAIGHT, START) == pytest.approx(0, abs=1e-6)
    assert pursue(STRAIGHT, START._replace(offset=0.5)) < 0 < pursue(STRAIGHT, START._replace(offset=-0.5))
    assert pursue(STRAIGHT, START._replace(heading=0.1)) < 0 < pursue(STRAIGHT, START._replace(heading=-0.1))


@pytest.mark.parametrize("radius", [60, -60])
def test_the_road_bends_in_the_picture_to_the_side_to_which_the_car_steers(radius):
    world = circle(radius)
    [car] = itertools.islice(trajectory(world), 100, 101)
    bent, straight = render(world, car), render(STRAIGHT, START)
    bend = np.array([right_line(bent, row) - right_line(straight, row) for row in (170, 150, 130)])
    assert np.sign(car.steering) == np.sign(radius)
    assert (np.sign(bend) == np.sign(radius)).all()
    assert abs(bend[0]) < abs(bend[1]) < abs(bend[2])


def test_the_right_line_goes_with_the_angle():
    """The line is found 12 metres ahead by its colour; it tells most of the angle."""
    row = HORIZON + round(FOCAL_LENGTH * CAMERA_HEIGHT / 12)
    found = [(right_line(image, row), car.steering) for image, car in views(seed=1, frames=600, every=10)]
    columns, steering = np.array([(column, angle) for column, angle in found if column is not None]).T
    assert columns.size > 50
    assert np.corrcoef(columns, steering)[0, 1] > 0.9


@pytest.mark.parametrize("row", [150, 200, 240])
def test_the_right_line_is_where_a_pinhole_camera_sees_it(row):
    """On a straight road its near side, X right of the middle of the lane, is at x = f X / Z."""
    depth = FOCAL_LENGTH * CAMERA_HEIGHT / (row + 0.5 - HORIZON)
    column = WIDTH / 2 + FOCAL_LENGTH * (LANE - LINE) / 2 / depth
    assert right_line(render(STRAIGHT, START), row) == pytest.approx(column, abs=1)


def test_dashes_come_towards_the_car():
    """A place of the middle line is painted when a dash is there: the first of every so many metres."""
    row, depth = 170, FOCAL_LENGTH * CAMERA_HEIGHT / (170.5 - HORIZON)
    column = int(WIDTH / 2 - FOCAL_LENGTH * LANE / 2 / depth)
    places = np.arange(8.5, 20)
    images = [render(STRAIGHT, START._replace(distance=place - depth)) for place in places]
    painted = [image[row, column].min() > 1.7 * np.median(image[250, 150:300]) for image in images]
    assert painted == (places % DASH_PERIOD < DASH).tolist()


def test_the_road_moves_left_when_the_car_is_right_of_its_lane():
    left, middle, right = (right_line(render(STRAIGHT, START._replace(offset=x)), 180) for x in (-0.5, 0, 0.5))
    assert right < middle < left


@pytest.mark.parametrize("rows", [slice(0, 40), slice(50, 95)], ids=["clouds", "horizon"])
@pytest.mark.parametrize("yaw", [0.04, -0.04])
def test_scenery_moves_against_the_yaw(yaw, rows):
    world = build_world(2)
    before, after = (render(world, START._replace(heading=heading))[rows].mean(2) for heading in (0, yaw))
    assert shift(before, after, most=30) == pytest.approx(-yaw * FOCAL_LENGTH, abs=3)


def test_scenery_passes_by_on_either_side():
    """As the car advances, the left half of the picture moves left, and the right half right."""
    before, after = (render(STRAIGHT, START._replace(distance=z))[50:130].mean(2) for z in (0, 2))
    half = WIDTH // 2
    assert shift(before[:, :half], after[:, :half], most=20) < 0 < shift(before[:, half:], after[:, half:], most=20)


def test_the_light_changes_over_seconds():
    lightness = [image.mean() for image, _ in views(seed=0, frames=400, every=20)]
    assert np.ptp(lightness) > 10
    assert np.abs(np.diff(lightness)).max() < 30


def test_little_changes_from_one_frame_to_the_next():
    images = np.stack([image for image, _ in drive(20, seed=0)]).astype(int)
    change = np.abs(np.diff(images, axis=0))
    assert change.mean((1, 2, 3)).max() < 8
    assert np.median(change) <= 3
