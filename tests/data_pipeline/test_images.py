"""Any image file becomes the pixels a person sees, or is refused with a reason."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_pipeline.images import THUMBNAIL_PX, ImageRefusedError, as_png, decode, identity, pixel_hash, prepare
from tests.conftest import image_bytes
from tests.data_pipeline.image_files import (
    HEIGHT,
    WIDTH,
    encoded,
    every_kind,
    grey_tiff,
    oriented,
    packed_12_bit_tiff,
    pixels_of,
    png_16_bit_rgb,
    scene,
)

pytestmark = pytest.mark.usefixtures("two_devices")
KINDS = every_kind()
LOSSY = {"JPEG", "JPEG progressive", "JPEG with restarts", "JPEG CMYK", "JPEG with a second picture", "TIFF JPEG"}
LOSSY |= {"WebP", "WebP animated", "JPEG 2000 bare"}
EXACT = {"PNG", "PNG 16 bit", "PNG interlaced", "PNG animated", "BMP", "BMP 32 bit", "TIFF", "TIFF LZW", "TIFF deflate"}
EXACT |= {"TIFF CMYK", "TIFF planar", "TIFF tiled", "TIFF of pages", "WebP lossless", "JPEG 2000", "PPM", "PPM plain"}
GREY = {"PNG grey", "PNG grey 16 bit", "TIFF grey 16 bit", "TIFF grey 12 bit", "PGM 16 bit"}
PAGES = {"PNG animated", "TIFF of pages", "WebP animated", "GIF animated"}


def resized(picture: Image.Image, size_px: int) -> np.ndarray:
    return pixels_of(picture.resize((size_px, size_px), Image.Resampling.BILINEAR))


@pytest.mark.parametrize("kind", sorted(EXACT | GREY))
def test_lossless_files_give_exactly_their_pixels(kind: str) -> None:
    picture = scene().convert("L") if kind in GREY else scene()
    assert (decode(KINDS[kind]).pixels == pixels_of(picture)).all()


@pytest.mark.parametrize("kind", sorted(LOSSY))
def test_lossy_files_give_nearly_their_pixels(kind: str) -> None:
    assert np.abs(decode(KINDS[kind]).pixels - pixels_of(scene())).mean() < 8


@pytest.mark.parametrize("kind", ["PNG palette", "BMP palette", "BMP in runs", "GIF", "GIF animated"])
def test_palettes_are_looked_up(kind: str) -> None:
    assert np.abs(decode(KINDS[kind]).pixels - pixels_of(scene())).mean() < 8


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_file_is_stored_as_it_looks_or_refused_in_plain_words(kind: str) -> None:
    data = KINDS[kind]
    if kind in ("PNG 1 bit", "PBM"):
        with pytest.raises(ImageRefusedError, match="a mask or drawing, not a photograph: it has 2 colours only"):
            prepare(data, size_px=32)
        return
    prepared = prepare(data, size_px=32, encoding="png")
    stored = decode(prepared.stored).pixels
    assert (stored == resized(Image.fromarray(decode(data).pixels), 32)).all()
    assert (tf.io.decode_image(prepared.stored, channels=3).numpy() == stored).all()
    assert (prepared.width, prepared.height) == ((HEIGHT, WIDTH) if "turned" in kind else (WIDTH, HEIGHT))
    assert prepared.likeness == pixel_hash(prepared.thumbnail, of_size=(prepared.width, prepared.height))
    assert prepared.thumbnail.shape == (THUMBNAIL_PX, THUMBNAIL_PX)
    assert prepared.format.endswith(", several pages") == (kind in PAGES)
    assert prepared.mode.endswith(";16") == ("16 bit" in kind or "12 bit" in kind)
    again = prepare(data, size_px=32, encoding="png")
    assert (again.stored, again.likeness) == (prepared.stored, prepared.likeness)
    jpeg = prepare(data, size_px=32)
    assert np.abs(decode(jpeg.stored).pixels - stored.astype(int)).mean() < 8
    assert jpeg.likeness == prepared.likeness


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
def test_orientation_is_applied_and_such_a_file_is_not_kept(form: str, orientation: int) -> None:
    picture = scene(32, 32)
    data = oriented(picture, form, orientation)
    upright = {
        1: np.asarray, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: np.rot90(np.fliplr(a)),
        6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(np.fliplr(a), -1), 8: np.rot90,
    }[orientation]  # fmt: skip
    expected = upright(pixels_of(Image.open(io.BytesIO(encoded(picture, form)))))
    assert (decode(data).pixels == expected).all()
    assert decode(data).plain == (orientation == 1 and form != "TIFF")
    prepared = prepare(data, size_px=32)
    assert (prepared.stored == data) == (orientation == 1 and form != "TIFF")
    assert (prepare(data, size_px=32, encoding="png").likeness) == prepared.likeness
    assert prepare(encoded(Image.fromarray(expected.astype(np.uint8)), "PNG"), size_px=32).likeness == prepared.likeness


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
def test_width_and_height_are_those_of_the_upright_original(form: str, orientation: int) -> None:
    for size_px in (8, 16, 100):  # a JPEG is decoded at a quarter, at half, whole
        prepared = prepare(oriented(scene(131, 95), form, orientation), size_px=size_px)
        assert (prepared.width, prepared.height) == ((95, 131) if orientation > 4 else (131, 95))
        upright = Image.fromarray(decode(oriented(scene(131, 95), form, orientation)).pixels)
        assert np.abs(decode(prepared.stored).pixels - resized(upright, size_px)).mean() < 6


def test_transparency_is_laid_on_white() -> None:
    layer = scene().convert("RGBA")
    layer.putalpha(Image.new("L", layer.size, 0))
    assert (decode(encoded(layer)).pixels == 255).all()
    palette = Image.new("P", (4, 4), 0)
    assert (decode(encoded(palette, transparency=0)).pixels == 255).all()
    assert not decode(encoded(layer)).plain
    assert (decode(encoded(Image.new("RGB", (4, 4), (9, 8, 7)), transparency=(9, 8, 7))).pixels == 255).all()


def test_16_bit_grey_is_scaled_by_its_full_range() -> None:
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    picture = decode(encoded(Image.fromarray(values)))
    assert picture.pixels[0, :, 0].tolist() == [0, 1, 128, 255]
    assert not picture.plain


def test_12_bit_cameras_are_scaled_by_theirs_if_the_file_says_so() -> None:
    """By what the file says, never by its pixels: two images of one slide must stay as bright as each other."""
    values = np.array([[0, 1024, 2048, 4095]], dtype=np.uint16)
    ome = b'<OME><Pixels Type="uint16" SignificantBits="12" SizeX="4"/></OME>\0'
    for data in (packed_12_bit_tiff(values), grey_tiff(values, {281: 4095}), grey_tiff(values, {270: ome})):
        assert decode(data).pixels[0, :, 0].tolist() == [0, 64, 128, 255]
    assert decode(grey_tiff(values // 2, {281: 4095})).pixels.max() == 127
    for unsaid in (grey_tiff(values), grey_tiff(values, {281: 4000}), grey_tiff(values * 2, {281: 4095})):
        assert decode(unsaid).pixels.max() <= 32
    plain_pgm = b"P2\n4 1\n4095\n0 1024 2048 4095\n"
    assert decode(plain_pgm).pixels[0, :, 0].tolist() == [0, 64, 128, 255]


def test_cmyk_is_seen_as_printed() -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for form in ("TIFF", "JPEG"):  # as Adobe does, a JPEG has it inverted
        red, green, blue = decode(encoded(cmyk, form)).pixels[0, 0].tolist()
        assert red > 200
        assert max(green, blue) < 60


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_is_plain_tensorflow_sees_as_we_do(kind: str) -> None:
    image = decode(KINDS[kind])
    plain = {"JPEG", "JPEG grey", "JPEG progressive", "JPEG with restarts", "PNG", "PNG grey", "PNG interlaced"}
    assert image.plain == (kind in plain)
    if image.plain:
        theirs = tf.io.decode_image(KINDS[kind], channels=3, expand_animations=False).numpy().astype(int)
        # The two JPEG decoders round differently.
        assert np.abs(theirs - image.pixels).max() <= (6 if "JPEG" in kind else 0)


def test_a_file_that_fits_is_kept_byte_for_byte() -> None:
    jpeg, png = encoded(scene(32, 32), "JPEG"), encoded(scene(32, 32))
    for data in (jpeg, png, encoded(scene(32, 32).convert("L"), "JPEG")):
        assert prepare(data, size_px=32).stored == data
    assert prepare(png, size_px=32, encoding="png").stored == png
    for data in (encoded(scene(32, 32), "BMP"), png_16_bit_rgb(np.asarray(scene(32, 32)).astype(np.uint16))):
        assert prepare(data, size_px=32).stored[:3] == b"\xff\xd8\xff"
    assert prepare(jpeg, size_px=32, encoding="png").stored.startswith(b"\x89PNG")


def identified(data: bytes, size_px: int) -> tuple[bytes, bytes]:
    prepared = prepare(data, size_px=size_px)
    return prepared.likeness, identity(prepared.stored, kept=prepared.kept, encoding="jpeg", quality=95)


def test_pixel_identity_ignores_the_file_format() -> None:
    """Kept as it is, or encoded by us: equal pixels are equal, and one other pixel is not."""
    png, bmp = image_bytes(5), image_bytes(5, form="BMP")
    pixels = decode(png).pixels.copy()
    pixels[3, 3] ^= 128
    other, jpeg = as_png(pixels), encoded(Image.open(io.BytesIO(png)), "JPEG", quality=90)
    commented = jpeg[:2] + b"\xff\xfe\x00\x08copied" + jpeg[2:]
    for size in (32, 48):
        assert identified(png, size) == identified(bmp, size) != identified(other, size)
        assert commented != jpeg
        assert identified(commented, size) == identified(jpeg, size) == identified(as_png(decode(jpeg).pixels), size)
    flat = np.zeros((2, 8, 3), np.uint8)
    assert pixel_hash(flat) != pixel_hash(flat.reshape(8, 2, 3))
    assert pixel_hash(flat, of_size=(2, 8)) != pixel_hash(flat, of_size=(8, 2))
    assert len(pixel_hash(flat)) == 16


def test_a_png_holds_the_pixels_it_was_made_of() -> None:
    pixels = np.asarray(scene())
    assert (np.asarray(Image.open(io.BytesIO(as_png(pixels)))) == pixels).all()
