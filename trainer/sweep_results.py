"""What a sweep has found: a row for each training, which is best, as a table for files and terminals. Pure.

rows = rows_of(sweep, trials.known(), trials.outcomes)
best = best_of(rows)            # None if nothing is done
as_csv(sweep, rows), table(sweep, rows), best_flags(sweep, best)
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trainer.compare_page import TITLES, number
from trainer.sweep_request import Sweep, TrialRun
from trainer.sweep_trials import DONE, SCORES, Outcome

WAITING = "waiting"
TABLE, BEST_FLAGS = "sweep.csv", "best.flags"
MORE = ("best_epoch", "trained_epochs", "seconds", "state", "run", "error")


@dataclass(frozen=True, slots=True)
class Row:
    """A training, what it tries, on which rung, and what became of it; None: nothing yet."""

    run: TrialRun
    rung: int
    values: Mapping[str, str]
    outcome: Outcome | None

    @property
    def state(self) -> str:
        return self.outcome.state if self.outcome else WAITING

    @property
    def scores(self) -> Mapping[str, float]:
        """On the validation split; empty if it isn't done."""
        return self.outcome.scores if self.outcome else {}


def rows_of(sweep: Sweep, known: Sequence[Sequence[TrialRun]], outcomes: Mapping[TrialRun, Outcome]) -> list[Row]:
    """A row for each training, in the order in which they are started."""
    return [
        Row(run, rung, sweep.values(run.trial), outcomes.get(run)) for rung, runs in enumerate(known) for run in runs
    ]


def ranked(sweep: Sweep, rows: Sequence[Row]) -> list[Row]:
    """Best first: of those that were trained longest, then the others; what isn't done comes last."""

    def key(row: Row) -> tuple[float, ...]:
        if row.outcome is None or row.state != DONE:
            return (1, -row.rung, row.run.trial)
        return (0, -row.rung, *(-value for value in row.outcome.merit(sweep.score)), row.run.trial)

    return sorted(rows, key=key)


def best_of(sweep: Sweep, rows: Sequence[Row]) -> Row | None:
    """The row that the sweep is for; None if none is done."""
    return next((row for row in ranked(sweep, rows) if row.state == DONE), None)


def as_good(sweep: Sweep, rows: Sequence[Row]) -> list[Row]:
    """The rows of the best one's rung whose score lies in its 95 % interval, without itself; empty if it has none."""
    best = best_of(sweep, rows)
    if best is None or best.outcome is None or best.outcome.interval is None:
        return []
    low, high = best.outcome.interval
    rivals = (row for row in rows if row.rung == best.rung and row != best and row.scores)
    return [row for row in rivals if low <= row.scores[sweep.score] <= high]


def columns(sweep: Sweep) -> list[str]:
    """The flags that are searched, but for epochs, which have a column anyway."""
    return [one.flag for one in sweep.space if one.flag != "epochs"]


def as_csv(sweep: Sweep, rows: Sequence[Row]) -> bytes:
    """`sweep.csv`: every training, all scores in full."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    names = columns(sweep)
    out.writerow(["trial", *names, "epochs", *SCORES, *MORE])
    for row in rows:
        found = row.outcome if row.state == DONE else None
        about = [found.best_epoch, found.trained_epochs, f"{found.seconds:.1f}"] if found else ["", "", ""]
        scores = [row.scores.get(name, "") for name in SCORES]
        error = row.outcome.error if row.outcome else ""
        values = [row.values[name] for name in names]
        run = sweep.run_name(row.run)
        out.writerow([row.run.trial, *values, row.run.epochs, *scores, *about, row.state, run, error])
    return text.getvalue().encode()


def table(sweep: Sweep, rows: Sequence[Row]) -> str:
    """The trainings for a terminal, best first."""
    names = columns(sweep)
    head = ["trial", *names, "epochs", *(TITLES[name].lower() for name in SCORES), ""]
    body = [
        [
            str(row.run.trial),
            *(row.values[name] for name in names),
            str(row.run.epochs),
            *(number(name, row.scores.get(name)) for name in SCORES),
            row.state if row.state != DONE else "",
        ]
        for row in ranked(sweep, rows)
    ]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    lines = ("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in (head, *body))
    return "\n".join([*(line.rstrip() for line in lines), "Scores are of the validation split."])


def best_flags(sweep: Sweep, best: Row) -> bytes:
    """`best.flags`: what `python -m trainer --flagfile=best.flags` trains is the best trial.

    Without `--run`, so that a seed, a fold or another dataset may be given beside it.
    """
    name = sweep.score
    score = f"{TITLES[name].lower()} {number(name, best.scores[name])}"
    lines = [
        f"# Trial {best.run.trial} of {sweep.name}: {score} on the validation split.",
        f"# It is trained already: --run={sweep.run_name(best.run)} besides shows its report.",
        *sweep.settings(best.run),
    ]
    return ("\n".join(lines) + "\n").encode(errors="surrogateescape")
