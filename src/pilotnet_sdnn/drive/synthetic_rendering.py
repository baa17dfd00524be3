"""What the dashboard camera of the synthetic drive sees.

The picture is an inverse perspective lookup of flat ground, with silhouettes standing on it. Units and signs are
those of synthetic_world.
"""

import math
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np

from pilotnet_sdnn.drive.synthetic_world import FRAME_RATE, SPEED, Car, Path, World, look_ahead

WIDTH, HEIGHT = 455, 256  # pixels
HORIZON = 104  # row
FOCAL_LENGTH = 380.0  # pixels: 62 degrees of view
CAMERA_HEIGHT = 1.3

LANE = 3.5  # width; the middle of this lane is the road's reference line, the oncoming lane is left of it
ROAD, ROAD_MIDDLE = 2 * LANE + 1.2, -LANE / 2
LINE = 0.15
DASH, DASH_PERIOD = 3.0, 9.0

ARCS = np.linspace(0, 320, 321)  # distances along the road at which its course is computed
CELL = 10.0  # length of road with one object on either side
OBJECT_VIEW = 130.0  # distance up to which objects are drawn
TEXELS, TEXEL = 512, 0.08  # texels a side (a power of two), and size of one on the ground
HAZE = 200.0  # distance at which haze has replaced most of the colour

# Pixels, and where the rays through their middles meet the ground.
COLUMNS = np.arange(WIDTH, dtype=np.float32) + (0.5 - WIDTH / 2)
SKY_ROWS = HORIZON - 0.5 - np.arange(HORIZON, dtype=np.float32)[:, None]  # above the horizon
GROUND_ROWS = np.arange(HEIGHT - HORIZON, dtype=np.float32)[:, None] + 0.5  # below it
DEPTH = FOCAL_LENGTH * CAMERA_HEIGHT / GROUND_ROWS
PIXEL = DEPTH / FOCAL_LENGTH  # width of a pixel on the ground
PIXEL_LENGTH = DEPTH / GROUND_ROWS  # its length there
MOTION = SPEED / FRAME_RATE / 2  # distance driven while the shutter is open

# Processors round these functions differently in single precision. Rounding from double makes them agree.
BEARINGS = np.arctan(COLUMNS / FOCAL_LENGTH, dtype=float)
BLUENESS = np.power(SKY_ROWS / HORIZON, 0.8, dtype=float).astype(np.float32)
CLOUD_ROWS = 150 * np.log(SKY_ROWS[:, 0] + 40, dtype=float)  # flatter towards the horizon, like distant clouds
GRAIN = np.exp(-DEPTH / 30, dtype=float).astype(np.float32)
FOG = 0.65 * (1 - np.exp(-DEPTH / HAZE, dtype=float)).astype(np.float32)


def _rgb(code: int) -> np.ndarray:
    """(3, 1, 1) colour, in [0, 1], of 0xRRGGBB."""
    return np.array([code >> 16, code >> 8 & 255, code & 255], np.float32).reshape(3, 1, 1) / 255


BLUE, GREY, CLOUD = _rgb(0x3F7FCB), _rgb(0x8E9DAE), _rgb(0xF6F8FA)
CLEAR_HAZE, GREY_HAZE = _rgb(0xCFE3F2), _rgb(0xC3C9CC)
GRASS, DRY_GRASS, GRAVEL, ASPHALT, PAINT = (_rgb(c) for c in (0x6C8F45, 0xC8D070, 0xA79C80, 0x63666B, 0xF2F2EA))
# Farthest first: mean height in pixels, colour, haze, and the distance driven while it turns by a radian.
RIDGES = (
    (30, _rgb(0x5B7C99), 0.55, 2e4),
    (16, _rgb(0x55794F), 0.35, 4e3),
    (6, _rgb(0x35522F), 0.3, 9e2),
)


def _silhouette(heights: tuple[float, ...], widths: tuple[float, ...], *colours: int) -> np.ndarray:
    """(4, 256) width (in units of the height) and colour, from foot to top."""
    columns = [np.array(widths), *np.stack([_rgb(c)[:, 0, 0] for c in colours], 1)]
    return np.stack([np.interp(np.linspace(0, 1, 256), heights, c) for c in columns]).astype(np.float32)


