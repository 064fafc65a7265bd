"""The warp, either of the two, equals Keras's, and depends on nothing but (seed, epoch, record)."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from scipy.stats import ks_2samp

from tests.conftest import ROOT
from trainer import augment
from trainer.augment import draw
from trainer.augment_config import Augmentation
from trainer.host_warp import warped_on_host

SIZE = 64
Warp = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@pytest.fixture(params=["xla", "host"])
def warp(request: pytest.FixtureRequest) -> Warp:
    """(images, matrices, brightness) → float32 in [0, 1]."""
    if request.param == "host":
        return lambda images, matrices, light: warped_on_host(images, matrices, light / np.float32(255), limit=1.0)
    return lambda images, matrices, light: augment.warp(images, matrices, light / np.float32(255), limit=1.0).numpy()


def pictures(count: int) -> np.ndarray:
    """`[count, 64, 64, 3] uint8` with edges and gradients."""
    rng = np.random.default_rng(1)
    small = rng.integers(0, 256, (count, 9, 9, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(p).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) for p in small])


def keras_affine(image: np.ndarray, draws, i: int) -> np.ndarray:
    from keras.src.legacy.preprocessing.image import apply_affine_transform

    out = apply_affine_transform(
        image.astype(np.float32),
        theta=np.rad2deg(draws.theta_radians[i]),
        tx=draws.shift_x[i] * len(image),
        ty=draws.shift_y[i] * len(image),
        zx=draws.zoom_x[i],
        zy=draws.zoom_y[i],
        row_axis=0,
        col_axis=1,
        channel_axis=2,
        order=1,
        fill_mode="nearest",
    )
    out = out[:, ::-1] if draws.flip_x[i] else out
    return out[::-1] if draws.flip_y[i] else out


def test_the_warp_is_keras_affine_transform(warp: Warp) -> None:
    images = pictures(24)
    draws = draw(Augmentation(), seed=4, epoch=1, indices=np.arange(24))
    assert {True, False} == set(draws.flip_x) == set(draws.flip_y)
    ours = warp(images, draws.matrices(SIZE), np.ones(24, np.float32))
    for i in range(24):
        assert np.abs(ours[i] - keras_affine(images[i], draws, i) / 255).max() < 1 / 255


def test_the_warp_is_keras_affine_transform_on_real_images(warp: Warp, real_images) -> None:
    files = [next(iter(sorted(folder.glob("*.*")))) for folder in sorted(real_images.glob("*/*")) if folder.is_dir()]
    images = np.stack([np.asarray(Image.open(file).convert("RGB").resize((SIZE * 2, SIZE * 2))) for file in files])
    draws = draw(Augmentation(), seed=7, epoch=0, indices=np.arange(len(files)))
    ours = warp(images, draws.matrices(SIZE * 2), np.ones(len(files), np.float32))
    for i in range(len(files)):
        assert np.abs(ours[i] - keras_affine(images[i], draws, i) / 255).max() < 1 / 255


def test_parameters_are_distributed_as_those_of_image_data_generator() -> None:
    count = 4000
    generator = keras.src.legacy.preprocessing.image.ImageDataGenerator(
        rotation_range=30,
        width_shift_range=0.15,
        height_shift_range=0.15,
        zoom_range=0.2,
        horizontal_flip=True,
        vertical_flip=True,
        brightness_range=(0.5, 1.5),
    )
    theirs = [generator.get_random_transform((SIZE, SIZE, 3), seed=i) for i in range(count)]
    ours = draw(Augmentation(), seed=0, epoch=0, indices=np.arange(count))
    for name, values in {
        "theta": np.rad2deg(ours.theta_radians),
        "tx": ours.shift_x * SIZE,
        "ty": ours.shift_y * SIZE,
        "zx": ours.zoom_x,
        "zy": ours.zoom_y,
        "flip_horizontal": ours.flip_x,
        "flip_vertical": ours.flip_y,
        "brightness": ours.brightness,
    }.items():
        same = ks_2samp(values.astype(float), np.array([one[name] for one in theirs], dtype=float))
        assert same.pvalue > 1e-3, name


def test_brightness_multiplies_and_saturates(warp: Warp) -> None:
    images = pictures(2)
    still = draw(Augmentation.none(), seed=0, epoch=0, indices=np.arange(2))
    bright = warp(images, still.matrices(SIZE), np.array([0.5, 1.5], np.float32))
    assert np.allclose(bright[0], images[0] / 255 * 0.5, atol=1e-6)
    assert np.allclose(bright[1], np.minimum(images[1] / 255 * 1.5, 1.0), atol=1e-6)


def test_no_augmentation_changes_nothing(warp: Warp) -> None:
    images = pictures(3)
    still = draw(Augmentation.none(), seed=0, epoch=0, indices=np.arange(3))
    assert np.allclose(warp(images, still.matrices(SIZE), still.brightness), images / 255, atol=1e-6)


def test_an_image_is_the_same_whatever_batch_it_is_in(warp: Warp) -> None:
    images = pictures(8)
    whole = draw(Augmentation(), seed=2, epoch=5, indices=np.arange(8))
    together = warp(images, whole.matrices(SIZE), whole.brightness)
    order = np.array([6, 1, 3])
    some = draw(Augmentation(), seed=2, epoch=5, indices=order)
    apart = warp(images[order], some.matrices(SIZE), some.brightness)
    assert (apart == together[order]).all()
    other = draw(Augmentation(), seed=2, epoch=6, indices=np.arange(8))
    assert (other.theta_radians != whole.theta_radians).all()


def test_parameters_stay_in_their_ranges_and_fill_them() -> None:
    draws = draw(Augmentation(), seed=0, epoch=0, indices=np.arange(20_000))
    for values, low, high in (
        (np.rad2deg(draws.theta_radians), -30, 30),
        (draws.shift_x, -0.15, 0.15),
        (draws.shift_y, -0.15, 0.15),
        (draws.zoom_x, 0.8, 1.2),
        (draws.zoom_y, 0.8, 1.2),
        (draws.brightness, 0.5, 1.5),
    ):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high >= values.max() > high - 0.01 * (high - low)
        assert abs(values.mean() - (low + high) / 2) < 0.01 * (high - low)
    for flips in (draws.flip_x, draws.flip_y):
        assert abs(flips.mean() - 0.5) < 0.015


@pytest.mark.parametrize("flip", ["flip_x", "flip_y"])
def test_a_flip_is_an_exact_mirror(warp: Warp, flip: str) -> None:
    images = pictures(1)
    still = draw(Augmentation.none(), seed=0, epoch=0, indices=np.arange(1))
    mirrored = replace(still, **{flip: np.array([True])})
    expected = images[:, :, ::-1] if flip == "flip_x" else images[:, ::-1]
    out = warp(images, mirrored.matrices(SIZE), still.brightness)
    assert np.allclose(out, expected / 255, atol=2e-5)


def test_an_image_of_more_pixels_than_float32_can_count_is_warped_as_any(warp: Warp) -> None:
    """4,097² > 2²⁴: the place of a pixel has to be computed in whole numbers."""
    image = np.random.default_rng(0).integers(0, 256, (1, 4097, 4097, 3), dtype=np.uint8)
    unchanged = np.array([[1, 0, 0, 0, 1, 0]], np.float32)
    warped = warp(image, unchanged, np.ones(1, np.float32))
    assert np.array_equal(np.rint(warped * 255), image)


def test_both_warps_give_the_same_pixels_of_a_batch_that_threads_share() -> None:
    images = pictures(21)
    draws = draw(replace(Augmentation(), quarter_turns=True), seed=3, epoch=2, indices=np.arange(21))
    matrices, gains = draws.matrices(SIZE), draws.brightness / np.float32(255)
    ours = warped_on_host(images, matrices, gains, limit=1.0)
    assert np.abs(ours - augment.warp(images, matrices, gains, limit=1.0)).max() < 1e-5
    assert all(
        (warped_on_host(images[i : i + 1], matrices[i : i + 1], gains[i : i + 1], limit=1.0) == ours[i]).all()
        for i in range(21)
    )


def test_the_host_warps_images_of_any_size() -> None:
    for size in (2, 3, 31, 33, 100):
        images = np.random.default_rng(size).integers(0, 256, (3, size, size, 3), dtype=np.uint8)
        draws = draw(Augmentation(), seed=size, epoch=0, indices=np.arange(3))
        theirs = augment.warp(images, draws.matrices(size), draws.brightness, limit=255.0)
        assert np.abs(warped_on_host(images, draws.matrices(size), draws.brightness, limit=255.0) - theirs).max() < 1e-2


# Its files may have so many bytes; images, that are all alike, come out as they are.
WARPED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
import numpy as np
from trainer.host_warp import warped_on_host
images = np.full((2, 8, 8, 3), 51, np.uint8)
same = np.eye(2, 3, dtype=np.float32).reshape(1, 6).repeat(2, 0)
assert (warped_on_host(images, same, np.ones(2, np.float32), limit=255) == 51).all()
"""


def test_the_kernel_is_kept_where_that_is_possible_and_runs_where_it_is_not(tmp_path: Path) -> None:
    for bytes_allowed, there in ((100, False), (10**9, True)):
        folder = tmp_path / str(bytes_allowed)
        command = [sys.executable, "-c", WARPED, str(bytes_allowed)]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"NUMBA_CACHE_DIR": str(folder)}, check=True)
        assert any(folder.rglob("*.nbc")) == there
