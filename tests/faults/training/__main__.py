"""Proof that training can't be lost: stop it at every moment, compare with a run left alone: `make test-faults`.

Usage: python -m tests.faults.training [--only=PATTERN[,PATTERN…]] [--list]

  PATTERN  of names of cases, as --list shows them: 'single/*', '*/KILL', '2-worker/validation/TERM', '*random*'

Prints a line a case: the moment, the signal and which worker got it, exit codes of all workers, seconds to the exit,
steps made twice, seconds from the second start to the first new step, and whether all ended as in the run left alone.
Exit codes: 0 all did, 1 one didn't, 2 there is no such case.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from tests.faults.training import cases, storms
from tests.faults.training.trial import Missed, make_data

Runner = Callable[[cases.References, Path], cases.Row]


def all_cases() -> dict[str, Runner]:
    """Every case by its name."""
    grid: dict[str, Runner] = {case.name: partial(cases.run_case, case) for case in cases.grid()}
    return {**grid, **storms.CASES}


def run_all(chosen: dict[str, Runner], folder: Path) -> list[cases.Row]:
    """Run the cases one after another; the folders of those that fail stay."""
    references, rows = cases.References(make_data(folder), folder), []
    for number, (name, runner) in enumerate(chosen.items()):
        place = folder / f"{number:02d}-{name.replace('/', '-')}"
        try:
            row = runner(references, place)
        except Missed as miss:
            topology, moment, signal_name = name.split("/")
            row = cases.Row(topology, moment, signal_name, failures=[str(miss)])
        print(row, flush=True)
        rows.append(row)
        if not row.failures and place.exists():
            shutil.rmtree(place)
    return rows


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.training", description="Interrupt training at every moment."
    )
    parser.add_argument("--only", default="*", help="patterns of names of cases, separated by commas")
    parser.add_argument("--list", action="store_true", help="show the names and run nothing")
    options = parser.parse_args(arguments)
    patterns = options.only.split(",")
    chosen = {name: runner for name, runner in all_cases().items() if any(fnmatch(name, p) for p in patterns)}
    if not chosen:
        print(f"No case is named like {options.only}. To fix it: see --list.", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(chosen))
        return 0
    started, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="training-faults-"))
    print(cases.HEADING, flush=True)
    rows = run_all(chosen, folder)
    failed = [row for row in rows if row.failures]
    print(f"{len(rows)} cases in {(time.monotonic() - started) / 60:.1f} minutes, {len(failed)} failed", end="")
    if failed:
        print(f"; what they left is in {folder}")
        return 1
    print()
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
