"""How well an image matches images it has nothing to do with: what a match of two copies must stand out from. Pure.

    least = Background.of(prints).least(distinction=7.5)      # [n]: above it, a correlation's Fisher z means something

One dark spot beside the middle matches any other, turned and zoomed, far better than one crowded field another.
So each image is compared with the same made-up fields and cells first, as voices are with a cohort of strangers (Z-norm
in Auckenthaler et al., "Score normalization for text-independent speaker verification systems", Digital Signal
Processing 10 (2000)). Made up, so that whether two images are copies doesn't depend on what else a dataset holds.
Images with nothing but a spot or an edge match others of the kind nearly fully. They are known by how well they match
plain spots and edges, and a match has to be better than that by a good deal.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from data_pipeline.near_moments import ORDERS, RINGS, THUMBNAIL_PX, fingerprints

STRANGERS = 128
# Strangers needn't be met at every angle, or at another zoom, to learn how well they match; plain patterns are of all
# sizes.
STRANGE_ANGLES, PLAIN_ANGLES = 16, 32
# Met at several zooms, strangers would match the better, by so much more than the mean.
ZOOMED_DEVIATION = 1.18
# How many times as good as with a plain pattern a match has to be; an image better than this at that has no copies.
ABOVE_PLAIN, PLAINEST = 1.8, 1.45
# A correlation of 1 would stand out without end.
CERTAIN = 0.999
# As many as fit the processor's cache.
IMAGES_AT_ONCE = 32
# Fingerprints are brought to this length and waves to that height: sums of products are of whole numbers below 2²⁴,
# which float32 adds up exactly in any order.
LENGTH, HEIGHT = 256, 128
# Fitted: how many standard deviations of correlations at random angles make the mean and deviation of z at the best.
MEAN_PER_SPREAD, DEVIATION_PER_SPREAD, HEADROOM = 1.33, 0.48, 1.5
ROWS_AT_ONCE = 1024

Parts = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Background:
    """Of Fisher's z with strangers: mean and standard deviation `[n]`; of that with plain patterns: the best `[n]`."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    plain: NDArray[np.float64]

    @classmethod
    def of(cls, prints: NDArray[np.int8]) -> "Background":
        """The background of each of `[n, 192] int8`."""
        columns = np.zeros((3, len(prints)))
        for start in range(0, len(prints), IMAGES_AT_ONCE):
            part = slice(start, start + IMAGES_AT_ONCE)
            some = _parts(prints[part])
            strange = fisher(_best(some, _strangers(), STRANGE_ANGLES))
            plain = fisher(_best(some, _plain(), PLAIN_ANGLES))
            columns[:, part] = strange.mean(axis=1), ZOOMED_DEVIATION * strange.std(axis=1), plain.max(axis=1)
        return cls(*columns)

    def least(self, *, distinction: float) -> NDArray[np.float64]:
        """`[n]`: Fisher's z that stands out by so many standard deviations, and from plain patterns; or no number."""
        least = np.maximum(self.mean + distinction * self.deviation, ABOVE_PLAIN * self.plain)
        return np.where(self.plain > PLAINEST, np.inf, least)


