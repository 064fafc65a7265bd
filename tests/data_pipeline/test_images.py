"""Any image file becomes the pixels a person sees, or is refused with a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_pipeline import images
from data_pipeline.images import ImageRefusedError, decode, encode_for_training, pixel_hash
from tests.conftest import image_bytes

pytestmark = pytest.mark.usefixtures("two_devices")


def encoded(picture: Image.Image, form: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def gradient(width: int = 40, height: int = 24) -> Image.Image:
    """An RGB picture that looks different from every side."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height)], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_lossless_formats_give_the_same_pixels(form: str) -> None:
    picture = gradient().quantize(200) if form == "GIF" else gradient()
    options = {"lossless": True} if form == "WEBP" else {}
    assert (decode(encoded(picture, form, **options)).pixels == np.asarray(picture.convert("RGB"))).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_such_a_file_is_not_kept(orientation: int) -> None:
    picture = gradient()
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = decode(encoded(picture, "PNG", exif=exif.tobytes()))
    upright = {
        1: np.asarray, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: np.rot90(np.fliplr(a)),
        6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(np.fliplr(a), -1), 8: np.rot90,
    }[orientation]  # fmt: skip
    assert (turned.pixels == upright(np.asarray(picture))).all()
    assert turned.plain == (orientation == 1)


def test_transparency_is_laid_on_white() -> None:
    layer = gradient().convert("RGBA")
    layer.putalpha(Image.new("L", layer.size, 0))
    assert (decode(encoded(layer)).pixels == 255).all()
    palette = Image.new("P", (4, 4), 0)
    assert (decode(encoded(palette, transparency=0)).pixels == 255).all()
    assert not decode(encoded(layer)).plain


def test_16_bit_grey_is_scaled_by_its_full_range() -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    picture = decode(encoded(Image.fromarray(values)))
    assert picture.pixels[0, :, 0].tolist() == [0, 1, 128, 255]
    assert not picture.plain


def test_cmyk_is_seen_as_printed() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red, green, blue = decode(encoded(cmyk, "TIFF")).pixels[0, 0].tolist()
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK"])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_what_is_kept_as_it_is_tensorflow_sees_as_we_do(mode: str, form: str) -> None:
    picture = gradient().convert(mode)
    try:
        data = encoded(picture, form)
    except OSError:
        return  # the format has no such mode
    image = decode(data)
    if image.plain:
        theirs = tf.io.decode_image(data, channels=3, expand_animations=False).numpy().astype(int)
        # The two JPEG decoders round differently.
        assert np.abs(theirs - image.pixels).max() <= (6 if form == "JPEG" else 0)
    stored = encode_for_training(data, size_px=16)
    assert tf.io.decode_image(stored, channels=3).shape == (16, 16, 3)


def test_a_png_cut_anywhere_or_with_a_flipped_bit_is_refused() -> None:
    """Pillow lets pass a PNG without its end or with a wrong checksum; TensorFlow, later, would not."""
    data = encoded(gradient())
    for length in range(len(data)):
        with pytest.raises(ImageRefusedError):
            decode(data[:length])
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(data), 200):
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(8))
        with pytest.raises(ImageRefusedError):
            decode(bytes(flipped))


def test_a_jpeg_cut_in_half_is_refused() -> None:
    data = encoded(gradient(200, 200), "JPEG")
    with pytest.raises(ImageRefusedError, match="damaged"):
        decode(data[: len(data) // 2])


def test_a_decompression_bomb_is_refused_before_it_is_decoded() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb = images.PNG_SIGNATURE + header + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    with pytest.raises(ImageRefusedError, match="cut it into tiles"):
        decode(bomb)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating-point"),
    ],
)
def test_the_reason_is_one_a_person_understands(data: bytes, reason: str) -> None:
    with pytest.raises(ImageRefusedError, match=reason):
        decode(data)


def test_pixel_identity_ignores_the_file_format() -> None:
    png, bmp = image_bytes(5), image_bytes(5, form="BMP")
    assert png != bmp
    assert pixel_hash(decode(png).pixels) == pixel_hash(decode(bmp).pixels)
    assert pixel_hash(decode(png).pixels) != pixel_hash(decode(image_bytes(6)).pixels)
    flat = np.zeros((2, 8, 3), np.uint8)
    assert pixel_hash(flat) != pixel_hash(flat.reshape(8, 2, 3))


def test_stored_jpegs_are_as_good_as_they_say() -> None:
    """Antialiased shrinking, quality 95, full chroma: close to the best a square of that size can be."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    best = np.asarray(picture.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    stored = np.asarray(Image.open(io.BytesIO(encode_for_training(encoded(picture), size_px=32)))).astype(int)
    assert np.abs(stored - best).mean() < 4  # quality 50 with subsampling: 14
    exact = np.asarray(Image.open(io.BytesIO(encode_for_training(encoded(picture), size_px=32, encoding="png"))))
    assert (exact == best).all()


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size_and_looks_the_same() -> None:
    data = encoded(gradient(1600, 1600), "JPEG", quality=95)
    quick = np.asarray(Image.open(io.BytesIO(encode_for_training(data, size_px=64, encoding="png")))).astype(int)
    slow = np.asarray(Image.fromarray(decode(data).pixels).resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(quick - slow).max() <= 3
