"""A drive as a video: what the camera sees, how the network steers, and which neurons send events."""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import imageio.v3 as iio
import matplotlib as mpl
import numpy as np
import torch
from PIL import Image, ImageColor, ImageDraw, ImageFont

from pilotnet_sdnn.drive.synthetic_world import FRAME_RATE
from pilotnet_sdnn.files import atomic_write
from pilotnet_sdnn.sdnn import kernels
from pilotnet_sdnn.sdnn.geometry import fan_out, layer_geometries
from pilotnet_sdnn.sdnn.network import Network

KINDS = (".mp4", ".gif")
SIZE = (1280, 720)

BACKGROUND, PANEL, TEXT, FAINT = "#11151c", "#1d2430", "#f2f4f8", "#8d97a8"
POSITIVE, NEGATIVE, LABEL, PREDICTION, BASELINE = "#ffa62b", "#37b6ff", "#c9d1de", "#7bd88f", "#5b6577"
PARTS = {"test": "#7bd88f", "training": "#ffa62b", "unused": "#c9d1de"}
PALETTE = np.array([ImageColor.getrgb(c) for c in (PANEL, POSITIVE, BACKGROUND, NEGATIVE)], np.uint8)  # by sign
GAP = 2  # index in the palette of what separates maps

CAMERA = (20, 20, 768, 432)  # left, top, width, height
COLUMN = (812, 1260)  # left and right edge of the column beside it
WHEEL = 160  # pixels
TRACE_SECONDS = 10
MAPS = ((20, 1, 2), (266, 4, 2), (710, 4, 3), (1056, 4, 2))  # of layer-0 to layer-3: left edge, maps in a row, scale
MAPS_TOP = 496


class Moment(NamedTuple):
    """What the network does in one frame."""

    angle: float  # radians
    events: list[np.ndarray]  # of layer-0 to layer-3, (C, H, W) int8: the sign of what each neuron sent, or 0
    synops: int


class Scene(NamedTuple):
    """All that the video shows of one frame."""

    camera: Image.Image
    label: float | None  # radians; None: there is no label
    part: str | None  # of the split: test, training or unused; None: not of the dataset
    name: str  # of the frame in its drive, or the second if it has none
    moment: Moment


@torch.no_grad()
def watch(network: Network, chunks: Iterable[np.ndarray], kernel: str, restarted: bool) -> Iterator[Moment]:
    """Run the network over consecutive frames.

    Args:
        network: in evaluation mode.
        chunks: the frames, (T, 33, 100, 3) uint8 each.
        kernel: "native" or "torch".
        restarted: the network starts from rest with every chunk; otherwise it carries its state from chunk to chunk.
    """
    fan_outs = [fan_out(source, target).flatten().double() for source, target in pairwise(layer_geometries(network))]
    state = None
    for chunk in chunks:
        output, messages, after = kernels.stream(network, torch.from_numpy(chunk)[None], kernel, state)
        state = None if restarted else after
        sent = [(message[0] != 0).flatten(1).double() for message in messages]
        synops = torch.stack([s @ fans for s, fans in zip(sent, fan_outs, strict=True)]).sum(0)
        signs = [message[0].sign().to(torch.int8).numpy() for message in messages[: len(MAPS)]]
        for t, angle in enumerate(output.angles[0].tolist()):
            yield Moment(angle, [sign[t] for sign in signs], int(synops[t]))


def pictures(scenes: Iterable[Scene], macs: int, origin: str, note: str) -> Iterator[Image.Image]:
    """The frames of the video, of SIZE.

    Args:
        scenes: in the order of time.
        macs: of the ANN baseline, in every frame.
        origin: which drive this is.
        note: a line below the count of operations.
    """
    synops = 0
    trace: deque[tuple[float | None, float]] = deque(maxlen=TRACE_SECONDS * FRAME_RATE)
    for count, scene in enumerate(scenes, 1):
        synops += scene.moment.synops
        trace.append((scene.label, scene.moment.angle))
        image = Image.new("RGB", SIZE, BACKGROUND)
        draw = ImageDraw.Draw(image)
        draw_camera(image, draw, scene, origin)
        draw_wheels(image, draw, scene)
        draw_trace(draw, np.degrees(np.array(trace, float)))  # None becomes NaN
        draw_operations(draw, scene.moment.synops, synops, count, macs)
        draw.text((COLUMN[0], 446), note, FAINT, font(12))
        draw_events(image, draw, scene.moment.events)
        yield image


