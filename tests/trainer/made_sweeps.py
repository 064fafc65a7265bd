"""Sweeps as training leaves them, without training: for the tests of what is made of them.

sweep = made(trials=20)
rows = rows_with(sweep, failed=(3,), waiting=(5,))
"""

import math
from pathlib import Path
from typing import Any

from trainer.sweep_request import Sweep, TrialRun
from trainer.sweep_results import Row, rows_of
from trainer.sweep_space import Rung, parse_space, rungs
from trainer.sweep_trials import DONE, FAILED, Outcome, Trials

ENTRIES = (
    "learning_rate:log:1e-4:1e-2",
    "batch_size:choice:16,32,64",
    "label_smoothing:uniform:0:0.2",
    "freeze_epochs:integer:0:5",
)
NASTY = "<b>a & b</b>"


def made(*entries: str, trials: int = 20, steps: tuple[Rung, ...] | None = None, **changed: Any) -> Sweep:
    """A sweep of the organ `cervix` over the ranges of `ENTRIES`, or those named."""
    about: dict[str, Any] = {
        "name": "sweep-1f3a9c02",
        "organ": "cervix",
        "space": parse_space(entries or ENTRIES),
        "seed": 0,
        "trials": trials,
        "rungs": steps or (Rung(trials, 30),),
        "only": None,
        "monitor": "balanced_accuracy",
        "base": ("--organ=cervix", "--tfrecords=tfrecords", "--runs=runs", "--model=seed_pooled"),
        "place": "runs/cervix",
        "output": "runs/cervix/sweep-1f3a9c02",
        "local": Path("runs/cervix/sweep-1f3a9c02"),
        "identity": {},
    }
    return Sweep(**about | changed)


def halving(trials: int = 20, **changed: Any) -> Sweep:
    return made(trials=trials, steps=rungs(trials, epochs=30, eta=3, min_epochs=3), **changed)


def outcome_of(sweep: Sweep, run: TrialRun) -> Outcome:
    """Best at a learning rate of 0.002 and with much smoothing; more epochs are better."""
    values = sweep.values(run.trial)
    away = abs(math.log10(float(values.get("learning_rate", 0.002)) / 0.002))
    luck = 0.03 * math.sin(7.0 * run.trial)
    score = round(0.8 - 0.2 * away + 0.3 * float(values.get("label_smoothing", 0)) - 1 / (run.epochs + 5) + luck, 4)
    scores = {"balanced_accuracy": score, "accuracy": score + 0.03, "macro_f1": score - 0.01, "log_loss": 1.2 - score}
    value = scores[sweep.score]
    return Outcome(
        state=DONE,
        command=tuple(sweep.flags(run)),
        scores=scores,
        interval=(value - 0.05, value + 0.05),
        best_epoch=run.epochs - 2,
        trained_epochs=run.epochs,
        seconds=12.5 * run.epochs,
    )


def failed_of(sweep: Sweep, run: TrialRun, code: int = 2) -> Outcome:
    words = f"Training has diverged: the loss of step 40 is nan. {NASTY}"
    return Outcome(state=FAILED, command=tuple(sweep.flags(run)), code=code, error=words, scores={})


def rows_with(sweep: Sweep, *, failed: tuple[int, ...] = (), waiting: tuple[int, ...] = ()) -> list[Row]:
    """The rows of a sweep that has ended, but for the trials that have failed or that nothing is known of."""
    trials = Trials(sweep, None)  # type: ignore[arg-type]
    for _ in sweep.rungs:
        for one in trials.known()[-1]:
            if one.trial not in waiting:
                trials.outcomes[one] = failed_of(sweep, one) if one.trial in failed else outcome_of(sweep, one)
    return rows_of(sweep, trials.known(), trials.outcomes)