class ObjectKind(NamedTuple):
    """A kind of object beside the road."""

    heights: tuple[float, float]  # minimum and maximum
    distances: tuple[float, float]  # minimum and maximum, from the edge of the road
    silhouette: np.ndarray


CONIFER = ObjectKind((5, 10), (4, 22), _silhouette(
    (0, 0.15, 0.16, 1), (0.06, 0.06, 0.44, 0.0), 0x5A4634, 0x5A4634, 0x23462D, 0x3E6B3A,
))  # fmt: skip
TREE = ObjectKind((5, 9), (5, 20), _silhouette(
    (0, 0.3, 0.31, 0.35, 0.45, 0.62, 0.8, 0.92, 0.98, 1), (0.07, 0.05, 0.25, 0.45, 0.66, 0.76, 0.64, 0.4, 0.18, 0.0),
    0x6A5138, 0x6A5138, 0x35592A, 0x3A5F2B, 0x436B2E, 0x4F7B35, 0x5E8C3E, 0x6C9A48, 0x6C9A48, 0x6C9A48,
))  # fmt: skip
HOUSE = ObjectKind((4, 6), (12, 22), _silhouette(
    (0, 0.6, 0.61, 1), (1.2, 1.2, 1.4, 0.6), 0xDCCFB4, 0xE6DAC2, 0x9C4A36, 0xB05A42,
))  # fmt: skip
POST = ObjectKind((1, 1), (0.8, 1.2), _silhouette(
    (0, 0.7, 0.71, 0.85, 0.86, 1), (0.12,) * 6, 0xE8E8E8, 0xE8E8E8, 0x202020, 0x202020, 0xE8E8E8, 0xE8E8E8,
))  # fmt: skip
KINDS = (CONIFER,) * 3 + (TREE,) * 4 + (HOUSE,) + (POST,) * 2


@lru_cache(maxsize=256)
def _objects(seed: int, cell: int) -> list[tuple[np.ndarray, float, float]]:
    """Silhouette, height and offset of the objects on either side of a cell of the road."""
    rng = np.random.default_rng((seed, cell))
    objects = []
    for side in (-1, 1):
        kind = KINDS[int(rng.uniform(0, len(KINDS)))]
        offset = ROAD_MIDDLE + side * (ROAD / 2 + rng.uniform(*kind.distances))
        objects.append((kind.silhouette, rng.uniform(*kind.heights), offset))
    return objects


@cache
def _texture() -> np.ndarray:
    """(TEXELS, TEXELS) periodic noise with zero mean and unit variance, equally strong at every scale."""
    cycles = np.hypot(*np.meshgrid(np.fft.fftfreq(TEXELS), np.fft.rfftfreq(TEXELS), indexing="ij")) * TEXELS
    amplitude = np.where((cycles >= 2) & (cycles <= 40), 1 / np.maximum(cycles, 1), 0)
    phase = np.random.default_rng(0).uniform(0, 2 * math.pi, cycles.shape)
    noise = np.fft.irfft2(amplitude * np.exp(1j * phase))
    return (noise / noise.std()).astype(np.float32)


def _blend(picture: np.ndarray, colour: np.ndarray, cover: np.ndarray | float) -> None:
    """Blend a colour into (3, H, W) of picture; `cover` is its opacity, 0 to 1."""
    picture += cover * (colour - picture)


def _band(x: np.ndarray, middle: float, width: np.ndarray | float, pixel: np.ndarray | float) -> np.ndarray:
    """Share of each pixel at `x` that a band covers."""
    overlap = np.minimum((width + pixel) / 2 - np.abs(x - middle), np.minimum(width, pixel))
    return np.maximum(overlap, 0) / pixel


