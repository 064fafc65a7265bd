"""What training takes of memory, as a program from its start to its report: for `training.py`.

rows = size_rows(Path("…"), turns=1) + part_rows(Path("…"), turns=1)
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.comparison import AtMost, Row
from tests.benchmarks.process_tree import Peak, watch
from tests.benchmarks.smears import ORGAN, draw_jpegs
from tests.benchmarks.tiny_images import draw_more
from tests.conftest import ROOT

FEW, MANY = 2_000, 20_000
SMALL_PX, LARGE_PX = 64, 256
BUDGET_MB = 200
PARTS = 4
MB = 1e6


def size_rows(folder: Path, *, turns: int) -> list[Row]:
    """A dataset ten times as large; images kept decoded within their budget, and not kept beyond it."""
    large, small = _tiny(folder, MANY), _tiny(folder, FEW)
    flags = ("--epochs=1", "--batch_size=64")
    none = ("--cache=none",)
    kept = ("--cache=auto", f"--cache_budget={BUDGET_MB}MB")
    too_many = ("--cache=auto", "--cache_budget=20MB")
    peaks: dict[str, list[Peak]] = {}
    for _ in range(turns):
        for name, dataset, more in (
            ("few", small, none),
            ("many", large, none),
            ("kept", large, kept),
            ("too many", large, too_many),
        ):
            peaks.setdefault(name, []).append(_train(dataset, *flags, *more))
    claim = f"peak memory of training, {SMALL_PX} px: {MANY:,} images"
    few, many, in_cache, beyond = (_rss(peaks[name]) for name in ("few", "many", "kept", "too many"))
    allowed = [peak + BUDGET_MB for peak in many]
    return [
        Row(f"{claim} against {FEW:,}", "MB", many, few, AtMost(1.1)),
        Row(f"{claim}, `{' '.join(kept)}`, against what that allows", "MB", in_cache, allowed, AtMost(1.0)),
        Row(f"{claim}, `{' '.join(too_many)}`, which is too little, against none", "MB", beyond, many, AtMost(1.1)),
    ]


def part_rows(folder: Path, *, turns: int) -> list[Row]:
    """A batch taken at once, and in parts."""
    images = draw_jpegs(folder / "parts", slides=4, tiles=15, image_size=LARGE_PX)
    dataset = _convert(images, folder / "parts" / "tfrecords", LARGE_PX)
    whole, parts = [], []
    for _ in range(turns):
        whole.append(_train(dataset, "--epochs=1", "--batch_size=64"))
        parts.append(_train(dataset, "--epochs=1", "--batch_size=64", f"--accumulate={PARTS}"))
    claim = f"peak memory of training, {LARGE_PX} px, batch 64: `--accumulate={PARTS}` against none"
    return [Row(claim, "MB", _rss(parts), _rss(whole))]


def _tiny(folder: Path, count: int) -> Path:
    """A dataset of so many small images."""
    images = folder / f"{count} images"
    draw_more(images / ORGAN, range(count))
    return _convert(images, folder / f"{count} tfrecords", SMALL_PX)


def _convert(images: Path, tfrecords: Path, size_px: int) -> Path:
    flags = {"organ": ORGAN, "images": images, "tfrecords": tfrecords, "image_size": size_px}
    command = [sys.executable, "-m", "data_pipeline", "--near_duplicates=ignore"]
    command += [f"--{name}={value}" for name, value in flags.items()]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return tfrecords


def _train(tfrecords: Path, *flags: str) -> Peak:
    with tempfile.TemporaryDirectory() as runs:
        where = [f"--organ={ORGAN}", f"--tfrecords={tfrecords}", f"--runs={runs}"]
        return watch([sys.executable, "-m", "trainer", *where, *flags])


def _rss(peaks: list[Peak]) -> list[float]:
    return [peak.rss_bytes / MB for peak in peaks]
