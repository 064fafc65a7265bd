"""The trials of a sweep, each trained by a `python -m trainer` of its own, and what became of them.

    trials = Trials(sweep, stop)
    trials.begin()                      # raises RequestError if another sweep is there
    for run in trials.work(): ...       # whenever one has ended; raises Preempted after SIGTERM
    trials.outcomes                     # {TrialRun: Outcome}

What became of a training lies in RUNS/ORGAN/SWEEP/trials/RUN.json. It is written when the process has ended, so a
sweep that is killed at whatever moment finds what is there, and starts the others again: what is half trained goes on
from its checkpoint, as the same command does by itself, and what was finished only says so.

A training that failed is tried again by the next sweep, whatever its exit code: the disk may have been full, or
somebody else at the run. One whose loss was no number any more goes on from its last checkpoint, and soon says so.

Of a run's metrics.json only the validation split is looked at. Each training tests its own model at its end, but
nothing here says how well: a model that is chosen by its test score has none that can be believed.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from data_pipeline.cli import EXIT_DONE, EXIT_PREEMPTED, EXIT_REQUEST, STOPPED, FaultError, Preempted, RequestError, say
from trainer.preemption import StopSignal
from trainer.run_folder import METRICS
from trainer.sweep_place import Place
from trainer.sweep_process import claimed, run
from trainer.sweep_request import Sweep, TrialRun
from trainer.sweep_space import promoted

DONE, FAILED = "done", "failed"
NAME, TRIALS = "sweep.json", "trials"
SCORES = ("balanced_accuracy", "accuracy", "macro_f1", "log_loss")
BUSY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a training: its scores on the validation split, or its exit code and last words.

    `interval` are the 95 % of the score that was monitored.
    """

    state: str
    command: tuple[str, ...]
    code: int = EXIT_DONE
    error: str = ""
    scores: dict[str, float]
    interval: tuple[float, float] | None = None
    best_epoch: int = 0
    trained_epochs: int = 0
    seconds: float = 0.0

    @property
    def refused(self) -> bool:
        return self.code == EXIT_REQUEST

    def merit(self, score: str) -> tuple[float, ...]:
        """What makes it better than others by this score: of equals the lower loss."""
        loss = self.scores["log_loss"]
        return (-loss,) if score == "log_loss" else (self.scores[score], -loss)

    def words(self, score: str) -> str:
        """What became of it, in short."""
        if self.state != DONE:
            return f"failed with exit code {self.code}: {self.error}"
        return f"ended with {score} {self.scores[score]:.3f} on the validation split"


