"""One image file's bytes → pixels → the bytes that are stored. Pure: no path, no flag.

    image = decode(data)                      # raises ImageRefusedError with a reason a person understands
    prepared = prepare(data, size_px=256)     # the same, and the form in which it is stored

Decoding is always of the whole file: `Image.verify()` accepts a JPEG that is cut in half.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from data_pipeline.image_checks import JPEGS, drawn, is_plain, missing_data
from data_pipeline.image_colours import ImageRefusedError as ImageRefusedError  # for whoever calls `decode`
from data_pipeline.image_colours import to_rgb

MAX_PIXELS = 100_000_000
THUMBNAIL_PX = 64
EXIF_ORIENTATION = 0x0112
# What sets a picture of that orientation upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)
# Those Pillow decodes by itself. Others it would hand to programs outside, or guess from next to nothing.
FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG2000", "PPM")
SEVERAL_PAGES = ", several pages"
DEEP = ";16"  # ends the mode of a file of 16 bits per channel
# (more than this many times the stored size, decode a JPEG at one part in so many of its own). Against decoding all of
# it, on lung tissue and blood cells: one in 2 takes half the CPU time; from 2 to 4 times the mean differs by 0.4 to 1.4
# grey levels and the mean gradient by 0 to -4 %, where storing at quality 95 alone moves 1.2 to 2.3 levels. One in 4 at
# 4 times would move 2.7 levels and sharpen by 19 %, as nothing is left to average; at 10 times it moves 0.5, -2 %.
FRACTIONS = ((24, 8), (10, 4), (2, 2))
# A JPEG that stays as it is needs a grey thumbnail alone. To decode it in grey at one in two takes 0.6 of the time,
# reads all of its data too, and shows real images no more than 1.1 levels another way in any sixteenth.
FRACTION_KEPT = 2

Encoding = Literal["jpeg", "png"]


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """`pixels` is `[height, width, 3] uint8`; `plain` says that the file can be stored as it is."""

    pixels: NDArray[np.uint8]
    plain: bool


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image as it is stored. `width` and `height` are those of the upright original, in pixels.

    `kept` says that it is stored byte for byte. `likeness` is equal for equal pixels of originals of equal size, if
    both are JPEGs that were kept or neither is, and for hardly any others: `identity` tells. `thumbnail` is the luma of
    what is stored, `[THUMBNAIL_PX, THUMBNAIL_PX] uint8`.
    `format` and `mode` are Pillow's names, with `SEVERAL_PAGES` and `DEEP` at their ends where that is so.
    """

    stored: bytes
    kept: bool
    likeness: bytes
    thumbnail: NDArray[np.uint8]
    width: int
    height: int
    format: str
    mode: str


def decode(data: bytes) -> DecodedImage:
    """Decode any image file to upright 8-bit RGB. Raises `ImageRefusedError`."""
    with _refusing():
        picture = _open(data)
        mode = _mode(picture)
        _load(picture, data)
        turn = _orientation(picture)
        pixels = np.asarray(_upright(to_rgb(picture), turn))
        return DecodedImage(pixels, is_plain(picture, data, mode=mode, orientation=turn))


def prepare(data: bytes, *, size_px: int, encoding: Encoding = "jpeg", quality: int = 95) -> PreparedImage:
    """Decode `data` once, and bring it into the form that is stored. Raises `ImageRefusedError`.

    A file that fits already is kept byte for byte. Any other is resized to a square of `size_px` and encoded once:
    bilinear with antialiasing (Pillow widens the filter when it shrinks), ignoring the aspect ratio as
    `flow_from_directory(target_size=…)` does, and without subsampled chroma, since stain is colour.
    """
    with _refusing():
        picture = _open(data)
        width, height = full_size = picture.size
        mode = _mode(picture)
        jpeg = picture.format == "JPEG"
        kept = jpeg and _stays(picture, data, mode=mode, size_px=size_px, encoding=encoding)
        fraction = _decode_fraction(picture, size_px, kept=kept)
        _load(picture, data)
        turn = _orientation(picture)
        rgb = picture if kept else to_rgb(picture)
        reason = drawn(picture, rgb)
        if reason:
            raise ImageRefusedError(reason)
        if turn in SIDEWAYS:
            width, height = height, width
        kept = kept or (not jpeg and _stays(picture, data, mode=mode, size_px=size_px, encoding=encoding))
        in_use = (full_size[0] / fraction, full_size[1] / fraction)
        small = rgb if kept else _square(rgb, turn, size_px, in_use=in_use)
        stored = data if kept else _encode(small, encoding, quality)
        shown = thumbnail(small)
        likeness = pixel_hash(shown, of_size=(width, height))
        return PreparedImage(stored, kept, likeness, shown, width, height, _format(picture), mode)


def identity(stored: bytes, *, kept: bool, encoding: Encoding, quality: int) -> bytes:
    """16 bytes that are equal for prepared images of equal pixels, whether they were encoded by us or kept.

    To hash all pixels of every image would cost a tenth of its decoding; so only those of equal `likeness` are asked.
    """
    if kept:
        with _refusing():
            picture = _open(stored)
            _load(picture, stored)
            stored = _encode(to_rgb(picture), encoding, quality)
    return xxhash.xxh3_128_digest(stored)


