"""What two images look like to each other when one may be turned, mirrored, zoomed or re-encoded. Pure.

    prints = fingerprints(thumbnails)                 # [n, 64, 64] uint8 → [n, 192] int8
    similarity = best_correlation(prints, left, right)

A fingerprint holds the angular Fourier coefficients of order 1 … 8 on 12 rings, evenly spaced in log radius. Turning an
image by θ multiplies order m by exp(-imθ), mirroring conjugates it, zooming about the centre moves it to another ring:
the idea of Casasent and Psaltis, "Position, rotation, and scale invariant optical correlation", Applied Optics 15
(1976), kept complex, so that the best correlation over all angles, both hands and zooms up to 1.7 can be computed.
Order 0 is left out: it holds brightness and, where one cell lies in the middle, what all such images share.

Sums are of whole numbers below 2²⁴, which float32 adds up exactly in any order: a fingerprint is the same on any
machine, whatever its BLAS and threads.
"""

from functools import cache
from itertools import accumulate, repeat

import numpy as np
from numpy.typing import NDArray

THUMBNAIL_PX = 64
ORDERS, RINGS = 8, 12
FINGERPRINT_BYTES = 2 * ORDERS * RINGS
OUTER_RADIUS, INNER_RADIUS = 0.9, 0.12
# Rings this small are read off the middle of the thumbnail at full resolution, the others off the whole at half.
FINE_RINGS = 6
# Amplitudes of natural images fall with the order; this evens them out.
WHITENING = 0.5
# Rings are brought to the same strength, so that one dark nucleus isn't all that counts; those far weaker than the mean
# of all (this share of it), or than so many grey levels, stay weak.
LEAST_SHARE, LEAST_GREY_LEVELS = 0.25, 0.5
# Below it, in grey levels, there is noise and the grid of JPEG blocks: nothing to compare.
LEAST_CONTRAST = 1.0
ANGLES = 64
# In half rings: 6 are a zoom by 1.73.
MOST_ZOOM = 6
WHOLE_RINGS = tuple(range(-MOST_ZOOM, MOST_ZOOM + 1, 2))
HALF_RINGS = tuple(range(-MOST_ZOOM + 1, MOST_ZOOM, 2))
# Of 30,000 real pairs, none correlated better by more than 0.06 at half a ring than at whole ones.
MOST_BETWEEN_RINGS = 0.1
PAIRS_AT_ONCE = 1024
# Of the sum of amplitudes that a correlation can't exceed.
ROUNDING = 1e-4

Spectra = NDArray[np.complex64]


def fingerprints(thumbnails: NDArray[np.uint8]) -> NDArray[np.int8]:
    """`[n, 64, 64] uint8` → `[n, 192] int8`: `[rings, orders, (real, imaginary)]`, scaled so that the largest is 127.

    An image without structure has the fingerprint 0, which resembles nothing.
    """
    coefficients = _coefficients(thumbnails).reshape(len(thumbnails), RINGS, 2 * ORDERS)
    ring = np.square(coefficients).mean(axis=2)
    power = ring.mean(axis=1)
    even = 1 / np.sqrt(ring + LEAST_SHARE**2 * power[:, None] + LEAST_GREY_LEVELS**2)
    coefficients *= even[:, :, None]
    peak = np.abs(coefficients).max(axis=(1, 2), initial=0)
    gain = np.where(power >= LEAST_CONTRAST**2, 127 / np.maximum(peak, 1e-9), 0)
    return np.rint(coefficients * gain[:, None, None]).astype(np.int8).reshape(-1, FINGERPRINT_BYTES)


def spectra(prints: NDArray[np.int8]) -> Spectra:
    """`[n, 192] int8` → `[n, rings, orders] complex64`."""
    return prints.astype(np.float32).view(np.complex64).reshape(-1, RINGS, ORDERS)


