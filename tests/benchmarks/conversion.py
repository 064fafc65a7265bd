"""What conversion costs beside the work nobody is spared, and beside other converters.

python -m tests.benchmarks.conversion  # prints the table
"""

import contextlib
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
from tests.benchmarks.smears import ORGAN, draw_jpegs, jpegs, with_copies

SIZE_PX, LARGE_PX, SMALL_PX = 256, 768, 128
COPIES = (82, 85, 88, 91, 94, 97)  # so many files that it doesn't matter how long processes take to start
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


def bare_s(files: Sequence[Path], size_px: int, *, keep: bool) -> float:
    """CPU seconds for reading and decoding alone, and where files aren't kept for resizing and encoding."""
    started = time.process_time()
    for path in files:
        picture = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
        if keep:
            np.asarray(picture)
        else:
            small = picture.resize((size_px, size_px), Image.Resampling.BILINEAR)
            small.save(io.BytesIO(), "JPEG", quality=95, subsampling=0)
    return time.process_time() - started


def rival_s(write: Callable[[Sequence[Path], Path], None], files: Sequence[Path]) -> float:
    """CPU seconds of another converter."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        started = time.process_time()
        write(files, Path(folder))
        return time.process_time() - started


def against_bare(claim: str, images: Path, size_px: int, *, keep: bool, limit: float) -> Row:
    """All four stages against the bare work on each file."""
    files = jpegs(images)
    pairs = in_turns(
        lambda: conversion_s(images, size_px) / len(files) * 1e6,
        lambda: bare_s(files, size_px, keep=keep) / len(files) * 1e6,
    )
    return Row(claim, UNIT, *pairs, AtMost(limit))


def against_rival(claim: str, images: Path, write: Callable[[Sequence[Path], Path], None]) -> Row:
    """All four stages, files kept, against another converter."""
    files = jpegs(images)
    pairs = in_turns(
        lambda: conversion_s(images, SIZE_PX) / len(files) * 1e6, lambda: rival_s(write, files) / len(files) * 1e6
    )
    return Row(claim, UNIT, *pairs, AtMost(1))


def two_processes(images: Path) -> Row:
    """Throughput of two processes against one."""
    count = len(jpegs(images))

    def images_per_s(workers: int) -> float:
        return count / conversion_s(images, SMALL_PX, workers=workers, clock=time.perf_counter)

    pairs = in_turns(lambda: images_per_s(2), lambda: images_per_s(1), turns=WALL_TURNS)
    claim = f"{count:,} files to {SMALL_PX} px, two processes against one, wall time, {WALL_TURNS} turns"
    return Row(claim, "images/s", *pairs, AtLeast(1.8))


def rows(images: Path, large: Path, many: Path) -> Iterator[Row]:
    """The rows of the table, one after another."""
    # Not imported above: worker processes import this module too, and shall start as fast as they do for a user. Both
    # bring in tensorflow_datasets, whose import belongs to neither way.
    from tests.benchmarks.rivals import write_with_tfds, write_with_webdataset

    bare = "read + decode + resize + encode"
    yield against_bare("bytes kept, against read + decode", images, SIZE_PX, keep=True, limit=1.3)
    yield against_bare(f"to {SMALL_PX} px, against {bare}", images, SMALL_PX, keep=False, limit=1.15)
    yield against_bare(f"{LARGE_PX} to {SIZE_PX} px, against {bare}", large, SIZE_PX, keep=False, limit=1.15)
    yield two_processes(many)
    yield against_rival("bytes kept, against a TFDS builder that decodes", images, write_with_tfds)
    yield against_rival("bytes kept, against webdataset, decoding, both hashes", images, write_with_webdataset)


def run() -> str:
    """The group's section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = draw_jpegs(folder / "small", slides=10, tiles=40, image_size=SIZE_PX)
        large = draw_jpegs(folder / "large", slides=6, tiles=10, image_size=LARGE_PX)
        many = with_copies(images, folder / "many", COPIES)
        counts = len(jpegs(images)), len(jpegs(large))
        measured = table(rows(images, large, many))
    return (
        f"All four stages in one process, near duplicates linked, on {counts[0]:,} JPEG files of {SIZE_PX} × {SIZE_PX} "
        f"pixels ({counts[1]} of {LARGE_PX} × {LARGE_PX}), in CPU time an image, unless said otherwise: medians "
        f"(lowest – highest) of {TURNS} turns.\n\n{measured}"
    )


if __name__ == "__main__":
    print(run())
