"""A file of which a part is missing is refused, and so is what is no photograph; a photograph never is."""

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from data_pipeline import images
from data_pipeline.image_checks import PNG_SIGNATURE
from data_pipeline.images import ImageRefusedError, decode, prepare
from tests.data_pipeline.image_files import chunk, encoded, every_kind, grey_tiff, pixels_of, png, scene, tiff

KINDS = every_kind()
JPEG_END = b"\xff\xd9"


def refused(data: bytes, size_px: int = 32) -> str:
    """Why; empty if it isn't."""
    try:
        prepare(data, size_px=size_px, encoding="png")
    except ImageRefusedError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"PNG 1 bit", "PBM", "PPM plain"}))
def test_a_file_cut_at_any_byte_is_refused_or_has_all_its_pixels(kind: str) -> None:
    data = KINDS[kind]
    whole = prepare(data, size_px=16).stored
    for length in range(0, len(data), 1 if len(data) < 1500 else 3):
        try:
            assert prepare(data[:length], size_px=16).stored == whole
        except ImageRefusedError:
            continue


@pytest.mark.parametrize("size_px", [8, 40, 100])  # decoded at a quarter, at half, whole
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_cut_at_any_byte_is_refused(mode: str, progressive: bool, size_px: int) -> None:
    """Even of its last two bytes: Pillow wants the end mark, and whoever has lost that may have lost more."""
    data = encoded(scene(100, 90).convert(mode), "JPEG", progressive=progressive)
    assert not refused(data, size_px)
    for length in [*range(0, len(data), 17), *range(len(data) - 40, len(data))]:
        assert refused(data[:length], size_px), length


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_jpeg_that_stays_as_it_is_is_refused_for_what_a_full_decode_refuses(mode: str, progressive: bool) -> None:
    """Only half of its pixels are made, but all of its data is read."""
    data = encoded(scene(128, 128).convert(mode), "JPEG", progressive=progressive)
    assert prepare(data, size_px=128).stored == data
    random = np.random.default_rng(3)
    ends = np.linspace(data.find(b"\xff\xda") + 30, len(data) - 1, 60).astype(int).tolist()
    damaged = [data[:end] for end in ends] + [data[:end] + JPEG_END for end in ends]
    for _ in range(150):
        flipped = bytearray(data)
        flipped[random.integers(2, len(data))] ^= 1 << int(random.integers(8))
        damaged.append(bytes(flipped))
    outcomes = [(_refused(prepare, file, size_px=128), _refused(decode, file)) for file in damaged]
    assert [half for half, _ in outcomes] == [full for _, full in outcomes]
    assert 100 < sum(half for half, _ in outcomes) < 260


def _refused(look: Callable[..., object], data: bytes, **options: object) -> bool:
    try:
        look(data, **options)
    except ImageRefusedError:
        return True
    return False


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_cut_jpeg_that_was_given_an_end_is_refused(mode: str, progressive: bool) -> None:
    """Decoders only warn of it and fill with grey: of 50 cuts all but the odd one at the end of a scan are found."""
    data = encoded(scene(100, 90).convert(mode), "JPEG", progressive=progressive)
    lengths = np.linspace(data.find(b"\xff\xda") + 30, len(data) - 40, 50).astype(int).tolist()
    accepted = [length for length in lengths if not refused(data[:length] + JPEG_END)]
    assert len(accepted) <= 3, accepted


def test_a_jpeg_that_claims_to_be_larger_than_it_is_is_refused() -> None:
    data = bytearray(encoded(scene(64, 64), "JPEG"))
    start = data.find(b"\xff\xc0")
    data[start + 5 : start + 7] = struct.pack(">H", 128)
    assert "missing" in refused(bytes(data))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_whole_jpeg_that_ends_in_middle_grey_is_not(mode: str, progressive: bool) -> None:
    for grey in (127, 128):
        picture = scene(99, 90)
        picture.paste((grey,) * 3, (30, 30, 99, 90))
        assert not refused(encoded(picture.convert(mode), "JPEG", progressive=progressive) + b"appended")


def test_a_png_cut_anywhere_or_with_a_flipped_bit_is_refused() -> None:
    """Pillow lets pass a PNG without its end or with a wrong checksum; TensorFlow, later, would not."""
    data = KINDS["PNG palette"]
    assert all(refused(data[:length]) for length in range(len(data)))
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(data), 200):
        flipped = bytearray(data)
        flipped[position] ^= 1 << int(rng.integers(8))
        assert refused(bytes(flipped))


def test_a_file_that_others_may_refuse_is_written_anew() -> None:
    """Pillow takes them all. TensorFlow refused files of these kinds, in the middle of training."""
    jpeg, image = encoded(scene(32, 32), "JPEG"), encoded(scene(32, 32))
    odd_jpegs = [
        jpeg[:-2] + bytes(100),  # no end
        jpeg + b"appended",
        jpeg[:20] + b"junk" + jpeg[20:],  # between segments
        jpeg[:-2] + b"\xff\xe1\x40\x00" + JPEG_END,  # a segment that ends behind the end
    ]
    header = image[16:29]
    odd_pngs = [image.replace(chunk(b"IHDR", header), chunk(b"IHDR", header[:-1] + b"\5"))]
    odd_pngs += [image.replace(chunk(b"IHDR", header), chunk(b"IHDR", header) + chunk(b"ABCD", b""))]
    for whole, odd in ((jpeg, odd_jpegs), (image, odd_pngs)):
        assert prepare(whole, size_px=32).stored == whole
        for data in odd:
            assert data != whole
            assert refused(data) or prepare(data, size_px=32).stored != data