def best_correlation(
    prints: NDArray[np.int8],
    left: NDArray[np.int64],
    right: NDArray[np.int64],
    *,
    least: float | NDArray[np.float64] = 0.0,
) -> NDArray[np.float64]:
    """Of the pairs `[p]` of `[n, 192] int8`, in 0 … 1: the correlation at the best angle, hand and zoom.

    Half rings aren't tried for pairs that are too far from correlating by `least`, of one or of `[p]`; of pairs that
    can't correlate so well, 0 may be all that's said.
    """
    best = np.zeros(len(left))
    enough = np.broadcast_to(least, best.shape)
    for start in range(0, len(left), PAIRS_AT_ONCE):
        part = np.arange(start, min(start + PAIRS_AT_ONCE, len(left)))
        for zooms, short in ((WHOLE_RINGS, MOST_BETWEEN_RINGS), (HALF_RINGS, 0)):
            a, b = _planes(prints[left[part]]), _planes(prints[right[part]])
            some = np.maximum(best[part], enough[part] - short)
            for zoom in zooms:
                _improve(some, *_zoomed(a, b, zoom))
            improved = some > enough[part] - short
            best[part[improved]] = some[improved]
            part = part[improved]
    return best


def _planes(prints: NDArray[np.int8]) -> NDArray[np.float32]:
    """`[p, 192] int8` → `[rings, (real, imaginary), orders, p]`: neighbours in memory are added up at once."""
    planes = prints.T.reshape(RINGS, ORDERS, 2, len(prints)).transpose(0, 2, 1, 3)
    return planes.astype(np.float32, order="C")


