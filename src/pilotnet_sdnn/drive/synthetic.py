"""A drive for when there is no camera: a car on a winding road, and what its dashboard camera sees.

What varies, from the curvature of the road to the height of the hills, is a sum of sinusoids with seeded
phases. So the road is statistically the same everywhere, is known in closed form at any distance, and a
drive of any length needs no memory. The car is a kinematic bicycle whose driver pursues a point of the
lane ahead. The picture is an inverse perspective lookup of flat ground, with silhouettes put up on it.

Lengths are metres and angles radians, unless they say otherwise; x is to the right and z ahead, and
angles and curvatures are positive to the right.
"""

import itertools
import math
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

FRAME_RATE = 20  # frames/s
WIDTH, HEIGHT = 455, 256  # pixels
HORIZON = 104  # row
FOCAL_LENGTH = 380.0  # pixels, for 62 degrees of view
CAMERA_HEIGHT = 1.3

SPEED = 13.0  # m/s
WHEELBASE = 2.7
STEERING_RATIO = 15.0  # angle of the steering wheel / angle of the road wheels
LOOKAHEAD = 14.0  # where the driver aims

LANE = 3.5  # its middle is the road's line of reference: the oncoming lane is left of it
ROAD, ROAD_MIDDLE = 2 * LANE + 1.2, -LANE / 2
LINE = 0.15
DASH, DASH_PERIOD = 3.0, 9.0

ARCS = np.linspace(0, 320, 321)  # distances along the road at which it is followed
CELL = 10.0  # so much of the road has one thing on either side
THINGS_VIEW = 130.0  # as far as these are drawn
TEXELS, TEXEL = 512, 0.08  # texels a side (a power of two), and size of one on the ground
HAZE = 200.0  # distance at which most of the colour is gone

# Pixels, and where the rays through the middle of them meet the ground.
COLUMNS = np.arange(WIDTH, dtype=np.float32) + (0.5 - WIDTH / 2)
SKY_ROWS = HORIZON - 0.5 - np.arange(HORIZON, dtype=np.float32)[:, None]  # above the horizon
GROUND_ROWS = np.arange(HEIGHT - HORIZON, dtype=np.float32)[:, None] + 0.5  # below it
DEPTH = FOCAL_LENGTH * CAMERA_HEIGHT / GROUND_ROWS
PIXEL = DEPTH / FOCAL_LENGTH  # width of a pixel on the ground
PIXEL_LENGTH = DEPTH / GROUND_ROWS  # its length there
MOTION = SPEED / FRAME_RATE / 2  # how far the car drives while the shutter is open

# Processors differ in how they round these functions in single precision, and agree once double is rounded to it.
BEARINGS = np.arctan(COLUMNS / FOCAL_LENGTH, dtype=float)
BLUENESS = np.power(SKY_ROWS / HORIZON, 0.8, dtype=float).astype(np.float32)
CLOUD_ROWS = 150 * np.log(SKY_ROWS[:, 0] + 40, dtype=float)  # flatter towards the horizon, as clouds are with distance
GRAIN = np.exp(-DEPTH / 30, dtype=float).astype(np.float32)
FOG = 0.65 * (1 - np.exp(-DEPTH / HAZE, dtype=float)).astype(np.float32)


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
        """The waves that have these as their slope."""
        return Waves(self.amplitude * self.wavelength / (2 * math.pi), self.wavelength, self.phase - math.pi / 2)


class World(NamedTuple):
    """The road and the scenery of a seed."""

    seed: int
    curvature: Waves  # 1/m over metres of road
    heading: Waves  # its integral
    wander: Waves  # where in the lane the driver wants to be, over seconds
    exposure: Waves  # logarithm of the brightness, over seconds
    weather: Waves  # from blue to overcast, over seconds
    ridges: tuple[tuple[Waves, Waves], ...]  # the two parts of each one's height in pixels, over bearing


class Car(NamedTuple):
    """What the car does at a frame."""

    time: float  # s
    distance: float  # along the road
    offset: float  # from the middle of the lane
    heading: float
    steering: float  # angle of the road wheels


class Path(NamedTuple):
    """The middle of the lane as seen from the car, at one distance along it or many."""

    x: np.ndarray
    z: np.ndarray
    heading: np.ndarray

    def beside(self, offset: float) -> tuple[np.ndarray, np.ndarray]:
        """The x and z of what stands this far to the right of the path."""
        return self.x + offset * np.cos(self.heading), self.z - offset * np.sin(self.heading)