def pixel_hash(pixels: NDArray[np.uint8], *, of_size: tuple[int, int] = (0, 0)) -> bytes:
    """16 bytes that are equal for equal pixels of originals of equal size: XXH3 of 128 bits."""
    digest = xxhash.xxh3_128(np.asarray([*pixels.shape, *of_size], dtype="<i8").tobytes())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def thumbnail(picture: Image.Image) -> NDArray[np.uint8]:
    """The luma of an RGB or grey picture, box-filtered to `[THUMBNAIL_PX, THUMBNAIL_PX] uint8`."""
    grey = picture.convert("L")
    factor = min(grey.size) // THUMBNAIL_PX
    if factor > 1:
        grey = grey.reduce(factor)
    if grey.size != (THUMBNAIL_PX, THUMBNAIL_PX):
        grey = grey.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    return np.asarray(grey)


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    """`[height, width, 3] uint8` as a PNG file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _encode(picture: Image.Image, encoding: Encoding, quality: int) -> bytes:
    out = io.BytesIO()
    picture.info = {}  # or Pillow would write comments and profiles of the original too: equal pixels, equal bytes
    if encoding == "png":
        picture.save(out, "PNG")
    else:
        picture.save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


@contextmanager
def _refusing() -> Iterator[None]:
    """Any trouble inside is `ImageRefusedError`: Pillow's decoders raise nearly anything on damaged input."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except ImageRefusedError:
        raise
    except UnidentifiedImageError:
        raise ImageRefusedError("not an image in any known format") from None
    except Image.DecompressionBombError:
        raise ImageRefusedError("too large for one image, cut it into tiles") from None
    except MemoryError as error:
        raise ImageRefusedError("can't be read: it takes more memory to decode than there is") from error
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise ImageRefusedError(f"damaged: {reason}") from error


def _open(data: bytes) -> ImageFile.ImageFile:
    """The picture's head, read and found sensible."""
    if not data:
        raise ImageRefusedError("empty file")
    if data.startswith(b"version https://git-lfs"):
        raise ImageRefusedError("a Git LFS pointer, not the image itself: run `git lfs pull`")
    picture = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise ImageRefusedError(f"{width} × {height} pixels: too large for one image, cut it into tiles")
    return picture


def _stays(picture: Image.Image, data: bytes, *, mode: str, size_px: int, encoding: Encoding) -> bool:
    """Whether a picture is stored as it is. Of a JPEG it is known before it is loaded, of others after that."""
    if picture.size != (size_px, size_px) or (encoding == "png" and picture.format == "JPEG"):
        return False
    return is_plain(picture, data, mode=mode, orientation=_orientation(picture))


def _decode_fraction(picture: Image.Image, size_px: int, *, kept: bool) -> int:
    """Have a JPEG decoded at one part in so many of its width and height, by `FRACTIONS`."""
    fraction, mode = 1, None
    if kept and size_px >= FRACTION_KEPT * THUMBNAIL_PX:
        fraction, mode = FRACTION_KEPT, "L"
    elif picture.format in JPEGS:
        fraction = next((part for times, part in FRACTIONS if min(picture.size) > times * size_px), 1)
    if fraction > 1:
        picture.draft(mode, (picture.width // fraction, picture.height // fraction))
    return fraction


def _load(picture: Image.Image, data: bytes) -> Image.Image:
    """`picture` with all its pixels read, and found to be all there."""
    picture.load()
    reason = missing_data(picture, data)
    if reason:
        raise ImageRefusedError(reason)
    return picture


def _orientation(picture: Image.Image) -> int:
    """That of a picture which is loaded: Pillow turns a TIFF by itself then, and forgets that it had to."""
    try:
        return int(picture.getexif().get(EXIF_ORIENTATION, 1))
    except Exception:  # damaged metadata says nothing about the pixels
        return 1


def _upright(picture: Image.Image, orientation: int) -> Image.Image:
    turn = TURNS.get(orientation)
    return picture if turn is None else picture.transpose(turn)


def _square(picture: Image.Image, orientation: int, size_px: int, *, in_use: tuple[float, float]) -> Image.Image:
    """`picture` upright and resized. A fraction of a width is decoded to whole pixels, of which `in_use` has a part."""
    if in_use == picture.size:
        return _upright(picture, orientation).resize((size_px, size_px), Image.Resampling.BILINEAR)
    return _upright(picture.resize((size_px, size_px), Image.Resampling.BILINEAR, (0, 0, *in_use)), orientation)


def _format(picture: Image.Image) -> str:
    if picture.format in JPEGS:
        return "JPEG"
    try:
        several = bool(getattr(picture, "is_animated", False))
    except Exception:  # only the first page is used, and that was read
        several = False
    return (picture.format or "") + SEVERAL_PAGES * several


def _mode(picture: ImageFile.ImageFile) -> str:
    """That of a picture which isn't loaded yet: then Pillow still knows how many bits it will drop."""
    deep = picture.format not in JPEGS and any(DEEP in str(tile.args) for tile in picture.tile)
    return picture.mode + DEEP if deep and DEEP not in picture.mode else picture.mode
