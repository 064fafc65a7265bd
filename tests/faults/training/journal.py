"""What the processes of one worker noted, see `announced.py`: the steps each made, which of them count.

processes = read(notes / "journal-0.jsonl")
counted(processes)[9].records   # the records that step 9 consumed, of the last process that made it
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """A step: this worker's records in it, sums of loss, hits and records over all workers, the weights after it."""

    number: int
    records: tuple[int, ...]
    computed: tuple[float, ...]
    digest: str
    time: float = field(compare=False)  # monotonic, the same clock in all processes

    @property
    def loss(self) -> float:
        """The mean over its records."""
        return self.computed[0] / self.computed[2]


@dataclass
class Process:
    """One process of the worker."""

    started: float
    steps: list[Step] = field(default_factory=list)


def read(journal: Path) -> list[Process]:
    """The processes of a worker in the order in which they were started."""
    processes: list[Process] = []
    for line in journal.read_text().splitlines() if journal.exists() else ():
        note = json.loads(line)
        if "started" in note:
            processes.append(Process(note["time"]))
        else:
            step = Step(note["step"], tuple(note["records"]), tuple(note["computed"]), note["digest"], note["time"])
            processes[-1].steps.append(step)
    return processes


def counted(processes: Sequence[Process]) -> dict[int, Step]:
    """By number, the steps that are part of what was learnt: one that was made again as it was made last."""
    return {step.number: step for process in processes for step in process.steps}


def last_step(processes: Sequence[Process]) -> int:
    return max(counted(processes), default=0)


def redone(before: Sequence[Process], after: Sequence[Process]) -> int:
    """How many steps that had been made before were made again."""
    again = [step.number for process in after for step in process.steps]
    return len({number for number in again if number <= last_step(before)})


def lost_s(before: Sequence[Process], after: Sequence[Process]) -> float:
    """From the start of the later processes to the end of their first new step; NaN if no step was left to make."""
    made = last_step(before)
    new = [step.time for process in after for step in process.steps if step.number > made]
    return min(new) - after[0].started if new else float("nan")


def differences(processes: Sequence[Process], reference: Sequence[Process]) -> list[str]:
    """How these steps, those that were redone among them, differ from those of a run that nobody interrupted."""
    whole, found = counted(reference), []
    for process in processes:
        numbers = [step.number for step in process.steps]
        if numbers != list(range(numbers[0], numbers[0] + len(numbers)) if numbers else []):
            found.append(f"steps {numbers} of one process")
        found += [
            f"{part} of step {step.number}"
            for step in process.steps
            for part in ("records", "computed", "digest")
            if step.number not in whole or getattr(step, part) != getattr(whole[step.number], part)
        ]
    if sorted(counted(processes)) != sorted(whole):
        found.append(f"{len(counted(processes))} steps instead of {len(whole)}")
    return found
