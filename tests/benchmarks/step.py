"""A training step of the seed network, beside PyTorch's: `python -m tests.benchmarks.step` prints the table."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.comparison import TURNS, AtLeast, Row, table
from tests.benchmarks.peers import KEEPS_MEMORY, Figure, Way, peer, round_robin, told

SIZE_PX, BATCH = 256, 32
BARS = {"float32": 1.1, "bfloat16": 1.25}
OURS, PYTORCH, KEEPING = "ours", "PyTorch", "PyTorch, its memory kept"


def ways(precision: str) -> dict[str, Way]:
    """Ours, and PyTorch as it is started and with its allocator set so that memory stays with the process."""
    arguments = [precision, str(SIZE_PX), str(BATCH)]
    return {
        OURS: Way(Path(sys.executable), ["-m", "tests.benchmarks.stepping", *arguments]),
        PYTORCH: peer("peer_step.py", *arguments),
        KEEPING: peer("peer_step.py", *arguments, environment=KEEPS_MEMORY),
    }


def rows(precision: str, figures: Mapping[str, Sequence[Figure]]) -> list[Row]:
    """Speed and CPU time against each way that could be measured. Raises `ValueError` if the networks differ."""
    sizes = {figure.parameters for found in figures.values() for figure in found}
    if len(sizes) != 1:
        raise ValueError(f"Expected networks with the same number of parameters. Received: {sizes}.")
    mine, made = figures[OURS], []
    for name in (PYTORCH, KEEPING):
        theirs = figures.get(name)
        if not theirs:
            continue
        claim, bar = f"{precision}, against {name}", AtLeast(BARS[precision])
        speeds, their_speeds = ([figure.images_per_s for figure in found] for found in (mine, theirs))
        costs, their_costs = ([figure.cpu_ms for figure in found] for found in (mine, theirs))
        made.append(Row(claim, "images/s", speeds, their_speeds, bar))
        made.append(Row(f"{claim}, CPU time an image", "ms", costs, their_costs))
    return made


def run() -> str:
    """The group's section of RESULTS.md."""
    from trainer.devices import resolve_precision  # with TensorFlow, which takes seconds

    precisions = ["float32"] + ["bfloat16"] * (resolve_precision("auto") == "bfloat16")
    made: list[Row] = []
    settings: set[str] = set()
    missing: dict[str, str] = {}
    for precision in precisions:
        figures, missing = round_robin(ways(precision), turns=TURNS)
        made += rows(precision, figures)
        settings |= {figure.settings for name, found in figures.items() if name != OURS for figure in found}
    without = (
        "" if "bfloat16" in precisions else "\n\nThis processor doesn't compute in bfloat16: its rows are missing."
    )
    return (
        f"One training step of the seed network, {SIZE_PX} × {SIZE_PX} pixels, batches of {BATCH}, the same number of "
        f"parameters on both sides, Adamax, on one batch again and again, each time in a new process, after two steps "
        f"that aren't counted: medians (lowest – highest) of {TURNS} turns. Ours has deterministic operations and "
        f"looks for numbers that aren't finite, as in training. The fastest of PyTorch's settings counts in each turn; "
        f"those were: {'; '.join(sorted(settings)) or 'none'}. With its memory kept means that glibc is told by "
        f"`GLIBC_TUNABLES` to use huge pages and to give nothing back to the system.\n\n{table(made)}{without}"
        f"{told(missing)}"
    )


if __name__ == "__main__":
    print(run())
