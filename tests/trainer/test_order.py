"""Order and random numbers are pure, uniform, and say nothing about how often a job was restarted."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trainer.order import TrainOrder, epoch_order, spread
from trainer.randomness import hash64, uniform


@given(st.integers(1, 300), st.integers(1, 64), st.integers(0, 5), st.integers(1, 3))
def test_an_epoch_sees_every_record_once_in_batches(records: int, batch_size: int, seed: int, epochs: int) -> None:
    order = TrainOrder(records, batch_size, seed)
    for epoch in range(epochs):
        steps = range(epoch * order.steps_per_epoch, (epoch + 1) * order.steps_per_epoch)
        batches = [order.batch(step) for step in steps]
        assert {number for number, _ in batches} == {epoch}
        seen = np.concatenate([indices for _, indices in batches])
        assert sorted(seen.tolist()) == list(range(records))
        assert all(len(indices) == batch_size for _, indices in batches[:-1])


def test_a_step_alone_is_the_step_of_the_whole_sequence() -> None:
    order = TrainOrder(100, 7, seed=3)
    whole = [order.batch(step)[1].tolist() for step in range(200)]
    epoch_order.cache_clear()
    for step in (199, 0, 17, 101):
        assert TrainOrder(100, 7, seed=3).batch(step)[1].tolist() == whole[step]


def test_epochs_and_seeds_differ_and_are_fixed_for_ever() -> None:
    assert (epoch_order(50, 0, 0) != epoch_order(50, 0, 1)).any()
    assert (epoch_order(50, 0, 0) != epoch_order(50, 1, 0)).any()
    # A change here changes every resumed run in the world.
    assert epoch_order(10, 0, 0).tolist() == [4, 8, 0, 1, 7, 6, 2, 5, 3, 9]


def test_every_place_is_equally_likely() -> None:
    """Chi-square of (record, place) over 4,000 epochs of 8 records: 49 degrees of freedom, 99.9 % below 85.4."""
    counts = np.zeros((8, 8))
    for epoch in range(4000):
        counts[np.arange(8), epoch_order(8, 11, epoch)] += 1
    assert ((counts - 500) ** 2 / 500).sum() < 85.4


def test_uniform_numbers_are_uniform_and_independent_of_their_batch() -> None:
    numbers = uniform(5, 2, np.arange(20_000), draws=4)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert np.abs(numbers.mean(axis=0) - 0.5).max() < 0.01
    histogram = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert ((histogram - 4000) ** 2 / 4000).sum() < 43.8  # 19 degrees of freedom, 99.9 %
    assert np.abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 0.03
    assert (uniform(5, 2, np.array([123, 7]), draws=4) == numbers[[123, 7]]).all()
    assert (uniform(5, 3, np.arange(100), draws=4) != numbers[:100]).all()


def test_hash64_depends_on_every_part_and_on_their_order() -> None:
    values = {int(hash64(a, b)) for a in range(30) for b in range(30)}
    assert len(values) == 900


@given(st.integers(1, 40), st.integers(1, 8))
def test_replicas_share_a_batch_evenly_and_completely(records: int, replicas: int) -> None:
    per_replica = -(-records // replicas)
    laid_out = spread(np.arange(records), replicas=replicas, per_replica=per_replica)
    assert laid_out.shape == (replicas, per_replica)
    assert sorted(laid_out[laid_out >= 0].tolist()) == list(range(records))
    real = (laid_out >= 0).sum(axis=1)
    assert real.max() - real.min() <= 1