def build_world(seed: int) -> World:
    """The road and the scenery of a seed."""
    rng = np.random.default_rng(seed)

    def waves(std: float, *wavelengths: float) -> Waves:
        count = len(wavelengths)
        amplitude = np.full(count, std * math.sqrt(2 / count))
        phase = rng.uniform(0, 2 * math.pi, count)
        return Waves(amplitude, np.array(wavelengths) * rng.uniform(0.9, 1.1, count), phase)

    curvature = waves(0.0105, 65, 90, 120, 160)  # short, so that the bends of half a minute balance
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
    """Follow the road from the car on.

    Args:
        arcs: (N,) distances along the road, the first one 0.

    Returns:
        a path of N points, relative to the car.
    """
    # Kept short of a right angle, so that the path is seen at each depth once: past it is out of view.
    heading = np.clip(world.heading(car.distance + arcs) - car.heading, -1.4, 1.4)

    def integral(slope: np.ndarray) -> np.ndarray:
        return np.concatenate([[0.0], np.cumsum((slope[1:] + slope[:-1]) / 2 * np.diff(arcs))])

    x, z = Path(np.zeros(1), np.zeros(1), heading[:1]).beside(-car.offset)
    return Path(x + integral(np.sin(heading)), z + integral(np.cos(heading)), heading)


def pursue(world: World, car: Car) -> float:
    """The angle of the road wheels that takes the car to the point of the lane at which its driver aims.

    A circle leads there: its curvature is 2 x / (x^2 + z^2) (pure pursuit: Coulter 1992, CMU-RI-TR-92-01),
    and that of a bicycle's path is tan(steering) / wheelbase.
    """
    aim = Path(*(along[-1] for along in look_ahead(world, car, np.linspace(0, LOOKAHEAD, 15))))
    x, z = aim.beside(float(world.wander(car.time)))
    return math.atan(WHEELBASE * 2 * x / (x * x + z * z))


def move(world: World, car: Car) -> Car:
    """The car a frame later: a kinematic bicycle, in coordinates along and across the road."""
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
    """Drive on, a `Car` for each frame."""
    car = Car(time=0.0, distance=0.0, offset=0.0, heading=float(world.heading(0)), steering=0.0)
    while True:
        car = car._replace(steering=pursue(world, car))
        yield car
        car = move(world, car)


def _rgb(code: int) -> np.ndarray:
    """(3, 1, 1) colour, in [0, 1], of 0xRRGGBB."""
    return np.array([code >> 16, code >> 8 & 255, code & 255], np.float32).reshape(3, 1, 1) / 255


BLUE, GREY, CLOUD = _rgb(0x3F7FCB), _rgb(0x8E9DAE), _rgb(0xF6F8FA)
CLEAR_HAZE, GREY_HAZE = _rgb(0xCFE3F2), _rgb(0xC3C9CC)
GRASS, DRY_GRASS, GRAVEL, ASPHALT, PAINT = (_rgb(c) for c in (0x6C8F45, 0xC8D070, 0xA79C80, 0x63666B, 0xF2F2EA))
# From the farthest: mean height in pixels, colour, haze, and how far the car drives to see it turn by a radian.
RIDGES = (
    (30, _rgb(0x5B7C99), 0.55, 2e4),
    (16, _rgb(0x55794F), 0.35, 4e3),
    (6, _rgb(0x35522F), 0.3, 9e2),
)


def _silhouette(heights: tuple[float, ...], widths: tuple[float, ...], *colours: int) -> np.ndarray:
    """(4, 256) width and colour from foot to top, in units of the height."""
    columns = [np.array(widths), *np.stack([_rgb(c)[:, 0, 0] for c in colours], 1)]
    return np.stack([np.interp(np.linspace(0, 1, 256), heights, c) for c in columns]).astype(np.float32)


class Kind(NamedTuple):
    """A kind of thing beside the road."""

    heights: tuple[float, float]  # least and most
    distances: tuple[float, float]  # least and most, from the edge of the road
    silhouette: np.ndarray


