"""Vectors of images: what each of them sees, and what it doesn't."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from trainer.features import BORDER_PART, FEATURES, border, colour_texture, image_features, mean_colour

LENGTHS = {"colour_texture": 368, "mean_colour": 3, "border": 244}


def noise(seed: int, height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (16, 16), (31, 300), (64, 64), (257, 256), (600, 500)])
def test_vectors_of_images_of_any_size_are_finite_and_equally_long(shape: tuple[int, int]) -> None:
    for name, vector in image_features(noise(1, *shape)).items():
        assert vector.shape == (LENGTHS[name],)
        assert vector.dtype == np.float32
        assert np.isfinite(vector).all()


def test_the_same_image_gives_the_same_bytes_and_stays_as_it_was() -> None:
    pixels = noise(2)
    before = pixels.copy()
    first, second = image_features(pixels), image_features(pixels.copy())
    assert all(first[name].tobytes() == second[name].tobytes() for name in FEATURES)
    assert np.array_equal(pixels, before)


def test_the_mean_colour_is_the_mean_of_each_channel() -> None:
    pixels = noise(3)
    np.testing.assert_allclose(mean_colour(pixels), pixels.reshape(-1, 3).mean(axis=0), rtol=1e-6)


def test_the_border_never_sees_the_centre_and_sees_all_four_sides() -> None:
    pixels = noise(4, 100, 60)
    rows, columns = round(100 * BORDER_PART), round(60 * BORDER_PART)
    other = noise(5, 100, 60)
    inside = (slice(rows, -rows), slice(columns, -columns))
    centre = pixels.copy()
    centre[inside] = other[inside]
    assert np.array_equal(border(centre), border(pixels))
    for place in ((0, 30), (99, 30), (50, 0), (50, 59)):
        changed = pixels.copy()
        changed[place] = 255 - changed[place]
        assert not np.array_equal(border(changed), border(pixels)), place


def test_colour_and_texture_tell_a_checkerboard_from_halves_of_the_same_colours() -> None:
    rows, columns = np.mgrid[:64, :64]
    board = np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    halves = np.repeat(((columns >= 32) * 255).astype(np.uint8)[..., None], 3, axis=2)
    assert np.array_equal(mean_colour(board), mean_colour(halves))
    assert np.abs(colour_texture(board) - colour_texture(halves)).max() > 10


def test_texture_does_not_depend_on_which_side_is_up() -> None:
    pixels = np.asarray(Image.fromarray(noise(6, 16, 16)).resize((64, 64), Image.Resampling.BILINEAR))
    # Blocks of 8 fill the image, so that all scales are of the same pixels; only rounding is left.
    np.testing.assert_allclose(colour_texture(np.rot90(pixels).copy()), colour_texture(pixels), atol=0.02)
