"""Camera frames: JPEG, PNG, BMP or WebP bytes to upright RGB images."""

import io
import re

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from pilotnet_sdnn.errors import UserError

MAX_PIXELS = 40_000_000  # of a frame; 8K video has 33 million
MAX_SCANS = 100  # of a JPEG; progressive ones of cameras have about 10
MAX_SCANNED_PIXELS = 10**9  # pixels times scans, some seconds of decoding
MAX_FILL = 1000  # fill bytes between the segments of a JPEG, which Pillow reads one at a time
MAX_SEGMENTS = 1000  # before the image data of a JPEG
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")

# With these warnings, libjpeg-turbo fills in invented pixels. Pillow drops the warnings.
CORRUPT = ("Corrupt JPEG data", "Inconsistent progression sequence")

Image.MAX_IMAGE_PIXELS = None  # MAX_PIXELS is lower, and an error where Pillow's limit begins as a warning


class _RefusedError(Exception):
    """An image that is refused, and why."""


def decode_frame(data: bytes, where: str) -> Image.Image:
    """The upright RGB image in the bytes of a JPEG, PNG, BMP or WebP.

    The EXIF rotation is applied. Grey, palette and CMYK become RGB, 16 bits become 8, transparent pixels black, and an
    animation its first image. Size and shape stay as they are.

    Raises:
        UserError: the bytes are not an image, or it is truncated, corrupt or too expensive to decode.
    """
    try:
        return _decode(data)
    except MemoryError:
        raise
    except _RefusedError as reason:
        raise UserError(f"{where}: {reason}") from None
    except Exception:  # damaged bytes make the libraries raise any of a dozen exceptions
        raise UserError(f"{where}: not a readable image; repair the frame or remove its label") from None


def _decode(data: bytes) -> Image.Image:
    if data.startswith(b"\xff\xd8"):
        image = _decode_jpeg(data)
        if image is not None:
            return image
    image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
    _check_pixels(*image.size)
    return _rgb(_upright(image))


def _decode_jpeg(data: bytes) -> Image.Image | None:
    """The image in an ordinary JPEG, by simplejpeg; None for another, which Pillow has to decode.

    simplejpeg is faster, has the same libjpeg-turbo as Pillow and gives the same bytes (shown by a test and, on a real
    drive, by benchmarks/resize.py). Unlike Pillow, it reports libjpeg-turbo's warnings.
    """
    turned = _may_be_turned(data)
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        _check_pixels(width, height)
        scans = data.count(b"\xff\xda")
        if scans > MAX_SCANS or scans * width * height > MAX_SCANNED_PIXELS:
            raise _RefusedError(f"a JPEG of {width}x{height} pixels in {scans:,} scans, more than allowed")
        pixels = simplejpeg.decode_jpeg(data)
    except ValueError as error:
        if any(warning in str(error) for warning in CORRUPT):
            raise _RefusedError(f"{error}; repair the frame or remove its label") from None
        return None
    return Image.fromarray(pixels) if colours in ("YCbCr", "Gray") and not turned else None


def _may_be_turned(jpeg: bytes) -> bool:
    """Whether there is EXIF or XMP before the image data, in a segment APP1."""
    at, filled, turned = 2, 0, False
    for _ in range(MAX_SEGMENTS):
        end = re.compile(rb"\xff*").match(jpeg, at).end()  # type: ignore[union-attr]
        filled += max(end - at - 1, 0)
        if filled > MAX_FILL:
            raise _RefusedError(f"a JPEG with more than {MAX_FILL:,} fill bytes")
        marker = jpeg[end : end + 1] if end > at else b""
        if marker in (b"", b"\xda"):  # junk, the end, or the start of the image data
            return turned
        turned = turned or marker == b"\xe1"
        at = end + 1 + int.from_bytes(jpeg[end + 1 : end + 3], "big")
    raise _RefusedError(f"a JPEG with more than {MAX_SEGMENTS:,} segments before the image data")


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _RefusedError(f"an image of {width}x{height} pixels, more than the {MAX_PIXELS:,} allowed")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # unreadable EXIF data do no harm; an unreadable image fails again later
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, which convert() would clip
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return image.convert("RGB")
