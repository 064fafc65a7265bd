"""Times and intervals as flags say them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.cli import RequestError
from trainer.intervals import MAX_S, MAX_STEPS, UNITS_S, Interval, parse_interval, parse_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("0s", 0.0), ("90s", 90.0), ("10m", 600.0), ("2h", 7200.0), ("1.5h", 5400.0), ("0.25s", 0.25)],
)
def test_a_time_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_seconds("step_timeout", text) == seconds


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("0", Interval()),
        ("1", Interval(steps=1)),
        ("200", Interval(steps=200)),
        (str(MAX_STEPS), Interval(steps=MAX_STEPS)),
        ("90s", Interval(seconds=90.0)),
        ("0m", Interval()),
    ],
)
def test_an_interval_is_a_number_of_steps_or_a_time(text: str, interval: Interval) -> None:
    assert parse_interval("checkpoint_every", text) == interval


WRONG = ["", " ", "m", "-5m", "-1", "+1", "10x", "10 m", "10M", "1h30m", "1e3s", ".5h", "5.h", "nan", "infs", "10m\n"]
WRONG += ["٣m", "²", "0x10", "1_000", "9" * 400 + "h", "9" * 5000]


@pytest.mark.parametrize("text", [*WRONG, "10", f"{MAX_S + 1:.0f}s"])
def test_what_is_no_time_is_refused_by_the_name_of_its_flag(text: str) -> None:
    with pytest.raises(RequestError, match=r"`--step_timeout`\. Expected a time .* To fix it: .*--step_timeout=10m"):
        parse_seconds("step_timeout", text)


@pytest.mark.parametrize("text", [*WRONG, str(MAX_STEPS + 1)])
def test_what_is_no_interval_is_refused_by_the_name_of_its_flag(text: str) -> None:
    with pytest.raises(RequestError, match=r"`--checkpoint_every`\. Expected a number of steps, or a time"):
        parse_interval("checkpoint_every", text)


@given(st.integers(0, 8000), st.sampled_from(sorted(UNITS_S)))
def test_every_number_counts_by_its_unit(number: int, unit: str) -> None:
    assert parse_seconds("step_timeout", f"{number}{unit}") == number * UNITS_S[unit]
    assert parse_interval("checkpoint_every", f"{number}{unit}") == Interval(seconds=number * UNITS_S[unit])


@given(st.text())
def test_any_text_is_a_time_or_a_wrong_request(text: str) -> None:
    for parse in (parse_seconds, parse_interval):
        try:
            parsed = parse("step_timeout", text)
        except RequestError:
            continue
        assert parsed is not None
