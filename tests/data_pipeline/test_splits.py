"""The split of groups: whole, balanced, stable."""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from data_pipeline.splits import TEST, TRAIN, VALIDATION, Fold, Fractions, split_groups


def one_class_each(sizes: list[list[int]]) -> np.ndarray:
    """Counts `[groups, classes]` for groups of one class each: `sizes[c]` are the sizes of class c's groups."""
    rows = []
    for label, groups in enumerate(sizes):
        for size in groups:
            row = [0] * len(sizes)
            row[label] = size
            rows.append(row)
    return np.array(rows, dtype=np.int64)


def names(count: int) -> list[str]:
    return [f"group {i}" for i in range(count)]


group_sizes = st.lists(st.lists(st.integers(1, 20), min_size=20, max_size=40), min_size=2, max_size=6)


@settings(max_examples=60, deadline=None)
@given(group_sizes, st.integers(0, 1000))
def test_each_diagnosis_keeps_its_fractions_as_closely_as_its_groups_allow(sizes: list[list[int]], seed: int) -> None:
    counts = one_class_each(sizes)
    fractions = Fractions()
    assignment = split_groups(counts, names(len(counts)), fractions=fractions, seed=seed)
    held = np.stack([counts[assignment == split].sum(axis=0) for split in (TRAIN, VALIDATION, TEST)])
    off = np.abs(held / counts.sum(axis=0) - fractions.of_all()[:, None])
    # Of three parts of a whole number, rounded so that they add up, one may be off by two thirds (21 groups: 13, 5, 3).
    most = counts.max(axis=0) / counts.sum(axis=0) * 2 / 3
    assert (off <= np.maximum(0.01, most) + 1e-9).all()


skewed = st.builds(
    lambda small, large: small + [max(1, int(1.6**x)) for x in large],
    st.lists(st.integers(1, 4), min_size=17, max_size=30),
    st.lists(st.integers(1, 7), min_size=3, max_size=8),
)


@settings(max_examples=60, deadline=None)
@example([[1] * 20, [1] * 17 + [10] * 3], 0)  # a large group must leave its part for many small ones
@given(st.lists(skewed, min_size=2, max_size=6), st.integers(0, 1000))
def test_with_twenty_groups_a_diagnosis_is_within_two_points_of_its_fractions(
    sizes: list[list[int]], seed: int
) -> None:
    """However different in size its groups are, as long as none is a third of the diagnosis."""
    assume(all(max(groups) < sum(groups) / 3 for groups in sizes))
    counts = one_class_each(sizes)
    assignment = split_groups(counts, names(len(counts)), fractions=Fractions(), seed=seed)
    held = np.stack([counts[assignment == split].sum(axis=0) for split in (TRAIN, VALIDATION, TEST)])
    off = np.abs(held / counts.sum(axis=0) - Fractions().of_all()[:, None])
    assert (off <= np.maximum(0.02, 1 / counts.sum(axis=0))).all()


def test_a_given_test_split_is_left_as_it_is() -> None:
    counts = one_class_each([[1] * 40, [1] * 40])
    test = np.arange(80) % 10 == 0
    assignment = split_groups(counts, names(80), fractions=Fractions(), seed=0, test=test)
    assert ((assignment == TEST) == test).all()
    assert (assignment == VALIDATION).sum() == 22


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=8), min_size=2, max_size=5), st.integers(0, 99))
def test_a_diagnosis_of_three_groups_is_in_every_split(sizes: list[list[int]], seed: int) -> None:
    counts = one_class_each(sizes)
    assignment = split_groups(counts, names(len(counts)), fractions=Fractions(), seed=seed)
    for split in (TRAIN, VALIDATION, TEST):
        assert (counts[assignment == split].sum(axis=0) > 0).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99))
def test_few_groups_serve_training_first_then_testing(seed: int) -> None:
    counts = one_class_each([[5], [5, 5], [1] * 30])
    assignment = split_groups(counts, names(len(counts)), fractions=Fractions(), seed=seed)
    assert assignment[0] == TRAIN
    assert sorted(assignment[1:3]) == [TRAIN, TEST]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.randoms())
