"""The grid: one run each that is interrupted once, at a moment, by a signal, and started again.

references = References(data, folder)
row = run_case(Case(SINGLE, MOMENTS[2], "TERM"), references, folder)
assert not row.failures
"""

import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from data_pipeline.cli import EXIT_PREEMPTED
from data_pipeline.manifest import Manifest
from tests.faults.training import journal
from tests.faults.training.left import left_by
from tests.faults.training.trial import CHECKPOINT_EVERY, EPOCHS, MIRRORED, SINGLE, TWO_WORKERS, Missed, Topology, Trial

TERM_S = 10.0  # what a spot node leaves, less a margin
SIGNALS = {"TERM": signal.SIGTERM, "KILL": signal.SIGKILL}


@dataclass(frozen=True)
class Moment:
    """Where `announced.py` stops, as POINT@COUNT.

    `early`: the workers have not come together yet; `chief`: only that one comes there.
    """

    name: str
    at: str
    early: bool = False
    chief: bool = False


# Six steps an epoch, three batches of validation.
MOMENTS = (
    Moment("loading", "loading", early=True),
    Moment("devices", "devices"),
    Moment("compiling", "compile"),
    Moment("first-step", "stepped"),
    Moment("mid-epoch", "step@10"),
    Moment("validation", "validation@5"),
    Moment("last-validation", "validation@8"),
    Moment("save-state", "save-state@3", chief=True),
    Moment("save-rename", "save-rename@3", chief=True),
    Moment("save-pointer", "save-pointer@3", chief=True),
    Moment("save-prune", "save-prune@2", chief=True),
    Moment("between-epochs", "epoch@2"),
    Moment("final-test", "test", chief=True),
    Moment("export", "export", chief=True),
    Moment("export-keras", "export-keras", chief=True),
    Moment("report", "report", chief=True),
)


@dataclass(frozen=True)
class Case:
    """One row of the grid."""

    topology: Topology
    moment: Moment
    signal: str
    victim: int = 0

    @property
    def name(self) -> str:
        return f"{self.topology.name}/{self.moment.name}/{self.signal}"


@dataclass
class Row:
    """What became of a case."""

    topology: str
    moment: str
    signal: str
    codes: tuple[int | None, ...] = ()
    seconds: float = math.nan
    redone: int = 0
    lost_s: float = math.nan
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        codes = ",".join(map(str, self.codes))
        verdict = "identical" if not self.failures else "FAILED: " + "; ".join(self.failures)
        return (
            f"{self.topology:<9} {self.moment:<16} {self.signal:<8} {codes:>8} {_known(self.seconds, 2):>8} "
            f"{self.redone:>7} {_known(self.lost_s, 1):>7}  {verdict}"
        )


def _known(seconds: float, places: int) -> str:
    return "–" if math.isnan(seconds) else f"{seconds:.{places}f}"


HEADING = f"{'topology':<9} {'moment':<16} {'signal':<8} {'exit':>8} {'to exit':>8} {'redone':>7} {'lost s':>7}  result"


def grid() -> Iterator[Case]:
    """Every moment, both signals, on one device, two replicas and two workers."""
    victims = count()
    for topology in (SINGLE, MIRRORED, TWO_WORKERS):
        for moment in MOMENTS:
            for name in SIGNALS:
                # Chief and other by turns, where the moment is one of both.
                victim = 0 if moment.chief else next(victims) // len(SIGNALS) % topology.workers
                yield Case(topology, moment, name, victim)


class References:
    """Runs that nobody interrupts, one for each topology, made when they are first asked for."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.data, self._folder = data, folder
        self._made: dict[str, Reference] = {}

    def of(self, topology: Topology, epochs: int = EPOCHS) -> "Reference":
        """Raises `Missed` if it doesn't end well."""
        name = f"whole-{topology.name}-{epochs}"
        if name not in self._made:
            trial = Trial(self.data, self._folder / name, topology, epochs=epochs)
            codes = trial.finish()
            if any(codes):
                raise Missed(f"the uninterrupted run ended with {codes}: {trial.says()}")
            self._made[name] = Reference(trial, Manifest.load(self.data / "gland").splits["train"].records)
        return self._made[name]


