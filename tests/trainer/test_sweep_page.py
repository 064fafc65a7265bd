"""What is made of a sweep's outcomes: table, flags of the best trial, and a page that a real browser shows whole."""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.trainer.browser import Browser, needs_chromium
from tests.trainer.made_sweeps import NASTY, failed_of, halving, made, outcome_of, rows_with
from tests.trainer.test_report_page import CONTRASTS, LOOKS, SIZES, UNREACHABLE
from trainer.plots_sweep import so_far
from trainer.sweep_page import render
from trainer.sweep_request import Sweep, TrialRun
from trainer.sweep_results import Row, as_csv, as_good, best_flags, best_of, ranked, table

# ── Rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_best_trial_is_the_one_with_the_best_validation_score_whatever_failed() -> None:
    sweep = made()
    rows = rows_with(sweep, failed=(3, 9), waiting=(19,))
    best = best_of(sweep, rows)
    assert best is not None
    assert best.scores["balanced_accuracy"] == max(row.scores["balanced_accuracy"] for row in rows if row.scores)
    order = ranked(sweep, rows)
    assert order[0] is best
    assert [row.state for row in order[-3:]] == ["failed", "failed", "waiting"]
    assert len(order) == sweep.trials
    assert best_of(sweep, rows_with(sweep, failed=tuple(range(20)))) is None


def test_a_loss_that_is_monitored_is_better_when_it_is_lower() -> None:
    sweep = made(monitor="loss")
    rows = rows_with(sweep)
    best = best_of(sweep, rows)
    assert best is not None
    assert best.scores["log_loss"] == min(row.scores["log_loss"] for row in rows)


def test_of_equal_scores_the_lower_loss_is_better_and_then_the_trial_drawn_first() -> None:
    sweep = made(trials=3)
    rows = [_scored(sweep, trial, 0.5, loss) for trial, loss in ((0, 0.9), (1, 0.8), (2, 0.8))]
    assert [row.run.trial for row in ranked(sweep, rows)] == [1, 2, 0]


def test_halving_goes_on_with_the_best_and_names_one_that_had_all_epochs() -> None:
    sweep = halving(27)
    rows = rows_with(sweep, failed=(13, 19))
    assert [sum(row.rung == rung for row in rows) for rung in range(3)] == [27, 9, 3]
    for rung in (1, 2):
        before = [row for row in ranked(sweep, rows) if row.rung == rung - 1]
        kept = sorted(row.run.trial for row in rows if row.rung == rung)
        assert kept == sorted(row.run.trial for row in before[: len(kept)])
        assert not {13, 19} & set(kept)
    best = best_of(sweep, rows)
    assert best is not None
    assert best.run.epochs == 30


def test_a_trial_that_was_cut_short_is_never_the_best_however_lucky() -> None:
    sweep = halving(27)
    first, *others = rows_with(sweep)
    rows = [_scored(sweep, first.run.trial, 0.99, 0.01), *others]
    best = best_of(sweep, rows)
    assert best is not None
    assert (best.run.epochs, ranked(sweep, rows)[0]) == (30, best)


def test_halving_waits_for_a_whole_rung() -> None:
    sweep = halving(27)
    assert {row.rung for row in rows_with(sweep, waiting=(5,))} == {0}


def test_halving_goes_on_with_fewer_if_fewer_are_left() -> None:
    sweep = halving(27)
    rows = rows_with(sweep, failed=tuple(range(2, 27)))
    assert [row.run.trial for row in rows if row.rung == 1] == [0, 1]
    assert {row.rung for row in rows_with(sweep, failed=tuple(range(27)))} == {0}


def test_trials_within_the_interval_of_the_best_are_as_good() -> None:
    sweep = made()
    rows = rows_with(sweep)
    best = best_of(sweep, rows)
    assert best is not None
    score = best.scores["balanced_accuracy"]
    close = [row for row in rows if row is not best and row.scores["balanced_accuracy"] >= score - 0.05]
    assert as_good(sweep, rows) == close
    assert 0 < len(close) < 19


def test_the_table_of_a_file_has_every_trial_with_all_its_digits() -> None:
    sweep = made()
    rows = rows_with(sweep, failed=(3,), waiting=(4,))
    read = list(csv.DictReader(io.StringIO(as_csv(sweep, rows).decode())))
    assert [row["trial"] for row in read] == [str(trial) for trial in range(20)]
    for row in read:
        assert {name: row[name] for name in sweep.values(0)} == sweep.values(int(row["trial"]))
    assert float(read[0]["balanced_accuracy"]) == rows[0].scores["balanced_accuracy"]
    assert (read[0]["seconds"], read[0]["state"], read[0]["run"]) == ("375.0", "done", "sweep-1f3a9c02-0000-e30")
    assert (read[3]["accuracy"], read[3]["state"]) == ("", "failed")
    assert NASTY in read[3]["error"]
    assert read[4]["state"] == "waiting"
    assert not any("test" in name for name in read[0])


