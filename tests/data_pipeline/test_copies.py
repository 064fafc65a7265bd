"""The same picture more than once, under whatever name and in whatever format: one of them is written."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline.copies import find_copies
from data_pipeline.images import as_png, decode, prepare
from data_pipeline.manifest import Manifest, read_quarantine
from data_pipeline.spool import InspectionRow
from data_pipeline.table import Table, table_of
from tests.data_pipeline.conversion import convert
from tests.data_pipeline.image_files import encoded, scene


def save(folder: Path, name: str, data: bytes) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def blank(seed: int) -> Image.Image:
    """A bright field with the noise of a camera alone: no two have a pixel row in common, all look the same."""
    return Image.fromarray(np.random.default_rng(seed).integers(246, 252, (128, 128, 3), dtype=np.uint8))


@pytest.mark.parametrize("picture", [scene(128, 128), blank(0)], ids=["structured", "blank"])
@pytest.mark.parametrize("near", ["link", "ignore"])
def test_a_jpeg_that_was_kept_is_a_copy_of_its_pixels_in_any_format(
    tmp_path: Path, picture: Image.Image, near: str
) -> None:
    """Its thumbnail is made in another way than that of the others, so that no two are equal to the last bit."""
    jpeg = encoded(picture, "JPEG", quality=75)
    pixels = Image.fromarray(decode(jpeg).pixels)
    gland = tmp_path / "images" / "gland"
    save(gland, "red/s1.jpg", jpeg)
    save(gland, "red/s2.png", encoded(pixels))
    save(gland, "red/s3.bmp", encoded(pixels, "BMP"))
    save(gland, "red/s4.jpg", jpeg[:2] + b"\xff\xfe\x00\x08copied" + jpeg[2:])
    save(gland, "red/s5.jpg", jpeg + b"appended")
    save(gland, "red/s6.jpg", encoded(picture, "JPEG", quality=75, progressive=True))
    for seed in range(1, 7):  # as bright or as structured, but others
        other = blank(seed) if picture.getpixel((0, 0))[0] > 200 else scene(128, 128, seed=seed)
        save(gland, f"red/t{seed}.png", encoded(other))
        save(gland, f"blue/t{seed}.jpg", encoded(blank(100 + seed), "JPEG", quality=75))
    convert(tmp_path / "images", tmp_path / "out", "--image_size=128", f"--near_duplicates={near}")
    rows = read_quarantine(tmp_path / "out" / "gland")
    assert {row.path: row.duplicate_of for row in rows} == {
        f"red/{name}": "red/s1.jpg" for name in ("s2.png", "s3.bmp", "s4.jpg", "s5.jpg", "s6.jpg")
    }


@pytest.mark.parametrize("seed", range(5))
def test_a_progressive_jpeg_has_the_likeness_of_a_plain_one_of_its_pixels(seed: int) -> None:
    """Among kept JPEGs alone nothing else would tell that they are copies."""
    plain, progressive = (
        encoded(scene(128, 128, seed=seed, noise=60), "JPEG", quality=75, progressive=slow) for slow in (False, True)
    )
    assert (decode(plain).pixels == decode(progressive).pixels).all()
    assert prepare(plain, size_px=128).likeness == prepare(progressive, size_px=128).likeness


def test_copies_in_two_formats_under_two_diagnoses_are_a_label_conflict(tmp_path: Path) -> None:
    gland = tmp_path / "images" / "gland"
    for seed in range(6):
        for diagnosis, start in (("red", 0), ("blue", 50)):
            save(gland, f"{diagnosis}/{seed}.jpg", encoded(scene(128, 128, seed=start + seed, noise=60), "JPEG"))
    save(gland, "blue/copy.png", as_png(decode((gland / "red" / "0.jpg").read_bytes()).pixels))
    convert(tmp_path / "images", tmp_path / "out", "--image_size=128")
    rows = read_quarantine(tmp_path / "out" / "gland")
    assert [row.path for row in rows] == ["blue/copy.png", "red/0.jpg"]
    assert all("label conflict" in row.reason for row in rows)
    assert Manifest.load(tmp_path / "out" / "gland").counts.quarantined == 2


def table(kinds: str) -> Table:
    """One row for each letter: a kept (J)PEG or a (P)NG, all of which look the same to a hair."""
    rows = [
        InspectionRow(
            f"red/{number:04d}",
            f"{number:064x}",
            likeness=f"{number:032x}",
            levels=f"{100 + number % 3:02x}" * 16,
            kept=True,
            width=128,
            height=128,
            format={"J": "JPEG", "P": "PNG"}[kind],
            mode="RGB",
        )
        for number, kind in enumerate(kinds)
    ]
    return table_of(rows)


def test_pixels_are_asked_for_only_where_a_jpeg_and_another_format_meet() -> None:
    """To decode all images once more would take as long as to convert them."""
    asked: list[int] = []

    def identify(row: int) -> bytes:
        asked.append(row)
        return bytes(row % 10)

    for kinds in ("J" * 50, "P" * 50):
        some = table(kinds)
        assert not len(find_copies(some, some.usable(), identify).left_out)
    assert not asked
    mixed = table("J" * 25 + "P" * 25)
    found = find_copies(mixed, mixed.usable(), identify)
    assert sorted(asked) == list(range(50))
    assert found.kept.tolist() == list(range(10))
