"""Very many images that cost next to nothing to draw, to store and to decode.

draw_more(Path("images/gland"), range(25_000))
"""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DIAGNOSES = ("adenoma", "carcinoma", "normal")
TILES = 50  # of a slide
EDGE_PX, FIELD_PX = 24, 6


def draw_more(folder: Path, numbers: range) -> None:
    """Images of those `numbers`, every one a different field of soft colours, as `DIAGNOSIS/slideS_T.png`."""
    for diagnosis in DIAGNOSES:
        (folder / diagnosis).mkdir(parents=True, exist_ok=True)
    shape = (len(numbers), FIELD_PX, FIELD_PX, 3)
    fields = np.random.default_rng(numbers.start).integers(0, 256, shape, dtype=np.uint8)
    for number, field in zip(numbers, fields, strict=True):
        slide, tile = divmod(number, TILES)
        diagnosis = DIAGNOSES[slide % len(DIAGNOSES)]
        (folder / diagnosis / f"slide{slide:05d}_{tile:02d}.png").write_bytes(_png(field))


def _png(field: NDArray[np.uint8]) -> bytes:
    out = io.BytesIO()
    Image.fromarray(field).resize((EDGE_PX, EDGE_PX), Image.Resampling.BICUBIC).save(out, "PNG", compress_level=1)
    return out.getvalue()