CONIFER = Kind((5, 10), (4, 22), _silhouette(
    (0, 0.15, 0.16, 1), (0.06, 0.06, 0.44, 0.0), 0x5A4634, 0x5A4634, 0x23462D, 0x3E6B3A,
))  # fmt: skip
TREE = Kind((5, 9), (5, 20), _silhouette(
    (0, 0.3, 0.31, 0.35, 0.45, 0.62, 0.8, 0.92, 0.98, 1), (0.07, 0.05, 0.25, 0.45, 0.66, 0.76, 0.64, 0.4, 0.18, 0.0),
    0x6A5138, 0x6A5138, 0x35592A, 0x3A5F2B, 0x436B2E, 0x4F7B35, 0x5E8C3E, 0x6C9A48, 0x6C9A48, 0x6C9A48,
))  # fmt: skip
HOUSE = Kind((4, 6), (12, 22), _silhouette(
    (0, 0.6, 0.61, 1), (1.2, 1.2, 1.4, 0.6), 0xDCCFB4, 0xE6DAC2, 0x9C4A36, 0xB05A42,
))  # fmt: skip
POST = Kind((1, 1), (0.8, 1.2), _silhouette(
    (0, 0.7, 0.71, 0.85, 0.86, 1), (0.12,) * 6, 0xE8E8E8, 0xE8E8E8, 0x202020, 0x202020, 0xE8E8E8, 0xE8E8E8,
))  # fmt: skip
KINDS = (CONIFER,) * 3 + (TREE,) * 4 + (HOUSE,) + (POST,) * 2


@lru_cache(maxsize=256)
def _things(seed: int, cell: int) -> list[tuple[np.ndarray, float, float]]:
    """The silhouette, height and offset of what is on either side of a cell of the road."""
    rng = np.random.default_rng((seed, cell))
    things = []
    for side in (-1, 1):
        kind = KINDS[int(rng.uniform(0, len(KINDS)))]
        offset = ROAD_MIDDLE + side * (ROAD / 2 + rng.uniform(*kind.distances))
        things.append((kind.silhouette, rng.uniform(*kind.heights), offset))
    return things


@cache
def _texture() -> np.ndarray:
    """(TEXELS, TEXELS) noise that repeats, of zero mean and unit variance, as strong at any scale."""
    cycles = np.hypot(*np.meshgrid(np.fft.fftfreq(TEXELS), np.fft.rfftfreq(TEXELS), indexing="ij")) * TEXELS
    amplitude = np.where((cycles >= 2) & (cycles <= 40), 1 / np.maximum(cycles, 1), 0)
    phase = np.random.default_rng(0).uniform(0, 2 * math.pi, cycles.shape)
    noise = np.fft.irfft2(amplitude * np.exp(1j * phase))
    return (noise / noise.std()).astype(np.float32)


def _lay(picture: np.ndarray, colour: np.ndarray, cover: np.ndarray | float) -> None:
    """Lay a colour over (3, H, W) of picture: entirely where `cover` is 1, in part where it is less."""
    picture += cover * (colour - picture)


def _band(x: np.ndarray, middle: float, width: np.ndarray | float, pixel: np.ndarray | float) -> np.ndarray:
    """How much of each pixel at `x` is covered by a band."""
    overlap = np.minimum((width + pixel) / 2 - np.abs(x - middle), np.minimum(width, pixel))
    return np.maximum(overlap, 0) / pixel


