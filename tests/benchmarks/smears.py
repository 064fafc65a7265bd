"""The images that benchmarks convert: drawn smears, stored as JPEG files.

images = draw_jpegs(Path("…"), slides=10, tiles=40, image_size=256)
images / ORGAN  # holds DIAGNOSIS/SLIDE_TILE.jpg
"""

import contextlib
import io
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipeline.parallel import available_cpus
from data_pipeline.synthesize import SynthesisConfig, synthesize

ORGAN = "gland"
QUALITY = 90


def draw_jpegs(folder: Path, *, slides: int, tiles: int, image_size: int) -> Path:
    """`slides` of each of five diagnoses with so many `tiles` each. The folder that holds `ORGAN`."""
    config = SynthesisConfig(
        output=folder / "drawn",
        organ=ORGAN,
        slides=slides,
        tiles=tiles,
        image_size=image_size,
        clean=True,
        workers=available_cpus(),
    )
    with contextlib.redirect_stderr(io.StringIO()):
        drawn = synthesize(config).folder
    images = folder / "images"
    for path in sorted(drawn.rglob("*.png")):
        target = images / ORGAN / path.parent.name / f"{path.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            picture.save(target, quality=QUALITY)
    return images


def mosaics(images: Path, folder: Path, *, of_each: int) -> Path:
    """For each file of `images` so many others, put together of quarters of four of its diagnosis, as further tiles."""
    random = np.random.default_rng(0)
    for diagnosis in sorted((images / ORGAN).iterdir()):
        tiles = sorted(diagnosis.iterdir())
        pixels = np.stack([np.asarray(Image.open(path)) for path in tiles])
        half = pixels.shape[1] // 2
        (folder / ORGAN / diagnosis.name).mkdir(parents=True)
        for number in range(of_each * len(tiles)):
            mosaic = pixels[0].copy()
            for y in (0, half):
                for x in (0, half):
                    mosaic[y : y + half, x : x + half] = random.choice(pixels)[y : y + half, x : x + half]
            slide, _, tile = tiles[number % len(tiles)].stem.rpartition("_")
            name = f"{slide}_{number // len(tiles) * 1000 + int(tile):04d}.jpg"
            Image.fromarray(mosaic).save(folder / ORGAN / diagnosis.name / name, quality=QUALITY)
    return folder


def jpegs(images: Path) -> list[Path]:
    """The files below `ORGAN`, in the order of their paths."""
    return sorted((images / ORGAN).rglob("*.jpg"))
