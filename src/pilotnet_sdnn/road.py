"""A drive for when there is no camera: a car on a winding road, and what its dashboard camera sees.

Everything that varies, from the road's curvature to the height of the hills, is a sum of sinusoids with
seeded phases. So the road is statistically the same everywhere, has a closed form at any distance, and
a drive of any length needs no memory. The car is a kinematic bicycle in road coordinates, its driver
is pure pursuit of a point ahead, and each picture is an inverse perspective lookup of a flat ground.

Lengths are metres, angles radians; x points right, z ahead, and angles and curvatures are positive to the right.
"""

import itertools
import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

FRAME_RATE = 20  # frames/s
WIDTH, HEIGHT = 455, 256  # pixels
HORIZON = 104  # row
FOCAL_LENGTH = 380.0  # pixels: 62 degrees of view
CAMERA_HEIGHT = 1.3

SPEED = 13.0  # m/s
WHEELBASE = 2.7
STEERING_RATIO = 15.0  # steering-wheel angle / road-wheel angle
LOOKAHEAD = 14.0  # how far ahead the driver aims

LANE = 3.5  # its middle is the road's reference line; the oncoming lane is on the left
LINE = 0.15
DASH, DASH_PERIOD = 3.0, 9.0
VERGE_LEFT, VERGE_RIGHT = -1.5 * LANE - 0.6, 0.5 * LANE + 0.6
VIEW = 320.0  # how far the road is followed
CELL = 8.0  # each so much road has one thing on either side
SCENERY_VIEW = 180.0  # how far those are drawn
TEXELS, TEXEL = 512, 0.08  # side of the square ground texture, and of one texel

# Pixel centres, and where the rays through them meet the ground.
COLUMNS = (np.arange(WIDTH, dtype=np.float32) + 0.5 - WIDTH / 2)[None, :]
SKY_ROWS = HORIZON - np.arange(HORIZON, dtype=np.float32)[:, None] - 0.5  # above the horizon
GROUND_ROWS = np.arange(HEIGHT - HORIZON, dtype=np.float32)[:, None] + 0.5  # below it
DEPTH = FOCAL_LENGTH * CAMERA_HEIGHT / GROUND_ROWS
PIXEL = DEPTH / FOCAL_LENGTH  # width of a pixel on the ground
PIXEL_DEPTH = DEPTH / GROUND_ROWS + SPEED / FRAME_RATE / 2  # its length, and what the shutter adds
HAZE = 0.75 * (1 - np.exp(-DEPTH / 160))


def _rgb(code: int) -> np.ndarray:
    """(3, 1, 1) colour in [0, 1] from 0xRRGGBB."""
    return np.array([code >> 16, code >> 8 & 255, code & 255], np.float32).reshape(3, 1, 1) / 255


class Waves(NamedTuple):
    """A sum of sinusoids."""

    amplitude: np.ndarray
    wavelength: np.ndarray
    phase: np.ndarray

    def __call__(self, x: np.ndarray | float) -> np.ndarray:
        turns = np.asarray(x)[..., None] / self.wavelength
        return (self.amplitude * np.sin(2 * math.pi * turns + self.phase)).sum(-1)

    def integral(self) -> "Waves":
        return Waves(self.amplitude * self.wavelength / (2 * math.pi), self.wavelength, self.phase - math.pi / 2)


def _waves(rng: np.random.Generator, std: float, *wavelengths: float) -> Waves:
    """Waves of equal amplitude, the given wavelengths within a tenth, and any phase."""
    count = len(wavelengths)
    return Waves(
        np.full(count, std * math.sqrt(2 / count)),
        np.array(wavelengths) * rng.uniform(0.9, 1.1, count),
        rng.uniform(0, 2 * math.pi, count),
    )


class World(NamedTuple):
    """One seed's road and scenery."""

    seed: int
    curvature: Waves  # 1/m over metres of road
    heading: Waves  # its integral
    wander: Waves  # metres right of the lane's middle where the driver wants to be, over seconds
    exposure: Waves  # relative brightness over seconds
    weather: Waves  # from blue to overcast over seconds
    ridges: tuple[tuple[Waves, Waves], ...]  # pixels over bearing, from the farthest


class Car(NamedTuple):
    """What the car does at one frame."""

    time: float  # s
    distance: float  # of the road behind it
    offset: float  # from the middle of its lane
    heading: float
    steering: float  # angle of the road wheels


