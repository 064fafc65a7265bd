"""Compare finished runs: settings, seeds, folds of a cross-validation, or numbers of training images.

Usage: python -m trainer.compare RUN [RUN ...] [--output=DIR] [--folds] [--seed=0]

A RUN is a folder that `python -m trainer` finished, RUNS/ORGAN/RUN. DIR, by default the folder that holds the first
one, gets compare.html (scores with 95 % intervals, paired differences to the first run on the same test images, mean
and spread over seeds and folds, a learning curve) and compare.json with all its numbers.

Example: python -m trainer.compare runs/cervix/seed-0 runs/cervix/seed-1 runs/cervix/seed-2

The table comes on stdout; its last line says where the page is.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from data_pipeline import cli
from data_pipeline.storage import local_path, write_atomic
from trainer.compare_page import TEMPLATE, table, write_page
from trainer.comparison import compare
from trainer.finished_runs import read_runs

NUMBERS = "compare.json"


def main(argv: Sequence[str]) -> None:
    """Compare the runs of the command line."""
    if len(argv) < 2:
        raise cli.RequestError("Missing: RUN. To fix it: name the folder of at least one finished run.")
    values = flags.FLAGS
    runs = read_runs(argv[1:], folds=values.folds)
    folder = output_folder(values.output, first=argv[1])
    found = compare(runs, folds=values.folds, seed=values.seed)
    write_atomic(folder / NUMBERS, (json.dumps(found, indent=1, allow_nan=False) + "\n").encode())
    write_page(folder / TEMPLATE, found)
    print(table(found))
    print(f"Comparison: {folder / TEMPLATE}")


def output_folder(value: str, *, first: str) -> Path:
    """The folder that --output names, by default the one that holds the first run. Raises `RequestError`."""
    folder = local_path("output", value) if value else Path(first).expanduser().absolute().parent
    if folder.exists() and not folder.is_dir():
        raise cli.invalid_flag("output", expected="a folder", received=value, fix="name a folder, or one to be made")
    return folder


if __name__ == "__main__":
    flags.DEFINE_string(
        "output", "", "Folder that gets compare.html and compare.json; by default that of the first run."
    )
    flags.DEFINE_bool("folds", False, "Runs may have been tested on different images, as folds of a cross-validation.")
    flags.DEFINE_integer("seed", 0, "Which resamples the intervals are made of.", lower_bound=0)
    cli.run(main)