def _zoomed(
    a: NDArray[np.float32], b: NDArray[np.float32], half_rings: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The rings that show the same part if `a` is to be zoomed in by so many half rings (if negative, `b`)."""
    if half_rings < 0:
        b, a = _zoomed(b, a, -half_rings)
        return a, b
    whole, half = divmod(half_rings, 2)
    kept = RINGS - whole - half
    if half:  # between two rings lies their mean; the sum keeps it a whole number
        return a[whole : whole + kept] + a[whole + 1 :], b[:kept]
    return a[whole:], b[:kept]


@cache
def _waves(angles: int = ANGLES) -> NDArray[np.float64]:
    """`[2 · orders, angles] float64`: what turns a spectrum, real parts first, into its values at so many angles."""
    turns = np.arange(1, ORDERS + 1)[:, None] * np.arange(angles) * (2 * np.pi / angles)
    return np.concatenate([np.cos(turns), -np.sin(turns)])


def _energy(a: NDArray[np.float32]) -> NDArray[np.float64]:
    """`[rings, (real, imaginary), orders, p]` → `[p]`: the sum of squares, a whole number below 2²⁴."""
    return np.asarray(np.einsum("rimp,rimp->p", a, a), dtype=np.float64)


def _improve(best: NDArray[np.float64], a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
    """Raises `best`, `[p]`, to the correlations at the best angle and hand, where they exceed it."""
    length = np.sqrt(np.maximum(_energy(a) * _energy(b), 1))
    both_real, both_imaginary, a_imaginary, b_imaginary = (
        np.einsum("rmp,rmp->mp", a[:, i], b[:, j]) for i, j in ((0, 0), (1, 1), (1, 0), (0, 1))
    )
    for real, imaginary in (
        (both_real + both_imaginary, a_imaginary - b_imaginary),
        (both_real - both_imaginary, a_imaginary + b_imaginary),
    ):
        # At no angle is the sum greater than that of the amplitudes.
        most = np.sqrt(real * real + imaginary * imaginary).sum(axis=0)
        which = np.flatnonzero(most > best * length - ROUNDING * length)
        spectrum = np.concatenate([real[:, which], imaginary[:, which]]).T.astype(np.float64)
        best[which] = np.maximum(best[which], (spectrum @ _waves()).max(axis=1, initial=0) / length[which])


def _coefficients(thumbnails: NDArray[np.uint8]) -> NDArray[np.float64]:
    """`[n, 64, 64] uint8` → `[n, 192] float64`, in grey levels."""
    n, quarter = len(thumbnails), THUMBNAIL_PX // 4
    rows = thumbnails[:, ::2].astype(np.int16) + thumbnails[:, 1::2]
    whole = (rows[:, :, ::2] + rows[:, :, 1::2]).reshape(n, (THUMBNAIL_PX // 2) ** 2) - np.int16(4 * 128)
    middle = thumbnails[:, quarter:-quarter, quarter:-quarter].astype(np.int16).reshape(whole.shape) - np.int16(128)
    values = []
    for pixels, (kernels, grey_levels) in zip((whole, middle), _kernels(), strict=True):
        products: NDArray[np.float32] = pixels.astype(np.float32) @ kernels
        values.append(products * grey_levels)
    return np.concatenate(values, axis=1)


@cache
def _kernels() -> tuple[tuple[NDArray[np.float32], NDArray[np.float64]], ...]:
    """For the outer and the inner rings: whole-numbered kernels `[1024, 2 · orders · rings]`, and their units."""
    radii = np.geomspace(OUTER_RADIUS, INNER_RADIUS, RINGS)
    outer, inner = radii[:-FINE_RINGS], radii[-FINE_RINGS:]
    # A kernel's size: 2²⁴ over the largest sum of 4 pixels, and over the largest pixel.
    return _rings(outer, extent=1.0, most=2**24 // 512, pixels=4), _rings(
        inner, extent=0.5, most=2**24 // 128, pixels=1
    )


def _rings(
    radii: NDArray[np.float64], *, extent: float, most: int, pixels: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Kernels over a square of half side `extent`, and what one unit of their output is in grey levels."""
    side, fine = THUMBNAIL_PX // 4, 8
    axis = (np.arange(side * fine) + 0.5) / (side * fine) * extent
    # One quadrant, the others are its mirror images. `[pixels, parts of a pixel]`, so that each pixel's parts are added
    # up by one matrix product.
    place = axis - 1j * axis[:, None]
    place = place.reshape(side, fine, side, fine).swapaxes(1, 2).reshape(side**2, fine**2)
    radius = np.abs(place)
    width = np.log(OUTER_RADIUS / INNER_RADIUS) / (RINGS - 1)
    # A bell in log radius, evenly weighted there; nothing beyond the inscribed circle.
    weight, log = np.where(radius <= extent, 1 / radius**2, 0), np.log(radius)
    bells = np.stack([weight * np.exp(-0.5 * ((log - np.log(ring)) / width) ** 2) for ring in radii], axis=1)
    powers = np.stack(list(accumulate(repeat(place / radius, ORDERS), np.multiply)), axis=2)
    quadrant = (bells / (4 * bells.sum(axis=(0, 2)))[:, None]) @ powers.view(np.float64)
    kernels = _mirrored(quadrant.reshape(side, side, len(radii), 2 * ORDERS)).reshape(-1, len(radii) * 2 * ORDERS)
    units = (most - len(kernels)) / np.abs(kernels).sum(axis=0)
    orders = np.tile(np.arange(1, ORDERS + 1).repeat(2), len(radii))
    return np.rint(kernels * units).astype(np.float32), orders**WHITENING / units / pixels


def _mirrored(quadrant: NDArray[np.float64]) -> NDArray[np.float64]:
    """`[down, right, rings, 2 · orders]` → twice as much down and right: cosines and sines in all four quadrants."""
    signs = np.array([1, -1])
    below = np.tile(signs, ORDERS)
    left = np.outer((-1) ** np.arange(1, ORDERS + 1), signs).ravel()
    half = np.concatenate([quadrant[:, ::-1] * left, quadrant], axis=1)
    return np.concatenate([half[::-1] * below, half])
