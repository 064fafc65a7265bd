"""Which files a synthetic folder holds, good and faulty, and the bytes of each. Pure.

tiles = plan_tiles(config)
faults = plan_faults(config, tiles)
data = encode(tiles[0], config, "PNG")
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from data_pipeline.synthetic.cytology import DIAGNOSES, render_tile

# Raise it with every change to the drawing, so that a folder drawn before isn't taken for one drawn after.
DRAWING: Final = 1
LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/v1\noid sha256:%064d\nsize 31337\n" % 0
FINDER_FILE: Final = b"\x00\x00\x00\x01Bud1" + bytes(56)


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisConfig:
    """What to draw and where. `slides` is per diagnosis, `tiles` per slide; `workers` changes no byte."""

    output: Path
    organ: str = "salivary_gland"
    slides: int = 14
    tiles: int = 8
    image_size: int = 128
    seed: int = 0
    clean: bool = False
    workers: int = 1

    @property
    def folder(self) -> Path:
        return self.output / self.organ

    @property
    def record(self) -> Path:
        return self.output / f"{self.organ}.synthesis.json"

    def settings(self) -> dict[str, Any]:
        """What decides the bytes."""
        names = ("organ", "slides", "tiles", "image_size", "seed", "clean")
        return {"drawing": DRAWING} | {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedFault:
    """A file that isn't one of the images: `path` and `copy_of` are relative to the organ's folder."""

    kind: str
    path: str
    copy_of: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One picture: what `render_tile` takes, and the path below the organ's folder."""

    diagnosis: str
    slide: int
    number: int
    path: str


@dataclass(frozen=True, slots=True)
class FaultyFile:
    """A fault and the picture it is made of."""

    fault: PlantedFault
    picture: Tile


def _tile(config: SynthesisConfig, *, diagnosis: str, slide: int, number: int) -> Tile:
    prefix = "".join(word[0] for word in config.organ.split("_")).upper()
    path = f"{diagnosis}/{prefix}-{slide:04d}_{number:03d}.png"
    return Tile(diagnosis=diagnosis, slide=slide, number=number, path=path)


def plan_tiles(config: SynthesisConfig) -> list[Tile]:
    """Every good image, slide after slide. Slide numbers are dealt out at random, so that they tell no diagnosis."""
    numbers = 1 + np.random.default_rng([config.seed, 1]).permutation(config.slides * len(DIAGNOSES))
    return [
        _tile(config, diagnosis=diagnosis, slide=int(slide), number=number)
        for diagnosis, slides in zip(DIAGNOSES, np.split(numbers, len(DIAGNOSES)), strict=True)
        for slide in slides
        for number in range(1, config.tiles + 1)
    ]


def plan_faults(config: SynthesisConfig, tiles: Sequence[Tile]) -> list[FaultyFile]:
    """The faults to plant among `tiles`, each under a name that no image has."""
    rng = np.random.default_rng([config.seed, 2])
    one, two, three, four, five = (DIAGNOSES[i] for i in rng.permutation(len(DIAGNOSES)))
    used = dict.fromkeys((tile.slide for tile in tiles), config.tiles)

    def some(diagnosis: str, *, not_of: int = 0) -> Tile:
        own = [tile for tile in tiles if tile.diagnosis == diagnosis]
        others = [tile for tile in own if tile.slide != not_of] or own
        return others[int(rng.integers(len(others)))]

    def unused(beside: Tile) -> Tile:
        used[beside.slide] += 1
        return _tile(config, diagnosis=beside.diagnosis, slide=beside.slide, number=used[beside.slide])

    def copy(kind: str, original: Tile, path: str) -> FaultyFile:
        return FaultyFile(PlantedFault(kind=kind, path=path, copy_of=original.path), original)

    fresh = [(kind, unused(some(one))) for kind in ("truncated", "text", "empty", "label_conflict")]
    faults = [FaultyFile(PlantedFault(kind=kind, path=tile.path), tile) for kind, tile in fresh]
    contested = fresh[-1][1]
    faults.append(copy("label_conflict", contested, unused(some(two)).path))
    originals = [some(diagnosis) for diagnosis in (two, three, four, five)]
    hosts = [*originals[:2], some(four, not_of=originals[2].slide)]
    for original, host in zip(originals, hosts, strict=False):
        faults.append(copy("duplicate", original, unused(host).path))
    faults.append(copy("reencoded", originals[3], originals[3].path.removesuffix(".png") + ".bmp"))
    faults.append(FaultyFile(PlantedFault(kind="hidden", path=f"{three}/.DS_Store"), contested))
    return faults


def encode(tile: Tile, config: SynthesisConfig, image_format: str) -> bytes:
    """The picture of `tile` as a file of `image_format`, `PNG` or `BMP`."""
    pixels = render_tile(
        seed=config.seed, diagnosis=tile.diagnosis, slide=tile.slide, tile=tile.number, size=config.image_size
    )
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, image_format, **({"compress_level": 3} if image_format == "PNG" else {}))
    return buffer.getvalue()


def faulty_bytes(file: FaultyFile, config: SynthesisConfig) -> bytes:
    """What a planted file holds."""
    match file.fault.kind:
        case "text":
            return LFS_POINTER
        case "empty":
            return b""
        case "hidden":
            return FINDER_FILE
        case "reencoded":
            return encode(file.picture, config, "BMP")
    whole = encode(file.picture, config, "PNG")
    return whole[: len(whole) // 2] if file.fault.kind == "truncated" else whole
