"""Augmentation of training images: one fused affine warp, then changes of pixels, for a whole batch. Stateless.

    how = Augmentation(stain=0.05)
    draws = draw(how, seed=0, epoch=3, indices=indices)                   # NumPy, a row an image
    images = make_augment(how)(pixels, draws.packed(size))                # TensorFlow

The parameters that are on by default are those of the seed notebooks' `ImageDataGenerator`: rotation, shifts, zoom per
axis, both flips, brightness, nearest fill. Composition and centre follow Keras's `apply_affine_transform` with order 1,
of which the warp is the batched equal. Unlike Keras, brightness multiplies the pixel's own range instead of one
stretched to the image's extremes, and each image is interpolated once, however many changes it gets. The others are
off by default; `pixel_changes.py` says what each does and where it is from. The warp is compiled by XLA, or by
`host_warp.py` for the host's processor, where that is several times as fast; the rest by XLA.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.augment_config import Augmentation
from trainer.host_warp import sampled_on_host
from trainer.pixel_changes import blurred, cut_out, stain_maps, stained
from trainer.randomness import uniform

# Numbers drawn for an image. New ones go to the end: those before stay what they were.
_DRAWN = 21
PACKED = 24  # columns of `Draws.packed`
_QUARTER_COS, _QUARTER_SIN = np.array([1.0, 0.0, -1.0, 0.0]), np.array([0.0, 1.0, 0.0, -1.0])


@dataclass(frozen=True, slots=True)
class Draws:
    """What happens to each image of a batch; every field is `[batch]`, or `[batch, …]` where it says so.

    `stain_factor`, `stain_offset` and `colour_gain` are `[batch, 3]`, `cut_centre` is `[batch, 2]`: (x, y) as shares
    of the side.
    """

    theta_radians: NDArray[np.float64]
    shift_x: NDArray[np.float64]
    shift_y: NDArray[np.float64]
    zoom_x: NDArray[np.float64]
    zoom_y: NDArray[np.float64]
    flip_x: NDArray[np.bool_]
    flip_y: NDArray[np.bool_]
    brightness: NDArray[np.float32]
    quarter_turns: NDArray[np.int64]
    stain_factor: NDArray[np.float64]
    stain_offset: NDArray[np.float64]
    blur_px: NDArray[np.float64]
    cut_centre: NDArray[np.float64]
    cut_side: float
    colour_gain: NDArray[np.float64]

    def packed(self, size_px: int) -> NDArray[np.float32]:
        """`[batch, PACKED]`, what `make_augment` takes: matrix 6, brightness 1, stain 12, blur 1, cut-out box 4."""
        map_, offset = stain_maps(self.stain_factor, self.stain_offset)
        offset = offset - np.log(self.colour_gain)  # light is a factor, its logarithm a density
        batch = len(self.brightness)
        half = self.cut_side * size_px / 2
        centre = self.cut_centre * size_px
        columns = [self.matrices(size_px), self.brightness[:, None], map_.reshape(batch, 9), offset]
        columns += [self.blur_px[:, None], centre - half, centre + half]
        return np.concatenate(columns, axis=1).astype(np.float32)

    def matrices(self, size_px: int) -> NDArray[np.float32]:
        """`[batch, 6]`: (a, b, c, d, e, f) with source x = a·x + b·y + c and y = d·x + e·y + f, in pixels.

        rotation · shift · zoom about the centre (size/2 − 0.5), as Keras composes them, then flips and quarter turns.
        """
        cos, sin = np.cos(self.theta_radians), np.sin(self.theta_radians)
        sign_x, sign_y = np.where(self.flip_x, -1.0, 1.0), np.where(self.flip_y, -1.0, 1.0)
        centre = size_px / 2 - 0.5
        a, b = cos * self.zoom_x * sign_x, -sin * self.zoom_y * sign_y
        d, e = sin * self.zoom_x * sign_x, cos * self.zoom_y * sign_y
        turn_cos, turn_sin = _QUARTER_COS[self.quarter_turns], _QUARTER_SIN[self.quarter_turns]
        a, b = a * turn_cos + b * turn_sin, b * turn_cos - a * turn_sin
        d, e = d * turn_cos + e * turn_sin, e * turn_cos - d * turn_sin
        move_x, move_y = self.shift_x * size_px, self.shift_y * size_px
        c = cos * move_x - sin * move_y + centre - (a + b) * centre
        f = sin * move_x + cos * move_y + centre - (d + e) * centre
        return np.stack([a, b, c, d, e, f], axis=-1).astype(np.float32)


def draw(how: Augmentation, *, seed: int, epoch: int, indices: NDArray[np.int64]) -> Draws:
    """The changes to the records `indices` in `epoch`: a function of (seed, epoch, index) alone."""
    u = uniform(seed, epoch, indices, draws=_DRAWN).T
    zoom_low, zoom_high = how.zoom
    dark, bright = how.brightness
    return Draws(
        theta_radians=np.deg2rad(how.rotation_degrees) * (2 * u[0] - 1),
        shift_x=how.shift * (2 * u[1] - 1),
        shift_y=how.shift * (2 * u[2] - 1),
        zoom_x=zoom_low + (zoom_high - zoom_low) * u[3],
        zoom_y=zoom_low + (zoom_high - zoom_low) * u[4],
        flip_x=(u[5] < 0.5) & how.flips,
        flip_y=(u[6] < 0.5) & how.flips,
        brightness=(dark + (bright - dark) * u[7]).astype(np.float32),
        quarter_turns=np.floor(4 * u[8]).astype(np.int64) * how.quarter_turns,
        stain_factor=1 + how.stain * (2 * u[9:12].T - 1),
        stain_offset=how.stain * (2 * u[12:15].T - 1),
        blur_px=how.blur_px * u[15],
        cut_centre=u[16:18].T,
        cut_side=how.cutout,
        colour_gain=1 + how.colour * (2 * u[18:21].T - 1),
    )


def make_augment(how: Augmentation, *, on_host: bool = False) -> Callable[[Any, Any], Any]:
    """A function that does what `how` asks for: (images, parameters) → float32 in [0, 1].

    It takes `[batch, size, size, 3]` uint8, or float32 in [0, 255], and `Draws.packed`, and gives images of that shape.
    Light comes after the stains: both are seen through it. `on_host` is for tf.data, which runs on the host's CPU.
    """

    def sampled(images: Any, matrices: Any, gains: Any, *, limit: float) -> Any:
        warped = sampled_on_host if on_host and images.dtype == tf.uint8 else warp
        return warped(images, matrices, gains, limit=limit)

    def augment(images: Any, parameters: Any) -> Any:
        images = tf.convert_to_tensor(images)
        matrices, brightness = parameters[:, :6], parameters[:, 6]
        if not (how.blur_px or how.stain or how.colour):
            pixels = sampled(images, matrices, brightness / 255.0, limit=1.0)
        else:
            pixels = sampled(images, matrices, tf.ones_like(brightness), limit=255.0)
            if how.blur_px:
                pixels = blurred(pixels, parameters[:, 19], largest_px=how.blur_px)
            if how.stain or how.colour:
                pixels = stained(pixels, parameters[:, 7:16], parameters[:, 16:19])
            pixels = tf.minimum(pixels * (brightness / 255.0)[:, None, None, None], 1.0)
        return cut_out(pixels, parameters[:, 20:24]) if how.cutout else pixels

    return augment


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def warp(images: Any, matrices: Any, gains: Any, *, limit: float) -> Any:
    """Each image at the source points of its matrix, bilinearly with nearest fill, times its gain, at most `limit`.

    Args:
        images: `[batch, size, size, 3]` uint8, or float32 in [0, 255].
        matrices: `[batch, 6] float32`, see `Draws.matrices`.
        gains: `[batch] float32`.
        limit: What larger values are cut to.

    Returns:
        `[batch, size, size, 3] float32`.
    """
    batch, size = images.shape[:2]
    a, b, c, d, e, f = (matrices[:, i, None, None] for i in range(6))
    places = tf.range(size, dtype=tf.float32)
    x, y = places[None, None, :], places[None, :, None]
    # Clamping the source point is nearest fill: outside the image the border pixel goes on.
    source_x = tf.clip_by_value(a * x + b * y + c, 0.0, size - 1.0)
    source_y = tf.clip_by_value(d * x + e * y + f, 0.0, size - 1.0)
    left, top = tf.floor(source_x), tf.floor(source_y)
    to_right, to_bottom = (source_x - left)[..., None], (source_y - top)[..., None]
    first = tf.range(batch)[:, None, None] * (size * size) + tf.cast(top, tf.int32) * size + tf.cast(left, tf.int32)
    flat = tf.reshape(images, [-1, 3])
    # Right of the last column and below the last row is another pixel, or none: there its weight is 0.
    pixel: Callable[[int], Any] = lambda later: tf.cast(tf.gather(flat, first + later), tf.float32)  # noqa: E731
    above = pixel(0) * (1 - to_right) + pixel(1) * to_right
    below = pixel(size) * (1 - to_right) + pixel(size + 1) * to_right
    return tf.minimum((above * (1 - to_bottom) + below * to_bottom) * gains[:, None, None, None], limit)
