"""The verdict of a report: no kinder than the data allows, against both baselines."""

from typing import Any

import pytest

from tests.trainer.report_cases import poor, rich
from trainer.scoreboard import scoreboard
from trainer.verdict import high_shortcuts, judge

MAJORITY = {"accuracy": 0.5, "balanced_accuracy": 1 / 3}
GOOD = {"n": 3000, "groups": 60, "accuracy": 0.8, "balanced_accuracy": 0.75}


def classical(value: float, interval: list[float] | None, *, plain: float = 0.0) -> dict[str, Any]:
    return {
        "difference": {
            "accuracy": {"value": plain, "interval": None},
            "balanced_accuracy": {"value": value, "interval": interval},
        }
    }


@pytest.mark.parametrize(
    ("accuracy", "balanced", "groups", "level"),
    [
        (0.80, 0.75, 60, "better"),
        (0.80, 0.33, 60, "unclear"),
        (0.55, 0.50, 60, "unclear"),
        (0.80, 0.75, 5, "unclear"),
        (0.50, 0.60, 60, "no-better"),
        (0.20, 0.20, 60, "no-better"),
    ],
)
def test_the_verdict_is_no_kinder_than_the_number_of_groups_allows(
    accuracy: float, balanced: float, groups: int, level: str
) -> None:
    test = {"n": 3000, "groups": groups, "accuracy": accuracy, "balanced_accuracy": balanced}
    assert judge(test, {"majority": MAJORITY}, groups_known=True).level == level


def test_without_known_groups_images_are_what_is_counted() -> None:
    test = {"n": 300, "groups": 300, "accuracy": 0.6, "balanced_accuracy": 0.6}
    assert judge(test, {"majority": MAJORITY}, groups_known=False).trials == 300


@pytest.mark.parametrize(
    ("difference", "against", "level"),
    [
        (classical(0.10, [0.03, 0.17]), "better", "better"),
        (classical(0.10, [-0.01, 0.21]), "unclear", "unclear"),
        (classical(0.10, [0.0, 0.2]), "unclear", "unclear"),
        (classical(0.10, [0.03, 0.17], plain=-0.02), "unclear", "unclear"),
        (classical(-0.10, [-0.2, 0.01]), "unclear", "unclear"),
        (classical(-0.10, [-0.2, -0.01]), "worse", "no-better"),
        (classical(0.10, None), "unclear", "unclear"),
    ],
)
def test_a_model_that_does_not_beat_the_classical_baseline_is_not_called_better(
    difference: dict[str, Any], against: str, level: str
) -> None:
    verdict = judge(GOOD, {"majority": MAJORITY, "classical": difference})
    assert (verdict.classical, verdict.level, verdict.majority) == (against, level, "better")
    assert "classical baseline" in verdict.headline
    assert ("Clearly better" in verdict.headline) == (level == "better")


def test_a_baseline_that_is_null_is_none() -> None:
    assert judge(GOOD, {"majority": MAJORITY, "classical": {}}).headline.startswith("Clearly better than always")


def test_the_interval_found_by_resampling_decides_where_there_is_one() -> None:
    wide = GOOD | {"intervals": {"accuracy": [0.45, 0.95]}}
    assert judge(wide, {"majority": MAJORITY}).level == "unclear"
    assert judge(wide, {"majority": MAJORITY}).interval == (0.45, 0.95)


def test_resampling_a_handful_of_groups_does_not_make_a_model_better() -> None:
    narrow = GOOD | {"groups": 5, "intervals": {"accuracy": [0.79, 0.81]}}
    assert judge(narrow, {"majority": MAJORITY}).level == "unclear"


def test_without_an_interval_nothing_is_called_better() -> None:
    unknown = GOOD | {"intervals": {"accuracy": None}}
    verdict = judge(unknown, {"majority": MAJORITY})
    assert (verdict.level, verdict.interval) == ("unclear", None)


def test_shortcuts_that_score_high_are_named() -> None:
    assert high_shortcuts(rich().shortcuts) == ("border",)
    assert high_shortcuts(poor().shortcuts) == high_shortcuts(None) == ()


def test_the_scoreboard_shows_the_model_first_and_an_alarm_as_one() -> None:
    inputs = rich()
    rows = scoreboard(inputs.test, inputs.baselines, inputs.shortcuts)
    assert [row.kind for row in rows] == ["model", "baseline", "probe", "alarm", "baseline"]
    assert rows[0].interval == tuple(inputs.test["intervals"]["balanced_accuracy"])
    assert rows[-1].value == pytest.approx(1 / 7)
