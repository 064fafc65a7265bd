"""Figures of scores: one drawing a diagnosis, words that hold the finding, nothing drawn of what isn't known."""

import re
from typing import Any

import pytest

from tests.trainer.report_cases import CLASSES, predictions
from trainer.plots_scores import (
    precision_recall_curves,
    reliability_diagram,
    risk_at,
    risk_coverage_curve,
    roc_curves,
)
from trainer.report_curves import report_curves

CURVES = report_curves(predictions(), CLASSES)
BINS: list[dict[str, Any]] = [
    {"low": 0.0, "high": 0.5, "n": 0, "confidence": None, "accuracy": None},
    {"low": 0.5, "high": 1.0, "n": 8, "confidence": 0.9, "accuracy": 0.75},
]
RISK = {"coverage": [0.25, 0.5, 0.75, 1.0], "risk": [0.0, 0.0, 1 / 3, 0.25]}


def test_every_diagnosis_has_a_roc_drawing_of_its_own_with_its_area_in_words() -> None:
    figures = roc_curves(CURVES["roc"])
    assert [figure.name for figure in figures] == list(CLASSES)
    area = CURVES["roc"]["carcinoma_in_situ"]["auc"]
    assert f"of carcinoma_in_situ against the rest. The area under it is {area:.3f}" in figures[0].description
    assert f'aria-label="{figures[0].description}"' in figures[0].svg
    assert len({figure.svg for figure in figures}) == len(CLASSES)


def test_a_diagnosis_that_the_split_cannot_judge_is_left_out() -> None:
    known = {"a": CURVES["roc"]["normal_columnar"], "b": None, "c": {"fpr": [], "tpr": [], "auc": None}}
    assert [figure.name for figure in roc_curves(known)] == ["a"]
    assert precision_recall_curves({"a": None}, {"a": 0.5}) == ()


def test_drawings_of_many_diagnoses_stay_small() -> None:
    many = {f"d{number}": CURVES["roc"]["normal_columnar"] for number in range(24)}
    assert sum(len(figure.svg) for figure in roc_curves(many)) < 24 * 8_000


def test_precision_is_told_beside_that_of_guessing() -> None:
    (first, *_) = precision_recall_curves(CURVES["pr"], dict.fromkeys(CLASSES, 1 / 7))
    assert "guessing has 0.143" in first.description


def test_ids_of_drawings_on_one_page_differ() -> None:
    svgs = [figure.svg for figure in (*roc_curves(CURVES["roc"]), *precision_recall_curves(
        CURVES["pr"], dict.fromkeys(CLASSES, 1 / 7)
    ))]  # fmt: skip
    ids = [one for svg in svgs for one in re.findall(r' id="([^"]+)"', svg)]
    assert ids
    assert len(ids) == len(set(ids))


def test_a_reliability_diagram_tells_each_bin_in_words_and_skips_empty_ones() -> None:
    figure = reliability_diagram(BINS)
    assert figure is not None
    assert figure.description == "Answers by confidence: at 50% to 100%, 75% of 8 were right."
    assert [line.name for line in figure.lines] == ["as reported", "confidence = accuracy"]


def test_a_reliability_diagram_shows_what_temperature_scaling_changed() -> None:
    before = reliability_diagram(BINS, before=BINS)
    assert before is not None
    assert "before temperature scaling" in [line.name for line in before.lines]
    assert before.svg.count("var(--validation)") > 0


def test_without_answers_there_is_nothing_to_draw() -> None:
    assert reliability_diagram(()) is None
    assert reliability_diagram(BINS[:1]) is None
    assert risk_coverage_curve({"coverage": [], "risk": []}, None) is None


def test_risk_is_told_at_several_coverages_and_the_target_is_drawn() -> None:
    abstention = {"target_error": 0.05, "threshold": 0.8, "test": {"coverage": 0.5, "error": 0.0}}
    figure = risk_coverage_curve(RISK, abstention)
    assert figure is not None
    assert figure.description == (
        "Share of answers that are wrong: answering 100%, 25.0%; answering 75%, 33.3%; answering 50%, 0.0%; "
        "answering 25%, 0.0%."
    )
    assert figure.lines[1].name == "error aimed at: 5%"
    assert ">threshold</text>" in figure.svg


@pytest.mark.parametrize(("coverage", "risk"), [(1.0, 0.25), (0.7, 1 / 3), (0.0, 0.0)])
def test_risk_is_read_at_the_nearest_point(coverage: float, risk: float) -> None:
    assert risk_at(RISK, coverage) == risk