def world(seed: int) -> World:
    """The road and scenery of a seed."""
    rng = np.random.default_rng(seed)
    curvature = _waves(rng, 0.0095, 75, 100, 130, 170)
    ridges = ((5, (0.8, 0.45, 0.24)), (3, (0.6, 0.3, 0.13)), (1.3, (0.2, 0.09, 0.05, 0.03)))
    return World(
        seed=seed,
        curvature=curvature,
        heading=curvature.integral(),
        wander=_waves(rng, 0.2, 9, 13, 20),
        exposure=_waves(rng, 0.1, 7, 12, 31),
        weather=_waves(rng, 0.5, 25, 60),
        ridges=tuple((_waves(rng, std, *spans), _waves(rng, std, *spans)) for std, spans in ridges),
    )


def road_ahead(world: World, car: Car, arcs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The middle of the lane as the driver sees it.

    Args:
        arcs: (N,) distances along the road from the car, evenly spaced from 0.

    Returns:
        (N,) x, (N,) z and (N,) heading, all relative to the car.
    """
    heading = world.heading(car.distance + arcs) - car.heading
    steps = np.diff(arcs)
    x, z = (
        np.concatenate([[0.0], np.cumsum((f(heading[1:]) + f(heading[:-1])) / 2 * steps)]) for f in (np.sin, np.cos)
    )
    return x - car.offset * np.cos(heading[0]), z + car.offset * np.sin(heading[0]), heading


def pursue(world: World, car: Car) -> float:
    """The road-wheel angle that takes the car, on a circle, to the point of the lane that its driver aims at.

    The circle's curvature is 2 x / (x^2 + z^2) (pure pursuit; Coulter 1992, CMU-RI-TR-92-01), and that of a
    bicycle's path is tan(steering) / wheelbase.
    """
    x, z, heading = (along[-1] for along in road_ahead(world, car, np.linspace(0, LOOKAHEAD, 15)))
    wander = world.wander(car.time)
    x, z = x + wander * math.cos(heading), z - wander * math.sin(heading)
    return math.atan(WHEELBASE * 2 * x / (x * x + z * z))


def trajectory(world: World) -> Iterator[Car]:
    """Drive on for ever, a `Car` each frame: a kinematic bicycle in road coordinates."""
    car = Car(0.0, 0.0, float(world.wander(0.0)), float(world.heading(0.0)), 0.0)
    step = 1 / FRAME_RATE
    for frame in itertools.count(1):
        car = car._replace(steering=pursue(world, car))
        yield car
        drift = car.heading - float(world.heading(car.distance))
        curvature = float(world.curvature(car.distance))
        car = Car(
            time=frame * step,
            distance=car.distance + step * SPEED * math.cos(drift) / (1 - car.offset * curvature),
            offset=car.offset + step * SPEED * math.sin(drift),
            heading=car.heading + step * SPEED * math.tan(car.steering) / WHEELBASE,
            steering=car.steering,
        )


class Light(NamedTuple):
    """Colours that change with the weather: (3, 1, 1) in [0, 1]."""

    zenith: np.ndarray
    haze: np.ndarray
    exposure: float


def light(world: World, time: float) -> Light:
    """The light at `time` seconds."""
    overcast = 0.5 + 0.5 * math.tanh(float(world.weather(time)))
    return Light(
        zenith=(1 - overcast) * _rgb(0x3F7FCB) + overcast * _rgb(0x8E9DAE),
        haze=(1 - overcast) * _rgb(0xCFE3F2) + overcast * _rgb(0xC3C9CC),
        exposure=math.exp(float(world.exposure(time))),
    )


@lru_cache
def _texture() -> np.ndarray:
    """(TEXELS, TEXELS) periodic, band-limited noise of zero mean and unit variance."""
    rng = np.random.default_rng(0)
    steps = np.arange(TEXELS, dtype=np.float32) * (2 * math.pi / TEXELS)
    texture = np.zeros((TEXELS, TEXELS), np.float32)
    for scale in 2.0 ** rng.uniform(1, 5, 60):
        turn, phase = rng.uniform(0, 2 * math.pi, 2)
        u, v = round(scale * math.cos(turn)), round(scale * math.sin(turn))
        texture += np.cos(u * steps[:, None] + (v * steps + phase))
    return texture * math.sqrt(2 / 60)


def _paint(picture: np.ndarray, colour: np.ndarray, cover: np.ndarray | float) -> None:
    """Lay a colour over (3, H, W) of picture where `cover` is 1, in part where it is less."""
    picture += cover * (colour - picture)


def _band(x: np.ndarray, middle: float, width: float, pixel: np.ndarray) -> np.ndarray:
    """How much of each pixel at `x` a band of this width covers."""
    return np.clip((width + pixel) / 2 - np.abs(x - middle), 0, np.minimum(width, pixel)) / pixel


def _dashes(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """How much of the road from `start` on, `length` long, has a dash on it."""

    def dashes_before(s: np.ndarray) -> np.ndarray:
        return np.floor(s / DASH_PERIOD) * DASH + np.minimum(s % DASH_PERIOD, DASH)

    return (dashes_before(start + length) - dashes_before(start)) / length


def _paint_sky(sky: np.ndarray, world: World, car: Car, light: Light) -> None:
    sky[:] = light.haze
    _paint(sky, light.zenith, (SKY_ROWS / HORIZON) ** 0.8)
    bearing = car.heading + np.arctan(COLUMNS[0] / FOCAL_LENGTH)
    columns = (bearing * FOCAL_LENGTH * 0.5 + 2 * car.time).astype(int) % TEXELS
    rows = (SKY_ROWS * 1.6).astype(int) % TEXELS
    clouds = np.clip(_texture()[rows, columns] * 0.5 - 0.1, 0, 0.7)
    _paint(sky, _rgb(0xF4F6F8), clouds)
    for ridge, mean, colour, fog, far in zip(
        world.ridges, (30, 16, 6), (0x5B7C99, 0x55794F, 0x35522F), (0.55, 0.35, 0.15), (2e4, 4e3, 900), strict=True
    ):
        turn = car.distance / far
        height = mean + ridge[0](bearing + turn) + ridge[1](bearing - turn)
        band = sky[:, -60:]
        _paint(band, (1 - fog) * _rgb(colour) + fog * light.haze, np.clip(height - SKY_ROWS[-60:] + 0.5, 0, 1).astype(np.float32))


def _paint_ground(ground: np.ndarray, car: Car, ahead: tuple[np.ndarray, ...], light: Light) -> None:
    x, z, heading = (along.astype(np.float32) for along in ahead)
    depth = DEPTH[:, 0]
    middle, turn, arc = (np.interp(depth, z, along)[:, None].astype(np.float32) for along in (x, heading, ARCS))
    across = (COLUMNS * PIXEL - middle) * np.cos(turn)
    rows = ((car.distance + arc) / (2 * TEXEL)).astype(int) % TEXELS
    noise = _texture()[rows, (across / TEXEL).astype(np.int32) % TEXELS] * np.exp(-DEPTH / 25)
    grass = _rgb(0x6C8F45) + (0.12 * noise) * _rgb(0xC8D070)
    ground[:] = grass
    width = VERGE_RIGHT - VERGE_LEFT
    centre = (VERGE_RIGHT + VERGE_LEFT) / 2
    _paint(ground, _rgb(0xA79C80), _band(across, centre, width + 0.9, PIXEL))
    _paint(ground, _rgb(0x63666B) + 0.012 * noise, _band(across, centre, width, PIXEL))
    edge = _band(across, LANE / 2, LINE, PIXEL) + _band(across, -1.5 * LANE, LINE, PIXEL)
    dashes = _dashes(car.distance + arc - PIXEL_DEPTH / 2, PIXEL_DEPTH)
    _paint(ground, _rgb(0xF2F2EA), edge + dashes * _band(across, -LANE / 2, LINE, PIXEL))
    _paint(ground, light.haze, HAZE)


class Thing(NamedTuple):
    """Something beside the road, seen as a silhouette: half-widths and colours over its height."""

    offset: float
    height: float
    heights: tuple[float, ...]
    widths: tuple[float, ...]
    colours: tuple[int, ...]


THINGS = (
    ((0, 0.15, 0.16, 1), (0.03, 0.03, 0.22, 0.0), (0x5A4634, 0x5A4634, 0x23462D, 0x3E6B3A)),  # conifer
    ((0, 0.3, 0.31, 0.4, 0.6, 0.8, 0.93, 1), (0.035, 0.03, 0.14, 0.3, 0.37, 0.31, 0.18, 0.0),
     (0x6A5138, 0x6A5138, 0x3A5F2B, 0x436B2E, 0x4F7B35, 0x5E8C3E, 0x6C9A48, 0x6C9A48)),  # tree
    ((0, 0.6, 0.61, 1), (0.6, 0.6, 0.7, 0.3), (0xDCCFB4, 0xE6DAC2, 0x9C4A36, 0xB05A42)),  # house
    ((0, 0.7, 0.71, 0.85, 0.86, 1), (0.06,) * 6, (0xE8E8E8, 0xE8E8E8, 0x202020, 0x202020, 0xE8E8E8, 0xE8E8E8)),  # post
)  # fmt: skip


@lru_cache(maxsize=256)
def _things(seed: int, cell: int) -> tuple[Thing, ...]:
    """What stands on the left and on the right of a cell of the road."""
    rng = np.random.default_rng((seed, cell))
    things = []
    for verge, side in ((VERGE_LEFT, -1), (VERGE_RIGHT, 1)):
        kind = rng.choice(4, p=(0.35, 0.4, 0.1, 0.15))
        low, high, near, far = ((5, 10, 4, 22), (5, 9, 5, 20), (4, 6, 12, 22), (1, 1, 1, 1))[kind]
        things.append(Thing(verge + side * rng.uniform(near, far), rng.uniform(low, high), *THINGS[kind]))
    return tuple(things)


def _paint_things(picture: np.ndarray, world: World, car: Car, ahead: tuple[np.ndarray, ...], light: Light) -> None:
    near = int(car.distance // CELL) + 1
    for cell in range(near + int(SCENERY_VIEW / CELL), near - 1, -1):
        arc = cell * CELL - car.distance
        x, z, turn = (float(np.interp(arc, ARCS, along)) for along in ahead)
        for thing in _things(world.seed, cell):
            depth = z - thing.offset * math.sin(turn)
            if depth > 3:
                _paint_thing(picture, thing, x + thing.offset * math.cos(turn), depth, arc, light)


def _paint_thing(picture: np.ndarray, thing: Thing, x: float, depth: float, arc: float, light: Light) -> None:
    scale = FOCAL_LENGTH / depth
    foot = HORIZON + CAMERA_HEIGHT * scale
    top = foot - thing.height * scale
    middle = WIDTH / 2 + x * scale
    reach = max(thing.widths) * thing.height * scale + 1
    y0, y1 = max(int(top), 0), min(math.ceil(foot), HEIGHT)
    x0, x1 = max(int(middle - reach), 0), min(math.ceil(middle + reach), WIDTH)
    if x0 >= x1 or y0 >= y1:
        return
    rows = np.arange(y0, y1, dtype=np.float32)[:, None]
    height = (foot - rows - 0.5) / (thing.height * scale)
    half = (np.interp(height, thing.heights, thing.widths) * thing.height * scale).astype(np.float32)
    palette = np.concatenate([_rgb(c)[:, :, 0] for c in thing.colours], 1)
    colour = np.stack([np.interp(height, thing.heights, c) for c in palette]).astype(np.float32)
    haze = 1 - math.exp(-depth / 220)
    colour = (1 - haze) * colour + haze * light.haze
    columns = np.arange(x0, x1, dtype=np.float32) + (0.5 - middle)
    cover = np.clip(half + 0.5 - np.abs(columns), 0, np.minimum(1, 2 * half))
    cover *= np.clip(foot - rows, 0, 1) * np.clip(rows + 1 - top, 0, 1) * min(1, (SCENERY_VIEW - arc) / 40)
    shade = 1 - 0.2 * np.clip(columns / (half + 1), -1, 1)
    _paint(picture[:, y0:y1, x0:x1], colour * shade, cover)


ARCS = np.linspace(0, VIEW, 321)


def render(world: World, car: Car) -> np.ndarray:
    """What the dashboard camera sees: (256, 455, 3) uint8 RGB."""
    picture = np.empty((3, HEIGHT, WIDTH), np.float32)
    now = light(world, car.time)
    ahead = road_ahead(world, car, ARCS)
    _paint_sky(picture[:, :HORIZON], world, car, now)
    _paint_ground(picture[:, HORIZON:], car, ahead, now)
    _paint_things(picture, world, car, ahead, now)
    np.clip(picture * (255 * now.exposure), 0, 255, out=picture)
    return np.ascontiguousarray(picture.astype(np.uint8).transpose(1, 2, 0))


def drive(frames: int, seed: int) -> Iterator[tuple[np.ndarray, float]]:
    """Drive a seed's road at 20 frames per second.

    Yields:
        (256, 455, 3) uint8 RGB image, and the angle of the steering wheel in degrees, positive to the right.
    """
    road = world(seed)
    for car in itertools.islice(trajectory(road), frames):
        yield render(road, car), math.degrees(car.steering) * STEERING_RATIO
