"""One step: in parts, on two replicas and clipped it is what it should be."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from data_pipeline.manifest import Manifest
from tests.trainer.conftest import SIZE
from trainer.augment_config import Augmentation
from trainer.cluster import layout_of
from trainer.input_pipeline import TrainInput, finish_on_device, train_batches
from trainer.models import build_model
from trainer.order import TrainOrder
from trainer.records import RecordReader
from trainer.step import Update, make_train_step

Dataset = tuple[Path, Manifest]
ALONE, TWO = "alone", "two"


def strategy_of(name: str) -> tf.distribute.Strategy:
    one = name == ALONE
    return tf.distribute.OneDeviceStrategy("CPU:0") if one else tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def step_of(
    dataset: Dataset, where: str, update: Update, *, batch_size: int = 30, on_device: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """How a step of plain SGD at rate 1 moves the weights, and the sums it gives."""
    reader = RecordReader(*dataset, "train")
    order = TrainOrder(len(reader), batch_size, seed=0)
    strategy = strategy_of(where)
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = build_model("seed_pooled", image_size=SIZE, classes=3)
        optimizer = keras.optimizers.SGD(1.0)
        optimizer.build(model.trainable_variables)
    how = TrainInput(SIZE, Augmentation(), 0, on_device=on_device)
    layout, last = layout_of(strategy), order.steps_per_epoch
    batches = strategy.distribute_datasets_from_function(
        lambda context: train_batches(reader, order, how, layout, start_step=last - 1, stop_step=last)
    )
    before = [np.array(weights) for weights in model.get_weights()]
    finish = finish_on_device(how) if on_device else None
    step = make_train_step(strategy, model, optimizer, update, finish=finish)
    sums = step(next(iter(batches)), tf.constant(0.0))
    moved = [(new - old).ravel() for new, old in zip(model.get_weights(), before, strict=True)]
    return np.concatenate(moved), np.array(sums)


@pytest.mark.parametrize("where", [ALONE, TWO])
@pytest.mark.parametrize("accumulate", [2, 4, 50])
def test_a_batch_in_parts_makes_the_step_of_the_whole(dataset: Dataset, where: str, accumulate: int) -> None:
    """The last batch of an epoch, which no number of parts divides."""
    whole, whole_sums = step_of(dataset, ALONE, Update())
    parts, parts_sums = step_of(dataset, where, Update(accumulate=accumulate))
    assert np.linalg.norm(parts - whole) < 1e-5 * np.linalg.norm(whole)
    assert parts_sums == pytest.approx(whole_sums, rel=1e-5)


@pytest.mark.parametrize("where", [ALONE, TWO])
def test_a_gradient_is_clipped_by_the_length_of_the_global_one(dataset: Dataset, where: str) -> None:
    whole, _ = step_of(dataset, ALONE, Update())
    length = float(np.linalg.norm(whole))
    shorter, _ = step_of(dataset, where, Update(clip_norm=length / 3, accumulate=2))
    assert np.linalg.norm(shorter) == pytest.approx(length / 3, rel=1e-4)
    assert np.linalg.norm(3 * shorter - whole) < 1e-4 * length
    same, _ = step_of(dataset, where, Update(clip_norm=length * 1.01))
    assert np.linalg.norm(same - whole) < 1e-5 * length


@pytest.mark.parametrize("where", [ALONE, TWO])
def test_compiled_as_a_whole_it_is_the_same_step(dataset: Dataset, where: str) -> None:
    """Within rounding: XLA adds in another order."""
    plain, plain_sums = step_of(dataset, ALONE, Update())
    compiled, compiled_sums = step_of(dataset, where, Update(xla=True, accumulate=2, clip_norm=1e6))
    assert np.linalg.norm(compiled - plain) < 1e-5 * np.linalg.norm(plain)
    assert compiled_sums == pytest.approx(plain_sums, rel=1e-5)


@pytest.mark.parametrize("where", [ALONE, TWO])
def test_augmented_in_the_step_it_is_the_same_step(dataset: Dataset, where: str) -> None:
    on_host, host_sums = step_of(dataset, ALONE, Update())
    in_step, step_sums = step_of(dataset, where, Update(), on_device=True)
    assert np.linalg.norm(in_step - on_host) < 1e-4 * np.linalg.norm(on_host)
    assert step_sums == pytest.approx(host_sums, rel=1e-5)
