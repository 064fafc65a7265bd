"""Changes of pixels against references computed another way."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from scipy.ndimage import gaussian_filter

from trainer.augment import Draws, draw, make_augment
from trainer.augment_config import Augmentation, AugmentFlags, augmentation_of
from trainer.pixel_changes import HED, blurred, cut_out, radius, stain_maps, stained

SIZE, BATCH = 48, 6
STILL = Augmentation.none()


@pytest.fixture
def pixels() -> np.ndarray:
    """`[batch, size, size, 3] uint8`, darkest and brightest included."""
    images = np.random.default_rng(3).integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    images[0, 0, 0], images[0, 0, 1] = 0, 255
    return images


def draws_of(how: Augmentation, *, epoch: int = 0, indices: np.ndarray | None = None) -> Draws:
    return draw(how, seed=1, epoch=epoch, indices=np.arange(BATCH) if indices is None else indices)


def test_stain_jitter_is_colour_deconvolution(pixels: np.ndarray) -> None:
    """As in the papers: light to density, density to stains, each stain changed, and back."""
    draws = draws_of(replace(STILL, stain=0.2))
    maps, offsets = stain_maps(draws.stain_factor, draws.stain_offset)
    ours = stained(
        pixels.astype(np.float32), maps.reshape(BATCH, 9).astype(np.float32), offsets.astype(np.float32)
    ).numpy()
    density = -np.log(np.maximum(pixels.astype(np.float64), 1) / 255)
    stains = np.linalg.solve(HED.T, density[..., None])[..., 0]  # density = stains · HED, row by row
    stains = stains * draws.stain_factor[:, None, None] + draws.stain_offset[:, None, None]
    theirs = np.minimum(np.exp(-stains @ HED), 1) * 255
    assert np.abs(ours - theirs).max() < 0.01
    assert np.abs(ours - pixels).max() > 10


def test_each_channel_gets_a_light_of_its_own(pixels: np.ndarray) -> None:
    how = replace(STILL, colour=0.3)
    draws = draws_of(how)
    ours = make_augment(how)(pixels, draws.packed(SIZE)).numpy()
    light = draws.colour_gain[:, None, None, :]
    assert np.abs(ours - np.minimum(np.maximum(pixels, 1) / 255 * light, 1)).max() < 1e-4
    assert (np.abs(draws.colour_gain - 1) <= 0.3).all()
    assert np.ptp(draws.colour_gain, axis=1).min() > 0.01


def test_the_flags_of_each_range_are_those_of_the_notebooks_by_default() -> None:
    flags = AugmentFlags()
    assert augmentation_of(flags) == Augmentation()
    wide = replace(flags, rotation=180.0, shift=0.1, zoom=0.3, brightness=0.1, colour=0.2)
    expected = Augmentation(rotation_degrees=180.0, shift=0.1, zoom=(0.7, 1.3), brightness=(0.9, 1.1), colour=0.2)
    assert augmentation_of(wide) == expected
    assert augmentation_of(replace(wide, augment=False)) == replace(STILL, colour=0.2)


def test_no_stain_jitter_leaves_all_but_black_as_it_is(pixels: np.ndarray) -> None:
    maps, offsets = stain_maps(np.ones((BATCH, 3)), np.zeros((BATCH, 3)))
    same = stained(pixels.astype(np.float32), maps.reshape(BATCH, 9).astype(np.float32), offsets.astype(np.float32))
    assert np.abs(same.numpy() - np.maximum(pixels, 1)).max() < 0.001


def test_blur_is_the_gaussian_filter_of_scipy(pixels: np.ndarray) -> None:
    sigmas = np.array([0.0, 0.3, 0.8, 1.1, 1.6, 2.0], np.float32)
    ours = blurred(pixels.astype(np.float32), sigmas, largest_px=2.0).numpy()
    assert (ours[0] == pixels[0]).all()
    for i in range(1, BATCH):
        image = pixels[i].astype(np.float64)
        theirs = gaussian_filter(image, sigmas[i], mode="nearest", radius=radius(2.0), axes=(0, 1))
        assert np.abs(ours[i] - theirs).max() < 0.01


def test_a_cut_out_covers_its_square_and_nothing_else(pixels: np.ndarray) -> None:
    unit = (pixels / 255).astype(np.float32)
    boxes = np.array(
        [[10, 20, 30, 25], [-5, -5, 4, 4], [40, 40, 60, 60], [0, 0, 48, 48], [3, 3, 3, 3], [60, 60, 70, 70]]
    )
    ours = cut_out(unit, boxes.astype(np.float32)).numpy()
    for i, (left, top, right, bottom) in enumerate(np.clip(boxes, 0, SIZE)):
        theirs = unit[i].copy()
        theirs[top:bottom, left:right] = 0.5
        assert (ours[i] == theirs).all()


def test_a_quarter_turn_is_exact(pixels: np.ndarray) -> None:
    for turns in range(4):
        turned = replace(draws_of(STILL), quarter_turns=np.full(BATCH, turns))
        ours = make_augment(STILL)(pixels, turned.packed(SIZE)).numpy()
        theirs = np.rot90(pixels, turns, axes=(1, 2))
        assert np.allclose(ours, theirs / 255, atol=1e-6), turns


def test_quarter_turns_come_equally_often() -> None:
    draws = draws_of(Augmentation(quarter_turns=True), indices=np.arange(20_000))
    assert np.abs(np.bincount(draws.quarter_turns) / 20_000 - 0.25).max() < 0.015
    assert not draws_of(Augmentation()).quarter_turns.any()


def test_what_is_off_changes_no_bit_of_what_is_on(pixels: np.ndarray) -> None:
    """A run of before a change existed can be gone on with, and `stain` leaves the rotation where it was."""
    plain, more = (
        draws_of(Augmentation()),
        draws_of(Augmentation(stain=0.1, blur_px=1, cutout=0.2, quarter_turns=True, colour=0.1)),
    )
    for name in ("theta_radians", "shift_x", "shift_y", "zoom_x", "zoom_y", "flip_x", "flip_y", "brightness"):
        assert (getattr(plain, name) == getattr(more, name)).all()


@pytest.mark.parametrize(
    "how", [replace(STILL, stain=0.1), replace(STILL, blur_px=1.5), Augmentation(stain=0.1, blur_px=1.0, cutout=0.3)]
)
def test_an_image_is_the_same_whatever_batch_it_is_in(pixels: np.ndarray, how: Augmentation) -> None:
    together = make_augment(how)(pixels, draws_of(how).packed(SIZE)).numpy()
    order = np.array([5, 0, 3, 2])
    apart = make_augment(how)(pixels[order], draws_of(how, indices=order).packed(SIZE)).numpy()
    assert (apart == together[order]).all()
    assert (together != make_augment(how)(pixels, draws_of(how, epoch=1).packed(SIZE)).numpy()).any()


def test_blur_comes_before_stains_and_light_and_the_cut_out_last(pixels: np.ndarray) -> None:
    how = Augmentation(stain=0.1, blur_px=1.0, cutout=0.3)
    draws = draws_of(how)
    ours = make_augment(how)(pixels, draws.packed(SIZE)).numpy()
    plain = replace(draws, brightness=np.ones(BATCH, np.float32))
    step = make_augment(replace(how, stain=0.0, blur_px=0.0, cutout=0.0))(pixels, plain.packed(SIZE)) * 255
    step = blurred(step, tf.constant(draws.blur_px, tf.float32), largest_px=1.0)
    packed = draws.packed(SIZE)
    step = stained(step, packed[:, 7:16], packed[:, 16:19]) / 255
    step = np.minimum(step.numpy() * draws.brightness[:, None, None, None], 1)
    assert np.allclose(ours, cut_out(step, packed[:, 20:]), atol=1e-5)


def test_strength_widens_every_range() -> None:
    twice = Augmentation(stain=0.1, blur_px=1.0, cutout=0.2).scaled(2.0)
    assert (twice.rotation_degrees, twice.shift, twice.stain, twice.blur_px, twice.cutout) == (60, 0.3, 0.2, 2.0, 0.4)
    assert twice.zoom == pytest.approx((0.6, 1.4))
    assert twice.brightness == pytest.approx((0.0, 2.0))
    assert Augmentation().scaled(1.0) == Augmentation()
    nothing = Augmentation().scaled(0.0)
    assert replace(nothing, flips=False) == Augmentation.none()
    most = Augmentation().scaled(100.0)
    assert most.rotation_degrees == 180
    assert most.zoom == (0.1, 10.0)
