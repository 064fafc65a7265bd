"""How memory and time grow with the number of images: `python -m tests.benchmarks.memory` prints the tables."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from tests.benchmarks.comparison import AtMost, markdown
from tests.benchmarks.process_tree import watch
from tests.benchmarks.smears import ORGAN
from tests.benchmarks.tiny_images import EDGE_PX, draw_more

IMAGES = (25_000, 50_000, 100_000, 200_000)
CONVERSION_BAR = AtMost(1.5)  # GB, for the largest number of images
ROWS = (250_000, 500_000, 1_000_000, 2_000_000)
PLAN_BAR = AtMost(2.0)  # GB
GB = 1e9


def whole_conversions() -> Iterator[list[str]]:
    """Rows of the table: the real program on more and more images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for before, count in pairwise((0, *IMAGES)):
            draw_more(folder / "images" / ORGAN, range(before, count))
            flags = {"organ": ORGAN, "images": folder / "images", "tfrecords": folder / f"{count}"}
            command = [sys.executable, "-m", "data_pipeline", f"--image_size={EDGE_PX}"]
            peak = watch([*command, *(f"--{flag}={value}" for flag, value in flags.items())])
            rss, pss = peak.rss_bytes / GB, peak.pss_bytes / GB
            bar = [str(CONVERSION_BAR), CONVERSION_BAR.verdict(rss)] if count == IMAGES[-1] else ["–", "–"]
            yield [
                f"{count:,}",
                f"{rss:.2f}",
                f"{pss:.2f}",
                f"{peak.wall_s:.0f}",
                f"{peak.wall_s / count * 1e3:.2f}",
                *bar,
            ]


def plans(near_duplicates: str) -> Iterator[list[str]]:
    """Rows of the table: the plan stage by itself, each in a process of its own."""
    for rows in ROWS:
        command = [sys.executable, "-m", "tests.benchmarks.plan_stage", str(rows), near_duplicates]
        took = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        peak = took["peak_bytes"] / GB
        yield [
            f"{rows:,}",
            near_duplicates,
            f"{peak:.2f}",
            f"{took['table_bytes'] / GB:.2f}",
            f"{took['seconds']:.0f}",
            f"{took['seconds'] / rows * 1e6:.1f}",
            str(PLAN_BAR),
            PLAN_BAR.verdict(peak),
        ]


def run() -> str:
    """The group's section of RESULTS.md."""
    conversion_header = ["images", "peak RSS, GB", "peak PSS, GB", "wall s", "ms an image", "bar, RSS", "met"]
    plan_header = ["rows", "near duplicates", "peak RSS, GB", "before, GB", "wall s", "µs a row", "bar, RSS", "met"]
    conversions = markdown(whole_conversions(), conversion_header)
    planned = markdown((row for near in ("ignore", "link") for row in plans(near)), plan_header)
    return (
        f"### Whole conversions\n\n`python -m data_pipeline` with its default of one process a CPU, on PNG files of "
        f"{EDGE_PX} × {EDGE_PX} pixels in three diagnoses, near duplicates linked. Memory is the sum over all its "
        f"processes, in which RSS counts shared pages once for each of them.\n\n{conversions}\n\n"
        "### The plan stage by itself\n\nA made-up table of five diagnoses, 3 % exact copies, random fingerprints. "
        "*Before* is the table and the interpreter, which the peak includes.\n\n"
        f"{planned}"
    )


if __name__ == "__main__":
    print(run())