def _dashes(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """How much of the middle line is painted from `start` on."""

    def painted(arc: np.ndarray) -> np.ndarray:
        return np.floor(arc / DASH_PERIOD) * DASH + np.minimum(arc % DASH_PERIOD, DASH)

    return (painted(start + length) - painted(start)) / length


def _paint_sky(sky: np.ndarray, world: World, car: Car, overcast: float, haze: np.ndarray) -> None:
    sky[:] = haze
    _lay(sky, (1 - overcast) * BLUE + overcast * GREY, BLUENESS)
    bearing = car.heading + BEARINGS
    rows = CLOUD_ROWS.astype(int) & (TEXELS - 1)
    columns = (bearing * (0.5 * FOCAL_LENGTH) + 2 * car.time).astype(int) & (TEXELS - 1)
    clouds = np.clip(_texture()[rows][:, columns] * 0.4 - 0.2 + 0.3 * overcast, 0, 0.8)
    _lay(sky, CLOUD, clouds * np.sqrt(SKY_ROWS / HORIZON))
    skyline, altitude = sky[:, -64:], SKY_ROWS[-64:]
    for (left, right), (mean, colour, fog, radian) in zip(world.ridges, RIDGES, strict=True):
        passed = car.distance / radian
        top = (mean + left(bearing + passed) + right(bearing - passed)).astype(np.float32)
        _lay(skyline, (1 - fog) * colour + fog * haze, np.clip(top - altitude + 0.5, 0, 1))


def _paint_ground(ground: np.ndarray, car: Car, path: Path, haze: np.ndarray) -> None:
    middle, turn, arc = (np.interp(DEPTH, path.z, along) for along in (path.x, path.heading, ARCS))
    across = (COLUMNS * PIXEL - middle.astype(np.float32)) * np.cos(turn).astype(np.float32)
    # What a pixel spans across the road: its width, or its length where the road runs aslant, whichever is more.
    aslant = COLUMNS / FOCAL_LENGTH - np.tan(turn).astype(np.float32)
    pixel = np.maximum(PIXEL, np.abs(aslant) * PIXEL_LENGTH)
    # Half the resolution along the road: what moves by must not flicker.
    rows = ((car.distance + arc) / (2 * TEXEL)).astype(int) & (TEXELS - 1)
    columns = (across / TEXEL).astype(np.int32) & (TEXELS - 1)
    noise = _texture().take(rows * TEXELS + columns) * GRAIN
    ground[:] = GRASS
    ground += DRY_GRASS * (0.1 * noise)
    _lay(ground, GRAVEL, _band(across, ROAD_MIDDLE, ROAD + 0.9, pixel))
    _lay(ground, ASPHALT + 0.015 * noise, _band(across, ROAD_MIDDLE, ROAD, pixel))
    blur = PIXEL_LENGTH + MOTION
    dashes = _dashes(car.distance + arc - blur / 2, blur).astype(np.float32)
    edges = _band(np.abs(across - ROAD_MIDDLE), LANE, LINE, pixel)
    _lay(ground, PAINT, edges + dashes * _band(across, ROAD_MIDDLE, LINE, pixel))
    _lay(ground, haze, FOG)


def _paint_things(picture: np.ndarray, world: World, car: Car, path: Path, haze: np.ndarray) -> None:
    nearest = int(car.distance // CELL) + 1
    for cell in reversed(range(nearest, nearest + int(THINGS_VIEW / CELL))):
        arc = cell * CELL - car.distance
        place = Path(*(np.interp(arc, ARCS, along) for along in path))
        for silhouette, height, offset in _things(world.seed, cell):
            x, z = (float(coordinate) for coordinate in place.beside(offset))
            if z > 3:  # nearer ones are out of the picture
                _put_up(picture, silhouette, height, x, z, haze, min(1, (THINGS_VIEW - arc) / 30))


def _put_up(
    picture: np.ndarray, silhouette: np.ndarray, height: float, x: float, z: float, haze: np.ndarray, fade: float
) -> None:
    """Paint a thing of this height that stands at x and z."""
    scale = FOCAL_LENGTH / z
    tall, middle, foot = height * scale, WIDTH / 2 + x * scale, HORIZON + CAMERA_HEIGHT * scale
    reach = silhouette[0].max() * tall / 2
    up, down = max(int(foot - tall), 0), min(math.ceil(foot), HEIGHT)
    left, right = max(int(middle - reach), 0), min(math.ceil(middle + reach), WIDTH)
    if left >= right or up >= down:
        return
    rows = np.arange(up, down, dtype=np.float32)[:, None] + (0.5 - foot)
    columns = np.arange(left, right, dtype=np.float32) + (0.5 - middle)
    profile = silhouette[:, np.clip(rows * (-255 / tall), 0, 255).astype(int)]
    width = profile[0] * tall
    fog = 1 - math.exp(-z / HAZE)
    colour = ((1 - fog) * profile[1:] + fog * haze) * (1 - 0.3 * columns / (width + 1))  # the light is on the left
    cover = fade * _band(rows, -tall / 2, tall, 1) * _band(columns, 0, width, 1)
    _lay(picture[:, up:down, left:right], colour, cover)


def render(world: World, car: Car) -> np.ndarray:
    """What the camera sees: (256, 455, 3) uint8 RGB."""
    overcast = 0.5 + 0.5 * math.tanh(float(world.weather(car.time)))
    haze = (1 - overcast) * CLEAR_HAZE + overcast * GREY_HAZE
    path = look_ahead(world, car, ARCS)
    picture = np.empty((3, HEIGHT, WIDTH), np.float32)
    _paint_sky(picture[:, :HORIZON], world, car, overcast, haze)
    _paint_ground(picture[:, HORIZON:], car, path, haze)
    _paint_things(picture, world, car, path, haze)
    picture *= 255 * math.exp(float(world.exposure(car.time)))
    return np.stack([*np.clip(picture, 0, 255, out=picture).astype(np.uint8)], axis=-1)


def drive(frames: int, seed: int) -> Iterator[tuple[np.ndarray, float]]:
    """Drive along the road of a seed, 20 frames per second.

    Yields:
        (256, 455, 3) uint8 RGB image, and angle of the steering wheel in degrees, positive to the right.
    """
    world = build_world(seed)
    for car in itertools.islice(trajectory(world), frames):
        yield render(world, car), math.degrees(car.steering) * STEERING_RATIO
