"""The cut into folds: whole groups, each tested once, every fold alike."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_pipeline.cli import RequestError
from data_pipeline.fold_split import split_into_folds
from data_pipeline.manifest import SPLITS
from data_pipeline.splits import TEST, TRAIN, VALIDATION
from tests.data_pipeline.test_splits import names, one_class_each

# Groups of several diagnoses among them, and diagnoses of few groups or none.
counted = st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any), min_size=12, max_size=60).map(
    lambda rows: np.array(rows, dtype=np.int64)
)
many_groups = st.lists(st.lists(st.integers(1, 20), min_size=20, max_size=40), min_size=2, max_size=6)


def cut(counts: NDArray[np.int64], *, folds: int = 5, validation: float = 0.15, seed: int = 0) -> NDArray[np.int64]:
    return split_into_folds(counts, names(len(counts)), folds=folds, validation_fraction=validation, seed=seed)


@settings(max_examples=60, deadline=None)
@given(counted, st.integers(2, 6), st.integers(0, 99))
def test_each_group_is_tested_in_exactly_one_fold_and_no_split_of_a_fold_is_empty(
    counts: NDArray[np.int64], folds: int, seed: int
) -> None:
    splits = cut(counts, folds=folds, seed=seed)
    assert splits.shape == (folds, len(counts))
    assert ((splits == TEST).sum(axis=0) == 1).all()
    for assignment in splits:
        assert set(assignment.tolist()) == {TRAIN, VALIDATION, TEST}


@settings(max_examples=40, deadline=None)
@given(many_groups, st.integers(2, 6), st.integers(0, 99))
def test_each_fold_has_its_share_of_every_diagnosis_in_every_split(
    sizes: list[list[int]], folds: int, seed: int
) -> None:
    counts = one_class_each(sizes)
    splits = cut(counts, folds=folds, validation=0.2, seed=seed)
    largest = counts.max(axis=0)
    for assignment in splits:
        held = np.stack([counts[assignment == split].sum(axis=0) for split in range(len(SPLITS))])
        rest = counts.sum(axis=0) - held[TEST]
        for found, wanted in ((held[TEST], counts.sum(axis=0) / folds), (held[VALIDATION], 0.2 * rest)):
            assert (np.abs(found - wanted) <= np.maximum(0.02 * counts.sum(axis=0), largest)).all()


@settings(max_examples=25, deadline=None)
@given(counted, st.integers(2, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_groups_plays_no_part(counts: NDArray[np.int64], folds: int, random: Random) -> None:
    plain = cut(counts, folds=folds)
    order = list(range(len(counts)))
    random.shuffle(order)
    again = split_into_folds(
        counts[order], [f"group {at}" for at in order], folds=folds, validation_fraction=0.15, seed=0
    )
    assert (plain[:, order] == again).all()


def test_another_seed_gives_other_folds_and_the_same_seed_the_same() -> None:
    counts = one_class_each([[1] * 50, [1] * 50])
    assert (cut(counts, seed=1) == cut(counts, seed=1)).all()
    assert ((cut(counts, seed=1) == TEST) != (cut(counts, seed=2) == TEST)).any()


def test_what_is_tested_depends_on_no_validation_fraction() -> None:
    counts = one_class_each([[3, 1, 4, 1, 5] * 5, [2, 7, 1] * 9, [8, 8, 8]])
    assert ((cut(counts) == TEST) == (cut(counts, validation=0.5) == TEST)).all()


def test_each_fold_draws_groups_of_its_own_for_validation() -> None:
    """Drawn once, the same few groups would decide in nearly every fold when training stops."""
    splits = cut(one_class_each([[1] * 100, [1] * 100]))
    times = (splits == VALIDATION).sum(axis=0)
    assert times.sum() == 5 * 24
    assert (times > 0).sum() > 80
    assert times.max() < 5


def test_folds_have_groups_even_if_no_diagnosis_has_enough_for_each() -> None:
    splits = cut(one_class_each([[1, 1]] * 6), folds=5)
    assert sorted((splits == TEST).sum(axis=1).tolist()) == [2, 2, 2, 3, 3]


def test_a_diagnosis_of_one_group_is_tested_once_and_trained_on_in_the_other_folds() -> None:
    splits = cut(one_class_each([[1], [1] * 30, [2] * 20]))
    assert sorted(splits[:, 0].tolist()) == [TRAIN] * 4 + [TEST]


def test_as_many_folds_as_groups_leave_one_group_out_each() -> None:
    splits = cut(one_class_each([[3, 1, 4], [1, 5, 9]]), folds=6)
    assert ((splits == TEST).sum(axis=1) == 1).all()


@pytest.mark.parametrize(("groups", "remedy"), [(3, "--folds=3 or less"), (1, "more slides"), (0, "more slides")])
def test_fewer_groups_than_folds_are_refused(groups: int, remedy: str) -> None:
    with pytest.raises(RequestError, match=rf"--folds.*number of groups.*{groups}\. Received: 5.*{remedy}"):
        cut(np.ones((groups, 2), dtype=np.int64))


def test_a_fold_that_nothing_could_be_trained_on_is_refused() -> None:
    with pytest.raises(RequestError, match="Fold 1 of 2 would have no validation images: 2 groups are too few"):
        cut(one_class_each([[5], [5]]), folds=2)
