"""What Pillow lets pass: image files of which a part is missing, drawings, and files others read differently. Pure.

    reason = missing_data(picture, data) or drawn(picture, rgb)     # empty if there is nothing to object to
    keep = is_plain(picture, data, mode="RGB", orientation=1)

Each reason is one a person understands. `picture` is a loaded `PIL.Image`, `data` the file it was read from.
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

JPEGS = ("JPEG", "MPO")  # MPO is a JPEG with further pictures behind it, as phones write
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SCAN, JPEG_END, JPEG_MARKER = b"\xff\xda", b"\xff\xd9", re.compile(rb"\xff[^\x00\xd0-\xd7]")
JPEG2000_DATA, JPEG2000_END = b"\xff\x93", b"\xff\xd9"
# Modes of files that TensorFlow decodes to the same 8-bit RGB picture (JPEG decoders differ in rounding alone).
PLAIN_MODES = {"JPEG": ("RGB", "L"), "PNG": ("RGB", "L")}
PNG_METHODS = slice(26, 29)  # of compression, filtering and interlacing: what else than these there doesn't exist
PNG_METHODS_KNOWN = (b"\0\0\0", b"\0\0\1")
PNG_CRITICAL = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
NO_DATA = {127, 128}  # the grey a JPEG decoder puts where data is missing, in each band
MORE_DATA = bytes(range(1, 128)) * 2
# A photograph has more colours than this. One alone is a blank image, which is another matter, and so are few pixels.
MASK_COLOURS, PIXELS_PER_COLOUR = 8, 32
# Colours that lie closer together are the noise of a blank photograph; but even areas of 0, 1, 2, … are labels.
NOISE, EVEN = 16, 0.9


def missing_data(picture: Image.Image, data: bytes) -> str:
    """Why the file isn't whole. What Pillow itself refuses to load is not looked for again."""
    if picture.format == "PNG":
        return _missing_from_png(data)
    if picture.format == "JPEG2000" and not 0 <= data.find(JPEG2000_DATA) < data.rfind(JPEG2000_END):
        return "damaged: the end of the JPEG 2000 file is missing"
    if picture.format in JPEGS and _may_lack_data(picture) and _takes_more(picture, data):
        return "damaged: image data is missing before the end of the JPEG file"
    return ""


def drawn(picture: Image.Image, rgb: Image.Image) -> str:
    """Why the picture, which `rgb` shows in 8 bits, is a segmentation mask such as often lies beside the images."""
    if picture.format in JPEGS:  # compression makes many colours of few
        return ""
    seen = picture.convert("I") if picture.mode.startswith("I") else rgb
    found = seen.getcolors(MASK_COLOURS) or ()
    if not 1 < len(found) <= seen.width * seen.height / PIXELS_PER_COLOUR:
        return ""
    colours, pixels = np.array([colour for _, colour in found]), np.asarray(seen)
    labels = colours.min() == 0 and (pixels[:, 1:] == pixels[:, :-1]).mean() > EVEN
    if labels or np.ptp(colours, axis=0).max() > NOISE:
        return f"a mask or drawing, not a photograph: it has {len(found)} colours only"
    return ""


def is_plain(picture: Image.Image, data: bytes, *, mode: str, orientation: int) -> bool:
    """Whether any decoder, however strict, turns the file itself into the pixels a person sees."""
    if mode not in PLAIN_MODES.get(picture.format or "", ()) or orientation != 1:
        return False
    if picture.format == "JPEG":
        return _is_orderly_jpeg(data)
    if "transparency" in picture.info or getattr(picture, "n_frames", 1) > 1:
        return False
    known = all(kind in PNG_CRITICAL or kind[0] & 32 for kind, _ in _png_chunks(data))
    return known and data[PNG_METHODS] in PNG_METHODS_KNOWN


def _is_orderly_jpeg(data: bytes) -> bool:
    """Whether segment follows on segment up to the end of the file. TensorFlow refuses some others, in mid-training."""
    position = 2
    while data[position : position + 2] != JPEG_END:
        scan, length = data[position : position + 2] == JPEG_SCAN, int.from_bytes(data[position + 2 : position + 4])
        if data[position : position + 1] != b"\xff" or length < 2:
            return False
        position += 2 + length
        if scan:
            marker = JPEG_MARKER.search(data, position)
            if marker is None:
                return False
            position = marker.start()
    return position + 2 == len(data)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """(kind, whether its checksum is right) of each chunk, as far as they are whole."""
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, end = data[position + 4 : position + 8], position + 12 + length
        right = end <= len(data) and zlib.crc32(data[position + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])
        yield kind, right
        if kind == b"IEND":
            return
        position = end


def _missing_from_png(data: bytes) -> str:
    kind = b""
    for kind, right in _png_chunks(data):
        if not right:
            return f"damaged: the checksum of a PNG chunk ({kind!r}) doesn't match"
    return "" if kind == b"IEND" else "damaged: the end of the PNG file is missing"


def _may_lack_data(picture: Image.Image) -> bool:
    """Whether a JPEG ends in the grey that stands for missing data, or is progressive: that shows as blur alone."""
    last = picture.getpixel((picture.width - 1, picture.height - 1))
    return "progressive" in picture.info or set(last if isinstance(last, tuple) else (last,)) <= NO_DATA


def _takes_more(picture: Image.Image, data: bytes) -> bool:
    """Whether the pixels of a JPEG change when data is put before its end: only if they weren't all there."""
    end = data.rfind(JPEG_END)
    whole, more = (_in_colour(file, picture.size) for file in (data, data[:end] + MORE_DATA + data[end:]))
    return whole.tobytes() != more.tobytes()


def _in_colour(data: bytes, size: tuple[int, int]) -> Image.Image:
    """A JPEG about as large as `size`. `picture` may have been decoded in grey, and colour can be missing by itself."""
    picture = Image.open(io.BytesIO(data), formats=("JPEG",))
    fraction = round(picture.width / size[0])
    picture.draft(None, (picture.width // fraction, picture.height // fraction))
    return picture
