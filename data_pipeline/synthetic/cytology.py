"""What lies on a salivary-gland smear of each diagnosis, and the tile that comes of it.

    pixels = render_tile(seed=0, diagnosis="warthin_tumor", slide=12, tile=3, size=128)  # [128, 128, 3] uint8

The morphology follows the Milan System for Reporting Salivary Gland Cytopathology (2018). Every diagnosis has cells in
common with the others, and a tile shows its hallmark strongly, weakly or hardly at all, as a random field of a real
smear does.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from data_pipeline.synthetic.smear import Cell, Glass
from data_pipeline.synthetic.staining import CYTOPLASM, MATRIX, WARM, slide_look

LYMPHOCYTE: Final = Cell(4.0, 3.2, cytoplasm=0.28, nucleus=1.25, chromatin=0.34, nucleolus=0.0, wobble=0.1)
RED_CELL: Final = Cell(3.7, 0.0, cytoplasm=0.42, aspect=1.05, edge=0.5, granules=0.0, wobble=0.05, pallor=0.5, dye=WARM)
MACROPHAGE: Final = Cell(9.5, 3.6, cytoplasm=0.3, offset=0.6, vacuoles=9, granules=0.3)
BARE: Final = Cell(4.1, 4.1, cytoplasm=0.0, nucleus=0.85, chromatin=0.26, nucleolus=0.35)
DUCTAL: Final = Cell(6.2, 3.9, cytoplasm=0.38, nucleus=0.9)
PLASMACYTOID: Final = Cell(8.0, 4.0, cytoplasm=0.55, aspect=1.3, offset=0.75, nucleus=0.88, chromatin=0.16)
SPINDLE: Final = Cell(7.2, 3.7, cytoplasm=0.3, aspect=2.6, nucleus=0.85, nucleus_aspect=2.3, offset=0.1, wobble=0.2)
ONCOCYTE: Final = Cell(9.4, 4.1, cytoplasm=0.72, granules=0.42, nucleolus=0.9, nucleus=0.92, offset=0.1)
INTERMEDIATE: Final = Cell(6.4, 4.3, cytoplasm=0.42, nucleus=0.92, nucleus_aspect=1.3, chromatin=0.25, nucleolus=0.4)
SQUAMOID: Final = Cell(10.0, 4.2, cytoplasm=0.55, granules=0.08, edge=0.5, dye=WARM)
MUCOUS: Final = Cell(10.5, 3.5, cytoplasm=0.3, offset=0.95, edge=0.7, granules=0.05, nucleus_aspect=1.5, vacuoles=-1)
BASALOID: Final = Cell(4.6, 3.8, cytoplasm=0.3, nucleus=1.15, nucleus_aspect=1.35, chromatin=0.3, wobble=0.26)
ACINAR: Final = Cell(10.6, 4.0, cytoplasm=0.6, offset=0.55, granules=0.5, vacuoles=7, edge=0.12, nucleolus=0.5)


def _pleomorphic_adenoma(glass: Glass, strength: float) -> None:
    """Fibrillary chondromyxoid matrix with bland plasmacytoid and spindle cells loose in it."""
    rng = glass.rng
    angle = rng.uniform(0.0, np.pi)
    fibres = glass.strands(period=3.4, angle=angle) + glass.strands(period=2.1, angle=angle + rng.normal(0.0, 0.5))
    matrix = glass.patch(0.25 + 0.45 * strength, fray=0.45 * fibres) * (0.2 + 0.6 * fibres)
    glass.dyes[MATRIX] += np.float32(0.9 * rng.lognormal(0.0, 0.2)) * matrix
    many = glass.look.cellularity
    glass.scatter(SPINDLE, 6 * strength * many)
    glass.scatter(PLASMACYTOID, 4 * many)
    glass.cluster(*glass.within(), PLASMACYTOID, int(rng.integers(4, 12)), spacing=1.25)


def _warthin_tumor(glass: Glass, strength: float) -> None:
    """Oncocytic sheets in dirty proteinaceous fluid full of lymphocytes."""
    rng, many = glass.rng, glass.look.cellularity
    glass.dyes[CYTOPLASM] += np.float32(0.14 * strength) * np.maximum(1 + 0.8 * glass.texture(1, glass.whole), 0)
    glass.scatter(LYMPHOCYTE, (12 + 28 * strength) * many)
    if rng.random() < 0.35 + 0.6 * strength:
        glass.sheet(*glass.within(), ONCOCYTE, int(rng.integers(5, 14)))
    glass.scatter(ONCOCYTE, 1.0)


def _mucoepidermoid_carcinoma(glass: Glass, strength: float) -> None:
    """Smooth pools of mucin, goblet-like mucous cells, overlapping intermediate cells, a few squamoid ones."""
    rng, many = glass.rng, glass.look.cellularity
    mucin = glass.patch(0.2 + 0.4 * strength) * (0.7 + 0.4 * glass.strands(period=21.0, angle=rng.uniform(0.0, np.pi)))
    glass.dyes[MATRIX] += np.float32(0.4 * rng.lognormal(0.0, 0.25)) * mucin
    x, y = glass.within()
    glass.cluster(x, y, INTERMEDIATE, int(rng.integers(5, 15) * many), spacing=0.85)
    for _ in range(int(rng.poisson(1.5 + 4 * strength))):
        dx, dy = rng.normal(0.0, 18.0, 2)
        glass.cell(x + dx, y + dy, MUCOUS)
    if rng.random() < 0.15 + 0.35 * strength:
        glass.sheet(*glass.within(), SQUAMOID, int(rng.integers(2, 6)))


def _adenoid_cystic_carcinoma(glass: Glass, strength: float) -> None:
    """Hyaline globules in a cribriform crowd of small dark basaloid cells."""
    rng, many = glass.rng, glass.look.cellularity
    x, y = glass.within()
    glass.cluster(x, y, BASALOID, int(rng.integers(16, 38) * many), spacing=0.95)
    for _ in range(int(rng.poisson(1 + 3.5 * strength))):
        dx, dy = rng.normal(0.0, 17.0, 2)
        radius = rng.uniform(4.5, 11.0)
        glass.globule(x + dx, y + dy, radius, 0.75 * rng.lognormal(0.0, 0.2))
        for angle in np.arange(0, 2 * np.pi, 8.2 / radius) + rng.uniform(0, 1):
            if rng.random() < 0.75:
                away = radius + rng.normal(3.4, 0.8)
                glass.cell(
                    x + dx + away * np.cos(angle), y + dy + away * np.sin(angle), BASALOID, angle=angle + np.pi / 2
                )


def _acinic_cell_carcinoma(glass: Glass, strength: float) -> None:
    """Acini of large granular, vacuolated cells with blurred borders, and bare round nuclei all around."""
    rng, many = glass.rng, glass.look.cellularity
    for _ in range(1 + int(rng.poisson(0.3 + 1.2 * strength))):
        x, y = glass.within()
        glass.cluster(x, y, ACINAR, int(rng.integers(4, 9) * many), spacing=0.9)
    glass.scatter(BARE, (2 + 7 * strength) * many)
    glass.scatter(ACINAR, 1.5 * strength)


_RECIPES: Final[dict[str, Callable[[Glass, float], None]]] = {
    "acinic_cell_carcinoma": _acinic_cell_carcinoma,
    "adenoid_cystic_carcinoma": _adenoid_cystic_carcinoma,
    "mucoepidermoid_carcinoma": _mucoepidermoid_carcinoma,
    "pleomorphic_adenoma": _pleomorphic_adenoma,
    "warthin_tumor": _warthin_tumor,
}
DIAGNOSES: Final = tuple(_RECIPES)


def render_tile(*, seed: int, diagnosis: str, slide: int, tile: int, size: int) -> NDArray[np.uint8]:
    """One tile, `[size, size, 3] uint8`: a pure function of its arguments.

    Stain, light and focus follow from `seed` and `slide` alone. Raises `ValueError` for an unknown diagnosis.
    """
    look = slide_look(seed=seed, slide=slide)
    rng = np.random.default_rng([seed, slide, 1 + tile, 1 + DIAGNOSES.index(diagnosis)])
    glass = Glass(rng, size, look)
    glass.film()
    _bystanders(glass)
    _RECIPES[diagnosis](glass, float(rng.uniform(0.3, 1.0)))
    return glass.photograph()


def _bystanders(glass: Glass) -> None:
    """What any smear may hold: blood, inflammation, normal duct cells, a wisp of mucus, a stray globule."""
    rng, look = glass.rng, glass.look
    glass.scatter(RED_CELL, look.blood)
    glass.scatter(LYMPHOCYTE, look.inflammation)
    glass.scatter(BARE, 0.8)
    glass.scatter(MACROPHAGE, 0.25)
    if rng.random() < 0.1:
        glass.cluster(*glass.anywhere(), DUCTAL, int(rng.integers(3, 9)), spacing=0.95)
    if rng.random() < 0.1:
        glass.dyes[MATRIX] += np.float32(0.3) * glass.patch(0.25)
    if rng.random() < 0.08:
        glass.globule(*glass.anywhere(), rng.uniform(3.0, 7.0), 0.5)
