"""Augmentation of training images: one fused affine warp and a change of brightness, for a whole batch. Stateless.

    draws = draw(Augmentation(), seed=0, epoch=3, indices=indices)        # NumPy, [batch, DRAWS]
    images = warp(pixels, draws.matrices(size), draws.brightness)         # TensorFlow, compiled by XLA

The parameters are those of the seed notebooks' `ImageDataGenerator`: rotation, shifts, zoom per axis, both flips,
brightness, nearest fill. Composition and centre follow Keras's `apply_affine_transform` with order 1, of which the
warp is the batched equal. Unlike Keras, brightness multiplies the pixel's own range instead of one stretched to the
image's extremes, and each image is interpolated once, however many changes it gets.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.randomness import uniform

_PARAMETERS = 8


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far each change may go. `Augmentation.none()` changes nothing."""

    rotation_degrees: float = 30.0
    shift: float = 0.15
    zoom: tuple[float, float] = (0.8, 1.2)
    flips: bool = True
    brightness: tuple[float, float] = (0.5, 1.5)

    @classmethod
    def none(cls) -> "Augmentation":
        return cls(rotation_degrees=0.0, shift=0.0, zoom=(1.0, 1.0), flips=False, brightness=(1.0, 1.0))


@dataclass(frozen=True, slots=True)
class Draws:
    """What happens to each image of a batch; every field is `[batch]`."""

    theta_radians: NDArray[np.float64]
    shift_x: NDArray[np.float64]
    shift_y: NDArray[np.float64]
    zoom_x: NDArray[np.float64]
    zoom_y: NDArray[np.float64]
    flip_x: NDArray[np.bool_]
    flip_y: NDArray[np.bool_]
    brightness: NDArray[np.float32]

    def matrices(self, size_px: int) -> NDArray[np.float32]:
        """`[batch, 6]`: (a, b, c, d, e, f) with source x = a·x + b·y + c and y = d·x + e·y + f, in pixels.

        rotation · shift · zoom about the centre (size/2 − 0.5), as Keras composes them, then the flips.
        """
        cos, sin = np.cos(self.theta_radians), np.sin(self.theta_radians)
        sign_x, sign_y = np.where(self.flip_x, -1.0, 1.0), np.where(self.flip_y, -1.0, 1.0)
        centre = size_px / 2 - 0.5
        a, b = cos * self.zoom_x * sign_x, -sin * self.zoom_y * sign_y
        d, e = sin * self.zoom_x * sign_x, cos * self.zoom_y * sign_y
        move_x, move_y = self.shift_x * size_px, self.shift_y * size_px
        c = cos * move_x - sin * move_y + centre - (a + b) * centre
        f = sin * move_x + cos * move_y + centre - (d + e) * centre
        return np.stack([a, b, c, d, e, f], axis=-1).astype(np.float32)


def draw(how: Augmentation, *, seed: int, epoch: int, indices: NDArray[np.int64]) -> Draws:
    """The changes to the records `indices` in `epoch`: a function of (seed, epoch, index) alone."""
    u = uniform(seed, epoch, indices, draws=_PARAMETERS).T
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
    )


@tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
def warp(images: Any, matrices: Any, brightness: Any) -> Any:
    """Warp each image by its matrix, bilinearly with nearest fill, and scale its brightness.

    Args:
        images: `[batch, size, size, 3]` uint8, or float32 in [0, 255].
        matrices: `[batch, 6] float32`, see `Draws.matrices`.
        brightness: `[batch] float32`, factors.

    Returns:
        `[batch, size, size, 3] float32` in [0, 1].
    """
    batch, size = images.shape[0], images.shape[1]
    a, b, c, d, e, f = (matrices[:, i, None, None] for i in range(6))
    y, x = tf.meshgrid(tf.range(size, dtype=tf.float32), tf.range(size, dtype=tf.float32), indexing="ij")
    last = tf.cast(size - 1, tf.float32)
    # Clamping the source point is nearest fill: outside the image the border pixel goes on.
    source_x = tf.clip_by_value(a * x + b * y + c, 0.0, last)
    source_y = tf.clip_by_value(d * x + e * y + f, 0.0, last)
    left, top = tf.floor(source_x), tf.floor(source_y)
    to_right, to_bottom = (source_x - left)[..., None], (source_y - top)[..., None]
    column, row = tf.cast(left, tf.int32), tf.cast(top, tf.int32)
    next_column, next_row = tf.minimum(column + 1, size - 1), tf.minimum(row + 1, size - 1)
    flat = tf.reshape(images, [batch * size * size, 3])
    start = tf.reshape(tf.range(batch) * (size * size), [batch, 1, 1])

    def pixel(row: Any, column: Any) -> Any:
        return tf.cast(tf.gather(flat, start + row * size + column), tf.float32)

    above = pixel(row, column) * (1 - to_right) + pixel(row, next_column) * to_right
    below = pixel(next_row, column) * (1 - to_right) + pixel(next_row, next_column) * to_right
    mixed = above * (1 - to_bottom) + below * to_bottom
    return tf.minimum(mixed * (brightness / 255.0)[:, None, None, None], 1.0)
