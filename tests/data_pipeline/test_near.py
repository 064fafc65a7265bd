"""Near duplicates: copies are connected however they were turned, unrelated images never are, whatever their number."""

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_pipeline.images import thumbnail
from data_pipeline.near import THRESHOLD, THUMBNAIL_PX, NearPairs, distinction, fingerprints, near_duplicates
from data_pipeline.near_background import Background, least_conceivable
from data_pipeline.near_candidates import candidates
from data_pipeline.near_moments import best_correlation

STORED_PX = 256
SYMMETRIES = [None, *Image.Transpose]


def texture(seed: int, *, size: int = STORED_PX) -> Image.Image:
    """Smoothed noise of all sizes, as tissue is: another for every seed."""
    random = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(random.normal(0, 1, (n, n)).astype(np.float32)).resize((size, size), Image.BICUBIC))
        for n in (4, 8, 16, 32)
    ]
    total = np.sum(layers, axis=0)
    grey = np.clip(150 + 35 * total / total.std(), 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def prints_of(*images: Image.Image) -> NDArray[np.int8]:
    return fingerprints(
        np.stack([thumbnail(image.resize((STORED_PX, STORED_PX), Image.Resampling.BILINEAR)) for image in images])
    )


def as_pairs(pairs: NearPairs) -> set[tuple[int, int]]:
    return set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))


def components(count: int, pairs: NearPairs) -> NDArray[np.int32]:
    """`[count]`: the number of each image's component."""
    graph = coo_array((np.ones(len(pairs)), (pairs.left, pairs.right)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1])


def reencoded(image: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return Image.open(out).convert("RGB")


def rotated_inside(image: Image.Image, degrees: float) -> Image.Image:
    """Turned, cut to the largest upright square inside, brought back to size: what augmentation libraries do."""
    kept = image.width / (np.cos(np.radians(degrees)) + np.sin(np.radians(degrees)))
    edge = (image.width - kept) / 2
    turned = image.rotate(degrees, Image.BICUBIC)
    return turned.resize(image.size, Image.BICUBIC, box=(edge, edge, edge + kept, edge + kept))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 50": lambda image: reencoded(image, 50),
    "JPEG 95": lambda image: reencoded(image, 95),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "twice the size": lambda image: image.resize((image.width * 2, image.height * 2)),
    "darker": lambda image: image.point(lambda value: 0.7 * value),
    "brighter": lambda image: image.point(lambda value: value + 20),
    "less contrast": lambda image: image.point(lambda value: 128 + 0.7 * (value - 128)),
    "turned by 10°": lambda image: rotated_inside(image, 10),
    "turned by 25°": lambda image: rotated_inside(image, 25),
}


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_the_eight_symmetries_of_an_image_match_one_another_fully(seed: int) -> None:
    image = texture(seed)
    prints = prints_of(*(image if way is None else image.transpose(way) for way in SYMMETRIES))
    assert best_correlation(prints, np.zeros(8, int), np.arange(8)).min() > 0.999
    assert components(9, near_duplicates(np.concatenate([prints, prints_of(texture(seed + 1))]))).tolist() == [
        0
    ] * 8 + [1]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_copy_is_connected_to_its_original_and_to_nothing_else(change: Callable[..., Image.Image]) -> None:
    originals = [texture(seed) for seed in range(30)]
    pairs = near_duplicates(prints_of(*originals, *map(change, originals)))
    assert as_pairs(pairs) == {(index, 30 + index) for index in range(30)}
    assert (pairs.similarity >= THRESHOLD).all()
    assert (pairs.similarity <= 1).all()


def test_unrelated_textures_are_not_connected() -> None:
    assert len(near_duplicates(prints_of(*map(texture, range(400))))) == 0


def spot(random: np.random.Generator) -> NDArray[np.uint8]:
    """One dark round nucleus somewhere near the middle of an evenly lit field, and the camera's noise."""
    axis = np.linspace(-1, 1, THUMBNAIL_PX)
    x, y = random.uniform(-0.4, 0.4, 2)
    radius = np.hypot(axis - x, axis[:, None] - y)
    dark = 1 / (1 + np.exp((radius - random.uniform(0.12, 0.35)) / 0.03))
    return np.clip(210 - 100 * dark + random.normal(0, 3, dark.shape), 0, 255).astype(np.uint8)


