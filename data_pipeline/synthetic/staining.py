"""Stain, light and focus of a slide, and the photograph they make of what lies on the glass.

    look = slide_look(seed=0, slide=12)
    pixels = expose(dyes, look=look, px_per_um=1.7, rng=rng)  # [size, size, 3] uint8

Dye absorbs by Beer–Lambert, so whatever overlaps darkens as it does under a microscope. A look belongs to the slide
and knows nothing of the diagnosis: colour differs more between slides than between diagnoses, as it does in practice.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

NUCLEAR, CYTOPLASM, MATRIX, WARM = range(4)
# Optical density of one unit of each dye (nuclear, cytoplasm, matrix, blood and keratin) in red, green, blue.
PAPANICOLAOU: Final = np.array([[1.15, 0.98, 0.52], [0.66, 0.27, 0.27], [0.42, 0.47, 0.26], [0.14, 0.50, 0.78]])
DIFF_QUIK: Final = np.array([[0.82, 1.15, 0.42], [0.58, 0.52, 0.20], [0.24, 0.86, 0.36], [0.30, 0.48, 0.44]])


@dataclass(frozen=True, slots=True)
class Look:
    """What all tiles of one slide share.

    `stain` is `[4, 3]`, the optical density of a unit of each dye in RGB; `depth` and `cast`, `[3]` of mean 1, are how
    dark and of what colour its tiles are on the whole.
    """

    stain: NDArray[np.float64]
    light: NDArray[np.float64]
    tilt: NDArray[np.float64]
    vignette: float
    blur_um: float
    grain: float
    depth: float
    cast: NDArray[np.float64]
    film: float
    blood: float
    inflammation: float
    dirt: float
    zoom: float
    nuclear_size: float
    cellularity: float


def slide_look(*, seed: int, slide: int) -> Look:
    """The stain, light and handling of a slide: a function of `(seed, slide)`, whatever the diagnosis."""
    rng = np.random.default_rng([seed, slide, 0])
    mix = rng.beta(0.45, 0.45)
    stain = (mix * DIFF_QUIK + (1 - mix) * PAPANICOLAOU) * rng.lognormal(0.0, 0.11, (4, 3))
    stain *= rng.lognormal(0.0, [[0.1], [0.2], [0.2], [0.3]])
    cast = np.array([0.4, 0.25, 0.25, 0.1]) @ stain * rng.lognormal(0.0, 0.08, 3)
    return Look(
        stain=stain,
        light=rng.uniform(0.84, 0.97) * rng.lognormal(0.0, 0.035, 3),
        tilt=rng.normal(0.0, 0.05, 2),
        vignette=rng.uniform(0.0, 0.22),
        blur_um=rng.uniform(0.15, 0.5),
        grain=rng.uniform(0.004, 0.016),
        depth=rng.lognormal(-1.25, 0.25),
        cast=cast / cast.mean(),
        film=rng.lognormal(-2.7, 0.7),
        blood=rng.lognormal(0.6, 1.0),
        inflammation=rng.lognormal(0.0, 0.8),
        dirt=rng.lognormal(-0.4, 0.6),
        zoom=rng.lognormal(0.0, 0.07),
        nuclear_size=rng.lognormal(0.0, 0.06),
        cellularity=rng.lognormal(0.0, 0.2),
    )


def expose(dyes: NDArray[np.float32], *, look: Look, px_per_um: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light through `dyes`, `[4, size, size]`, out of focus and grainy as the slide is: `[size, size, 3] uint8`."""
    size = dyes.shape[1]
    # Summed dye by dye: a matrix product may round differently with another number of threads.
    density = sum((dye[..., None] * colour for dye, colour in zip(dyes, look.stain.astype(np.float32), strict=True)))
    # Lamp and white balance are set for each tile, so its mean colour says more about the slide than about the cells.
    usual = look.depth * look.cast
    density *= ((usual / np.maximum(density.mean((0, 1)), 0.02)) ** 0.8).astype(np.float32)
    axis = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    lamp = 1 + look.tilt[0] * axis + look.tilt[1] * axis[:, None] - look.vignette * (axis**2 + axis[:, None] ** 2) / 2
    light = np.exp(-density) * lamp[..., None].astype(np.float32) * look.light.astype(np.float32)
    sharp = Image.fromarray(_to_bytes(light))
    soft = np.asarray(sharp.filter(ImageFilter.GaussianBlur(look.blur_um * px_per_um)), np.float32) / 255
    return _to_bytes(soft + np.float32(look.grain) * rng.standard_normal(soft.shape, np.float32))


def _to_bytes(light: NDArray[np.float32]) -> NDArray[np.uint8]:
    return (np.clip(light, 0, 1) * 255 + 0.5).astype(np.uint8)