def draw_camera(image: Image.Image, draw: ImageDraw.ImageDraw, scene: Scene, origin: str) -> None:
    """The camera's picture, with the drive's name and the part of the split that the frame belongs to."""
    left, top, width, height = CAMERA
    scale = min(width / scene.camera.width, height / scene.camera.height)
    size = round(scene.camera.width * scale), round(scene.camera.height * scale)
    image.paste(scene.camera.resize(size, Image.Resampling.BILINEAR), (left, top))
    if scene.part:
        plate(draw, (left + 10, top + 10), f"{scene.part} frame", PARTS[scene.part])
    plate(draw, (left + 10, top + size[1] - 34), f"{origin}   {scene.name}", TEXT)


def plate(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, color: str) -> None:
    """Text on a dark background, readable on any picture."""
    x, y, right, bottom = draw.textbbox((corner[0] + 8, corner[1] + 4), text, font(14))
    draw.rounded_rectangle((x - 8, y - 5, right + 8, bottom + 5), 4, BACKGROUND)
    draw.text((corner[0] + 8, corner[1] + 4), text, color, font(14))


def draw_wheels(image: Image.Image, draw: ImageDraw.ImageDraw, scene: Scene) -> None:
    """The steering wheel as labelled and as predicted; angles are positive to the right."""
    left, right = COLUMN
    for centre, angle, name, color in (
        (left + (right - left) // 4, scene.label, "label", LABEL),
        (right - (right - left) // 4, scene.moment.angle, "prediction", PREDICTION),
    ):
        if angle is None:
            continue
        degrees = math.degrees(angle)
        turned = wheel(color).rotate(-degrees, Image.Resampling.BICUBIC)
        image.paste(turned, (centre - WHEEL // 2, 20), turned)
        draw.text((centre, 190), f"{degrees:+.1f}°", color, font(22), anchor="mt")
        draw.text((centre, 218), name, FAINT, font(14), anchor="mt")


def draw_trace(draw: ImageDraw.ImageDraw, degrees: np.ndarray) -> None:
    """The last seconds of label and prediction, (N, 2) degrees, the newest at the right; NaN: there is no label."""
    left, right = COLUMN
    top, bottom = 250, 326
    draw.rectangle((left, top, right, bottom), PANEL)
    reach = max(20.0, float(np.nanmax(np.abs(degrees))))
    draw.line((left, (top + bottom) / 2, right, (top + bottom) / 2), BASELINE)
    draw.text((left + 6, top + 3), f"last {TRACE_SECONDS} s, ±{reach:.0f}°", FAINT, font(11))
    x = right - (len(degrees) - 1 - np.arange(len(degrees))) * (right - left) / (TRACE_SECONDS * FRAME_RATE - 1)
    y = (top + bottom) / 2 - degrees / reach * ((bottom - top) / 2 - 4)
    for series, color, thickness in ((0, LABEL, 3), (1, PREDICTION, 2)):
        if not np.isnan(y[:, series]).any():
            draw.line(list(zip(x, y[:, series], strict=True)), color, thickness)


def draw_operations(draw: ImageDraw.ImageDraw, synops: int, total: int, frames: int, macs: int) -> None:
    """Operations of this frame as bars, and totals of all frames so far."""
    left, right = COLUMN
    for y, name, count, color in ((340, "synops", synops, PREDICTION), (370, "MACs", macs, BASELINE)):
        draw.text((left, y + 10), name, TEXT, font(14), anchor="lm")
        start, end = left + 70, right - 95
        draw.rectangle((start, y, end, y + 20), PANEL)
        draw.rectangle((start, y, start + min(1, count / macs) * (end - start), y + 20), color)
        draw.text((right, y + 10), f"{count:,}", TEXT, font(14), anchor="rm")
    fewer = f"{frames * macs / total:.1f}x fewer" if total else "no events"
    draw.text((left, 399), f"{total / 1e6:,.1f} million synops", PREDICTION, font(15))
    draw.text((right, 411), fewer, TEXT, font(26), anchor="rm")
    draw.text((left, 422), f"{frames * macs / 1e6:,.1f} million MACs of the ANN baseline", FAINT, font(13))


def draw_events(image: Image.Image, draw: ImageDraw.ImageDraw, events: list[np.ndarray]) -> None:
    """One map per channel of the first layers, one pixel per neuron, coloured by the sign of its event."""
    for number, (signs, (left, columns, scale)) in enumerate(zip(events, MAPS, strict=True)):
        name = "input" if number == 0 else f"layer-{number}"
        draw.text((left, MAPS_TOP - 22), f"{name}: {np.count_nonzero(signs):,} of {signs.size:,} sent", TEXT, font(13))
        image.paste(Image.fromarray(PALETTE[tiled(signs, columns)].repeat(scale, 0).repeat(scale, 1)), (left, MAPS_TOP))
    left, bottom = MAPS[-1][0], SIZE[1] - 18
    for y, text, color in ((bottom - 22, "rose by its threshold or more", POSITIVE), (bottom, "fell", NEGATIVE)):
        draw.rectangle((left, y - 5, left + 10, y + 5), color)
        draw.text((left + 18, y), text, FAINT, font(12), anchor="lm")


def tiled(maps: np.ndarray, columns: int) -> np.ndarray:
    """Maps (C, H, W) as one image of several columns, with gaps of one pixel."""
    count, height, width = maps.shape
    rows = -(-count // columns)
    cells = np.full((rows * columns, height + 1, width + 1), GAP, maps.dtype)
    cells[:count, :-1, :-1] = maps
    grid = cells.reshape(rows, columns, height + 1, width + 1).swapaxes(1, 2)
    return grid.reshape(rows * (height + 1), columns * (width + 1))


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """A font that comes with matplotlib."""
    return ImageFont.truetype(Path(mpl.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


@cache
def wheel(color: str) -> Image.Image:
    """A steering wheel that points straight ahead, on a transparent background."""
    size = 4 * WHEEL  # drawn large and scaled down, for smooth edges
    image = Image.new("RGBA", (size, size), (*ImageColor.getrgb(color), 0))
    draw = ImageDraw.Draw(image)
    middle, hub, rim = size / 2, size * 0.1, size * 0.055
    draw.ellipse((rim / 2, rim / 2, size - rim / 2, size - rim / 2), outline=color, width=round(rim))
    for x, y in ((rim, middle), (size - rim, middle), (middle, size - rim)):
        draw.line((middle, middle, x, y), color, round(rim * 0.9))
    draw.ellipse((middle - hub, middle - hub, middle + hub, middle + hub), color)
    draw.rectangle((middle - rim * 0.5, rim / 2, middle + rim * 0.5, rim * 1.6), POSITIVE)
    return image.resize((WHEEL, WHEEL), Image.Resampling.LANCZOS)


def write_video(path: Path, images: Iterable[Image.Image], rate: float = FRAME_RATE) -> None:
    """Write an mp4, or a gif of half the size, as the name of the file ends.

    Args:
        path: of the file.
        images: of SIZE.
        rate: frames a second.
    """
    with atomic_write(path) as temporary:
        if path.suffix == ".gif":
            _write_gif(temporary, images, rate)
            return
        with iio.imopen(temporary, "w", plugin="pyav", container="mp4") as video:
            video.init_video_stream("libx264", fps=round(rate * 64) / 64)  # a float that is a short fraction
            for image in images:
                video.write_frame(np.asarray(image))


def _write_gif(path: Path, images: Iterable[Image.Image], rate: float) -> None:
    small = (image.resize((SIZE[0] // 2, SIZE[1] // 2), Image.Resampling.LANCZOS) for image in images)
    first = next(small := iter(small)).quantize(dither=Image.Dither.NONE)
    rest = (image.quantize(palette=first, dither=Image.Dither.NONE) for image in small)
    first.save(path, "GIF", save_all=True, append_images=rest, duration=round(1000 / rate), loop=0)
