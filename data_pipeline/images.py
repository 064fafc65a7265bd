"""One image file's bytes → pixels → the bytes that are stored. Pure: no path, no flag.

    image = decode(data)                      # raises ImageRefusedError with a reason a person understands
    stored = encode_for_training(data, size_px=256)

Decoding is always of the whole file: `Image.verify()` accepts a JPEG that is cut in half.
"""

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 100_000_000
EXIF_ORIENTATION = 0x0112
# Formats Pillow decodes by itself. Others it would hand to programs outside, or guess from next to nothing.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG2000", "PPM")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Modes of files that TensorFlow decodes to the same 8-bit RGB picture (JPEG decoders differ in rounding alone).
PLAIN_MODES = {"JPEG": ("RGB", "L"), "PNG": ("RGB", "L")}
WHITE = (255, 255, 255)

Encoding = Literal["jpeg", "png"]


class ImageRefusedError(Exception):
    """Why a file can't be used as an image."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """`pixels` is `[height, width, 3] uint8`; `plain` says that the file can be stored as it is."""

    pixels: NDArray[np.uint8]
    format: str
    mode: str
    plain: bool


def decode(data: bytes) -> DecodedImage:
    """Decode any image file to upright 8-bit RGB. Raises `ImageRefusedError`."""
    picture = _load(data, draft_px=None)
    source_format, source_mode = picture.format or "", picture.mode
    plain = source_mode in PLAIN_MODES.get(source_format, ()) and _is_upright(picture)
    plain = plain and "transparency" not in picture.info and getattr(picture, "n_frames", 1) == 1
    return DecodedImage(np.asarray(_to_rgb(picture)), source_format, source_mode, plain)


def pixel_hash(pixels: NDArray[np.uint8]) -> str:
    """Equal for equal pixels, whatever the file format: XXH3 of 128 bits over shape and pixels."""
    shape = np.asarray(pixels.shape, dtype="<i8").tobytes()
    return xxhash.xxh3_128_hexdigest(shape + np.ascontiguousarray(pixels).tobytes())


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """`[height, width, 3] uint8` as a PNG file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def fits(width: int, height: int, format: str, *, size_px: int, encoding: Encoding) -> bool:
    """Whether a plain image file is stored as it is: of the right size, and not lossy where lossless is asked for."""
    return width == height == size_px and not (encoding == "png" and format == "JPEG")


def encode_for_training(data: bytes, *, size_px: int, encoding: Encoding = "jpeg", quality: int = 95) -> bytes:
    """The image in `data`, resized to a square of `size_px` and encoded once.

    Resizing is bilinear with antialiasing (Pillow widens the filter when it shrinks) and ignores the aspect ratio, as
    `flow_from_directory(target_size=…)` does. Chroma isn't subsampled: stain is colour.
    """
    resized = _to_rgb(_load(data, draft_px=2 * size_px)).resize((size_px, size_px), Image.Resampling.BILINEAR)
    out = io.BytesIO()
    if encoding == "png":
        resized.save(out, "PNG")
    else:
        resized.save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


def _load(data: bytes, *, draft_px: int | None) -> Image.Image:
    """The picture, all its pixels read. A JPEG much larger than `draft_px` is decoded at a fraction of its size."""
    if not data:
        raise ImageRefusedError("empty file")
    if data.startswith(b"version https://git-lfs"):
        raise ImageRefusedError("a Git LFS pointer, not the image itself: run `git lfs pull`")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise ImageRefusedError(f"{width} × {height} pixels: too large for one image, cut it into tiles")
            if draft_px is not None and picture.format == "JPEG":
                picture.draft(None, (draft_px, draft_px))
            picture.load()
            if picture.format == "PNG":
                _check_png(data)
    except ImageRefusedError:
        raise
    except UnidentifiedImageError:
        raise ImageRefusedError("not an image in any known format") from None
    except Image.DecompressionBombError:
        raise ImageRefusedError("too large for one image, cut it into tiles") from None
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged input
        raise ImageRefusedError(f"damaged: {_reason(error)}") from error
    return picture


def _check_png(data: bytes) -> None:
    """Raise `ImageRefusedError` unless every chunk's checksum is right and the end is there, which Pillow lets pass."""
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 12 + length
        kind = data[position + 4 : position + 8]
        if end > len(data) or zlib.crc32(data[position + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise ImageRefusedError(f"damaged: the checksum of a PNG chunk ({kind!r}) doesn't match")
        if kind == b"IEND":
            return
        position = end
    raise ImageRefusedError("damaged: the end of the PNG file is missing")


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200] or type(error).__name__


def _is_upright(picture: Image.Image) -> bool:
    return bool(picture.getexif().get(EXIF_ORIENTATION, 1) == 1)


def _to_rgb(picture: Image.Image) -> Image.Image:
    """8-bit RGB, upright, transparency laid on white as a slide is seen."""
    try:
        if picture.mode.startswith(("I", "F")):
            return Image.fromarray(_eight_bits(np.asarray(picture)), "L").convert("RGB")
        if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
            layer = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", layer.size, (*WHITE, 255)), layer)
        if not _is_upright(picture):
            picture = ImageOps.exif_transpose(picture)
        return picture.convert("RGB")
    except ImageRefusedError:
        raise
    except Exception as error:
        raise ImageRefusedError(f"colours can't be converted from mode {picture.mode}: {_reason(error)}") from error


def _eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """16-bit grey to 8-bit by its full range, never by the range one image happens to use."""
    if values.dtype.kind == "f":
        raise ImageRefusedError("floating-point pixels without a known range")
    wide = values.astype(np.int64)
    if wide.min() < 0 or wide.max() > 65535:
        raise ImageRefusedError("more than 16 bits per pixel")
    return np.asarray((wide + 128) // 257, dtype=np.uint8)