def test_the_order_of_the_groups_plays_no_part(seed: int, random) -> None:
    counts = one_class_each([[3, 1, 4, 1, 5, 9, 2, 6] * 4, [2, 7, 1, 8] * 6])
    plain = split_groups(counts, names(len(counts)), fractions=Fractions(), seed=seed)
    order = list(range(len(counts)))
    random.shuffle(order)
    shuffled = split_groups(counts[order], [f"group {i}" for i in order], fractions=Fractions(), seed=seed)
    assert (plain[order] == shuffled).all()


def test_an_added_group_leaves_other_diagnoses_as_they_were() -> None:
    sizes = [[1] * 200, [1] * 200]
    counts = one_class_each(sizes)
    before = split_groups(counts, names(400), fractions=Fractions(), seed=1)
    more = np.concatenate([counts, [[1, 0]]])
    after = split_groups(more, [*names(400), "new"], fractions=Fractions(), seed=1)[:400]
    assert (before[200:] == after[200:]).all()
    assert (before[:200] != after[:200]).sum() <= 2


def test_a_fraction_of_zero_leaves_the_split_empty() -> None:
    counts = one_class_each([[1] * 10, [1] * 10])
    assignment = split_groups(counts, names(20), fractions=Fractions(test=0.3, validation=0), seed=0)
    assert not (assignment == VALIDATION).any()
    assert (assignment == TEST).sum() == 6


def test_groups_of_several_diagnoses_stay_whole_and_balanced() -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (300, 7))
    counts[:, 0] += 1
    assignment = split_groups(counts, names(300), fractions=Fractions(), seed=0)
    shares = np.stack([counts[assignment == s].sum(axis=0) for s in range(3)]) / counts.sum(axis=0)
    assert np.abs(shares - Fractions().of_all()[:, None]).max() <= 0.02


@settings(max_examples=30, deadline=None)
@given(group_sizes, st.integers(0, 99), st.integers(2, 6))
def test_folds_cut_all_but_the_test_split_and_leave_that_alone(sizes: list[list[int]], seed: int, folds: int) -> None:
    counts = one_class_each(sizes)
    plain = split_groups(counts, names(len(counts)), fractions=Fractions(), seed=seed)
    validated = np.zeros(len(counts), dtype=int)
    for number in range(folds):
        one = split_groups(
            counts, names(len(counts)), fractions=Fractions(), seed=seed, fold=Fold(of=folds, number=number)
        )
        assert ((one == TEST) == (plain == TEST)).all()
        inside = counts[one == VALIDATION].sum(axis=0) / counts[one != TEST].sum(axis=0)
        # Folds of a whole number of groups have one more or one less.
        most = counts.max(axis=0) / counts[one != TEST].sum(axis=0) * (1 - 1 / folds)
        assert (np.abs(inside - 1 / folds) <= np.maximum(0.01, most) + 1e-9).all()
        validated += one == VALIDATION
    assert (validated == (plain != TEST)).all()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([0.0, 0.1, 0.5, 0.8]), st.integers(0, 99))
def test_the_test_split_depends_on_no_validation_fraction(validation: float, seed: int) -> None:
    counts = one_class_each([[3, 1, 4, 1, 5] * 5, [2, 7, 1] * 9, [8, 8, 8]])
    plain = split_groups(counts, names(len(counts)), fractions=Fractions(), seed=seed)
    other = split_groups(counts, names(len(counts)), fractions=Fractions(validation=validation), seed=seed)
    assert ((plain == TEST) == (other == TEST)).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_another_seed_gives_another_split(seed: int) -> None:
    counts = one_class_each([[1] * 50, [1] * 50])
    one = split_groups(counts, names(100), fractions=Fractions(), seed=seed)
    other = split_groups(counts, names(100), fractions=Fractions(), seed=seed + 1)
    assert (one != other).any()