class Trials:
    """What there is to be trained, and `outcomes`, what is known by now."""

    def __init__(self, sweep: Sweep, stop: StopSignal) -> None:
        self.sweep, self._stop = sweep, stop
        self.outcomes: dict[TrialRun, Outcome] = {}
        self.place = Place.of("runs", f"{sweep.place}/{sweep.name}")

    def begin(self) -> None:
        """Say whose sweep this is. Raises `RequestError` if it is another's."""
        if not self.has_begun():
            self.place.write(NAME, (json.dumps(self.sweep.identity, indent=1) + "\n").encode())

    def has_begun(self) -> bool:
        """Whether there is this sweep. Raises `RequestError`, naming each difference, if there is another."""
        there = self.place.read(NAME)
        if there is None:
            return False
        try:
            before = _flat(dict(json.loads(there)))
        except (ValueError, TypeError, RecursionError):
            before = {}
        now = _flat(self.sweep.identity)
        names = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
        if names:
            changed = "; ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in names)
            fix = "repeat its settings, or give another --sweep"
            raise RequestError(f"The sweep in {self.place} can't go on: {changed}. To fix it: {fix}.")
        return True

    def known(self) -> list[list[TrialRun]]:
        """What is trained on each rung, as far as the outcomes of the rungs before tell."""
        found: list[list[TrialRun]] = []
        for rung in self.sweep.rungs:
            trials: Sequence[int] = range(rung.trials)
            if found:
                ended = [(one.trial, self.outcomes.get(one)) for one in found[-1]]
                if not all(said for _, said in ended):
                    break
                score = self.sweep.score
                merits = {trial: said.merit(score) for trial, said in ended if said and said.state == DONE}
                trials = promoted(merits, rung.trials)
            found.append([self.sweep.run(trial, rung) for trial in trials])
        return found

    def read(self) -> None:
        """Learn all outcomes that have been written."""
        self._learn(self._open, self._written)

    def work(self) -> Iterator[TrialRun]:
        """Train what isn't done, one after another, and say which has ended. Raises `Preempted` when stopped.

        What another process of this machine or this disk trains is waited for.
        """
        self._learn(self._wanted, self._done)
        waits = False
        while wanted := self._wanted():
            ended = 0
            for one in wanted:
                outcome = self._attempt(one)
                if outcome:
                    ended += 1
                    self.outcomes[one] = outcome
                    yield one
            if not ended:
                if not waits:
                    say(f"Waiting for another process, which is at trial {wanted[0].trial}")
                waits = True
                time.sleep(BUSY_S)

    def _open(self) -> list[TrialRun]:
        return [one for rung in self.known() for one in rung if one not in self.outcomes]

    def _wanted(self) -> list[TrialRun]:
        return [one for one in self._open() if self.sweep.only in (None, one.trial)]

    def _learn(self, which: Callable[[], list[TrialRun]], ask: Callable[[TrialRun], Outcome | None]) -> None:
        """Outcomes tell who goes on to the next rung, whose outcomes may be there too."""
        while new := {one: outcome for one in which() if (outcome := ask(one))}:
            self.outcomes |= new

    def _attempt(self, one: TrialRun) -> Outcome | None:
        """What becomes of this training; None if another process is at it."""
        if self._stop.is_set():
            raise Preempted(STOPPED)
        name = self.sweep.run_name(one)
        folder = self.sweep.local / TRIALS
        with claimed(folder / f"{name}.lock") as lock:
            if lock is None:
                return None
            done = self._done(one)
            if done:
                return done
            say(f"Trial {one.trial} of {self.sweep.trials}, {one.epochs} epochs: {self.sweep.words(one.trial)}")
            command = self.sweep.flags(one)
            code, words = run(["-m", "trainer", *command], folder / f"{name}.log", lock, self._stop)
            if code == EXIT_PREEMPTED or (code and self._stop.is_set()):
                raise Preempted(f"Trial {one.trial} was stopped. Run the same command again to go on from here.")
            failed = Outcome(state=FAILED, command=tuple(command), code=code, error=words, scores={})
            outcome = failed if code else self._finished(one)
            data = json.dumps(asdict(outcome), indent=1, allow_nan=False) + "\n"
            self.place.write(f"{TRIALS}/{name}.json", data.encode())
            say(f"Trial {one.trial} has {outcome.words(self.sweep.score)}")
            return outcome

    def _finished(self, one: TrialRun) -> Outcome:
        """What a run that is done says of the validation split."""
        place = f"{self.sweep.place}/{self.sweep.run_name(one)}"
        data = Place.of("runs", place).read(METRICS)
        if data is None:
            raise FaultError(f"{place}/{METRICS} is gone. To fix it: run the same command again.")
        metrics = json.loads(data)
        validation, history = metrics["validation"], metrics["history"]
        interval = validation["intervals"].get(self.sweep.score)
        return Outcome(
            state=DONE,
            command=tuple(self.sweep.flags(one)),
            scores={name: validation[name] for name in SCORES},
            interval=interval and (interval[0], interval[1]),
            best_epoch=metrics["best_epoch"],
            trained_epochs=len(history),
            seconds=sum(row["seconds"] for row in history),
        )

    def _done(self, one: TrialRun) -> Outcome | None:
        """What has been written of a training, if it needn't be tried again."""
        outcome = self._written(one)
        return outcome if outcome and outcome.state == DONE else None

    def _written(self, one: TrialRun) -> Outcome | None:
        name = f"{TRIALS}/{self.sweep.run_name(one)}.json"
        data = self.place.read(name)
        if data is None:
            return None
        try:
            values: dict[str, Any] = json.loads(data)
            interval = values["interval"] and tuple(values["interval"])
            outcome = Outcome(**values | {"command": tuple(values["command"]), "interval": interval})
            if outcome.state == DONE:
                outcome.merit(self.sweep.score)
            return outcome
        except (ValueError, TypeError, KeyError, RecursionError):
            say(f"{self.place}/{name} is damaged; what became of the training is asked of it again.")
            return None


def _flat(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity as the flags that make it."""
    settings = identity.get("settings")
    values = {name: value for name, value in identity.items() if name not in ("settings", "dataset")}
    values |= settings if isinstance(settings, dict) else {}
    return {f"--{name}": value for name, value in values.items()} | {"the dataset": identity.get("dataset")}
