"""Checkpoints: published whole, damaged ones passed over, the best one kept."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from data_pipeline.cli import RequestError
from trainer.checkpoints import Checkpoints, Identity, NotFiniteError, Progress
from trainer.published import Name, write_pointer


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


def test_one_that_was_never_published_is_not_used(tmp_path: Path) -> None:
    """As after a kill between the folder's rename and the pointer's."""
    saved(tmp_path, 3)
    write_pointer(tmp_path, Name(2))
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


def test_a_second_one_of_a_step_replaces_the_first_only_when_it_is_published(tmp_path: Path) -> None:
    checkpoints, model = new(tmp_path)
    for value in (1, 2, 3):
        fill(model, value)
        checkpoints.save(Progress(step=7, sums=(value, 0, 0)))
        assert [path.name for path in tmp_path.glob("step-*")] == [f"step-00000007{'' if value == 1 else f'-{value}'}"]
    last = checkpoints.restore_last()
    assert last is not None
    assert last.sums[0] == weight(model) == 3


def test_what_is_not_finite_is_never_saved(tmp_path: Path) -> None:
    checkpoints, model, optimizer = new_all(tmp_path)
    checkpoints.save(Progress(step=1))
    for value in (np.nan, np.inf):
        fill(model, value)
        with pytest.raises(NotFiniteError, match=r"step 2 .*To fix it"):
            checkpoints.save(Progress(step=2))
    fill(model, 1)
    optimizer.variables[2].assign(np.full(optimizer.variables[2].shape, np.inf))
    with pytest.raises(NotFiniteError):
        checkpoints.save(Progress(step=2))
    assert {path.name for path in tmp_path.iterdir()} == {"last.json", "step-00000001"}


OURS = Identity("abc" * 20, {"seed": 0, "learning_rate": 0.001, "organ": "gland"})
OTHERS = {
    "dataset": (replace(OURS, dataset="xyz" * 20), "the dataset was abcabcabcabc and is xyzxyzxyzxyz"),
    "settings": (replace(OURS, settings={**OURS.settings, "seed": 1}), "--seed was 0 and is 1"),
    "missing": (replace(OURS, settings={"seed": 0, "organ": "gland"}), "--learning_rate was 0.001 and is None"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_one_of_another_run_is_refused_by_what_differs(tmp_path: Path, other: str) -> None:
    """A folder of checkpoints that was copied here."""
    _, model, optimizer = new_all(tmp_path)
    Checkpoints(tmp_path, model, optimizer, OURS).save(Progress(step=1))
    before = model.get_weights()[0].tobytes()
    fill(model, 9)
    identity, says = OTHERS[other]
    with pytest.raises(RequestError, match=rf"step-00000001 is of another run: {says}\. To fix it: "):
        Checkpoints(tmp_path, model, optimizer, identity).restore_last()
    assert weight(model) == 9
    assert Checkpoints(tmp_path, model, optimizer, replace(OURS)).restore_last() == Progress(step=1)
    assert model.get_weights()[0].tobytes() == before


def test_one_of_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, 1)
    monkeypatch.setattr("trainer.checkpoints.FORMAT", 99)
    with pytest.raises(RequestError, match=r"format is 4, this program's 99.*To fix it"):
        new(tmp_path)[0].restore_last()


def test_a_damaged_one_of_another_run_is_damaged_first_of_all(tmp_path: Path) -> None:
    _, model, optimizer = new_all(tmp_path)
    Checkpoints(tmp_path, model, optimizer, OURS).save(Progress(step=1))
    state = tmp_path / "step-00000001" / "state.json"
    state.write_text(state.read_text().replace('"step": 1', '"step": 2'))
    assert Checkpoints(tmp_path, model, optimizer, OTHERS["dataset"][0]).restore_last() is None


def test_what_was_kept_in_memory_is_saved_as_it_was(tmp_path: Path) -> None:
    checkpoints, model, optimizer = new_all(tmp_path)
    optimizer.apply_gradients(
        zip([tf.ones(w.shape) for w in model.trainable_variables], model.trainable_variables, strict=True)
    )
    then = checkpoints.snapshot()
    optimizer.apply_gradients(
        zip([tf.ones(w.shape) for w in model.trainable_variables], model.trainable_variables, strict=True)
    )
    now = checkpoints.snapshot()
    checkpoints.save_snapshot(then, Progress(step=1))
    assert all((a == b).all() for a, b in zip(checkpoints.snapshot(), now, strict=True))
    checkpoints.restore_last()
    assert all((a == b).all() for a, b in zip(checkpoints.snapshot(), then, strict=True))


def test_a_save_that_fails_leaves_nothing_and_names_what_it_was_writing(tmp_path: Path) -> None:
    saved(tmp_path / "c", 1)
    checkpoints, _ = new(tmp_path / "c")
    (tmp_path / "c" / "last.json").unlink()
    (tmp_path / "c").chmod(0o755)
    (tmp_path / "c" / f".last.json.{os.uname().nodename}.{os.getpid()}.tmp").mkdir()  # in the way of the pointer
    with pytest.raises(OSError, match=r"last\.json") as raised:
        checkpoints.save(Progress(step=2))
    assert raised.value.errno == errno.EISDIR
    assert [path.name for path in (tmp_path / "c").glob("*step-*")] == ["step-00000001"]


def test_what_a_kill_left_half_written_is_removed_and_never_read(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    (tmp_path / ".step-00000002.tmp").mkdir()
    (tmp_path / ".step-00000002.tmp" / "weights.index").write_bytes(b"half")
    checkpoints, _ = new(tmp_path)
    (tmp_path / ".last.json.elsewhere.7.tmp").write_bytes(b"{")
    shutil.copytree(tmp_path / "step-00000001", tmp_path / "step-00000003")  # never published
    checkpoints.clean()
    assert {path.name for path in tmp_path.iterdir()} == {"last.json", "step-00000001"}
    progress = checkpoints.restore_last()
    assert progress is not None
    assert progress.step == 1
