"""From whatever colours an image file has to 8-bit RGB. Pure.

    rgb = to_rgb(picture)       # raises ImageRefusedError, as all that is done to one file's bytes

Grey of more than 8 bits goes by the range of its file format, never by the range one image happens to use: images that
were lit alike must stay alike.
"""

import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WHITE = (255, 255, 255)
TIFF_BITS, TIFF_DESCRIPTION, TIFF_MAXIMA = 258, 270, (281, 341)
OME_BITS = re.compile(r'\bSignificantBits="(\d+)"')


class ImageRefusedError(Exception):
    """Why a file can't be used as an image."""


def to_rgb(picture: Image.Image) -> Image.Image:
    """8-bit RGB, transparency laid on white as a slide is seen."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(picture), _bits(picture)), "L").convert("RGB")
    try:
        if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
            layer = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", layer.size, (*WHITE, 255)), layer)
        return picture.convert("RGB")
    except ValueError as error:
        raise ImageRefusedError(f"colours can't be converted from mode {picture.mode}: {error}") from error


def _bits(picture: Image.Image) -> int:
    """How many bits of each pixel the camera fills, if a TIFF says so; else 16.

    By the letter a TIFF's maximum is that of its pixels, by which no brightness may be scaled; where it is 4095, it
    means 12 bits. PNG's sBIT is nothing of the kind: its pixels are scaled to 16 bits already.
    """
    tags = getattr(picture, "tag_v2", {})
    said = OME_BITS.search(str(tags.get(TIFF_DESCRIPTION, "")))
    bits = {int(said[1]) if said else 0, tags.get(TIFF_BITS, (16,))[0]}
    maxima = {tags.get(tag, (0,))[0] for tag in TIFF_MAXIMA}
    return next((fewer for fewer in range(9, 16) if fewer in bits or (1 << fewer) - 1 in maxima), 16)


def _eight_bits(values: NDArray[np.generic], bits: int) -> NDArray[np.uint8]:
    """Grey to 8 bits by the full range of `bits`, never by the range one image happens to use."""
    if values.dtype.kind == "f":
        raise ImageRefusedError("floating-point pixels without a known range")
    wide = values.astype(np.int64)
    if wide.min() < 0 or wide.max() > 65535:
        raise ImageRefusedError("more than 16 bits per pixel, or negative ones")
    top = (1 << bits) - 1
    top = 65535 if wide.max() > top else top  # then it was said in error
    return np.asarray((wide * 255 + top // 2) // top, dtype=np.uint8)
