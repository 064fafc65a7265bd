"""What conversion costs beside the work nobody is spared, and beside other converters.

python -m tests.benchmarks.conversion  # prints the table
"""

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

# Before NumPy is imported, and for both ways: threads that spin while they wait would be counted as work.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image

from data_pipeline.conversion import Conversion
from data_pipeline.grouping import parse_rule
from data_pipeline.settings import Settings
from data_pipeline.sources import open_sources
from data_pipeline.stages import convert
from tests.benchmarks.comparison import TURNS, AtLeast, AtMost, Row, in_turns, table
from tests.benchmarks.smears import ORGAN, draw_jpegs, jpegs, mosaics

SIZE_PX, LARGE_PX, SMALL_PX = 256, 768, 128
MOSAICS = 6  # so many files that it doesn't matter how long processes take to start
WALL_TURNS = 3
UNIT = "µs CPU"
Clock = Callable[[], float]


def conversion_s(images: Path, size_px: int, *, workers: int = 1, clock: Clock = time.process_time) -> float:
    """Seconds by `clock` for all four stages."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        started = clock()
        source = open_sources(str(images), [ORGAN])[ORGAN]
        settings = Settings(image_size=size_px)
        convert(Conversion(ORGAN, source, Path(folder), settings, parse_rule("auto"), workers=workers))
        return clock() - started


def ours_us(images: Path, size_px: int) -> float:
    """CPU time an image, in microseconds, for all four stages."""
    return conversion_s(images, size_px) / len(jpegs(images)) * 1e6


def bare_us(images: Path, size_px: int, *, keep: bool) -> float:
    """The same for reading and decoding alone, and where files aren't kept for resizing and encoding."""
    files = jpegs(images)
    started = time.process_time()
    for path in files:
        picture = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
        if keep:
            np.asarray(picture)
        else:
            small = picture.resize((size_px, size_px), Image.Resampling.BILINEAR)
            small.save(io.BytesIO(), "JPEG", quality=95, subsampling=0)
    return (time.process_time() - started) / len(files) * 1e6


def rival_us(name: str, images: Path) -> float:
    """The same for another converter of `rivals.py`."""
    # Neither imported by our side nor by our worker processes, which import this module too.
    from tests.benchmarks import rivals

    files = jpegs(images)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        started = time.process_time()
        getattr(rivals, name)(files, Path(folder))
        return (time.process_time() - started) / len(files) * 1e6


def images_per_s(images: Path, size_px: int, *, workers: int) -> float:
    """Throughput by wall time."""
    return len(jpegs(images)) / conversion_s(images, size_px, workers=workers, clock=time.perf_counter)


def against_bare(claim: str, images: Path, size_px: int, *, keep: bool, limit: float | None, apart: bool = True) -> Row:
    """All four stages against the bare work on each file."""
    pairs = in_turns(partial(ours_us, images, size_px), partial(bare_us, images, size_px, keep=keep), apart=apart)
    return Row(claim, UNIT, *pairs, AtMost(limit) if limit else None)


def against_rival(claim: str, images: Path, name: str) -> Row:
    """All four stages, files kept, against another converter."""
    pairs = in_turns(partial(ours_us, images, SIZE_PX), partial(rival_us, name, images), apart=True)
    return Row(claim, UNIT, *pairs, AtMost(1))


def two_processes(images: Path) -> Row:
    """Throughput of two processes against one."""
    ways = [partial(images_per_s, images, SMALL_PX, workers=workers) for workers in (2, 1)]
    pairs = in_turns(ways[0], ways[1], turns=WALL_TURNS, apart=True)
    count = len(jpegs(images))
    claim = f"{count:,} files to {SMALL_PX} px, two processes against one, wall time, {WALL_TURNS} turns"
    return Row(claim, "images/s", *pairs, AtLeast(1.8))


def rows(images: Path, large: Path, many: Path) -> Iterator[Row]:
    """The rows of the table, one after another."""
    bare = "read + decode + resize + encode"
    kept = "bytes kept, against read + decode"
    yield against_bare(kept, images, SIZE_PX, keep=True, limit=1.3)
    yield against_bare(
        f"{kept}, in one process that has worked before", images, SIZE_PX, keep=True, limit=None, apart=False
    )
    yield against_bare(f"to {SMALL_PX} px, against {bare}", images, SMALL_PX, keep=False, limit=1.15)
    yield against_bare(f"{LARGE_PX} to {SIZE_PX} px, against {bare}", large, SIZE_PX, keep=False, limit=1.15)
    yield two_processes(many)
    yield against_rival("bytes kept, against a TFDS builder that decodes", images, "write_with_tfds")
    yield against_rival("bytes kept, against webdataset, decoding, both hashes", images, "write_with_webdataset")


def run() -> str:
    """The group's section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = draw_jpegs(folder / "small", slides=10, tiles=40, image_size=SIZE_PX)
        large = draw_jpegs(folder / "large", slides=6, tiles=10, image_size=LARGE_PX)
        many = mosaics(images, folder / "many", of_each=MOSAICS)
        counts = len(jpegs(images)), len(jpegs(large))
        measured = table(rows(images, large, many))
    return (
        "All four stages, near duplicates linked, each turn of each way in a process of its own, on "
        f"{counts[0]:,} JPEG files of {SIZE_PX} × {SIZE_PX} pixels ({counts[1]} of {LARGE_PX} × {LARGE_PX}), in CPU "
        f"time an image, unless said otherwise: medians (lowest – highest) of {TURNS} turns.\n\n{measured}"
    )


if __name__ == "__main__":
    print(run())
