"""Camera frames: JPEG, PNG, BMP or WebP bytes to upright RGB images."""

import io

import numpy as np
from PIL import Image, ImageOps

from pilotnet_sdnn.errors import UserError

MAX_PIXELS = 40_000_000  # of a frame; 8K video has 33 million
IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")

Image.MAX_IMAGE_PIXELS = None  # MAX_PIXELS is lower, and an error where Pillow's limit begins as a warning


def decode_frame(data: bytes, where: str) -> Image.Image:
    """The RGB image in the bytes of a JPEG, PNG, BMP or WebP, upright.

    The rotation that EXIF tells is applied. Grey, palette and CMYK become RGB, 16 bits become 8, what is
    transparent becomes black, and of an animation the first image counts. Size and shape stay as they are.

    Raises:
        UserError: they are no image, one cut off, or one of more than `MAX_PIXELS`.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
        width, height = image.size
        if width * height <= MAX_PIXELS:
            return _rgb(_upright(image))
    except Exception:  # whatever a library makes of a stranger's bytes, to the user it is one mistake
        raise UserError(f"{where}: not a readable image; mend the frame or remove its label") from None
    raise UserError(f"{where}: an image of {width}x{height} pixels, more than the {MAX_PIXELS:,} allowed")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # EXIF data that cannot be read harm nobody; an image that cannot fails again later
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, which convert() would clip
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return image.convert("RGB")