def test_epochs_that_are_searched_have_one_column_and_their_own_run() -> None:
    sweep = made("epochs:integer:10:60", "shift:uniform:0:1", trials=5)
    read = list(csv.DictReader(io.StringIO(as_csv(sweep, rows_with(sweep)).decode())))
    assert list(read[0])[:3] == ["trial", "shift", "epochs"]
    for trial, row in enumerate(read):
        assert row["epochs"] == sweep.values(trial)["epochs"]
        assert row["run"] == f"sweep-1f3a9c02-{trial:04d}-e{row['epochs']}"
        assert f"--epochs={row['epochs']}" in sweep.flags(TrialRun(trial, int(row["epochs"])))


def test_a_terminal_shows_the_best_first_in_columns_that_line_up() -> None:
    sweep = made()
    rows = rows_with(sweep, failed=(3,))
    head, *lines, note = table(sweep, rows).splitlines()
    assert [int(line.split()[0]) for line in lines] == [row.run.trial for row in ranked(sweep, rows)]
    assert lines[-1].endswith("failed")
    assert len({line.index("%") for line in lines[:-1]}) == 1
    assert head.split()[:2] == ["trial", "batch_size"]
    assert note == "Scores are of the validation split."


def test_an_outcome_is_a_line() -> None:
    sweep = made()
    run = TrialRun(7, 30)
    assert outcome_of(sweep, run).words(sweep.score) == "ended with balanced_accuracy 0.766 on the validation split"
    assert "failed with exit code 2: Training has diverged" in failed_of(sweep, run).words(sweep.score)


def test_the_flags_of_the_best_trial_are_its_own_without_the_name_of_its_run() -> None:
    sweep = made()
    best = best_of(sweep, rows_with(sweep))
    assert best is not None
    lines = best_flags(sweep, best).decode().splitlines()
    flags = [line for line in lines if not line.startswith("#")]
    assert [*flags, f"--run={sweep.run_name(best.run)}"] == sweep.flags(best.run)
    assert f"--run={sweep.run_name(best.run)}" in lines[1]


def _scored(sweep: Sweep, trial: int, score: float, loss: float) -> Row:
    run = sweep.run(trial, sweep.rungs[0])
    scores = {"balanced_accuracy": score, "accuracy": score, "macro_f1": score, "log_loss": loss}
    return Row(run, 0, sweep.values(trial), replace(outcome_of(sweep, run), scores=scores))


# ── The page ─────────────────────────────────────────────────────────────────────────────────────────────────────────

MODELS = "model:choice:seed,seed_pooled,a_name_that_is_much_longer_than_its_place,<i>x</i>,last"
PAGES = {
    "random": lambda: (made(), {"failed": (3, 9), "waiting": (19,)}),
    "halving": lambda: (halving(27), {"failed": (3,)}),
    "loss": lambda: (made(MODELS, "learning_rate:log:0.002:0.008", trials=12, monitor="loss"), {}),
    "one": lambda: (made(trials=1), {}),
    "all_failed": lambda: (made(trials=2), {"failed": (0, 1)}),
}


def _text(name: str) -> str:
    sweep, about = PAGES[name]()
    return render(sweep, rows_with(sweep, **about))


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_the_same_each_time_and_everything_from_outside_is_escaped(name: str) -> None:
    text = _text(name)
    assert text == _text(name)
    assert "<script" not in text
    assert NASTY not in text
    assert "<i>" not in text
    assert not re.search(r"\bnan%|None|Undefined", text)
    assert 'src="http' not in text
    assert (NASTY.replace("<", "&lt;").replace(">", "&gt;").replace(" & ", " &amp; ") in text) == ("failed" in text)


def test_the_page_shows_a_figure_for_each_flag_and_the_best_so_far() -> None:
    assert _text("random").count("<svg") == 5
    assert _text("one").count("<svg") == 4
    assert _text("all_failed").count("<svg") == 0
    assert "No trial is done." in _text("all_failed")
    assert "27 trials for 4 epochs, then 9 trials for 10 epochs, then 3 trials for 30 epochs" in _text("halving")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.mark.parametrize("spread", [0.0, 0.003, 0.01, 0.04, 0.3])
@pytest.mark.parametrize("best", [0.3, 1.0])
def test_an_axis_of_percentages_has_labels_that_differ_and_none_beyond_what_there_is(
    best: float, spread: float
) -> None:
    sweep = made(trials=3)
    figure = so_far(sweep, [_scored(sweep, trial, best - trial * spread / 2, 0.5) for trial in range(3)])
    assert figure is not None
    shown = re.findall(r">([-−]?[\d.]+)%<", figure.svg)
    assert len(shown) == len(set(shown)) > 1
    assert all(0 <= float(text.replace("−", "-")) <= 100 for text in shown)


@needs_chromium
@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", ["halving", "loss"])
def test_the_page_is_whole_in_every_light_and_at_every_width(
    browser: Browser, tmp_path: Path, name: str, look: str
) -> None:
    page = tmp_path / "sweep.html"
    page.write_text(_text(name), encoding="utf-8")
    width_px, dark = LOOKS[look]
    browser.open(page, width_px=width_px, dark=dark)
    assert browser.failures == []
    assert browser.requests == [page.as_uri()]
    assert min((min(size) for size in browser.evaluate(SIZES)), default=100) > 40
    assert browser.evaluate("document.documentElement.scrollWidth") == width_px
    assert [(round(ratio, 2), words) for ratio, words in browser.evaluate(CONTRASTS) if ratio < 4.5] == []
    assert browser.evaluate(UNREACHABLE) == []