def _dashes(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Painted share of the middle line over `length` from `start`."""

    def painted(arc: np.ndarray) -> np.ndarray:
        return np.floor(arc / DASH_PERIOD) * DASH + np.minimum(arc % DASH_PERIOD, DASH)

    return (painted(start + length) - painted(start)) / length


def _paint_sky(sky: np.ndarray, world: World, car: Car, overcast: float, haze: np.ndarray) -> None:
    sky[:] = haze
    _blend(sky, (1 - overcast) * BLUE + overcast * GREY, BLUENESS)
    bearing = car.heading + BEARINGS
    rows = CLOUD_ROWS.astype(int) & (TEXELS - 1)
    columns = (bearing * (0.5 * FOCAL_LENGTH) + 2 * car.time).astype(int) & (TEXELS - 1)
    clouds = np.clip(_texture()[rows][:, columns] * 0.4 - 0.2 + 0.3 * overcast, 0, 0.8)
    _blend(sky, CLOUD, clouds * np.sqrt(SKY_ROWS / HORIZON))
    skyline, altitude = sky[:, -64:], SKY_ROWS[-64:]
    for (left, right), (mean, colour, fog, radian) in zip(world.ridges, RIDGES, strict=True):
        passed = car.distance / radian
        top = (mean + left(bearing + passed) + right(bearing - passed)).astype(np.float32)
        _blend(skyline, (1 - fog) * colour + fog * haze, np.clip(top - altitude + 0.5, 0, 1))


def _paint_ground(ground: np.ndarray, car: Car, path: Path, haze: np.ndarray) -> None:
    middle, turn, arc = (np.interp(DEPTH, path.z, along) for along in (path.x, path.heading, ARCS))
    across = (COLUMNS * PIXEL - middle.astype(np.float32)) * np.cos(turn).astype(np.float32)
    # Extent of a pixel across the road: its width or, where the road runs diagonally, its length if that is larger.
    aslant = COLUMNS / FOCAL_LENGTH - np.tan(turn).astype(np.float32)
    pixel = np.maximum(PIXEL, np.abs(aslant) * PIXEL_LENGTH)
    # Half the resolution along the road, so that the passing ground does not flicker.
    rows = ((car.distance + arc) / (2 * TEXEL)).astype(int) & (TEXELS - 1)
    columns = (across / TEXEL).astype(np.int32) & (TEXELS - 1)
    noise = _texture().take(rows * TEXELS + columns) * GRAIN
    ground[:] = GRASS
    ground += DRY_GRASS * (0.1 * noise)
    _blend(ground, GRAVEL, _band(across, ROAD_MIDDLE, ROAD + 0.9, pixel))
    _blend(ground, ASPHALT + 0.015 * noise, _band(across, ROAD_MIDDLE, ROAD, pixel))
    blur = PIXEL_LENGTH + MOTION
    dashes = _dashes(car.distance + arc - blur / 2, blur).astype(np.float32)
    edges = _band(np.abs(across - ROAD_MIDDLE), LANE, LINE, pixel)
    _blend(ground, PAINT, edges + dashes * _band(across, ROAD_MIDDLE, LINE, pixel))
    _blend(ground, haze, FOG)


def _paint_objects(picture: np.ndarray, world: World, car: Car, path: Path, haze: np.ndarray) -> None:
    nearest = int(car.distance // CELL) + 1
    for cell in reversed(range(nearest, nearest + int(OBJECT_VIEW / CELL))):
        arc = cell * CELL - car.distance
        place = Path(*(np.interp(arc, ARCS, along) for along in path))
        for silhouette, height, offset in _objects(world.seed, cell):
            x, z = (float(coordinate) for coordinate in place.beside(offset))
            if z > 3:  # nearer objects are out of the picture
                _paint_object(picture, silhouette, height, x, z, haze, min(1, (OBJECT_VIEW - arc) / 30))


def _paint_object(
    picture: np.ndarray, silhouette: np.ndarray, height: float, x: float, z: float, haze: np.ndarray, fade: float
) -> None:
    """Paint an object of this height that stands at x and z."""
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
    _blend(picture[:, up:down, left:right], colour, cover)


def render(world: World, car: Car) -> np.ndarray:
    """The camera image: (256, 455, 3) uint8 RGB."""
    overcast = 0.5 + 0.5 * math.tanh(float(world.weather(car.time)))
    haze = (1 - overcast) * CLEAR_HAZE + overcast * GREY_HAZE
    path = look_ahead(world, car, ARCS)
    picture = np.empty((3, HEIGHT, WIDTH), np.float32)
    _paint_sky(picture[:, :HORIZON], world, car, overcast, haze)
    _paint_ground(picture[:, HORIZON:], car, path, haze)
    _paint_objects(picture, world, car, path, haze)
    picture *= 255 * math.exp(float(world.exposure(car.time)))
    return np.stack([*np.clip(picture, 0, 255, out=picture).astype(np.uint8)], axis=-1)
