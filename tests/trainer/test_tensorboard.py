"""What TensorBoard is given, read back as it reads it."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.trainer.report_cases import poor, rich

pytestmark = pytest.mark.usefixtures("two_devices")


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing import event_accumulator  # type: ignore[import-untyped]

    return event_accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()


def pictures(folder: Path, name: str) -> list[Any]:
    (event,) = events(folder).Tensors(name)
    width, height, *images = event.tensor_proto.string_val
    decoded = [np.asarray(Image.open(BytesIO(image))) for image in images]
    assert all(one.shape[:2] == (int(height), int(width)) for one in decoded)
    return decoded


def test_scores_and_confusions_are_read_back_at_the_epoch_that_was_tested(tmp_path: Path) -> None:
    from tensorboard.util import tensor_util  # type: ignore[import-untyped]

    from trainer.tensorboard import write_results

    inputs = rich()
    write_results(
        tmp_path, test=inputs.test, classes=inputs.manifest.classes, settings=inputs.settings, epoch=inputs.best_epoch
    )
    (event,) = events(tmp_path).Tensors("test/balanced_accuracy")
    assert event.step == 22
    assert tensor_util.make_ndarray(event.tensor_proto) == pytest.approx(inputs.test["balanced_accuracy"])
    (drawing,) = pictures(tmp_path, "test/confusion")
    assert drawing.shape == (620, 620, 3)


def test_settings_and_the_scores_to_compare_runs_by_reach_the_plugin(tmp_path: Path) -> None:
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData  # type: ignore[import-untyped]

    from trainer.tensorboard import write_results

    inputs = rich()
    write_results(tmp_path, test=inputs.test, classes=inputs.manifest.classes, settings=inputs.settings, epoch=3)
    found = events(tmp_path).summary_metadata
    start = HParamsPluginData.FromString(found["_hparams_/session_start_info"].plugin_data.content).session_start_info
    said = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    assert said == {"seed": 7, "learning_rate": 1e-3, "patience": "null", "model": "residual", "precision": "bfloat16"}
    experiment = HParamsPluginData.FromString(found["_hparams_/experiment"].plugin_data.content).experiment
    assert "test/balanced_accuracy" in [info.name.tag for info in experiment.metric_infos]
    assert {info.name for info in experiment.hparam_infos} == set(said)


def test_a_score_that_is_not_defined_is_left_out(tmp_path: Path) -> None:
    from trainer.tensorboard import write_results

    inputs = poor()
    write_results(tmp_path, test=inputs.test, classes=inputs.manifest.classes, settings={}, epoch=1)
    tags = events(tmp_path).Tags()["tensors"]
    assert "test/accuracy" in tags
    assert "test/roc_auc" not in tags


def test_augmented_images_are_those_that_were_given(tmp_path: Path) -> None:
    from trainer.tensorboard import IMAGES_SHOWN, write_augmented

    images = np.random.default_rng(0).uniform(-0.1, 1.1, (20, 12, 12, 3)).astype(np.float32)
    write_augmented(tmp_path, images, epoch=1)
    shown = pictures(tmp_path, "augmented")
    assert len(shown) == IMAGES_SHOWN
    assert shown[0] == pytest.approx(255 * np.clip(images[0], 0, 1), abs=1)


def test_the_confusion_image_is_the_same_for_the_same_numbers_and_bright_where_shares_are_large() -> None:
    from trainer.tensorboard import confusion_image

    matrix, classes = [[9, 1], [0, 0]], ("a$_b$", "c")
    drawn = confusion_image(matrix, classes)
    assert (drawn == confusion_image(matrix, classes)).all()
    turned = confusion_image([[1, 9], [0, 0]], classes)
    assert (drawn != turned).any()


def test_the_event_files_of_a_run_that_was_resumed_are_merged(tmp_path: Path) -> None:
    from trainer.tensorboard import write_results

    inputs = poor()
    for _ in range(2):
        write_results(tmp_path, test=inputs.test, classes=inputs.manifest.classes, settings={"seed": 1}, epoch=1)
    assert {event.step for event in events(tmp_path).Tensors("test/accuracy")} == {1}
