"""One training step, compiled: forward, backward, update, and what all workers must know of it.

step = make_train_step(strategy, model, optimizer)
loss, hits, records, stops, broken = step(batch, tf.constant(0.0))
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer.averaging import decay_at, follow
from trainer.batch_statistics import agree, counted, statistics_of
from trainer.dropout import dropped
from trainer.loss_scale import LossScale
from trainer.losses import Loss
from trainer.model_ends import is_team, parts_of
from trainer.models import for_xla, logits_of


@dataclass(frozen=True, slots=True)
class Update:
    """How a batch becomes gradients, and gradients a step.

    `dropout` is the share of what the last layer sees that is left out, by masks of `seed`. `ema` is the share of the
    average of weights that stays in a step.
    `clip_norm`, if it isn't 0, is the longest that the gradient of the global batch, all weights together, may be.
    `accumulate` is the number of parts in which a replica takes its share of a batch, one after another: less memory
    for the same step within rounding, but that fresh batch normalisation is by the part. `xla` compiles forward and
    backward pass as a whole, and normalises by a replica's share.
    """

    clip_norm: float = 0.0
    accumulate: int = 1
    xla: bool = False
    loss: Loss = field(default_factory=Loss)
    dropout: float = 0.0
    seed: int = 0
    ema: float = 0.0


def make_train_step(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    update: Update = Update(),
    *,
    scale: LossScale | None = None,
    finish: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    average: keras.Model | None = None,
    only: Sequence[Any] | None = None,
) -> Callable[[Any, Any], Any]:
    """A compiled step: (batch, stop) → `[5]`, sums over the global batch, the same on every worker.

    They are loss, hits, records, stops, and how many replicas hold weights or optimizer slots that aren't finite.
    `stop` is 1.0 on a worker that was told to stop: its sum lets all workers stop after the same step. `scale` is
    what float16 needs, `finish` what is to be done with a batch on its device, see `finish_on_device`. `average` is
    moved after `model`. `only` names the weights that change, by default all that may.
    """
    variables = list(model.trainable_variables if only is None else only)
    answer, statistics, of_team = _answering(model, optimizer, update), statistics_of(model), is_team(model)

    def gradients_and_sums(batch: dict[str, Any]) -> tuple[list[Any], Any]:
        with tf.GradientTape() as tape:
            logits = answer(batch)
            losses = update.loss.of(batch, logits, of_team=of_team)
            # Weights sum to one over all replicas, so the summed gradients are those of the global batch's mean.
            loss = tf.reduce_sum(losses * batch["weight"])
            scaled = scale.up(loss) if scale else loss
        present = tf.cast(batch["weight"] > 0, tf.float32)
        hits = tf.cast(tf.argmax(logits, axis=1) == batch["label"], tf.float32)
        sums = tf.stack([tf.reduce_sum(values * present) for values in (losses, hits, present)])
        gradients = tape.gradient(scaled, variables)
        return scale.down(gradients) if scale else gradients, sums

    compiled = tf.function(gradients_and_sums, jit_compile=True, autograph=False) if update.xla else gradients_and_sums

    def forward_and_back(batch: dict[str, Any]) -> tuple[list[Any], Any]:
        batch = finish(batch) if finish else batch
        if update.accumulate == 1:
            gradients, sums = compiled(batch)
        else:
            gradients, sums = _in_parts(compiled, batch, update.accumulate, variables)
        return _clipped(gradients, update.clip_norm) if update.clip_norm else gradients, sums

    def change(gradients: list[Any]) -> None:
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    def told(sums: Any, stop: Any, broken: Any) -> Any:
        broken = tf.maximum(broken, 1.0 - _all_finite([*model.variables, *optimizer.variables]))
        return tf.concat([sums, tf.stack([stop, broken])], axis=0)

    def on_replica(batch: dict[str, Any], stop: Any) -> Any:
        gradients, sums = forward_and_back(batch)
        change(gradients)
        return told(sums, stop, 0.0)

    def total(values: Any) -> Any:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None)

    def scaled_step(batch: Any, stop: Any, scale: LossScale) -> Any:
        gradients, sums = strategy.run(forward_and_back, args=(batch,))
        finite = total(strategy.run(lambda found: 1.0 - _all_finite(found), args=(gradients,))) == 0.0
        broken = tf.cast(~finite & scale.exhausted, tf.float32)
        # All replicas change their weights or none does: here, where the finding is one, and not within a replica.
        tf.cond(finite, lambda: _nothing(strategy.run(change, args=(gradients,))), lambda: _nothing(None))
        strategy.run(scale.update, args=(finite,))
        return total(strategy.run(told, args=(sums, stop, broken)))

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def step(batch: Any, stop: Any) -> Any:
        number = tf.identity(optimizer.iterations)
        sums = scaled_step(batch, stop, scale) if scale else total(strategy.run(on_replica, args=(batch, stop)))
        agree(strategy, statistics)
        if average is not None:
            follow(strategy, average, model, decay=decay_at(number, update.ema))
        return sums

    return step  # type: ignore[no-any-return]


def _answering(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, update: Update
) -> Callable[[dict[str, Any]], Any]:
    """The logits of a batch, as training sees them."""
    body, head = parts_of(model) if update.dropout else (logits_of(model), None)
    network = for_xla(body) if update.xla else body
    everywhere = not update.xla and update.accumulate == 1

    def answer(batch: dict[str, Any]) -> Any:
        with counted(batch["weight"], everywhere=everywhere):
            seen = network(batch["image"], training=True)
        if head is None:
            return seen
        step = optimizer.iterations
        return head(dropped(seen, batch["index"], share=update.dropout, seed=update.seed, step=step))

    return answer


def make_several_steps(step: Callable[[Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """Several of `make_train_step`'s steps in one call from Python: (iterator, count, stop) → `[done, 6] float32`.

    A row is what the step gives, and the seconds its batch was waited for. It ends early after a step whose loss or
    weights aren't finite, so that the state is that after this very step. All counts share one compilation, and so one
    arithmetic: how steps are put together changes no bit.
    """

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def steps(iterator: Any, count: Any, stop: Any) -> Any:
        def go_on(number: Any, fine: Any, rows: Any) -> Any:
            return (number < count) & fine

        def take(number: Any, fine: Any, rows: Any) -> tuple[Any, ...]:
            asked = _now()
            batch = next(iterator)
            waited = tf.cast(_now() - asked, tf.float32)
            sums = step(batch, stop)
            fine = tf.math.is_finite(sums[0]) & (sums[4] == 0)
            return number + 1, fine, rows.write(number, tf.concat([sums, [waited]], axis=0))

        rows = tf.TensorArray(tf.float32, size=0, dynamic_size=True, element_shape=[6])
        _, _, rows = tf.while_loop(go_on, take, [0, True, rows], parallel_iterations=1)
        return rows.stack()

    return steps  # type: ignore[no-any-return]


def _now() -> Any:
    """The time when it is this operation's turn. TensorFlow's own clock is barred with deterministic operations."""
    return tf.numpy_function(lambda: np.float64(time.monotonic()), [], tf.float64)


def _nothing(done: Any) -> Any:
    """What a branch of `tf.cond` gives that is there for what it does."""
    return tf.zeros([])


def _in_parts(
    gradients_and_sums: Callable[[dict[str, Any]], tuple[list[Any], Any]],
    batch: dict[str, Any],
    count: int,
    variables: list[Any],
) -> tuple[list[Any], Any]:
    """What `gradients_and_sums` gives for all of `batch`, added up over `count` equal parts of it."""
    rows = batch["label"].shape[0]
    size = -(-rows // count)

    def cut(values: Any) -> Any:
        # What is missing has the weight 0, as padding does.
        padded = tf.pad(values, [[0, size * count - rows], *([[0, 0]] * (len(values.shape) - 1))])
        return tf.reshape(padded, [count, size, *values.shape[1:]])

    parts = {name: cut(values) for name, values in batch.items()}

    def add(number: Any, *totals: Any) -> tuple[Any, ...]:
        gradients, sums = gradients_and_sums({name: values[number] for name, values in parts.items()})
        return number + 1, *(total + more for total, more in zip(totals, [*gradients, sums], strict=True))

    nothing = [tf.zeros(variable.shape, variable.dtype) for variable in variables]
    # Not unrolled: TensorFlow would take all parts at once, with the memory of all.
    _, *gradients, sums = tf.while_loop(
        lambda number, *totals: number < count, add, [0, *nothing, tf.zeros([3])], parallel_iterations=1
    )
    return gradients, sums


def _clipped(gradients: list[Any], longest: float) -> list[Any]:
    """A replica's gradients by the factor that shortens their sum over all replicas to `longest`."""
    context = tf.distribute.get_replica_context()
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
    factor = tf.minimum(1.0, longest / tf.maximum(tf.linalg.global_norm(total), 1e-20))
    return [gradient * factor for gradient in gradients]


def _all_finite(variables: list[Any]) -> Any:
    """1.0 if every number is finite, else 0.0. For 30 million weights and two slots each, 22 ms on two CPU cores."""
    values = [tf.convert_to_tensor(variable) for variable in variables]
    checks = [tf.reduce_all(tf.math.is_finite(value)) for value in values if value.dtype.is_floating]
    return tf.cast(tf.reduce_all(tf.stack(checks)), tf.float32)
