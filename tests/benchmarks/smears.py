"""The images that benchmarks convert: drawn smears, stored as JPEG files.

images = draw_jpegs(Path("…"), slides=10, tiles=40, image_size=256)
images / ORGAN  # holds DIAGNOSIS/SLIDE_TILE.jpg
"""

import contextlib
import io
from pathlib import Path

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


def with_copies(images: Path, folder: Path, qualities: tuple[int, ...]) -> Path:
    """Each file of `images` encoded once more at each of `qualities`, as further tiles of its slide."""
    for path in sorted((images / ORGAN).rglob("*.jpg")):
        slide, _, tile = path.stem.rpartition("_")
        target = folder / ORGAN / path.parent.name
        target.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as picture:
            for copy, quality in enumerate(qualities):
                picture.save(target / f"{slide}_{copy * 1000 + int(tile):04d}.jpg", quality=quality)
    return folder


def jpegs(images: Path) -> list[Path]:
    """The files below `ORGAN`, in the order of their paths."""
    return sorted((images / ORGAN).rglob("*.jpg"))
