"""The model card: metadata that the Hugging Face Hub reads, facts for people, and names that stay names."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.trainer.report_cases import poor, rich
from trainer.front_matter import front_matter
from trainer.model_card import render_model_card, write_model_card

NASTY = 'no: "yes" | <b>x</b> *y* [z](javascript:1) `code`\n---\n# heading'
KEYS = st.sampled_from(("name", "license_name", "model-index", "no_text", "value"))
JSON_LIKE = st.recursive(
    st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


def parts(text: str) -> tuple[dict[str, Any], str]:
    empty, metadata, body = text.split("---\n", 2)
    assert empty == ""
    return yaml.safe_load(metadata), body


@pytest.fixture(scope="module")
def card() -> str:
    return render_model_card(rich())


def test_the_metadata_say_what_the_hub_searches_for(card: str) -> None:
    metadata, _ = parts(card)
    assert metadata["library_name"] == "keras"
    assert metadata["pipeline_tag"] == "image-classification"
    assert metadata["license"] == "other"
    assert "microscopy" in metadata["tags"]
    assert set(metadata["metrics"]) >= {"accuracy", "f1", "roc_auc"}


def test_the_model_index_has_the_form_that_the_hub_evaluates(card: str) -> None:
    (model,) = parts(card)[0]["model-index"]
    (result,) = model["results"]
    assert model["name"] == "cervix-residual-128-seed-7-1f3a"
    assert result["task"]["type"] == "image-classification"
    assert {"name", "type", "split"} <= set(result["dataset"])
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values["accuracy"] == pytest.approx(rich().test["accuracy"])
    assert all(isinstance(value, float) for value in values.values())


def test_the_card_tells_people_what_they_must_know(card: str) -> None:
    inputs = rich()
    _, body = parts(card)
    test = inputs.test
    low, high = (100 * end for end in test["intervals"]["accuracy"])
    for fact in (
        "not shown to beat the classical baseline",
        "**Warning:** The border of an image, without anything it shows further in, is enough for",
        "**Not a medical device.**", "| carcinoma\\_in\\_situ | 107 | 7 | 30 |", "| Groups | 210 | 15 | 70 |",
        f"Fingerprint of the dataset: `{inputs.manifest.fingerprint}`",
        f"| Accuracy | {100 * test['accuracy']:.1f}% | {low:.1f}% to {high:.1f}% |",
        "| classical: extra trees | 67.1%", "+2.1 points (95% interval -3.4 to +7.9)", "a temperature of 1.31",
        "below a confidence of 83.0%", 'tf.saved_model.load("model")', "python -m trainer.predict --model=.",
        f"```bash\n{inputs.command}\n```", "normal\\_intermediate has few smears.",
    ):  # fmt: skip
        assert fact in body, fact


def test_every_row_of_a_table_has_as_many_cells_as_its_head(card: str) -> None:
    for text in (card, render_model_card(poor())):
        for table in parts(text)[1].split("\n\n"):
            rows = [line.replace("\\|", "") for line in table.strip().splitlines() if line.startswith("|")]
            assert len({row.count("|") for row in rows}) <= 1, table


def test_what_a_tiny_dataset_cannot_tell_is_said() -> None:
    metadata, body = parts(render_model_card(poor()))
    assert "| Accuracy | 60.0% | too few groups |" in body
    assert "No slide or patient is known" in body
    assert "No confidence can be shown to keep errors at 5% or below" in body
    assert "None" not in body
    assert "roc_auc" not in metadata["metrics"]


def test_names_cannot_be_taken_for_markdown_or_yaml() -> None:
    inputs = rich()
    classes = (NASTY, *inputs.manifest.classes[1:])
    first = inputs.manifest.classes[0]

    def renamed(rows: Any) -> Any:
        return {NASTY if name == first else name: value for name, value in rows.items()}

    splits = {
        name: replace(split, per_class=renamed(split.per_class)) for name, split in inputs.manifest.splits.items()
    }
    manifest = replace(inputs.manifest, classes=classes, splits=splits)
    test = {**inputs.test, "per_class": renamed(inputs.test["per_class"])}
    nasty = replace(inputs, organ=NASTY, run=NASTY, manifest=manifest, test=test, environment={NASTY: NASTY})
    text = render_model_card(nasty)
    metadata, body = parts(text)
    assert metadata["model-index"][0]["results"][0]["dataset"]["name"] == NASTY
    assert "\n# heading" not in body
    assert "\n---" not in body
    assert "<b>" not in body.split("| Version of")[0]  # there it is within code
    assert body.count("\n# ") == 1


def test_equal_inputs_give_equal_cards_and_the_file_is_whole(card: str, tmp_path: Path) -> None:
    path = write_model_card(tmp_path, rich())
    assert path == tmp_path / "MODEL_CARD.md"
    assert path.read_text(encoding="utf-8") == card


@settings(max_examples=50, deadline=None)
@example({"name": 1e-05, "value": -1e16, "no_text": "no"})
@example({"name": "a\u2028b\x85c\ufeff\x7f# d: e", "value": ["- x", {"no_text": []}]})
@given(st.dictionaries(KEYS, JSON_LIKE, max_size=5))
def test_yaml_reads_back_what_was_written(values: dict[str, Any]) -> None:
    text = front_matter(values)
    assert text.startswith("---\n")
    assert text.endswith("\n---")
    assert (yaml.safe_load(text[4:-4]) or {}) == values