BIG = struct.pack(">II", 60_000, 60_000)
BOMBS = {
    "PNG": png([b"\0" * 9], (60_000, 60_000), bits=8, colour=2),
    "TIFF": tiff([bytes(99)], (60_000, 60_000), {278: 60_000}),
    "GIF": b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + KINDS["GIF"][10:],
    "WebP": KINDS["WebP alpha"].replace(struct.pack("<I", 39)[:3], b"\xff\x3e\x00", 1),
    "PPM": b"P6\n60000 60000\n255\n" + bytes(99),
    "PPM plain": b"P3\n60000 60000\n255\n1 2 3",
    "JPEG": KINDS["JPEG"].replace(struct.pack(">HH", 24, 40), struct.pack(">HH", 60_000, 60_000), 1),
    "BMP": KINDS["BMP"][:18] + struct.pack("<ii", 60_000, 60_000) + KINDS["BMP"][26:],
    "JPEG 2000": KINDS["JPEG 2000"].replace(struct.pack(">II", 24, 40), BIG).replace(struct.pack(">II", 40, 24), BIG),
    "text": png(
        [b"\0" + bytes(12)] * 4,
        (4, 4),
        bits=8,
        colour=2,
        extra=chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**26))),
    ),
}


@pytest.mark.parametrize("kind", sorted(BOMBS))
def test_a_decompression_bomb_is_refused_before_it_goes_off(kind: str) -> None:
    tracemalloc.start()
    reason = refused(BOMBS[kind])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50_000_000
    assert "damaged" in reason if kind in ("text", "WebP") else "cut it into tiles" in reason


def test_much_metadata_is_no_reason_to_refuse_an_image() -> None:
    profile = np.random.default_rng(0).bytes(900_000)
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    for form in ("JPEG", "PNG", "WEBP", "TIFF"):
        assert not refused(encoded(scene(), form, icc_profile=profile, exif=exif.tobytes()))
    assert not refused(encoded(scene(), "JPEG", exif=b"Exif\0\0damaged" + bytes(200)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating-point"),
        (encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"), "more than 16 bits"),
        (PNG_SIGNATURE, "not an image"),
    ],
)
def test_the_reason_is_one_a_person_understands(data: bytes, reason: str) -> None:
    with pytest.raises(ImageRefusedError, match=reason):
        decode(data)


def test_an_image_that_memory_does_not_hold_is_tried_again_by_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_much(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "to_rgb", too_much)
    assert refused(KINDS["PNG"]).startswith("can't be read")


def shapes(colours: list[tuple[int, int, int]], size: int = 64) -> Image.Image:
    """Areas of these colours."""
    picture = Image.new("RGB", (size, size), colours[0])
    for number, colour in enumerate(colours[1:]):
        picture.paste(colour, (size // 8 * number, size // 4, size // 8 * number + size // 8, size // 2))
    return picture


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize(
    "colours", [[(0, 0, 0), (255, 255, 255)], [(0, 0, 0), (1, 1, 1), (2, 2, 2)], [(n * 30, 0, 255) for n in range(8)]]
)
def test_a_mask_is_refused(colours: list[tuple[int, int, int]], form: str) -> None:
    for picture in (shapes(colours), shapes(colours).quantize(8)):
        assert f"it has {len(colours)} colours only" in refused(encoded(picture, form))


def test_a_map_of_labels_in_16_bits_is_refused() -> None:
    labels = np.asarray(shapes([(n, n, n) for n in range(6)]).convert("L"))
    for values in (labels.astype(np.uint16), labels.astype(np.uint16) * 4000):
        assert "a mask" in refused(encoded(Image.fromarray(values)))
        assert "a mask" in refused(grey_tiff(values))


def test_a_photograph_of_few_colours_is_kept() -> None:
    rng = np.random.default_rng(0)
    blank = [Image.new("RGB", (64, 64), colour) for colour in ((0, 0, 0), (255, 255, 255), (200, 180, 210))]
    noisy = [Image.fromarray(rng.integers(low, low + 6, (64, 64), dtype=np.uint8)) for low in (0, 120, 249)]
    banded = Image.fromarray(np.repeat(np.arange(240, 248, dtype=np.uint8), 512).reshape(64, 64))
    dark = Image.fromarray(rng.integers(0, 8, (64, 64), dtype=np.uint16))
    tiny = [scene(width, width, noise=0) for width in (1, 2, 3, 10)]
    for picture in (*blank, *noisy, banded, dark, *tiny, scene().quantize(16)):
        for form in ("PNG", "TIFF"):
            assert not refused(encoded(picture, form))
    assert not refused(encoded(scene(64, 64).convert("1").convert("L"), "JPEG"))


@pytest.mark.parametrize("times", [2.1, 3, 4, 6, 9, 12, 30])
def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size_and_looks_the_same(times: float) -> None:
    width = int(32 * times) + 1  # odd: the decoder rounds up, and nothing may shift
    picture = scene(width, width + 6, noise=30)
    for options in ({}, {"progressive": True}, {"subsampling": 0}):
        data = encoded(picture, "JPEG", quality=95, **options)
        quick = decode(prepare(data, size_px=32, encoding="png").stored).pixels
        slow = Image.fromarray(decode(data).pixels).resize((32, 32), Image.Resampling.BILINEAR)
        assert np.abs(quick - pixels_of(slow)).mean() < 2.5


def test_stored_jpegs_are_as_good_as_they_say() -> None:
    """Antialiased shrinking, quality 95, full chroma: close to the best a square of that size can be."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    best = pixels_of(picture.resize((32, 32), Image.Resampling.BILINEAR))
    stored = pixels_of(Image.open(io.BytesIO(prepare(encoded(picture), size_px=32).stored)))
    assert np.abs(stored - best).mean() < 4  # quality 50 with subsampling: 14
    assert (decode(prepare(encoded(picture), size_px=32, encoding="png").stored).pixels == best).all()