def slope(random: np.random.Generator) -> NDArray[np.uint8]:
    """An empty field, brighter on one side."""
    across, down = random.uniform(-15, 15, 2)
    axis = np.linspace(-1, 1, THUMBNAIL_PX)
    field = 220 + across * axis + down * axis[:, None] + random.normal(0, 1, (THUMBNAIL_PX, THUMBNAIL_PX))
    return field.astype(np.uint8)


def edge(random: np.random.Generator) -> NDArray[np.uint8]:
    """The straight edge of a section: white on one side, even tissue on the other."""
    axis, angle = np.linspace(-1, 1, THUMBNAIL_PX), random.uniform(0, 2 * np.pi)
    side = axis * np.cos(angle) + axis[:, None] * np.sin(angle) > random.uniform(-0.3, 0.3)
    return np.clip(140 + 100 * side + random.normal(0, 3, side.shape), 0, 255).astype(np.uint8)


def cell(random: np.random.Generator) -> NDArray[np.uint8]:
    """A cell and its nucleus, faintly textured: not two the same, but all alike."""
    axis = np.linspace(-1, 1, THUMBNAIL_PX)
    field = 210 + 4 * np.asarray(texture(int(random.integers(1 << 30)), size=THUMBNAIL_PX).getchannel("G")) / 35.0
    for depth, away, least, most in ((35, 0.1, 0.5, 0.9), (70, 0.3, 0.15, 0.35)):
        x, y = random.uniform(-away, away, 2)
        wide, high = random.uniform(least, most, 2)
        field -= depth * (((axis - x) / wide) ** 2 + ((axis[:, None] - y) / high) ** 2 < 1)
    return np.clip(field, 0, 255).astype(np.uint8)


def noise(random: np.random.Generator) -> NDArray[np.uint8]:
    return np.clip(random.normal(128, 40, (THUMBNAIL_PX, THUMBNAIL_PX)), 0, 255).astype(np.uint8)


