"""Two ways over the same files in the same run, taking turns, so that a machine whose speed drifts treats both alike.

    ours, theirs = in_turns(measure_ours, measure_theirs)
    ours, theirs = in_turns(measure_ours, measure_theirs, apart=True)
    print(table([Row("decoding", "µs CPU", ours, theirs, AtMost(1.3))]))

Medians of the turns are reported, with their range.
"""

import multiprocessing
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from tabulate import tabulate

TURNS = 5


@dataclass(frozen=True, slots=True)
class AtMost:
    """A bar that a number may not exceed."""

    limit: float

    def verdict(self, reached: float) -> str:
        return "met" if reached <= self.limit else f"short by {reached / self.limit - 1:.1%}"

    def __str__(self) -> str:
        return f"≤ {self.limit:g}"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A bar that a number has to reach."""

    limit: float

    def verdict(self, reached: float) -> str:
        return "met" if reached >= self.limit else f"short by {1 - reached / self.limit:.1%}"

    def __str__(self) -> str:
        return f"≥ {self.limit:g}"


Bar = AtMost | AtLeast


@dataclass(frozen=True)
class Row:
    """A claim, what both ways reached in each turn, and the bar for the ratio of their medians."""

    claim: str
    unit: str
    ours: Sequence[float]
    theirs: Sequence[float]
    bar: Bar | None = None

    def cells(self) -> list[str]:
        ratio = statistics.median(self.ours) / statistics.median(self.theirs)
        bar, verdict = (str(self.bar), self.bar.verdict(ratio)) if self.bar else ("–", "–")
        return [self.claim, spread(self.ours, self.unit), spread(self.theirs, self.unit), f"{ratio:.2f}", bar, verdict]


def spread(values: Sequence[float], unit: str) -> str:
    """Median and range."""
    return f"{statistics.median(values):,.0f} {unit} ({min(values):,.0f} – {max(values):,.0f})"


def in_turns(
    ours: Callable[[], float], theirs: Callable[[], float], *, turns: int = TURNS, apart: bool = False
) -> tuple[list[float], list[float]]:
    """Both measurements `turns` times, one after the other, after one turn that isn't counted.

    `apart`: each time in a new process that does nothing else, as programs do, and there after one that isn't counted.
    How the heap of a process happens to lie decides whether it gives memory back after each image and asks for it again
    for the next, which makes a factor of up to two in what decoding costs, for all that the process lives.
    """
    if apart:
        pairs = [(_in_new_process(ours), _in_new_process(theirs)) for _ in range(turns)]
    else:
        pairs = [(ours(), theirs()) for _ in range(turns + 1)][1:]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _in_new_process(measure: Callable[[], float]) -> float:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(measure).result()
        return pool.submit(measure).result()


def table(rows: Iterable[Row]) -> str:
    """In GitHub's Markdown."""
    return markdown((row.cells() for row in rows), ["what", "ours", "theirs", "ours / theirs", "bar", "met"])


def markdown(rows: Iterable[Sequence[str]], header: Sequence[str]) -> str:
    """The table; each row is shown on stderr as soon as it is measured, since the whole takes minutes."""
    cells = []
    for row in rows:
        print(*row, sep=" | ", file=sys.stderr, flush=True)
        cells.append(row)
    return tabulate(cells, header, tablefmt="github", disable_numparse=True)
