"""What a sweep tries: ranges of flags, the values of each trial, and how many epochs which trials get. Pure.

    space = parse_space(["learning_rate:log:1e-4:1e-2", "batch_size:choice:16,32,64"])   # raises RequestError
    values_of(space, seed=0, trial=7)           # {"batch_size": "32", "learning_rate": "0.0004217"}
    rungs(20, epochs=30, eta=3, min_epochs=3)   # 20 trials for 4 epochs, the best 6 for 10, the best 2 for 30

Trials are drawn at random (Bergstra and Bengio 2012, "Random search for hyper-parameter optimization"), and may be cut
short by successive halving (Jamieson and Talwalkar 2016; one bracket of Hyperband, Li et al. 2018). What a trial tries
is a function of (space, seed, number of the trial): the same on every machine, in whatever order and however often
trials are started, and however many there are. That is why this is no call of Optuna, whose processes agree on trials
through a database: one thing more to install, to keep, and for pods to reach, in place of the lines below.
"""

import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_pipeline.cli import RequestError, invalid_flag
from trainer.randomness import hash64, uniform

LOG, UNIFORM, INTEGER, CHOICE = KINDS = ("log", "uniform", "integer", "choice")
LOG_EXAMPLE = "learning_rate:log:1e-4:1e-2"
MAX_TABLE = 2**16  # combinations that are dealt out without repeating one
FINE = 3  # decimal places that a range is resolved into


@dataclass(frozen=True, slots=True)
class Range:
    """The values one flag may get: `choices`, or numbers from `low` to `high`."""

    flag: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As `--search` says it."""
        values = ",".join(self.choices) if self.kind == CHOICE else f"{_text(self.low)}:{_text(self.high)}"
        return f"{self.flag}:{self.kind}:{values}"

    @property
    def size(self) -> int | None:
        """How many values there are; None of numbers that aren't whole."""
        if self.kind == CHOICE:
            return len(self.choices)
        return int(self.high - self.low) + 1 if self.kind == INTEGER else None

    def at(self, share: float) -> str:
        """The value that lies this far into the range, 0 ≤ share < 1.

        Rounded, so that people can read it, and machines whose logarithms differ in the last bit agree on it.
        """
        if self.size is not None:
            return self.member(min(int(share * self.size), self.size - 1))
        if self.kind == LOG:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
            rounded = float(f"{value:.4g}")
        else:
            places = FINE - math.floor(math.log10(self.high - self.low))
            rounded = round(self.low + share * (self.high - self.low), places)
        return repr(min(max(rounded, self.low), self.high))

    def member(self, number: int) -> str:
        """One of a range that has a `size`."""
        return self.choices[number] if self.kind == CHOICE else str(int(self.low) + number)


Space = tuple[Range, ...]  # ordered by flag: what --search says first or last makes no difference


@dataclass(frozen=True, slots=True)
class Rung:
    """So many trials, the best of the rung before, are trained for so many epochs."""

    trials: int
    epochs: int


def parse_space(entries: Sequence[str]) -> Space:
    """The ranges that `--search` names. Raises `RequestError`."""
    space = tuple(sorted(map(_parse, entries), key=lambda one: one.flag))
    if not space:
        raise RequestError(f"Missing: --search. To fix it: say what to try, such as --search={LOG_EXAMPLE}.")
    names = [one.flag for one in space]
    for name in names:
        if names.count(name) > 1:
            received = " and ".join(str(one) for one in space if one.flag == name)
            raise invalid_flag("search", expected="each flag once", received=received, fix=f"say {name} once")
    return space


def different_trials(space: Space) -> int | None:
    """How many trials differ from each other; None if there is no end to them."""
    sizes = [one.size for one in space]
    return math.prod(size for size in sizes if size) if all(sizes) else None


def values_of(space: Space, *, seed: int, trial: int) -> dict[str, str]:
    """The value of each flag in a trial, as a command line says it.

    Where there are few combinations in all they are dealt out in random order, so that none comes twice.
    """
    count = different_trials(space)
    if count is None or count > MAX_TABLE:
        return {one.flag: one.at(_share(one.flag, seed, trial)) for one in space}
    place, values = int(_dealt(seed, count)[trial % count]), {}
    for one in space:
        place, number = divmod(place, one.size or 1)
        values[one.flag] = one.member(number)
    return values


def rungs(trials: int, *, epochs: int, eta: int, min_epochs: int) -> tuple[Rung, ...]:
    """Successive halving: `trials` at first, the best 1/eta of each rung in the next, for eta times the epochs.

    The last rung has all `epochs`; there are as many before it as keep to `min_epochs` and leave one trial at the end.
    """
    count = 1
    while trials >= eta**count and epochs >= min_epochs * eta**count:
        count += 1
    return tuple(Rung(trials // eta**rung, -(-epochs // eta ** (count - 1 - rung))) for rung in range(count))


def promoted(merits: Mapping[int, tuple[float, ...]], count: int) -> list[int]:
    """The `count` best trials, by number; of equals those drawn first. Those without a merit never are."""
    return sorted(sorted(merits, key=lambda trial: (*(-value for value in merits[trial]), trial))[:count])


def _parse(entry: str) -> Range:
    flag, _, rest = entry.strip().partition(":")
    kind, _, values = rest.partition(":")
    if kind == CHOICE:
        choices = tuple(value.strip() for value in values.split(","))
        if len(choices) < 2 or not all(choices) or len(set(choices)) < len(choices):
            raise _wrong(entry, "two or more different values, as in batch_size:choice:16,32,64")
        return Range(_flag(flag, entry), kind, choices=choices)
    if kind not in KINDS:
        raise _wrong(entry, f"{LOG_EXAMPLE}, FLAG:uniform:LOW:HIGH, FLAG:integer:LOW:HIGH or FLAG:choice:A,B,…")
    try:
        low, high = map(float, values.split(":"))
    except ValueError:
        raise _wrong(entry, f"two numbers, as in FLAG:{kind}:LOW:HIGH") from None
    if not -math.inf < low < high < math.inf:
        raise _wrong(entry, "two finite numbers, the lower one first")
    if kind == LOG and low <= 0:
        raise _wrong(entry, "numbers above 0 for a logarithmic range")
    if kind == INTEGER and not (low.is_integer() and high.is_integer() and high - low < 2**53):
        raise _wrong(entry, "whole numbers for an integer range")
    return Range(_flag(flag, entry), kind, low, high)


def _flag(name: str, entry: str) -> str:
    name = name.strip().removeprefix("--")
    if not name:
        raise _wrong(entry, "the name of a flag first")
    return name


def _wrong(entry: str, expected: str) -> RequestError:
    return invalid_flag("search", expected=expected, received=entry, fix=f"write it as --search={LOG_EXAMPLE}")


def _text(value: float) -> str:
    """The shortest text that is this number."""
    return repr(value).removesuffix(".0")


def _share(flag: str, seed: int, trial: int) -> float:
    """In [0, 1): of this flag alone, so that one more range leaves the draws of the others as they are."""
    key = int.from_bytes(hashlib.sha256(flag.encode()).digest()[:8], "big") >> 1
    return float(uniform(seed, trial, np.array([key], dtype=np.int64), draws=1)[0, 0])


@functools.lru_cache(maxsize=8)
def _dealt(seed: int, count: int) -> NDArray[np.int64]:
    """The numbers below `count` in the random order of this seed."""
    return np.argsort(hash64(seed, np.arange(count, dtype=np.int64)), kind="stable")
