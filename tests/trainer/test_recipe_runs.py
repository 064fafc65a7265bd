"""Whole runs by recipe: what is exported is the average of weights, by plain layers, and a backbone is fine-tuned."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from data_pipeline.manifest import Manifest
from data_pipeline.storage import file_sha256
from tests.conftest import run_module
from tests.trainer.conftest import SIZE, train_command
from trainer.config import TrainConfig
from trainer.models import build_model
from trainer.recipe_files import recipe_settings
from trainer.residual import StandardizedConv2D

TINY = (f"--image_size={SIZE}", "--epochs=2", "--batch_size=32")


def run_of(tfrecords: Path, runs: Path, *arguments: object) -> tuple[Path, dict[str, Any]]:
    """The folder and the settings of a run."""
    done = run_module("trainer", *train_command(tfrecords, runs, *arguments))
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1].removeprefix("Report: ")).parent
    return folder, json.loads((folder / "config.json").read_text())["settings"]


@pytest.fixture(scope="module")
def by_recipe(tfrecords: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    runs = tmp_path_factory.mktemp("by-recipe")
    budget = int(2.9 * Manifest.load(tfrecords / "gland").splits["train"].records)
    return run_of(tfrecords, runs, "--recipe=fast", *TINY, "--epochs=9", f"--image_budget={budget}")


def test_a_run_has_the_settings_of_its_recipe(by_recipe: tuple[Path, dict[str, Any]]) -> None:
    folder, settings = by_recipe
    asked = {"image_size": SIZE, "epochs": 9, "batch_size": 32}
    expected = recipe_settings("fast", settings) | asked | {"image_budget": settings["image_budget"]}
    assert {name: settings[name] for name in expected if name != "precision"} == {
        name: value for name, value in expected.items() if name != "precision"
    }
    card = (folder / "MODEL_CARD.md").read_text()
    assert "--recipe=fast" in card
    assert "the last one was kept" in card
    assert "the last one, as was asked for" in (folder / "report.html").read_text()


def test_a_run_has_as_many_epochs_as_its_budget_allows_and_the_rate_falls_over_these(
    by_recipe: tuple[Path, dict[str, Any]],
) -> None:
    rates = [row["learning_rate"] for row in json.loads((by_recipe[0] / "metrics.json").read_text())["history"]]
    assert len(rates) == 2
    assert rates[-1] < 0.1 * max(rates)


@pytest.mark.parametrize(("budget", "records", "epochs"), [(0, 9, 30), (500, 9, 30), (100, 9, 11), (5, 9, 1)])
def test_a_budget_of_images_is_kept_but_for_one_epoch(budget: int, records: int, epochs: int) -> None:
    config = TrainConfig(organ="gland", tfrecords=Path(), runs=Path(), epochs=30, image_budget=budget)
    assert config.epochs_on(records) == epochs


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("--epochs=9 --freeze_epochs=2 --image_budget=1", ("Expected less than the 1 epochs that", "--image_budget")),
        ("--model=residual_batch --xla=on --logical_cpus=2", ("Invalid value for `--xla`", "--model=residual")),
    ],
    ids=["a budget that leaves nothing after the frozen epochs", "batch normalisation over devices by XLA"],
)
def test_what_only_the_network_or_the_data_can_tell_is_refused(
    more: str, says: tuple[str, ...], tfrecords: Path, tmp_path: Path
) -> None:
    done = run_module("trainer", *train_command(tfrecords, tmp_path, *TINY, *more.split()))
    assert done.returncode == 2
    assert all(words in done.stderr for words in says), done.stderr


@pytest.mark.long
def test_batch_normalisation_by_parts_of_a_batch_is_told(tfrecords: Path, tmp_path: Path) -> None:
    more = ("--model=residual_batch", "--accumulate=4", "--epochs=1")
    done = run_module("trainer", *train_command(tfrecords, tmp_path, *TINY, *more))
    assert done.returncode == 0, done.stderr
    assert "residual_batch normalises by 8 images, not by the batch" in done.stderr


def test_what_is_exported_is_of_keras_own_layers(by_recipe: tuple[Path, dict[str, Any]]) -> None:
    model = keras.saving.load_model(by_recipe[0] / "model.keras")
    assert not any(isinstance(layer, StandardizedConv2D) for layer in model.layers)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a backbone without its top, as if they had been downloaded."""
    file = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    keras.utils.set_random_seed(7)
    keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3)).save_weights(file)
    return file


@pytest.mark.long
def test_a_backbone_is_fine_tuned_from_a_file_in_two_phases(tfrecords: Path, tmp_path: Path, weights: Path) -> None:
    common = ("--model=MobileNetV2", f"--weights={weights}", f"--image_size={SIZE}", "--batch_size=64")
    phases = ("--freeze_epochs=1", "--fine_tune_rate=0.0001", "--epochs=2", "--keep=best")
    folder, settings = run_of(tfrecords, tmp_path, *common, *phases)
    assert settings["weights_sha256"] == file_sha256(weights)
    assert "weights" not in settings  # a file of another name is the same
    history = json.loads((folder / "metrics.json").read_text())["history"]
    assert [row["learning_rate"] for row in history] == pytest.approx([1e-3, 1e-4])
    moved = weights.with_name("moved.weights.h5")
    weights.rename(moved)
    again = run_module(
        "trainer",
        *train_command(tfrecords, tmp_path, *(str(c).replace(str(weights), str(moved)) for c in common), *phases),
    )
    assert "finished already" in again.stderr
    moved.rename(weights)


def test_the_backbone_begins_with_the_weights_of_the_file(weights: Path) -> None:
    from trainer.backbones import load_backbone_weights

    model = build_model("MobileNetV2", image_size=SIZE, classes=3)
    load_backbone_weights(model, weights)
    theirs = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    theirs.load_weights(weights)
    ours = [layer for layer in model.layers if layer.name in {one.name for one in theirs.layers}]
    kernels = [layer.get_weights()[0] for layer in ours if layer.get_weights()]
    assert kernels
    for layer in ours:
        for mine, other in zip(layer.get_weights(), theirs.get_layer(layer.name).get_weights(), strict=True):
            assert np.array_equal(mine, other)
