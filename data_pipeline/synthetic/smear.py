"""A piece of glass and the brushes that put cells, matrix and dirt on it.

    glass = Glass(rng, size=128, look=slide_look(seed=0, slide=12))
    glass.cell(30.0, 30.0, Cell(radius=8.0, nucleus_radius=4.0))
    pixels = glass.photograph()  # [128, 128, 3] uint8

Every brush adds optical density to four dye planes. Positions and lengths are in micrometres; a tile shows about
`FIELD_UM` of the smear whatever its size in pixels.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.synthetic.staining import CYTOPLASM, MATRIX, NUCLEAR, Look, expose

Plane: TypeAlias = NDArray[np.float32]
Window: TypeAlias = tuple[slice, slice]

FIELD_UM: Final = 76.0


@dataclass(frozen=True, slots=True)
class Cell:
    """A kind of cell: sizes in micrometres, `cytoplasm` and `nucleus` in units of dye, the rest shares of one."""

    radius: float
    nucleus_radius: float
    cytoplasm: float = 0.4
    nucleus: float = 0.95
    aspect: float = 1.12
    nucleus_aspect: float = 1.12
    offset: float = 0.15
    edge: float = 0.35
    granules: float = 0.15
    chromatin: float = 0.22
    nucleolus: float = 0.2
    vacuoles: int = 0
    wobble: float = 0.16
    pallor: float = 0.0
    dye: int = CYTOPLASM


class Glass:
    """Four dye planes, `[4, size, size]`, and the brushes that add to them. Positions are in micrometres."""

    def __init__(self, rng: np.random.Generator, size: int, look: Look) -> None:
        self.rng = rng
        self.look = look
        self.size = size
        self.scale = size / FIELD_UM * look.zoom
        self.extent = size / self.scale
        self.dyes: Plane = np.zeros((4, size, size), np.float32)
        self.whole = slice(0, size), slice(0, size)
        self.bank = _noise_bank(size)
        self.focus = rng.normal(0.0, 0.3)

    def photograph(self) -> NDArray[np.uint8]:
        """The tile as its slide's stain, light and focus show it: `[size, size, 3] uint8`."""
        return expose(self.dyes, look=self.look, px_per_um=self.scale, rng=self.rng)

    def texture(self, kind: int, window: Window) -> Plane:
        """A random cut of noise plane `kind`, as large as `window`; mean 0, deviation 1."""
        height, width = (side.stop - side.start for side in window)
        room = self.bank.shape[1]
        top, left = (int(self.rng.random() * (room - length)) for length in (height, width))
        return self.bank[kind, top : top + height, left : left + width]

    def anywhere(self) -> tuple[float, float]:
        """A point on the tile or just beside it."""
        x, y = self.rng.uniform(-0.05, 1.05, 2) * self.extent
        return float(x), float(y)

    def within(self) -> tuple[float, float]:
        """A point well inside the tile."""
        x, y = self.rng.uniform(0.15, 0.85, 2) * self.extent
        return float(x), float(y)

    def spot(
        self, x: float, y: float, radius: float, *, aspect: float = 1.0, angle: float = 0.0, wobble: float = 0.0
    ) -> tuple[Window, Plane]:
        """The pixels around an uneven ellipse and how deep inside it each lies (µm, negative outside)."""
        long, short = radius * aspect**0.5, radius / aspect**0.5
        reach = long * (1.1 + wobble) + 1.5
        left, top = (min(self.size, max(0, int((c - reach) * self.scale))) for c in (x, y))
        right, bottom = (max(0, min(self.size, int((c + reach) * self.scale) + 1)) for c in (x, y))
        window = slice(top, max(top, bottom)), slice(left, max(left, right))
        across = np.arange(left, window[1].stop, dtype=np.float32) / np.float32(self.scale) - np.float32(x)
        down = np.arange(top, window[0].stop, dtype=np.float32)[:, None] / np.float32(self.scale) - np.float32(y)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        u = (across * cos + down * sin) / np.float32(long)
        v = (down * cos - across * sin) / np.float32(short)
        distance = np.sqrt(u * u + v * v)
        if wobble:
            distance += np.float32(wobble) * self.texture(0, window)
        return window, (1 - distance) * np.float32(short)

    def nucleus(self, x: float, y: float, kind: Cell, angle: float, haze: float) -> None:
        """Chromatin under a sharp membrane, now and then a nucleolus."""
        rng = self.rng
        radius = kind.nucleus_radius * self.look.nuclear_size * rng.lognormal(0.0, 0.08)
        aspect = kind.nucleus_aspect * rng.lognormal(0.0, 0.07)
        window, depth = self.spot(x, y, radius, aspect=aspect, angle=angle, wobble=kind.wobble * 0.45)
        chromatin = 0.8 + np.float32(kind.chromatin) * self.texture(1, window) + 0.3 * _line(depth, 0.5, 0.5)
        density = np.float32(kind.nucleus * rng.lognormal(0.0, 0.12))
        self.dyes[NUCLEAR][window] += density * _inside(depth, 0.7 + haze) * np.maximum(chromatin, 0.25)
        if rng.random() < kind.nucleolus:
            dx, dy = rng.normal(0.0, 0.25 * radius, 2)
            window, depth = self.spot(x + dx, y + dy, 1.0)
            self.dyes[NUCLEAR][window] += 0.75 * _inside(depth, 0.8 + haze)

    def cell(self, x: float, y: float, kind: Cell, *, angle: float | None = None) -> None:
        """One cell of `kind`: translucent body, rim, granules, vacuoles, nucleus."""
        rng = self.rng
        turn = float(rng.uniform(0.0, 2 * np.pi)) if angle is None else angle
        haze = abs(rng.normal(self.focus, 0.5))
        radius = kind.radius * rng.lognormal(0.0, 0.09)
        if kind.cytoplasm:
            self.body(x, y, radius, kind, turn, haze)
        if kind.nucleus_radius:
            room = max(0.0, radius * kind.aspect**0.5 - kind.nucleus_radius) * kind.offset * rng.uniform(0.7, 1.0)
            lean = np.pi / 2 if kind.vacuoles < 0 else rng.normal(0.0, 0.15)
            self.nucleus(x + room * np.cos(turn), y + room * np.sin(turn), kind, turn + lean, haze)

    def body(self, x: float, y: float, radius: float, kind: Cell, angle: float, haze: float) -> None:
        """Cytoplasm of one cell; a negative number of vacuoles means one that fills the cell."""
        rng = self.rng
        window, depth = self.spot(x, y, radius, aspect=kind.aspect, angle=angle, wobble=kind.wobble)
        shade = (
            0.75 + np.float32(kind.granules) * self.texture(2, window) + np.float32(kind.edge) * _line(depth, 0.5, 0.8)
        )
        if kind.pallor:
            shade -= kind.pallor * _inside(depth - 2.0, 2.0)
        if kind.vacuoles < 0:
            shade -= 0.6 * _inside(depth - 1.5, 1.2)
            self.dyes[MATRIX][window] += 0.3 * _inside(depth - 1.5, 1.5)
        density = np.float32(kind.cytoplasm * rng.lognormal(0.0, 0.15))
        self.dyes[kind.dye][window] += density * _inside(depth, 0.8 + haze) * np.maximum(shade, 0.05)
        for _ in range(int(rng.poisson(max(0, kind.vacuoles)))):
            away, turn = radius * 0.75 * rng.random() ** 0.5, rng.uniform(0.0, 2 * np.pi)
            self.vacuole(x + away * np.cos(turn), y + away * np.sin(turn), rng.uniform(1.1, 2.4), kind)

    def vacuole(self, x: float, y: float, radius: float, kind: Cell) -> None:
        """A clear bubble with a thin rim."""
        window, depth = self.spot(x, y, radius)
        keep = 1 - 0.75 * _inside(depth, 0.7) + 0.3 * _line(depth, -0.2, 0.5)
        self.dyes[kind.dye][window] *= keep

    def cluster(self, x: float, y: float, kind: Cell, count: int, *, spacing: float) -> None:
        """`count` cells packed around a point as seeds in a sunflower, `spacing` in cell radii; loose above 1.5."""
        turn = self.rng.uniform(0.0, 2 * np.pi)
        for i in range(count):
            away = kind.radius * spacing * (i + 0.3) ** 0.5
            angle = turn + 2.39996 * i
            dx, dy = self.rng.normal(0.0, 0.18 * kind.radius * spacing, 2)
            self.cell(x + away * np.cos(angle) + dx, y + away * np.sin(angle) * 0.85 + dy, kind)

    def scatter(self, kind: Cell, expected: float) -> None:
        """About `expected` single cells anywhere."""
        for _ in range(int(self.rng.poisson(max(0.0, expected)))):
            self.cell(*self.anywhere(), kind)

    def sheet(self, x: float, y: float, kind: Cell, count: int) -> None:
        """A pavement of polygonal cells: the Voronoi cells of jittered sunflower seeds, with their borders."""
        rng = self.rng
        step = np.arange(count)
        away = kind.radius * 0.98 * (step + 0.25) ** 0.5
        seeds = np.stack([x + away * np.cos(2.39996 * step), y + away * np.sin(2.39996 * step)], axis=1)
        seeds += rng.normal(0.0, 0.14 * kind.radius, seeds.shape)
        window, _ = self.spot(x, y, float(away[-1]) + kind.radius * 1.1)
        down, across = np.mgrid[window].astype(np.float32) / np.float32(self.scale)
        nearest, second = np.full((2, *down.shape), np.inf, np.float32)
        for seed_x, seed_y in seeds.astype(np.float32):
            distance = np.hypot(across - seed_x, down - seed_y)
            second = np.minimum(second, np.maximum(nearest, distance))
            nearest = np.minimum(nearest, distance)
        rim = np.float32(kind.radius) * (1.05 + np.float32(0.08) * self.texture(0, window)) - nearest
        border = np.minimum(rim, np.minimum(second - nearest, 50) / 2)
        shade = (
            0.75 + np.float32(kind.granules) * self.texture(2, window) + np.float32(kind.edge) * _line(border, 0.0, 0.6)
        )
        density = np.float32(kind.cytoplasm) * _inside(rim, 1.2) * np.maximum(shade, 0.05)
        self.dyes[kind.dye][window] += density * (1 - 0.45 * _line(border, 0.9, 0.5))
        for seed_x, seed_y in seeds:
            self.nucleus(seed_x, seed_y, kind, rng.uniform(0.0, np.pi), abs(rng.normal(self.focus, 0.4)))

    def patch(self, cover: float, fray: Plane | float = 0.0) -> Plane:
        """`[size, size]` in 0…1: a cloud that hides about `cover` of the tile, its border pushed about by `fray`."""
        cloud = np.asarray(self.texture(3, self.whole) + 0.12 * self.texture(0, self.whole) + fray, np.float32)
        shore = float(np.quantile(cloud[::4, ::4], 1 - cover))
        return _inside(cloud - np.float32(shore), 0.45)

    def strands(self, *, period: float, angle: float) -> Plane:
        """`[size, size]` in 0…1: wavy fibres about `period` apart, running at `angle`, fading in and out."""
        axis = np.arange(self.size, dtype=np.float32) / np.float32(self.scale)
        ramp = axis * np.float32(np.cos(angle)) + axis[:, None] * np.float32(np.sin(angle))
        sway = np.float32(3.2) * self.texture(3, self.whole) + np.float32(0.75) * self.texture(0, self.whole)
        wave = np.sin((ramp + sway) * np.float32(2 * np.pi / period))
        return np.clip(
            0.45 + 0.3 * wave * (1 + 0.5 * self.texture(0, self.whole)) + 0.1 * self.texture(1, self.whole), 0, 1
        )

    def globule(self, x: float, y: float, radius: float, density: float) -> None:
        """A ball of hyaline matrix: even, sharp-edged, a little denser at the rim."""
        angle = self.rng.uniform(0.0, np.pi)
        window, depth = self.spot(x, y, radius, aspect=1.12, angle=angle, wobble=0.07)
        shade = 0.85 + 0.06 * self.texture(0, window) + 0.35 * _line(depth, 0.4, 0.7)
        self.dyes[MATRIX][window] += np.float32(density) * shade * _inside(depth, 0.8)

    def film(self) -> None:
        """Dried plasma under everything, and dirt that lies above the plane of focus."""
        rng, look = self.rng, self.look
        cloud = 1 + 0.35 * self.texture(3, self.whole) + 0.1 * self.texture(2, self.whole)
        share = np.float32(rng.lognormal(0.0, 0.2) * look.film) * np.maximum(cloud, 0)
        self.dyes[MATRIX] += share
        self.dyes[CYTOPLASM] += 0.6 * share
        for _ in range(int(rng.poisson(look.dirt))):
            window, depth = self.spot(*self.anywhere(), rng.uniform(2.0, 7.0), wobble=0.2)
            self.dyes[int(rng.integers(4))][window] += 0.4 * _inside(depth - 1.5, 4.0)
        for _ in range(int(rng.poisson(3 * look.dirt))):
            window, depth = self.spot(*self.anywhere(), rng.uniform(0.4, 1.1), aspect=rng.uniform(1.0, 3.0))
            self.dyes[NUCLEAR][window] += rng.uniform(0.4, 1.3) * _inside(depth, 0.6)