class Reference:
    """What an uninterrupted run did and left. Raises `Missed` if it didn't see each record once in each epoch."""

    def __init__(self, trial: Trial, records: int) -> None:
        self.processes = [trial.processes(worker) for worker in range(trial.topology.workers)]
        self.left = left_by(trial.run)
        steps = self.left["progress"]["step"] // self.left["epochs"]
        for epoch in range(self.left["epochs"]):
            numbers = range(epoch * steps + 1, (epoch + 1) * steps + 1)
            seen = [record for step in numbers for record in self.records(step)]
            if sorted(seen) != list(range(records)):
                raise Missed(f"epoch {epoch + 1} saw the records {sorted(seen)}")

    def records(self, step: int) -> list[int]:
        """What all workers together put into a step."""
        return [record for worker in self.processes for record in journal.counted(worker)[step].records]

    def failures(self, trial: Trial) -> list[str]:
        """How `trial`, which is done, differs from this run."""
        found = []
        for index, processes in enumerate(self.processes):
            found += [f"worker {index}: {text}" for text in journal.differences(trial.processes(index), processes)][:3]
        return found + differing(trial, self.left)


def differing(trial: Trial, left: dict[str, Any]) -> list[str]:
    """The names of what `trial` left otherwise."""
    try:
        ours = left_by(trial.run)
    except (OSError, ValueError, KeyError) as error:
        return [f"the run's folder is not whole: {error!r}"]
    return [name for name, value in left.items() if ours[name] != value]


def run_case(case: Case, references: References, folder: Path) -> Row:
    """Interrupt once, start again, compare."""
    return run_chain([case], references, folder)[0]


def run_chain(cases: Sequence[Case], references: References, folder: Path) -> list[Row]:
    """Interrupt one run at one moment after another, then start it again and compare: the last row says."""
    topology = cases[0].topology
    reference = references.of(topology)
    trial, rows = Trial(references.data, folder, topology), list[Row]()
    for case in cases:
        before = trial.processes()
        row = interrupted(trial, case)
        if rows:
            measure(rows[-1], before, trial.processes()[len(before) :])
        rows.append(row)
    before = trial.processes()
    try:
        codes = trial.finish()
    except Missed as miss:
        rows[-1].failures.append(f"started again: {miss}")
        return rows
    measure(rows[-1], before, trial.processes()[len(before) :])
    failures = [f"started again, it ended with {codes}: {trial.says()}"] if any(codes) else reference.failures(trial)
    rows[-1].failures += failures
    return rows


def interrupted(trial: Trial, case: Case) -> Row:
    """Interrupt a run; what is wrong already at its exit is among the row's failures."""
    row = Row(
        case.topology.name, case.moment.name, f"{case.signal}{f'@{case.victim}' if trial.topology.workers > 1 else ''}"
    )
    try:
        found = trial.interrupt(case.moment.at, SIGNALS[case.signal], case.victim, stop_others=case.moment.early)
    except Missed as miss:
        row.failures.append(str(miss))
        return row
    row.codes, row.seconds = found.codes, found.seconds
    for worker, code in enumerate(found.codes):
        if code != expected_code(case, worker):
            row.failures.append(f"worker {worker} ended with {code}")
    if case.signal == "TERM" and found.seconds > TERM_S:
        row.failures.append(f"{found.seconds:.1f} s to the exit")
    return row


def expected_code(case: Case, worker: int) -> int:
    """With what a worker has to end: whoever loses another has to be started again too."""
    return -signal.SIGKILL if case.signal == "KILL" and worker == case.victim else EXIT_PREEMPTED


def measure(row: Row, before: Sequence[journal.Process], after: Sequence[journal.Process]) -> None:
    """What the interruption cost."""
    row.redone = journal.redone(before[-1:], after)  # what it lost itself, not those that were struck before it
    row.lost_s = journal.lost_s(before, after)
    most = 0 if row.signal.startswith("TERM") else CHECKPOINT_EVERY
    if row.redone > most:
        row.failures.append(f"{row.redone} steps redone, {most} allowed")
