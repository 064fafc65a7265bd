"""How networks learn: the schedule, the loss, dropout, the average, weight decay, and what is frozen."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.conftest import SIZE
from tests.trainer.jobs import ONE, Dataset, job_of, scores, train_in_pieces, untimed
from trainer.averaging import averaged_copy, decay_at, follow
from trainer.checkpoints import Checkpoints, Progress
from trainer.config import TrainConfig
from trainer.dropout import dropped
from trainer.loop import TrainJob, train
from trainer.losses import SAMPLES_THAT_OVERLAP, Loss, class_weights
from trainer.model_ends import parts_of
from trainer.models import LOGITS, build_model
from trainer.preemption import StopSignal
from trainer.schedule import Course, highest_rate
from trainer.step import Update, make_train_step
from trainer.trainable import Learner, course_of, trainable

RATE = 1e-3


def config_of(folder: Path = Path(), **changes: Any) -> TrainConfig:
    given: dict[str, Any] = {"model": "seed_pooled", "image_size": SIZE, "epochs": 3, "batch_size": 64}
    return TrainConfig(organ="gland", tfrecords=folder, runs=folder, **given | changes)


def learner_of(strategy: tf.distribute.Strategy, **changes: Any) -> Learner:
    with strategy.scope():
        return trainable(config_of(**changes), classes=3, steps_per_epoch=3)


# ── The learning rate ────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(1, 500), st.integers(0, 100), st.integers(0, 50), st.booleans(), st.floats(0.01, 2.0))
@settings(max_examples=40, deadline=None)
def test_the_rate_rises_over_the_warm_up_and_falls_by_half_a_cosine(
    left: int, warmup: int, frozen: int, falls: bool, then: float
) -> None:
    course = Course(steps=frozen + warmup + left, warmup=warmup, falls=falls, frozen=frozen, then=then)
    ours = [float(course.factor(step)) for step in range(course.steps)]
    falling = [then * (0.5 * (1 + math.cos(math.pi * step / left)) if falls else 1.0) for step in range(left)]
    rising = [then * (step + 1) / warmup for step in range(warmup)]
    assert ours == pytest.approx([1.0] * frozen + rising + falling, abs=1e-4)


def test_flags_say_the_course_in_epochs() -> None:
    config = config_of(epochs=10, warmup=0.0625, schedule="cosine", freeze_epochs=2, fine_tune_rate=1e-4)
    assert course_of(config, 20) == Course(steps=200, warmup=10, falls=True, frozen=40, then=pytest.approx(0.1))
    assert course_of(config_of(), 20) == Course(steps=60)


# ── The loss ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_smoothing_is_that_of_keras() -> None:
    logits = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    labels = np.arange(8) % 4
    theirs = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1, reduction=None)
    expected = theirs(np.eye(4)[labels], logits)
    assert np.allclose(Loss(0.1).of({"label": labels}, tf.constant(logits)), expected, atol=1e-5)


@given(
    st.lists(st.integers(0, 10**5), min_size=1, max_size=8).filter(any),
    st.sampled_from(["balanced", "root", "effective"]),
)
def test_classes_weigh_one_on_average_over_records(counts: list[int], kind: str) -> None:
    weights = np.array(class_weights(kind, counts))
    assert weights @ counts / sum(counts) == pytest.approx(1)
    assert ((weights > 0) == (np.array(counts) > 0)).all()


def test_weights_are_those_of_the_papers() -> None:
    balanced = class_weights("balanced", [10, 30, 0])
    assert balanced == pytest.approx((2.0, 2 / 3, 0.0))
    few, many = class_weights("root", [9, 36])
    assert few / many == pytest.approx(2)
    few, many = class_weights("effective", [10, 10**6])
    beta = SAMPLES_THAT_OVERLAP
    assert few / many == pytest.approx((1 - beta**10**6) / (1 - beta**10))
    assert class_weights("none", [10, 30]) == ()


def test_each_label_of_a_mixed_image_has_its_own_weight() -> None:
    logits = tf.constant([[2.0, 0.0]])
    batch = {"label": [0], "partner_label": [1], "share": tf.constant([0.75])}
    ours = Loss(class_weights=(0.5, 1.5)).of(batch, logits)
    first, second = (tf.nn.sparse_softmax_cross_entropy_with_logits([label], logits) for label in (0, 1))
    assert np.allclose(ours, 0.75 * 0.5 * first + 0.25 * 1.5 * second)


# ── Dropout ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_dropout_leaves_out_its_share_and_keeps_the_mean() -> None:
    kept = dropped(tf.ones([400, 256]), tf.range(400), share=0.3, seed=1, step=7).numpy()
    assert (kept == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert kept.mean() == pytest.approx(1, abs=0.02)
    assert abs((kept == 0).mean(axis=0) - 0.3).max() < 0.15  # no feature and no record is spared
    assert abs((kept == 0).mean(axis=1) - 0.3).max() < 0.15
    assert abs(np.corrcoef(kept[:-1].ravel(), kept[1:].ravel())[0, 1]) < 0.02


def test_a_mask_depends_on_seed_step_and_record_alone() -> None:
    ones = tf.ones([4, 64])
    first = dropped(ones, [5, 9, 2, 7], share=0.5, seed=0, step=tf.constant(3, tf.int64)).numpy()
    turned = dropped(ones, [7, 2, 9, 5], share=0.5, seed=0, step=3).numpy()
    assert (first == turned[::-1]).all()
    for other in ({"seed": 1}, {"step": 4}):
        changed = dropped(ones, [5, 9, 2, 7], **{"share": 0.5, "seed": 0, "step": 3} | other).numpy()
        assert (changed != first).mean() > 0.3


# ── The average ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_average_is_the_one_of_the_books(strategy: tf.distribute.Strategy) -> None:
    with strategy.scope():
        model = build_model("seed_pooled", image_size=SIZE, classes=3)
        average = averaged_copy(model)
    expected = [weight.astype(np.float64) for weight in model.get_weights()]
    move = tf.function(lambda step: follow(strategy, average, model, decay=decay_at(step, 0.5)))
    for step in range(8):
        model.set_weights([weight + step for weight in model.get_weights()])
        move(tf.constant(step))
        decay = min(0.5, (1 + step) / (10 + step))
        expected = [decay * e + (1 - decay) * w for e, w in zip(expected, model.get_weights(), strict=True)]
    assert all(np.allclose(a, e, atol=1e-5) for a, e in zip(average.get_weights(), expected, strict=True))


@pytest.mark.parametrize("strategy", ["single", pytest.param("mirrored", marks=pytest.mark.long)], indirect=True)
def test_batch_statistics_are_averaged_with_the_weights(strategy: tf.distribute.Strategy) -> None:
    learner = learner_of(strategy, model="residual_batch", ema=0.5)
    step = make_train_step(
        strategy, learner.model, learner.optimizer, Update(ema=0.5), average=learner.average, finish=None
    )
    count = strategy.num_replicas_in_sync
    images = np.random.default_rng(0).random((8 * count, SIZE, SIZE, 3), dtype=np.float32)
    rows = {"image": images, "label": np.arange(8 * count) % 3, "weight": np.full(8 * count, 1 / 8 / count, np.float32)}
    batches = strategy.experimental_distribute_dataset(tf.data.Dataset.from_tensor_slices(rows).batch(8 * count))
    before = learner.average.get_weights()
    for batch in batches:
        step(batch, tf.constant(0.0))
    names = [variable.path for variable in learner.model.variables]
    moved = zip(names, before, learner.average.get_weights(), learner.model.get_weights(), strict=True)
    for name, old, average, now in moved:
        if "moving" in name:  # in the first step a tenth of the average stays
            assert np.allclose(average, 0.1 * old + 0.9 * now, atol=1e-5), name
    assert any("moving" in name for name in names)


# ── All of it in training ────────────────────────────────────────────────────────────────────────────────────────────

EVERYTHING: dict[str, Any] = {
    "optimizer": "adamw", "weight_decay": 0.1, "schedule": "cosine", "warmup": 1 / 3, "ema": 0.9, "dropout": 0.3,
}  # fmt: skip


def learning_job(
    dataset: Dataset, folder: Path, stop: StopSignal, strategy: tf.distribute.Strategy, **changes: Any
) -> TrainJob:
    config = config_of(**EVERYTHING | changes)
    learner = learner_of(strategy, **EVERYTHING | changes)
    update = Update(loss=Loss(0.1, (0.5, 1.0, 1.5)), dropout=config.dropout, ema=config.ema)
    job = job_of(dataset, folder, stop, strategy=strategy, update=update, freeze_epochs=config.freeze_epochs)
    checkpoints = Checkpoints(folder, learner.model, learner.optimizer, average=learner.average)
    parts = {"model": learner.model, "optimizer": learner.optimizer, "average": learner.average}
    return replace(job, checkpoints=checkpoints, **parts)


def all_of(job: TrainJob) -> list[bytes]:
    variables = [*job.model.variables, *job.optimizer.variables, *(job.average.variables if job.average else ())]
    return [tf.convert_to_tensor(variable).numpy().tobytes() for variable in variables]


def test_with_interruptions_all_that_is_learnt_ends_bit_identical(
    dataset: Dataset, tmp_path: Path, strategy: tf.distribute.Strategy
) -> None:
    def make(stop: StopSignal, name: str) -> TrainJob:
        return learning_job(dataset, tmp_path / name, stop, strategy)

    whole, end = train_in_pieces(make, [], name="whole")
    pieces, end_of_pieces = train_in_pieces(make, [4, 9], name="pieces")
    assert untimed(end_of_pieces) == untimed(end)
    assert all_of(pieces) == all_of(whole)
    rates = [row["learning_rate"] for row in end.history]
    assert rates == pytest.approx([RATE, 0.75 * RATE, (2 - 3**0.5) / 4 * RATE], abs=1e-7)
    assert any((a != w).any() for a, w in zip(whole.average.get_weights(), whole.model.get_weights(), strict=True))


def test_the_last_layer_alone_learns_while_the_rest_is_frozen(dataset: Dataset, tmp_path: Path) -> None:
    moved = []
    job = learning_job(dataset, tmp_path, StopSignal(), ONE("CPU:0"), freeze_epochs=2, warmup=0.0, ema=0.0)
    before = [job.model.get_weights()]

    def look(row: dict[str, float]) -> None:
        now = job.model.get_weights()
        moved.append([bool((a != b).any()) for a, b in zip(now, before[-1], strict=True)])
        before.append(now)

    train(replace(job, on_epoch=look), Progress())
    last = [False] * (len(before[0]) - 2) + [True, True]
    assert moved == [last, last, [True] * len(last)]


def test_the_last_epoch_is_kept_where_that_is_asked_for(dataset: Dataset, tmp_path: Path) -> None:
    validations = [scores(0.9, 0.5, 0.4) for _ in range(2)]
    best, last = (
        job_of(dataset, tmp_path / str(keeps_last), StopSignal(), validate=validate, keeps_last=keeps_last)
        for keeps_last, validate in zip((False, True), validations, strict=True)
    )
    assert train(best, Progress()).best_epoch == 1
    end = train(last, Progress())
    assert (end.best_epoch, end.best_step) == (3, end.step)


@pytest.mark.parametrize("optimizer", ["adamw", "adamax"])
def test_weights_that_were_frozen_begin_with_steps_as_long_as_the_rate_says(optimizer: str) -> None:
    phases = {"epochs": 500, "freeze_epochs": 400}
    learner = learner_of(ONE("CPU:0"), optimizer=optimizer, learning_rate=RATE, warmup=0.0, **phases)
    learner.optimizer.iterations.assign(3 * 400)
    body, all_weights = parts_of(learner.model)[0].trainable_variables, learner.model.trainable_variables
    for _ in range(12):
        before = [weight.numpy() for weight in body]
        learner.optimizer.apply_gradients([(tf.ones_like(weight), weight) for weight in all_weights])
        steps = [old - weight.numpy() for old, weight in zip(before, body, strict=True)]
        assert all(np.allclose(step, RATE, rtol=0.01) for step in steps)


@pytest.mark.parametrize("model", ["seed_pooled", "residual_batch_team"])
def test_kernels_shrink_and_biases_do_not(model: str) -> None:
    learner = learner_of(ONE("CPU:0"), optimizer="adamw", weight_decay=0.5, model=model)
    for weight in learner.model.trainable_variables:
        weight.assign(tf.ones_like(weight))
    nothing = [tf.zeros_like(weight) for weight in learner.model.trainable_variables]
    learner.optimizer.apply_gradients(zip(nothing, learner.model.trainable_variables, strict=True))
    for weight in learner.model.trainable_variables:
        expected = 1 - 0.5 * RATE if weight.name == "kernel" else 1.0
        assert np.allclose(weight, expected, atol=1e-6), weight.path


def test_the_highest_rate_is_saved_with_the_optimizer(tmp_path: Path) -> None:
    one, other = (learner_of(ONE("CPU:0"), **EVERYTHING) for _ in range(2))
    highest_rate(one.optimizer).assign(RATE / 4)
    Checkpoints(tmp_path, one.model, one.optimizer).save(Progress(step=1))
    assert Checkpoints(tmp_path, other.model, other.optimizer).restore_last() is not None
    assert float(highest_rate(other.optimizer)) == pytest.approx(RATE / 4)
    assert other.model.get_layer(LOGITS).get_weights()[0].shape == (256, 3)
