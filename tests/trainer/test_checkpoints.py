"""Checkpoints: published whole, damaged ones passed over, the best one kept."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from data_pipeline.cli import RequestError
from trainer.checkpoints import Checkpoints, Progress


def new(folder: Path) -> tuple[Checkpoints, keras.Model]:
    return new_all(folder)[:2]


def new_all(folder: Path) -> tuple[Checkpoints, keras.Model, keras.optimizers.Optimizer]:
    model = keras.Sequential([keras.layers.Input([3]), keras.layers.Dense(2)])
    optimizer = keras.optimizers.Adamax(0.1)
    optimizer.build(model.trainable_variables)
    return Checkpoints(folder, model, optimizer), model, optimizer


def fill(model: keras.Model, value: float) -> None:
    model.set_weights([np.full(weight.shape, value, np.float32) for weight in model.get_weights()])


def saved(folder: Path, steps: int, *, best_step: int = 0) -> None:
    """Checkpoints of steps 1 to `steps`, whose weights all equal their step."""
    checkpoints, model = new(folder)
    for step in range(1, steps + 1):
        fill(model, step)
        checkpoints.save(Progress(step=step, best_step=best_step, history=({"epoch": 1.0},), sums=(0.1, 2.0, 3.0)))


def test_the_optimizer_goes_on_where_it_was(tmp_path: Path) -> None:
    """Two steps in one go, and with a save and a restore in between, end the same."""
    ends = []
    for interrupted in (False, True):
        folder = tmp_path / str(interrupted)
        checkpoints, model, optimizer = new_all(folder)
        fill(model, 1)
        for step in (1, 2):
            if interrupted and step == 2:
                checkpoints.save(Progress(step=1))
                checkpoints, model, optimizer = new_all(folder)
                checkpoints.restore_last()
            gradients = [tf.fill(w.shape, float(step)) for w in model.trainable_variables]
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        ends.append(weight(model))
    assert ends[0] == ends[1]


def weight(model: keras.Model) -> float:
    return float(model.get_weights()[0][0, 0])


def test_what_is_saved_is_what_is_restored(tmp_path: Path) -> None:
    saved(tmp_path, 2)
    checkpoints, model = new(tmp_path)
    progress = checkpoints.restore_last()
    assert progress == Progress(step=2, history=({"epoch": 1.0},), sums=(0.1, 2.0, 3.0))
    assert weight(model) == 2


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 6, best_step=2)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == [f"step-{n:08d}" for n in (2, 5, 6)]
    checkpoints, model = new(tmp_path)
    last = checkpoints.restore_last()
    assert last is not None
    checkpoints.restore_best(last)
    assert weight(model) == 2


@pytest.mark.parametrize("file", ["weights.index", "weights.data-00000-of-00001", "state.json"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_a_damaged_newest_one_is_passed_over_with_a_message(
    tmp_path: Path, file: str, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, 3)
    path = tmp_path / "step-00000003" / file
    data = bytearray(path.read_bytes())
    if harm == "remove":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data if harm == "flip" else data[: len(data) // 2])
    checkpoints, model = new(tmp_path)
    progress = checkpoints.restore_last()
    assert progress is not None
    assert progress.step == weight(model) == 2
    assert "step-00000003 is damaged" in capsys.readouterr().err


def test_one_that_was_never_published_is_not_used(tmp_path: Path) -> None:
    """As after a kill between the folder's rename and the pointer's."""
    saved(tmp_path, 3)
    (tmp_path / "last.json").write_text(json.dumps({"checkpoint": "step-00000002"}))
    checkpoints, model = new(tmp_path)
    progress = checkpoints.restore_last()
    assert progress is not None
    assert progress.step == weight(model) == 2


@pytest.mark.parametrize("harm", ["", "{", "[]"])
def test_without_a_pointer_the_newest_whole_one_is_used(tmp_path: Path, harm: str) -> None:
    saved(tmp_path, 2)
    (tmp_path / "last.json").write_text(harm)
    checkpoints, _ = new(tmp_path)
    progress = checkpoints.restore_last()
    assert progress is not None
    assert progress.step == 2


def test_a_damaged_best_one_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    saved(tmp_path, 3, best_step=1)
    (tmp_path / "step-00000001" / "weights.index").write_bytes(b"")
    checkpoints, _ = new(tmp_path)
    last = checkpoints.restore_last()
    assert last is not None
    with pytest.raises(RequestError, match=r"step-00000001.*To fix it"):
        checkpoints.restore_best(last)


def test_one_made_after_damage_to_later_ones_is_the_last(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    for step in (2, 3):
        (tmp_path / f"step-0000000{step}" / "state.json").unlink()
    saved(tmp_path, 1)
    checkpoints, model = new(tmp_path)
    progress = checkpoints.restore_last()
    assert progress is not None
    assert progress.step == weight(model) == 1


def test_what_a_kill_left_half_written_is_removed_and_never_read(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (tmp_path / ".step-00000002.tmp").mkdir()
    (tmp_path / ".step-00000002.tmp" / "weights.index").write_bytes(b"half")
    checkpoints, _ = new(tmp_path)
    checkpoints.clean()
    assert not list(tmp_path.glob(".step-*"))
    progress = checkpoints.restore_last()
    assert progress is not None
    assert progress.step == 1