def blank(random: np.random.Generator) -> NDArray[np.uint8]:
    return np.clip(random.normal(240, 2, (THUMBNAIL_PX, THUMBNAIL_PX)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", [slope, edge, spot, cell, noise, blank], ids=lambda kind: kind.__name__)
def test_images_alike_for_lack_of_structure_are_not_connected(kind: Callable[..., NDArray[np.uint8]]) -> None:
    random = np.random.default_rng(0)
    pairs = near_duplicates(fingerprints(np.stack([kind(random) for _ in range(500)])))
    assert len(pairs) == 0


def test_blank_images_have_no_fingerprint() -> None:
    flat = np.arange(0, 256, 5, dtype=np.uint8)[:, None, None].repeat(64, axis=1).repeat(64, axis=2)
    assert not fingerprints(flat).any()
    assert len(near_duplicates(fingerprints(flat))) == 0


def test_no_image_and_one_image_have_no_duplicates() -> None:
    assert fingerprints(np.zeros((0, 64, 64), np.uint8)).shape == (0, 192)
    assert len(near_duplicates(np.zeros((0, 192), np.int8))) == 0
    assert len(near_duplicates(prints_of(texture(0)))) == 0


@settings(max_examples=10, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(shuffle) -> None:  # type: ignore[no-untyped-def]
    prints = many_prints(300)
    order = list(range(len(prints)))
    shuffle.shuffle(order)
    expected = as_pairs(near_duplicates(prints))
    found = {tuple(sorted((order[a], order[b]))) for a, b in as_pairs(near_duplicates(prints[order]))}
    assert found == expected
    assert expected >= {(index, 300 + index) for index in range(5)}


def many_prints(count: int, *, copies: int = 10, difference: float = 3) -> NDArray[np.int8]:
    """So many unrelated fingerprints, and of the first of them a slightly different copy each."""
    random = np.random.default_rng(1)
    prints = np.clip(random.normal(0, 35, (count, 192)), -127, 127)
    changed = prints[:copies] + random.normal(0, difference, (copies, 192))
    return np.rint(np.concatenate([prints, changed])).clip(-127, 127).astype(np.int8)


def test_fingerprints_are_the_same_in_any_batch() -> None:
    thumbnails = np.stack([noise(np.random.default_rng(seed)) for seed in range(70)])
    single = np.concatenate([fingerprints(thumbnails[index : index + 1]) for index in range(70)])
    np.testing.assert_array_equal(fingerprints(thumbnails), single)


@pytest.mark.parametrize(("count", "difference"), [(20_000, 0), (4_000, 3)], ids=["identical", "similar"])
def test_a_pile_of_copies_is_connected_by_few_pairs_and_soon(count: int, difference: int) -> None:
    random = np.random.default_rng(0)
    one = prints_of(texture(0)).astype(int)
    pile = np.clip(one + random.integers(-difference, difference + 1, (count, 192)), -127, 127).astype(np.int8)
    start = time.process_time()
    pairs = near_duplicates(np.concatenate([pile, prints_of(texture(1))]))
    assert time.process_time() - start < 12
    assert count - 1 <= len(pairs) < 10 * count
    assert components(count + 1, pairs).tolist() == [0] * count + [1]


def test_copies_are_found_among_many_images() -> None:
    prints = many_prints(20_000)
    assert as_pairs(near_duplicates(prints)) == {(index, 20_000 + index) for index in range(10)}


def test_copies_that_differ_a_lot_are_found_though_one_table_parts_half_of_them() -> None:
    pairs = as_pairs(near_duplicates(many_prints(1800, copies=200, difference=12)))
    assert pairs <= {(index, 1800 + index) for index in range(200)}
    assert len(pairs) >= 178


def compared(prints: NDArray[np.int8], needed: NDArray[np.float64]) -> float:
    """How many pairs are compared, for each image."""
    kept = np.flatnonzero(prints.any(axis=1))
    return sum(len(left) for left, _ in candidates(prints, kept, needed[kept])) / len(kept)


@pytest.mark.parametrize("organ", ["cervix", "white_blood_cells"])
def test_few_pairs_of_cells_are_compared_however_alike_cells_are(real_images: Path, organ: str) -> None:
    prints, _, _ = read_organ(real_images, organ)
    needed = np.tanh(least_conceivable(prints, distinction=distinction(len(prints))))
    assert compared(prints, needed) < min(3, 0.9 * compared(prints, np.zeros(len(prints))))


def test_no_image_needs_less_than_is_thought_conceivable() -> None:
    random = np.random.default_rng(0)
    prints = fingerprints(np.stack([kind(random) for kind in (slope, edge, spot, cell, noise) for _ in range(100)]))
    prints = np.concatenate([prints, prints_of(*map(texture, range(100))), many_prints(100)])
    prints = prints[prints.any(axis=1)]
    for stands_out in (distinction(10), distinction(2_000_000)):
        conceivable = least_conceivable(prints, distinction=stands_out)
        assert (conceivable <= Background.of(prints).least(distinction=stands_out)).all()
        assert conceivable.mean() > 0.5


def test_more_images_have_to_stand_out_further() -> None:
    assert distinction(10) == distinction(2_500) < distinction(200_000) < distinction(2_000_000) < 15


def test_an_image_of_one_spot_matches_strangers_better_than_a_texture_does() -> None:
    spots = fingerprints(np.stack([spot(np.random.default_rng(seed)) for seed in range(20)]))
    textures = prints_of(*map(texture, range(20)))
    assert Background.of(spots).mean.min() > Background.of(textures).mean.max()


def read_organ(folder: Path, organ: str) -> tuple[NDArray[np.int8], NDArray[np.str_], list[str]]:
    with (folder / "provenance.csv").open() as file:
        rows = sorted((row for row in csv.DictReader(file) if row["organ"] == organ), key=lambda row: row["path"])
    prints = prints_of(*(Image.open(folder / row["path"]).convert("RGB") for row in rows))
    return prints, np.array([row["group"] for row in rows]), [row["path"] for row in rows]


def test_tiles_cut_from_one_source_by_augmentation_are_connected_and_no_others(real_images: Path) -> None:
    prints, groups, _ = read_organ(real_images, "lung")
    pairs = near_duplicates(prints)
    assert (groups[pairs.left] == groups[pairs.right]).all()
    component = components(len(prints), pairs)
    together = (component[:, None] == component) & (groups[:, None] == groups) & ~np.eye(len(groups), dtype=bool)
    assert together.any(axis=1).mean() > 0.86


@pytest.mark.parametrize(("organ", "least", "most"), [("cervix", 2, 8), ("white_blood_cells", 4, 8)])
def test_different_cells_are_not_connected(real_images: Path, organ: str, least: int, most: int) -> None:
    prints, _, _ = read_organ(real_images, organ)
    pairs = near_duplicates(prints)
    assert least <= len(pairs) <= most  # fields that were photographed twice
    assert np.bincount(components(len(prints), pairs)).max() <= 3
