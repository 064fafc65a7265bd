"""Times as flags say them: `90s`, `10m`, `2h`; an interval may also be a number of steps. Pure.

parse_seconds("step_timeout", "10m")        # 600.0
parse_interval("checkpoint_every", "200")   # Interval(steps=200, seconds=0.0)
"""

import re
from dataclasses import dataclass

from data_pipeline.cli import invalid_flag

UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0}
MAX_S = 366 * 24 * 3600.0  # a year; more than some three hundred overflow what the system can wait for
MAX_STEPS = 10**9
_TIME = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smh])", re.ASCII)
_STEPS = re.compile(r"\d{1,10}", re.ASCII)
_TWO_STEPS = re.compile(r"(\d{1,10}),(\d{1,10})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Interval:
    """Every so many steps, or every so many seconds; never if both are 0."""

    steps: int = 0
    seconds: float = 0.0


def parse_seconds(flag: str, text: str) -> float:
    """Raises `RequestError` if `text` is no time; `0` needs no unit."""
    match = _TIME.fullmatch(text)
    seconds = float(match[1]) * UNITS_S[match[2]] if match else 0.0
    if seconds <= MAX_S and (match or text == "0"):
        return seconds
    expected = "a time such as 90s, 10m or 2h, of a year at most"
    raise invalid_flag(flag, expected=expected, received=text, fix=f"for example --{flag}=10m")


def parse_interval(flag: str, text: str) -> Interval:
    """Raises `RequestError` if `text` is neither a number of steps nor a time."""
    if _STEPS.fullmatch(text) and int(text) <= MAX_STEPS:
        return Interval(steps=int(text))
    if _TIME.fullmatch(text):
        return Interval(seconds=parse_seconds(flag, text))
    expected = "a number of steps, or a time such as 90s, 10m or 2h"
    raise invalid_flag(flag, expected=expected, received=text, fix=f"for example --{flag}=200 or --{flag}=10m")


def parse_steps(flag: str, text: str) -> tuple[int, int]:
    """The first and the last step, counted from 1; (0, 0) if `text` is empty. Raises `RequestError`."""
    match = _TWO_STEPS.fullmatch(text)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if text == "" or 1 <= first <= last <= MAX_STEPS:
        return first, last
    expected = "the first and the last step, counted from 1"
    raise invalid_flag(flag, expected=expected, received=text, fix=f"for example --{flag}=100,110")
