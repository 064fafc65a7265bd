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
PAIRS_AT_ONCE = 4096

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
    prints: NDArray[np.int8], left: NDArray[np.int64], right: NDArray[np.int64], *, least: float = 0.0
) -> NDArray[np.float64]:
    """Of the pairs `[p]` of `[n, 192] int8`, in 0 … 1: the correlation at the best angle, hand and zoom.

    Half rings aren't tried for pairs that are too far from correlating by `least`.
    """
    best = np.zeros(len(left))
    for start in range(0, len(left), PAIRS_AT_ONCE):
        part = np.arange(start, min(start + PAIRS_AT_ONCE, len(left)))
        for zooms in (WHOLE_RINGS, HALF_RINGS):
            a, b = spectra(prints[left[part]]), spectra(prints[right[part]])
            for zoom in zooms:
                best[part] = np.maximum(best[part], _correlation(*zoomed(a, b, zoom)))
            part = part[best[part] >= least - MOST_BETWEEN_RINGS]
    return best


def zoomed(a: Spectra, b: Spectra, half_rings: int) -> tuple[Spectra, Spectra]:
    """The rings that show the same part if `a` is to be zoomed in by so many half rings (if negative, `b`)."""
    if half_rings < 0:
        b, a = zoomed(b, a, -half_rings)
        return a, b
    whole, half = divmod(half_rings, 2)
    kept = RINGS - whole - half
    if half:  # between two rings lies their mean; the sum keeps it a whole number
        return a[:, whole : whole + kept] + a[:, whole + 1 :], b[:, :kept]
    return a[:, whole:], b[:, :kept]


@cache
def waves(angles: int = ANGLES) -> NDArray[np.float64]:
    """`[2 · orders, angles] float64`: what turns a spectrum over orders into its values at so many angles."""
    turns = np.arange(1, ORDERS + 1)[:, None] * np.arange(angles) * (2 * np.pi / angles)
    return np.stack([np.cos(turns), -np.sin(turns)], axis=1).reshape(2 * ORDERS, angles)


def energy(a: Spectra) -> NDArray[np.float64]:
    """`[n, rings, orders]` → `[n]`: the sum of squares."""
    return np.asarray((np.square(a.real) + np.square(a.imag)).sum(axis=(1, 2), dtype=np.float64))


def _correlation(a: Spectra, b: Spectra) -> NDArray[np.float64]:
    best = np.zeros(len(a))
    for other in (b.conj(), b):
        spectrum = np.einsum("prm,prm->pm", a, other).astype(np.complex128)
        best = np.maximum(best, (spectrum.view(np.float64) @ waves()).max(axis=1))
    return best / np.sqrt(np.maximum(energy(a) * energy(b), 1))


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
    side, fine = THUMBNAIL_PX // 2, 8
    axis = ((np.arange(side * fine) + 0.5) / (side * fine) * 2 - 1) * extent
    radius = np.hypot(axis[:, None], axis)
    angle = np.arctan2(axis[:, None], axis)
    width = np.log(OUTER_RADIUS / INNER_RADIUS) / (RINGS - 1)
    kernels, grey_levels = [], []
    for ring in radii:
        # A bell in log radius, evenly weighted there; nothing beyond the inscribed circle.
        bell = np.where(radius <= extent, np.exp(-0.5 * (np.log(radius / ring) / width) ** 2) / radius**2, 0)
        for order in range(1, ORDERS + 1):
            wave = bell / bell.sum() * np.exp(-1j * order * angle)
            for part in (wave.real, wave.imag):
                kernel = part.reshape(side, fine, side, fine).sum(axis=(1, 3)).ravel()
                unit = (most - kernel.size) / np.abs(kernel).sum()
                kernels.append(np.rint(kernel * unit))
                grey_levels.append(order**WHITENING / unit / pixels)
    return np.stack(kernels, axis=1).astype(np.float32), np.array(grey_levels)
