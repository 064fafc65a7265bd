"""Changes of an image's pixels beyond the warp, each for a whole batch and compiled by XLA.

* `stained`: the strength of each stain, by colour deconvolution into haematoxylin, eosin and a third
  (Ruifrok, Johnston 2001, "Quantification of histochemical staining by color deconvolution"), jittered as in Tellez et
  al. 2018, "Whole-slide mitosis detection in H&E breast histology using PHH3 as a reference to train distilled
  stain-invariant convolutional networks". Stains of other names are jittered in the same three directions.
* `blurred`: a Gaussian of a σ of each image's own, as a microscope out of focus.
* `cut_out`: a grey square (DeVries, Taylor 2017, "Improved regularization of convolutional neural networks with
  cutout").

They take and give `[batch, size, size, 3] float32`. Each pass over the pixels is a compilation of its own: in one, XLA
would compute the pass before anew for every value that reads it, which made them eight times slower.
"""

import math
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

# Optical densities of red, green and blue for a unit of each stain, Ruifrok and Johnston's table.
HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
_TO_STAINS = np.linalg.inv(HED)
DARKEST = 1.0  # of 255: the logarithm of 0 is not to be had
GREY = 0.5
KERNEL_SIGMAS = 3.0
_LEAST_SIGMA = 1e-3


def stain_maps(factor: NDArray[np.float64], offset: NDArray[np.float64]) -> tuple[Any, Any]:
    """Optical density to optical density: `[batch, 3, 3]` and `[batch, 3]`, with density' = density · map + offset.

    Each stain's strength is multiplied by its `factor` and moved by its `offset`, both `[batch, 3]`.
    """
    return (_TO_STAINS * factor[:, None, :]) @ HED, offset @ HED


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def stained(pixels: Any, maps: Any, offsets: Any) -> Any:
    """Images in [0, 255] with other strengths of stains: `maps` is `[batch, 9]`, `offsets` `[batch, 3]`."""
    density = tf.unstack(-tf.math.log(tf.maximum(pixels, DARKEST) / 255.0), axis=-1)

    def channel(number: int) -> Any:
        terms = [density[source] * maps[:, 3 * source + number, None, None] for source in range(3)]
        return tf.exp(-(terms[0] + terms[1] + terms[2] + offsets[:, number, None, None]))

    return tf.minimum(tf.stack([channel(number) for number in range(3)], axis=-1), 1.0) * 255.0


def blurred(pixels: Any, sigmas_px: Any, *, largest_px: float) -> Any:
    """Images blurred by their σ, `[batch]`, at most `largest_px`; the border pixel goes on outside the image."""
    weights = _kernels(sigmas_px, tf.range(-radius(largest_px), radius(largest_px) + 1, dtype=tf.float32))
    return _blurred_across(_blurred_down(pixels, weights), weights)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _kernels(sigmas_px: Any, distance: Any) -> Any:
    weights = tf.exp(-0.5 * (distance / tf.maximum(sigmas_px, _LEAST_SIGMA)[:, None]) ** 2)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _blurred_down(pixels: Any, weights: Any) -> Any:
    size, taps = pixels.shape[1], weights.shape[1]
    wide = tf.gather(pixels, _with_borders(size, taps), axis=1)
    return tf.add_n([wide[:, k : k + size] * weights[:, k, None, None, None] for k in range(taps)])


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def _blurred_across(pixels: Any, weights: Any) -> Any:
    size, taps = pixels.shape[2], weights.shape[1]
    wide = tf.gather(pixels, _with_borders(size, taps), axis=2)
    return tf.add_n([wide[:, :, k : k + size] * weights[:, k, None, None, None] for k in range(taps)])


def _with_borders(size: int, taps: int) -> Any:
    return tf.clip_by_value(tf.range(-(taps // 2), size + taps // 2), 0, size - 1)


def radius(sigma_px: float) -> int:
    """How far the kernel of the largest σ reaches."""
    return max(1, math.ceil(KERNEL_SIGMAS * sigma_px))


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def cut_out(pixels: Any, boxes: Any) -> Any:
    """Images in [0, 1] with a grey box each, `[batch, 4]`: left, top, right, bottom in pixels, which may lie outside.

    A pixel is covered if its centre is.
    """
    centres = tf.range(pixels.shape[1], dtype=tf.float32) + 0.5
    covers_x = (centres >= boxes[:, 0, None]) & (centres < boxes[:, 2, None])
    covers_y = (centres >= boxes[:, 1, None]) & (centres < boxes[:, 3, None])
    covered = covers_y[:, :, None, None] & covers_x[:, None, :, None]
    return tf.where(covered, GREY, pixels)
