"""Small image files of every kind that conversion may meet, some of which Pillow reads but can't write.

for kind, file in every_kind().items(): ...
"""

import io
import struct
import zlib
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 40, 24


def encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def scene(width: int = WIDTH, height: int = HEIGHT, *, noise: int = 12, seed: int = 0) -> Image.Image:
    """An RGB picture that looks different from every side."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1)
    pixels += np.random.default_rng(seed).integers(-noise, noise + 1, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def pixels_of(picture: Image.Image) -> NDArray[np.int64]:
    return np.asarray(picture.convert("RGB")).astype(np.int64)


def oriented(picture: Image.Image, form: str, orientation: int, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture, form, exif=exif.tobytes(), **options)


def png(
    rows: Sequence[bytes], size: tuple[int, int], *, bits: int, colour: int, extra: bytes = b"", interlace: int = 0
) -> bytes:
    """A PNG file of rows that each begin with their filter."""
    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, interlace)
    data = zlib.compress(b"".join(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_16_bit_rgb(values: NDArray[np.uint16], *, extra: bytes = b"") -> bytes:
    """`values` is `[height, width, 3]`."""
    rows = [b"\0" + row.astype(">u2").tobytes() for row in values]
    return png(rows, (values.shape[1], values.shape[0]), bits=16, colour=2, extra=extra)


def interlaced_png(picture: Image.Image) -> bytes:
    """Adam7: first column, first row, step between columns and between rows of each pass."""
    pixels = np.asarray(picture)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [pixels[top::down, left::right] for left, top, right, down in passes]
    return png([b"\0" + row.tobytes() for part in parts for row in part], picture.size, bits=8, colour=2, interlace=1)


def tiff(data: Sequence[bytes], size: tuple[int, int], tags: dict[int, int | bytes | tuple[int, ...]]) -> bytes:
    """A little-endian TIFF of uncompressed parts; `tags` says how they are to be read, and may replace what is set."""
    starts = [8 + sum(map(len, data[:number])) for number in range(len(data))]
    lengths = [len(part) for part in data]
    where = (324, 325) if 322 in tags else (273, 279)
    values: dict[int, int | bytes | tuple[int, ...]] = {
        256: size[0], 257: size[1], 258: 8, 259: 1, 262: 1, 277: 1, where[0]: tuple(starts), where[1]: tuple(lengths)
    }  # fmt: skip
    values |= tags
    body, entries = b"".join(data), b""
    for tag, value in sorted(values.items()):
        numbers = (value,) if isinstance(value, int) else value
        packed = numbers if isinstance(numbers, bytes) else struct.pack(f"<{len(numbers)}I", *numbers)
        if len(packed) > 4:
            packed, body = struct.pack("<I", 8 + len(body)), body + packed
        entries += struct.pack("<HHI", tag, 2 if isinstance(value, bytes) else 4, len(numbers)) + packed.ljust(4, b"\0")
    directory = struct.pack("<H", len(values)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory


def planar_tiff(picture: Image.Image) -> bytes:
    bands = [band.tobytes() for band in picture.split()]
    return tiff(bands, picture.size, {258: (8, 8, 8), 262: 2, 277: 3, 278: picture.height, 284: 2})


def tiled_tiff(picture: Image.Image, side: int = 16) -> bytes:
    width, height = -(-picture.width // side) * side, -(-picture.height // side) * side
    boxes = [(x, y, x + side, y + side) for y in range(0, height, side) for x in range(0, width, side)]
    tiles = [picture.crop(box).tobytes() for box in boxes]
    return tiff(tiles, picture.size, {258: (8, 8, 8), 262: 2, 277: 3, 322: side, 323: side})


def grey_tiff(values: NDArray[np.uint16], tags: dict[int, int | bytes | tuple[int, ...]] | None = None) -> bytes:
    """`values` is `[height, width]`, 16 bits each."""
    size = (values.shape[1], values.shape[0])
    return tiff([values.astype("<u2").tobytes()], size, {258: 16, 278: size[1]} | (tags or {}))


def packed_12_bit_tiff(values: NDArray[np.uint16]) -> bytes:
    """`values` is `[height, even width]`, three bytes for two of them."""
    high, low = values[:, ::2].astype(int), values[:, 1::2].astype(int)
    packed = np.stack([high >> 4, (high & 15) << 4 | low >> 8, low & 255], axis=-1).astype(np.uint8)
    return tiff([packed.tobytes()], (values.shape[1], values.shape[0]), {258: 12, 278: values.shape[0]})


def rle_bmp(picture: Image.Image) -> bytes:
    """A BMP of up to 256 colours in runs of equal pixels."""
    quantized = picture.quantize(200)
    palette = np.zeros((256, 4), np.uint8)
    colours = np.array(quantized.getpalette(), np.uint8).reshape(-1, 3)
    palette[: len(colours), :3] = colours[:, ::-1]
    rows = np.asarray(quantized)[::-1]
    runs = b"".join(b"".join(bytes((1, value)) for value in row.tolist()) + b"\0\0" for row in rows) + b"\0\1"
    start = 14 + 40 + palette.nbytes
    header = b"BM" + struct.pack("<IHHI", start + len(runs), 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, *picture.size, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return header + info + palette.tobytes() + runs


def every_kind() -> dict[str, bytes]:
    """A whole file of each kind."""
    picture = scene()
    grey, palette = picture.convert("L"), picture.quantize(100)
    alpha = picture.convert("RGBA")
    alpha.putalpha(grey)
    deep = np.asarray(grey).astype(np.uint16) * 257
    pages: Callable[[], list[Image.Image]] = lambda: [scene(seed=1), scene(seed=2)]  # noqa: E731 - saving uses them up
    return {
        "JPEG": encoded(picture, "JPEG"),
        "JPEG grey": encoded(grey, "JPEG"),
        "JPEG CMYK": encoded(picture.convert("CMYK"), "JPEG"),
        "JPEG progressive": encoded(picture, "JPEG", progressive=True),
        "JPEG with restarts": encoded(picture, "JPEG", restart_marker_blocks=1),
        "JPEG turned": oriented(picture, "JPEG", 6),
        "JPEG with a second picture": encoded(picture, "MPO", save_all=True, append_images=pages()),
        "PNG": encoded(picture),
        "PNG 1 bit": encoded(picture.convert("1")),
        "PNG grey": encoded(grey),
        "PNG grey 16 bit": encoded(Image.fromarray(deep)),
        "PNG grey alpha": encoded(alpha.convert("LA")),
        "PNG palette": encoded(palette),
        "PNG palette transparent": encoded(palette, transparency=3),
        "PNG alpha": encoded(alpha),
        "PNG 16 bit": png_16_bit_rgb(np.asarray(picture).astype(np.uint16) * 257),
        "PNG interlaced": interlaced_png(picture),
        "PNG animated": encoded(picture, save_all=True, append_images=pages()),
        "BMP": encoded(picture, "BMP"),
        "BMP palette": encoded(palette, "BMP"),
        "BMP 32 bit": encoded(alpha, "BMP"),
        "BMP in runs": rle_bmp(picture),
        "TIFF": encoded(picture, "TIFF"),
        "TIFF LZW": encoded(picture, "TIFF", compression="tiff_lzw"),
        "TIFF deflate": encoded(picture, "TIFF", compression="tiff_adobe_deflate"),
        "TIFF JPEG": encoded(picture, "TIFF", compression="jpeg"),
        "TIFF CMYK": encoded(picture.convert("CMYK"), "TIFF"),
        "TIFF planar": planar_tiff(picture),
        "TIFF tiled": tiled_tiff(picture),
        "TIFF grey 16 bit": grey_tiff(deep),
        "TIFF grey 12 bit": packed_12_bit_tiff(deep >> 4),
        "TIFF turned": oriented(picture, "TIFF", 8),
        "TIFF of pages": encoded(picture, "TIFF", save_all=True, append_images=pages()),
        "WebP": encoded(picture, "WEBP"),
        "WebP lossless": encoded(picture, "WEBP", lossless=True),
        "WebP alpha": encoded(alpha, "WEBP"),
        "WebP animated": encoded(picture, "WEBP", save_all=True, append_images=pages()),
        "GIF": encoded(palette, "GIF"),
        "GIF transparent": encoded(palette, "GIF", transparency=3),
        "GIF animated": encoded(palette, "GIF", save_all=True, append_images=pages()),
        "JPEG 2000": encoded(picture, "JPEG2000"),
        "JPEG 2000 bare": encoded(picture, "JPEG2000", no_jp2=True, irreversible=True),
        "PPM": encoded(picture, "PPM"),
        "PGM 16 bit": b"P5\n%d %d\n65535\n" % grey.size + deep.astype(">u2").tobytes(),
        "PBM": encoded(picture.convert("1"), "PPM"),
        "PPM plain": b"P3\n%d %d\n255\n" % picture.size + b" ".join(b"%d" % v for v in picture.tobytes()) + b"\n",
    }
