"""The plan stage by itself, on a made-up table: `python -m tests.benchmarks.plan_stage ROWS link|ignore` prints JSON.

`seconds` are those of making and writing the plan; `peak_bytes` is the highest resident set size of the whole process,
`table_bytes` what it was before the plan was begun.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.grouping import parse_rule
from data_pipeline.near_moments import FINGERPRINT_BYTES
from data_pipeline.plan import make_plan
from data_pipeline.plan_folder import write_plan
from data_pipeline.settings import Settings
from data_pipeline.table import LEVELS_BYTES, LIKENESS_BYTES, SHA256_BYTES, Table

DIAGNOSES = ("acinic", "adenoma", "carcinoma", "normal", "warthin")
TILES = 100  # of a slide
CHUNK_FILES = 64
COPIES = 0.03


def made_up_table(rows: int, *, seed: int = 0) -> Table:
    """`rows` images of five diagnoses; some of them are the one before once more, under another name."""
    rng = np.random.default_rng(seed)
    per_diagnosis = -(-rows // len(DIAGNOSES))
    places = (divmod(row, per_diagnosis) for row in range(rows))
    copies = 1 + np.flatnonzero(rng.random(rows - 1) < COPIES)

    def noise(width: int) -> NDArray[np.uint8]:
        values = rng.integers(0, 256, (rows, width), dtype=np.uint8)
        values[copies] = values[copies - 1]
        return values

    return Table(
        chunks=tuple(f"{number:032x}" for number in range(-(-rows // CHUNK_FILES))),
        ids=[_id(DIAGNOSES[diagnosis], number) for diagnosis, number in places],
        reasons={},
        sha256=noise(SHA256_BYTES),
        likeness=noise(LIKENESS_BYTES),
        levels=noise(LEVELS_BYTES),
        kept=np.ones(rows, dtype=bool),
        fingerprints=noise(FINGERPRINT_BYTES).view(np.int8),
        width=np.full(rows, 256, dtype=np.int32),
        height=np.full(rows, 256, dtype=np.int32),
        kind=np.zeros(rows, dtype=np.int32),
        kinds=(("JPEG", "RGB"),),
        contrast=np.full(rows, 30, dtype=np.float32),
        chunk=(np.arange(rows) // CHUNK_FILES).astype(np.int32),
        start=np.arange(rows, dtype=np.int64) % CHUNK_FILES * 20_000,
        bytes=np.full(rows, 20_000, dtype=np.int32),
        crc32c=rng.integers(0, 2**32, rows, dtype=np.uint32),
    )


def _id(diagnosis: str, number: int) -> str:
    slide, tile = divmod(number, TILES)
    return f"{diagnosis}/slide_{diagnosis[:2]}{slide:05d}_tile_{tile:03d}.jpg"


def peak_bytes() -> int:
    """The highest resident set size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Make a table, a plan of it, and say what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int)
    parser.add_argument("near_duplicates", choices=["link", "ignore"])
    arguments = parser.parse_args()
    table = made_up_table(arguments.rows)
    table_bytes = peak_bytes()
    settings = Settings(near_duplicates=arguments.near_duplicates)

    def identify(row: int) -> bytes:
        return table.likeness[row].tobytes()

    with tempfile.TemporaryDirectory() as work:
        started = time.perf_counter()
        plan = make_plan(table, organ="gland", settings=settings, rule=parse_rule("auto"), identify=identify)
        write_plan(Path(work), plan, table, key="", inputs_sha256="")
        seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes(), "table_bytes": table_bytes}))


if __name__ == "__main__":
    main()
