"""How fast training goes, and which side holds it up: the input or the step. Pure.

pace = Pace(images=4096, steps=32, seconds=2.9, waiting_seconds=0.4)
print(pace)     # 1412 images/s, 91 ms/step, 14 % waiting for data: the input is the bottleneck
"""

from collections.abc import Mapping
from dataclasses import dataclass

# With less, a faster input would gain little: most of it is handing over batches that are ready.
INPUT_BOUND = 0.10
# What a history says of the clock. All its other columns are the same for the same settings and data.
CLOCK_COLUMNS = ("images_per_s", "ms_per_step", "waiting_share", "seconds")


@dataclass(frozen=True, slots=True)
class Pace:
    """What some steps took. `waiting_seconds` is the part of `seconds` in which no batch was there to begin with."""

    images: float
    steps: int
    seconds: float
    waiting_seconds: float

    @property
    def images_per_s(self) -> float:
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def ms_per_step(self) -> float:
        return 1000 * self.seconds / self.steps if self.steps else 0.0

    @property
    def waiting_share(self) -> float:
        return self.waiting_seconds / self.seconds if self.seconds else 0.0

    def columns(self) -> dict[str, float]:
        """For the history of a run: `CLOCK_COLUMNS`."""
        return {name: getattr(self, name) for name in CLOCK_COLUMNS}

    def __str__(self) -> str:
        return describe(self.columns())


def describe(row: Mapping[str, float]) -> str:
    """A row of the history in words; the bottleneck is the input, if it is named."""
    waiting = row["waiting_share"]
    verdict = ": the input is the bottleneck" if waiting > INPUT_BOUND else ""
    return (
        f"{row['images_per_s']:.0f} images/s, {row['ms_per_step']:.0f} ms/step, {100 * waiting:.0f} % waiting for "
        f"data{verdict}"
    )
