"""What a sweep tries is a function of (space, seed, trial) within what was asked for; halving keeps the best."""

import math
import re
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from data_pipeline.cli import RequestError
from trainer.sweep_space import MAX_TABLE, different_trials, parse_space, promoted, rungs, values_of

GOLDEN = [
    {"batch_size": "32", "epochs": "31", "learning_rate": "0.0001822", "shift": "0.0586"},
    {"batch_size": "32", "epochs": "31", "learning_rate": "0.000129", "shift": "0.1356"},
    {"batch_size": "16", "epochs": "11", "learning_rate": "0.001554", "shift": "0.0279"},
]
DEALT = [  # batch_size, model
    ["32", "seed_pooled"],
    ["32", "seed"],
    ["16", "seed"],
    ["64", "seed_pooled"],
    ["64", "seed"],
    ["16", "seed_pooled"],
]
SEEDS = st.integers(0, 2**32 - 1)
TRIALS = st.integers(0, 9999)
NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)
POSITIVE = st.floats(1e-12, 1e12)


def _two(numbers: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[float, float]]:
    pairs = st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair)))
    return pairs.filter(lambda pair: pair[1] - pair[0] > 1e-9 * max(map(abs, pair)) > 0)


@given(_two(NUMBERS), SEEDS, TRIALS)
def test_a_uniform_value_lies_in_its_range(ends: tuple[float, float], seed: int, trial: int) -> None:
    space = parse_space([f"shift:uniform:{ends[0]!r}:{ends[1]!r}"])
    assert ends[0] <= float(values_of(space, seed=seed, trial=trial)["shift"]) <= ends[1]


@given(_two(POSITIVE), SEEDS, TRIALS)
@example((0.123456, 0.123457), 0, 0)  # both are 0.1235 if rounded
def test_a_logarithmic_value_lies_in_its_range_and_is_short(ends: tuple[float, float], seed: int, trial: int) -> None:
    space = parse_space([f"learning_rate:log:{ends[0]!r}:{ends[1]!r}"])
    text = values_of(space, seed=seed, trial=trial)["learning_rate"]
    assert ends[0] <= float(text) <= ends[1]
    assert float(text) in (*ends, float(f"{float(text):.4g}"))


@given(st.integers(-1000, 1000), st.integers(1, 10**9), SEEDS, TRIALS)
def test_an_integer_is_one_in_its_range(low: int, more: int, seed: int, trial: int) -> None:
    space = parse_space([f"freeze_epochs:integer:{low}:{low + more}"])
    assert low <= int(values_of(space, seed=seed, trial=trial)["freeze_epochs"]) <= low + more


@given(st.lists(st.text("abc.0/", min_size=1), min_size=2, unique=True), SEEDS, TRIALS)
def test_a_choice_is_one_of_those_named(choices: list[str], seed: int, trial: int) -> None:
    space = parse_space([f"model:choice:{','.join(choices)}"])
    assert values_of(space, seed=seed, trial=trial)["model"] in choices


@given(SEEDS, TRIALS)
def test_a_trial_is_the_same_in_whatever_order_and_beside_whichever_other_ranges(seed: int, trial: int) -> None:
    entries = ["learning_rate:log:1e-4:1e-2", "batch_size:choice:16,32,64", "shift:uniform:0:1"]
    values = values_of(parse_space(entries), seed=seed, trial=trial)
    assert values_of(parse_space(entries[::-1]), seed=seed, trial=trial) == values
    assert values_of(parse_space(entries[:1]), seed=seed, trial=trial) == {"learning_rate": values["learning_rate"]}


def test_trials_are_those_they_were_on_every_machine_and_in_every_version() -> None:
    """Runs are resumed by them, so they may never change."""
    entries = ["learning_rate:log:1e-4:1e-2", "batch_size:choice:16,32", "shift:uniform:0:0.2", "epochs:integer:5:60"]
    drawn = [values_of(parse_space(entries), seed=7, trial=trial) for trial in (0, 1, 9999)]
    assert drawn == GOLDEN
    dealt = parse_space(["model:choice:seed,seed_pooled", "batch_size:choice:16,32,64"])
    assert [list(values_of(dealt, seed=7, trial=trial).values()) for trial in range(6)] == DEALT


def test_numbers_are_spread_evenly_over_their_range() -> None:
    space = parse_space(["learning_rate:log:1e-4:1", "shift:uniform:0:4", "batch_size:choice:1,2,3,4"])
    drawn = [values_of(space, seed=0, trial=trial) for trial in range(4000)]
    for quarters in (
        Counter(math.floor(math.log10(float(values["learning_rate"]))) for values in drawn),
        Counter(math.floor(float(values["shift"])) for values in drawn if values["shift"] != "4.0"),
        Counter(values["batch_size"] for values in drawn),
    ):
        assert len(quarters) == 4
        assert all(abs(count - 1000) < 4 * math.sqrt(750) for count in quarters.values()), quarters


