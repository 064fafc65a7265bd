"""The file for small devices says what the served model says."""

from pathlib import Path

import pytest
import tensorflow as tf

from data_pipeline.cli import FaultError
from tests.conftest import image_bytes
from tests.trainer.exported import CLASSES, telling_model
from trainer import tflite
from trainer.export import served_in_memory
from trainer.models import build_model
from trainer.tflite import agreement, write_tflite

SIZE = 32
IMAGES = [image_bytes(seed, colour=(70 * (seed % 4), 40 * (seed % 6), 120), size=SIZE) for seed in range(37)]


@pytest.mark.parametrize("views", [1, 8])
def test_it_agrees_with_the_model_and_takes_any_number_of_images(tmp_path: Path, views: int) -> None:
    path = tmp_path / "model.tflite"
    model = telling_model(SIZE)
    write_tflite(model, classes=CLASSES, image_size=SIZE, path=path, views=views)
    served = served_in_memory(model, classes=CLASSES, image_size=SIZE, views=views)
    found = agreement(path, served, iter(IMAGES))
    assert found["n"] == len(IMAGES)
    assert found["same_answers"] == 1
    assert found["largest_difference"] < 1e-5
    assert found["bytes"] == path.stat().st_size > 4 * model.count_params()
    assert (tmp_path / "model.labels.txt").read_text().splitlines() == list(CLASSES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.labels.txt", "model.tflite"]
    if views == 1:
        write_tflite(model, classes=CLASSES, image_size=SIZE, path=tmp_path / "again.tflite")
        assert (tmp_path / "again.tflite").read_bytes() == path.read_bytes()


def test_a_file_that_disagrees_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    write_tflite(telling_model(SIZE), classes=CLASSES, image_size=SIZE, path=path, temperature=4.0)
    served = served_in_memory(telling_model(SIZE), classes=CLASSES, image_size=SIZE)
    found = agreement(path, served, IMAGES)
    assert found["same_answers"] == 1  # a temperature changes none
    assert found["largest_difference"] > 0.05
    other = served_in_memory(telling_model(SIZE, seed=5), classes=CLASSES, image_size=SIZE)
    assert agreement(path, other, IMAGES)["same_answers"] < 1
    assert agreement(path, other, []) == {
        "n": 0, "largest_difference": 0.0, "same_answers": 1.0, "bytes": path.stat().st_size
    }  # fmt: skip


def test_a_network_that_cannot_be_converted_is_a_fault_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(logits: object, temperature: float) -> object:
        return tf.raw_ops.Betainc(a=logits, b=logits, x=logits)

    monkeypatch.setattr(tflite, "calibrated", unsupported)
    network = build_model("seed_pooled", image_size=SIZE, classes=3)
    with pytest.raises(FaultError, match="can't be converted to TensorFlow Lite"):
        write_tflite(network, classes=CLASSES, image_size=SIZE, path=tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())