def least_conceivable(prints: NDArray[np.int8], *, distinction: float) -> NDArray[np.float64]:
    """`[n]`: what `Background.least` is never below, for a hundredth of the work.

    The variance of correlations with strangers, at random angles, follows from the covariance of strangers, and roughly
    from that the mean and deviation of the best. Of 20,000 images, real and made up, the least was 1.4 times as high at
    the median, and never lower.
    """
    variance = np.zeros(len(prints))
    for start in range(0, len(prints), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        for values in _parts(prints[part]):
            variance[part] += ((values @ _covariance()) * values).sum(axis=(0, 2))
    return (MEAN_PER_SPREAD + DEVIATION_PER_SPREAD * distinction) / HEADROOM * np.sqrt(variance) / LENGTH**2


def fisher(correlation: NDArray[np.floating]) -> NDArray[np.float64]:
    """Fisher's z, whose spread doesn't shrink as correlations near 1."""
    return np.asarray(np.arctanh(np.minimum(correlation, CERTAIN)))


def _parts(prints: NDArray[np.int8]) -> Parts:
    """`[n, 192] int8` → `(real, imaginary)`, `[orders, n, rings] float32` each, whole numbers, at one length."""
    values = prints.astype(np.float32)
    length = np.sqrt(np.maximum(np.square(values).sum(axis=1), 1))
    whole = np.rint(values * (LENGTH / length)[:, None]).reshape(-1, RINGS, ORDERS, 2)
    real, imaginary = np.ascontiguousarray(whole.transpose(3, 2, 0, 1))
    return real, imaginary


def _best(images: Parts, others: Parts, angles: int) -> NDArray[np.float32]:
    """`[orders, n, rings]` and `[orders, m, rings]` → `[n, m]`: the best correlations over angles and both hands.

    At the angles θ and -θ, sums of cosines are the same and sums of sines opposite; mirroring `b` changes the signs of
    its imaginary parts. So four sums say what there is at four angles and hands.
    """
    (real, imaginary), (other_real, other_imaginary) = images, others
    cosines, sines = _half_waves(angles)
    best = _turned(cosines, real, other_real)
    from_imaginary = _turned(sines, imaginary, other_real)
    if other_imaginary.any():
        both = _turned(cosines, imaginary, other_imaginary)
        from_other = _turned(sines, real, other_imaginary)
        best += np.maximum(both + np.abs(from_imaginary - from_other), np.abs(from_imaginary + from_other) - both)
    else:  # the same in a mirror
        best += np.abs(from_imaginary)
    return np.asarray(best.max(axis=0).reshape(real.shape[1], -1) / np.float32(HEIGHT * LENGTH**2))


def _turned(waves: NDArray[np.float32], a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """`[angles, n · m]`: sums over rings, turned by each angle."""
    return np.asarray(waves @ (a @ b.transpose(0, 2, 1)).reshape(ORDERS, -1))


@cache
def _covariance() -> NDArray[np.float32]:
    """`[orders, rings, rings]`: the covariance of strangers, turned at random."""
    real, imaginary = _strangers()
    return np.asarray((real.transpose(0, 2, 1) @ real + imaginary.transpose(0, 2, 1) @ imaginary) / STRANGERS)


@cache
def _half_waves(angles: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosines and sines, `[angles / 2 + 1, orders]`, whole numbers, of half the circle."""
    turns = np.arange(angles // 2 + 1)[:, None] * np.arange(1, ORDERS + 1) * (2 * np.pi / angles)
    cosines, sines = (np.rint(HEIGHT * wave(turns)).astype(np.float32) for wave in (np.cos, np.sin))
    return cosines, sines


@cache
def _plain() -> Parts:
    """Uneven light, straight edges at all distances from the middle, round spots of all sizes, light and dark."""
    x, y = _axis(), _axis()[:, None]
    lights = [np.square(x - away) / 2 + np.square(y) / 2 for away in (0.25, 0.5, 1, 2, 100)]
    edges = [(x > distance) + 0 * y for distance in np.linspace(-0.7, 0.7, 32)]
    spots = [
        np.hypot(x - away, y) > radius for away in np.linspace(0.05, 0.6, 6) for radius in np.geomspace(0.1, 0.45, 8)
    ]
    light = np.stack([*(even / np.ptp(even) for even in lights), *edges, *spots, *(1 - spot for spot in spots)])
    return _parts(fingerprints(_eight_bits(120 + 100 * (light - light.min(axis=(1, 2), keepdims=True)))))


@cache
def _strangers() -> Parts:
    # Unlike newer generators, this one keeps its numbers in every version of NumPy.
    random = np.random.RandomState(0)
    images = [_field(random) if index % 2 else _cell(random) for index in range(STRANGERS)]
    return _parts(fingerprints(np.stack(images)))


def _field(random: np.random.RandomState) -> NDArray[np.uint8]:
    """Tissue, or what looks like it at this size: patches of all sizes."""
    return _eight_bits(150 + 12 * _patches(random))


def _cell(random: np.random.RandomState) -> NDArray[np.uint8]:
    """A cell with a nucleus or two, somewhere near the middle, at times between two bars."""
    axis = _axis()
    image = 200 + random.uniform(0.5, 2) * _patches(random)
    away, towards = random.uniform(0, 0.5), random.uniform(0, 2 * np.pi)
    image -= random.uniform(0, 50) * _ellipse(random, axis, 0.3 * away, towards, least=0.4, most=1.0)
    for _ in range(random.randint(1, 3)):
        image -= random.uniform(40, 110) * _ellipse(random, axis, away, towards, least=0.1, most=0.45)
        away, towards = random.uniform(0.1, 0.9), towards + random.uniform(1, 5)
    if random.uniform() < 0.3:
        image[np.abs(axis) > random.uniform(0.4, 0.9)] = random.uniform(80, 220)
    return _eight_bits(image)


def _ellipse(
    random: np.random.RandomState, axis: NDArray[np.float64], away: float, towards: float, *, least: float, most: float
) -> NDArray[np.float64]:
    """1 inside an ellipse whose half axes are drawn from `least` … `most`, 0 outside."""
    x, y = axis - away * np.cos(towards), axis[:, None] - away * np.sin(towards)
    turn, wide, high = random.uniform(0, np.pi), random.uniform(least, most), random.uniform(least, most)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return np.asarray((u / wide) ** 2 + (v / high) ** 2 < 1, dtype=np.float64)


def _patches(random: np.random.RandomState) -> NDArray[np.float64]:
    """Squares of 2 … 32 pixels, larger ones stronger, shifted so that no two sizes share their edges."""
    total = np.zeros((THUMBNAIL_PX, THUMBNAIL_PX))
    slope = random.uniform(0, 0.6)
    for size in (2, 4, 8, 16, 32):
        number = THUMBNAIL_PX // size + 1
        grid = size**slope * random.uniform(-1, 1, (number, number))
        down, right = ((np.arange(THUMBNAIL_PX) + shift) // size for shift in random.randint(0, size, 2))
        total += grid[down].take(right, axis=1)
    return np.asarray(total / total.std())


def _axis() -> NDArray[np.float64]:
    return (np.arange(THUMBNAIL_PX) + 0.5) / THUMBNAIL_PX * 2 - 1


def _eight_bits(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