def test_trials_differ_with_the_seed_and_flags_are_drawn_apart_from_each_other() -> None:
    space = parse_space(["shift:uniform:0:9", "zoom:uniform:0:9"])
    drawn = [values_of(space, seed=seed, trial=trial) for seed in range(10) for trial in range(50)]
    assert len({values["shift"] for values in drawn}) > 450
    same = sum(abs(float(values["shift"]) - float(values["zoom"])) < 0.9 for values in drawn)
    assert same < 150  # a fifth of 500 by chance, and all if they were drawn alike


@given(st.lists(st.integers(2, 7), min_size=1, max_size=4), SEEDS)
def test_few_combinations_are_dealt_out_without_repeating_one(sizes: list[int], seed: int) -> None:
    entries = [f"f{place}:choice:{','.join(map(str, range(size)))}" for place, size in enumerate(sizes)]
    space = parse_space(entries)
    count = different_trials(space)
    assert count == math.prod(sizes)
    drawn = {tuple(values_of(space, seed=seed, trial=trial).items()) for trial in range(count)}
    assert len(drawn) == count


def test_many_combinations_are_drawn_and_of_numbers_there_is_no_end() -> None:
    many = parse_space([f"f{place}:integer:0:{MAX_TABLE}" for place in range(2)])
    assert different_trials(many) == (MAX_TABLE + 1) ** 2
    assert 0 <= int(values_of(many, seed=0, trial=3)["f0"]) <= MAX_TABLE
    assert different_trials(parse_space(["a:choice:1,2", "b:log:1:2"])) is None


@given(st.integers(1, 500), st.integers(1, 200), st.integers(2, 10), st.integers(1, 20))
def test_each_rung_has_fewer_trials_and_more_epochs_up_to_all(
    trials: int, epochs: int, eta: int, min_epochs: int
) -> None:
    steps = rungs(trials, epochs=epochs, eta=eta, min_epochs=min_epochs)
    assert (steps[0].trials, steps[-1].epochs) == (trials, epochs)
    assert all(step.trials >= 1 for step in steps)
    assert all(step.epochs >= min(min_epochs, epochs) for step in steps)
    for before, after in pairwise(steps):
        assert after.trials == before.trials // eta or abs(after.trials - before.trials / eta) < 1
        assert before.epochs < after.epochs <= before.epochs * eta
    # One rung more would leave no trial, or too few epochs.
    assert trials < eta ** len(steps) or epochs < min_epochs * eta ** len(steps)


def test_halving_is_that_of_the_paper() -> None:
    """Table 1 of Li et al. 2018: the bracket of 81 configurations, R = 81, η = 3."""
    steps = rungs(81, epochs=81, eta=3, min_epochs=1)
    assert [(step.trials, step.epochs) for step in steps] == [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)]


@given(st.dictionaries(TRIALS, st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=30), st.integers(1, 10))
def test_no_trial_that_is_left_behind_is_better_than_one_that_goes_on(
    merits: dict[int, tuple[float, float]], count: int
) -> None:
    kept = promoted(merits, count)
    assert len(kept) == min(count, len(merits))
    assert kept == sorted(kept)
    for left in merits.keys() - set(kept):
        assert all((merits[trial], -trial) > (merits[left], -left) for trial in kept)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("", "learning_rate:log"),
        ("learning_rate", "FLAG:uniform:LOW:HIGH"),
        ("learning_rate:normal:0:1", "FLAG:uniform:LOW:HIGH"),
        (":log:1:2", "the name of a flag first"),
        ("learning_rate:log:1e-4", "two numbers"),
        ("learning_rate:log:1:2:3", "two numbers"),
        ("learning_rate:log:a:b", "two numbers"),
        ("learning_rate:log:0:1", "numbers above 0"),
        ("learning_rate:log:-1:1", "numbers above 0"),
        ("learning_rate:uniform:1:1", "the lower one first"),
        ("learning_rate:uniform:2:1", "the lower one first"),
        ("learning_rate:uniform:nan:1", "finite"),
        ("learning_rate:uniform:0:inf", "finite"),
        ("epochs:integer:0.5:3", "whole numbers"),
        ("epochs:integer:0:1e300", "whole numbers"),
        ("batch_size:choice:", "two or more different values"),
        ("batch_size:choice:16", "two or more different values"),
        ("batch_size:choice:16,16", "two or more different values"),
        ("batch_size:choice:16,,32", "two or more different values"),
    ],
)
def test_what_is_no_range_is_refused_with_a_remedy(entry: str, why: str) -> None:
    with pytest.raises(RequestError, match=f"Invalid value for `--search`.*{re.escape(why)}.*To fix it: "):
        parse_space([entry])


def test_a_flag_is_searched_once_and_something_is() -> None:
    with pytest.raises(RequestError, match=r"each flag once.*shift:uniform:0:1 and shift:choice:1,2.*To fix it: "):
        parse_space(["shift:uniform:0:1", "shift:choice:1,2"])
    with pytest.raises(RequestError, match=r"Missing: --search\. To fix it: "):
        parse_space([])


def test_a_range_says_what_it_was_made_of() -> None:
    for entry in ("a:log:0.0001:0.01", "b:choice:/x:y,z", "c:integer:-3:12345678", "d:uniform:0.123456789:1"):
        (one,) = parse_space([f"  --{entry} "])
        assert str(one) == entry
        assert parse_space([str(one)]) == (one,)
