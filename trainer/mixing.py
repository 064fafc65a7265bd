"""Two training images in one: mixup and CutMix, still a function of (seed, epoch, record) alone.

    mix = draw_mix(Mixing(cutmix=1.0), seed=0, epoch=3, indices=indices, records=546, size_px=256)
    images = mixed(own, others, mix.packed())       # others: the images of mix.partners

mixup (Zhang et al. 2018, "mixup: beyond empirical risk minimization") blends two images and their labels; CutMix (Yun
et al. 2019, "CutMix: regularization strategy to train strong classifiers with localizable features") replaces a box of
one by that of the other, and weighs the labels by area. Elsewhere the partner is whoever shares the batch, so that an
image depends on batch size and replicas. Here it is drawn among all records by (seed, epoch, record), and comes as it
is augmented itself in that epoch. It costs reading and decoding twice as many images.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from scipy.special import betaincinv  # type: ignore[import-untyped]

from trainer.augment_config import Mixing
from trainer.randomness import hash64, uniform

MIX_PACKED = 6  # columns of `Mix.packed`
_STREAM, _PARTNER = 0x6D6978, 0x70617274
_DRAWN = 4


@dataclass(frozen=True, slots=True)
class Mix:
    """What becomes of each image of a batch; fields are `[batch]`, `boxes` `[batch, 4]`: left, top, right, bottom.

    `share` is the weight of its own label; `blend` that of its own pixels outside the box (inside there are none).
    """

    partners: NDArray[np.int64]
    share: NDArray[np.float32]
    blend: NDArray[np.float32]
    boxes: NDArray[np.float32]

    def packed(self) -> NDArray[np.float32]:
        """`[batch, MIX_PACKED]`, what `mixed` takes, the label's share last."""
        return np.concatenate([self.boxes, self.blend[:, None], self.share[:, None]], axis=1)


def draw_mix(how: Mixing, *, seed: int, epoch: int, indices: NDArray[np.int64], records: int, size_px: int) -> Mix:
    """The partner of each record, out of `records`, and how much of it is seen."""
    u = uniform(seed, epoch, indices, draws=_DRAWN, stream=_STREAM).T
    partners = (hash64(_PARTNER, seed, epoch, indices) % np.uint64(records)).astype(np.int64)
    cuts = u[0] < (0.5 if how.mixup and how.cutmix else float(how.cutmix > 0))
    alpha = np.where(cuts, how.cutmix or 1.0, how.mixup or 1.0)
    share = betaincinv(alpha, alpha, u[1])
    half = size_px * np.sqrt(1 - share) / 2 * cuts
    corners = [np.round(np.clip(centre * size_px + side, 0, size_px)) for side in (-half, half) for centre in u[2:4]]
    boxes = np.stack(corners, axis=1)
    # The box may lie partly outside: what counts is what is seen of it.
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / size_px**2
    seen = np.where(cuts, 1 - area, share).astype(np.float32)
    return Mix(partners, seen, np.where(cuts, 1.0, share).astype(np.float32), boxes.astype(np.float32))


@tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
def mixed(own: Any, others: Any, parameters: Any) -> Any:
    """Images mixed with their partners': both `[batch, size, size, 3] float32`, `parameters` as `Mix.packed`."""
    places = tf.range(own.shape[1], dtype=tf.float32)
    inside_x = (places >= parameters[:, 0, None]) & (places < parameters[:, 2, None])
    inside_y = (places >= parameters[:, 1, None]) & (places < parameters[:, 3, None])
    inside = inside_y[:, :, None, None] & inside_x[:, None, :, None]
    blend = tf.where(inside, 0.0, parameters[:, 4, None, None, None])
    return own * blend + others * (1.0 - blend)
