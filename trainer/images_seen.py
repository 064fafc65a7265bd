"""An image file as the served model takes it, so that prediction sees what conversion sees. Pure.

    data = as_seen(file)                        # raises ImageRefusedError with a reason a person understands
    data = as_seen(file, thoroughly=True)       # even if that costs as much as decoding it

TensorFlow decodes it once more, inside the model. So a plain JPEG or PNG isn't decoded here: its head and its segments
say enough. What then is left to be seen, of a JPEG, is data that is missing: `may_lack_data` says of its last pixel
whether it is worth a thorough look.
"""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.image_checks import NO_DATA, is_plain, missing_data
from data_pipeline.images import DEEP, EXIF_ORIENTATION, MAX_PIXELS, as_png, decode

FORMATS = ("JPEG", "PNG")
JPEG_START = b"\xff\xd8"
# Parts of a PNG that may say how it is to be turned.
PNG_NOTES = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
UNPACKED_PIXELS = 4_000_000  # up to which an image is handed over unpacked, which takes more memory and no time


def as_seen(data: bytes, *, thoroughly: bool = False) -> bytes:
    """The file itself where TensorFlow sees in it what conversion sees; else (turned by EXIF, TIFF, 16 bits, …) a file
    with the pixels that conversion sees. Raises `ImageRefusedError`.
    """
    if not thoroughly and _is_plain_by_its_head(data):
        return data
    image = decode(data)
    return data if image.plain else with_pixels(image.pixels)


def pixels_seen(data: bytes) -> bytes:
    """A file with the pixels that conversion sees, whatever `data` is. Raises `ImageRefusedError`."""
    return with_pixels(decode(data).pixels)


def may_lack_data(data: bytes, last_pixel: NDArray[np.uint8]) -> bool:
    """Whether a file that was passed without a thorough look needs one, by its last pixel, `[3] uint8`."""
    return data.startswith(JPEG_START) and set(last_pixel.tolist()) <= NO_DATA


def with_pixels(pixels: NDArray[np.uint8]) -> bytes:
    """`[height, width, 3] uint8` as a file that any decoder turns into just these."""
    if pixels.shape[0] * pixels.shape[1] > UNPACKED_PIXELS:
        return as_png(pixels)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "BMP")
    return out.getvalue()


def _is_plain_by_its_head(data: bytes) -> bool:
    """Whether it is a JPEG or PNG that isn't known to need more; what is damaged always does."""
    try:
        with warnings.catch_warnings(action="ignore"):
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
        if picture.width * picture.height > MAX_PIXELS:
            return False
        if picture.format == "PNG":
            deep = any(DEEP in str(tile.args) for tile in picture.tile)
            if deep or any(note in data for note in PNG_NOTES) or missing_data(picture, data):
                return False
            turn = 1
        else:
            if "progressive" in picture.info:  # of which missing data makes no grey, but blur
                return False
            turn = int(picture.getexif().get(EXIF_ORIENTATION, 1))
        return is_plain(picture, data, mode=picture.mode, orientation=turn)
    except Exception:  # Pillow raises nearly anything on damaged input
        return False