def _inside(depth: Plane, softness: float) -> Plane:
    """1 inside, 0 outside, and a smooth step `softness` wide between."""
    step: Plane = np.clip(depth / np.float32(softness) + np.float32(0.5), 0, 1)
    return step * step * (3 - 2 * step)


def _line(depth: Plane, at: float, width: float) -> Plane:
    """A soft contour line where `depth` is `at`: 1 on it, 0 beyond `width` of it."""
    near: Plane = np.maximum(1 - np.abs(depth - np.float32(at)) / np.float32(width), 0)
    return near * near * (3 - 2 * near)


@lru_cache(maxsize=4)
def _noise_bank(size: int) -> Plane:
    """`[4, room, room]`: outline warp, chromatin, granules and clouds, each of mean 0 and deviation 1."""
    rng = np.random.default_rng(size)
    room = size + size // 2 + 8
    span = room / size * FIELD_UM
    planes = [_noise(rng, room, max(4, round(span / feature_um))) for feature_um in (4.5, 1.3, 0.9, 19.0)]
    bank = np.stack(planes)
    bank.flags.writeable = False
    return bank


def _noise(rng: np.random.Generator, room: int, grid: int) -> Plane:
    coarse = rng.standard_normal((grid, grid)).astype(np.float32)
    plane = np.asarray(Image.fromarray(coarse).resize((room, room), Image.Resampling.BICUBIC), np.float32)
    even: Plane = (plane - plane.mean()) / plane.std()
    return even
