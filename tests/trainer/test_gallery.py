"""The rows and examples a report shows: the right ones, in a settled order, each with the map of its own image."""

from dataclasses import replace

import numpy as np
import pytest

from data_pipeline.schema import Record
from tests.conftest import image_bytes
from trainer.metrics import Predictions
from trainer.report_rows import group_results

CLASSES = ("a", "b", "c")
FOUR = Predictions(
    ids=("w", "x", "y", "z"),
    groups=("s1", "s1", "s2", "s3"),
    labels=np.array([0, 0, 1, 2]),
    probabilities=np.array([[0.5, 0.4, 0.1], [0.2, 0.7, 0.1], [0.1, 0.45, 0.45], [0.0, 0.1, 0.9]], np.float32),
)


def record(row: int, name: str) -> Record:
    image = image_bytes(row, size=32, form="JPEG")
    return Record(image=image, label=0, id=name, group="s", width=32, height=32)


def test_a_group_is_answered_by_the_mean_of_its_images() -> None:
    first, *others = group_results(FOUR, CLASSES)
    assert (first.group, first.images, first.truth, first.answer, first.right) == ("s1", 2, "a", "b", False)
    assert first.confidence == pytest.approx(0.55)
    assert [row.right for row in others] == [True, True]


def test_a_group_of_several_diagnoses_has_no_row() -> None:
    mixed = replace(FOUR, labels=np.array([0, 1, 1, 2]))
    assert [row.group for row in group_results(mixed, CLASSES)] == ["s2", "s3"]
    assert group_results(replace(FOUR, groups=("s",) * 4, labels=np.zeros(4, np.int64)), CLASSES) == ()


@pytest.mark.usefixtures("two_devices")
def test_each_example_is_explained_by_the_map_of_its_own_answer() -> None:
    from trainer.gallery import explained
    from trainer.gradcam import heat_maps, overlay, place
    from trainer.input_pipeline import to_unit_range
    from trainer.models import build_model
    from trainer.served_images import decode_served

    model = build_model("seed_pooled", image_size=32, classes=3)
    rows = [2, 0]
    records = [record(row, FOUR.ids[row]) for row in rows]
    examples = explained(model, records, FOUR, rows, classes=CLASSES, image_size=32)
    assert [(one.id, one.truth, one.predicted, one.second) for one in examples] == [
        ("y", "b", "b", "c"),
        ("w", "a", "a", "b"),
    ]
    assert examples[1].confidence == pytest.approx(0.5)
    images = np.stack([to_unit_range(decode_served(one.image, image_size=32)[0]) for one in records])
    maps = heat_maps(model, images, answers=np.array([1, 0]))
    assert [one.heat_map for one in examples] == [overlay(*pair) for pair in zip(images, maps, strict=True)]
    assert [one.looked_at for one in examples] == [place(heat_map) for heat_map in maps]
    assert explained(model, (), FOUR, (), classes=CLASSES, image_size=32) == ()


@pytest.mark.usefixtures("two_devices")
def test_a_record_of_another_row_is_refused() -> None:
    from trainer.gallery import explained
    from trainer.models import build_model

    model = build_model("seed_pooled", image_size=32, classes=3)
    with pytest.raises(ValueError, match="Expected the record of 'w'"):
        explained(model, [record(1, "x")], FOUR, [0], classes=CLASSES, image_size=32)
