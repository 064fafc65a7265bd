"""Runs compared: differences on the same images, spread over seeds, folds, a learning curve; wrong requests refused."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.cli import EXIT_REQUEST, RequestError
from tests.conftest import ROOT, run_module
from tests.trainer.made_runs import CLASSES, TEST, VALIDATION, made, part, written
from trainer.compare import output_folder
from trainer.compare_page import judge, number, render, signed, table
from trainer.comparison import METRICS, compare
from trainer.finished_runs import FinishedRun, read_runs
from trainer.metrics import compute_metrics
from trainer.predictions_file import PREDICTIONS
from trainer.run_folder import METRICS as METRICS_NAME

# ── What is found ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_worse_run_is_found_to_be_worse_and_the_first_to_be_better() -> None:
    found = compare([made("good"), made("bad", noise=4.0)])
    (difference,) = found["differences"]
    assert (difference["name"], difference["to"], difference["n"], difference["groups"]) == ("bad", "good", 240, 40)
    scores = [row["test"]["balanced_accuracy"] for row in found["runs"]]
    assert difference["balanced_accuracy"]["value"] == pytest.approx(scores[1] - scores[0])
    assert difference["balanced_accuracy"]["interval"][1] < 0
    assert difference["log_loss"]["interval"][0] > 0
    assert judge(found["differences"]).level == "no-better"
    turned = judge(compare([made("bad", noise=4.0), made("good")])["differences"])
    assert (turned.level, turned.headline) == ("better", "Better than bad on the same test images: good.")


def test_runs_that_say_the_same_are_not_told_apart() -> None:
    found = compare([made("a"), made("b"), made("c", noise=0.3)])
    assert found["differences"][0]["accuracy"] == {"value": 0.0, "interval": [0.0, 0.0]}
    assert judge(found["differences"]).level == "unclear"


def test_seeds_are_summed_up_by_mean_and_spread_and_other_settings_apart() -> None:
    seeds = [made(f"s{seed}", noise=1.0, seed=seed) for seed in range(3)]
    other = [made(f"o{seed}", noise=2.0, seed=seed, settings={"learning_rate": 0.1}) for seed in range(2)]
    alone = made("alone", settings={"learning_rate": 0.5})
    found = compare([*seeds, *other, alone])
    first, second = found["summaries"]
    assert (first["runs"], second["runs"]) == (["s0", "s1", "s2"], ["o0", "o1"])
    assert (first["label"], second["label"]) == ("learning_rate=0.001", "learning_rate=0.1")
    values = [row["test"]["accuracy"] for row in found["runs"][:3]]
    spread = first["test"]["accuracy"]
    assert (spread["mean"], spread["deviation"]) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert (spread["least"], spread["greatest"], spread["n"]) == (min(values), max(values), 3)
    assert first["pooled"] is None
    assert found["varied"] == {"learning_rate": [0.001] * 3 + [0.1] * 2 + [0.5], "seed": [0, 1, 2, 0, 1, 0]}


def test_folds_are_pooled_and_have_no_difference() -> None:
    folds = [made(f"fold{k}", dataset=f"d{k}", test=part(TEST, slice(80 * k, 80 * k + 80))) for k in range(3)]
    found = compare(folds, folds=True)
    assert [row["balanced_accuracy"] for row in found["differences"]] == [None, None]
    (summary,) = found["summaries"]
    together = compute_metrics(TEST, CLASSES)
    assert summary["pooled"]["n"] == 240
    assert all(summary["pooled"][name] == pytest.approx(together[name]) for name in METRICS)
    assert summary["pooled"]["intervals"]["accuracy"] is not None
    assert compare(folds)["summaries"] == []
    assert judge(found["differences"]).level == "unclear"
    assert "fold2" in render(found)
    shown = table(found)
    assert "− first" not in shown  # no two have an image in common
    assert re.search(rf"3 runs: .*  test .* {number('accuracy', summary['test']['accuracy']['mean'])} ± ", shown)
    assert re.search(rf"3 runs: .*  all images .* {number('accuracy', together['accuracy'])} \(", shown)


def test_folds_that_overlap_are_compared_on_what_both_tested() -> None:
    runs = [made("a", test=part(TEST, slice(0, 160))), made("b", test=part(TEST, slice(80, 240)), dataset="d2")]
    found = compare(runs, folds=True)
    assert found["differences"][0]["n"] == 80
    assert found["differences"][0]["accuracy"]["value"] == 0.0
    assert found["summaries"][0]["pooled"] is None


def test_a_learning_curve_has_a_point_for_each_run_and_a_line_for_each_kind_of_settings() -> None:
    sizes = [
        made(f"n{size}-{seed}", noise=600 / size, seed=seed, train_images=size, dataset=f"d{size}")
        for size in (500, 100, 250)
        for seed in (0, 1)
    ]
    other = made("other", settings={"learning_rate": 0.1}, train_images=250)
    (curve, single) = compare([*sizes, other])["learning_curve"]
    assert [point["images"] for point in curve["points"]] == [100, 100, 250, 250, 500, 500]
    assert (single["label"], len(single["points"])) == ("learning_rate=0.1", 1)
    assert curve["points"][0]["value"] < curve["points"][-1]["value"]
    assert compare([made("a"), made("b")])["learning_curve"] == []
    assert compare([made("a", train_images=None), made("b")])["learning_curve"] == []


def test_a_dataset_without_validation_is_no_fault() -> None:
    nothing = part(VALIDATION, slice(0, 0))
    found = compare([made("a", validation=nothing), made("b", validation=nothing, seed=1)])
    assert found["runs"][0]["validation"] is None
    assert found["summaries"][0]["validation"] is None
    assert "Validation split" not in render(found)


# ── The page ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Page(HTMLParser):
    """Tags that aren't closed in order, and addresses that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "path", "use", "br", "wbr", "img"):
            self.open.append(tag)
        self.fetched += [
            value or "" for name, value in attrs if name in ("src", "href") and not f"{value}".startswith("#")
        ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_no_network_is_well_formed_and_the_same_each_time() -> None:
    runs = [
        made("one", train_images=100),
        made("two", noise=2.0, seed=1),
        made("three <b>", noise=1.0, seed=2, settings={"organ": "a,b"}),
    ]
    text = render(compare(runs))
    parsed = _Page(text)
    assert parsed.open == []
    assert parsed.fetched == []
    assert "<script" not in text
    assert "<b>" not in re.sub(r"<td.*?</td>", "", text)
    assert text.count("<svg") == 3
    assert not re.search(r"\bnan\b|None|Undefined", text)
    assert text == render(compare(runs))


def test_one_run_is_shown_without_a_comparison() -> None:
    text = render(compare([made("alone")]))
    assert text.count("<svg") == 1
    assert 'id="differences"' not in text


def test_numbers_are_written_as_people_write_them() -> None:
    assert number("accuracy", 0.12345) == "12.3%"
    assert number("log_loss", 0.12345) == "0.123"
    assert number("accuracy", None) == "–"
    assert signed("accuracy", {"value": -0.05, "interval": [-0.1, 0.0]}) == "-5.0 (-10.0 to +0.0)"
    assert signed("ece", {"value": 0.05, "interval": None}) == "+0.050"
    assert signed("accuracy", None) == "–"


# ── The program ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_program_writes_page_and_numbers_and_says_where(tmp_path: Path) -> None:
    runs = [made("a"), made("b", noise=4.0, seed=1)]
    folders = [written(tmp_path / "runs" / run.name, run) for run in runs]
    done = run_module("trainer.compare", *folders, f"--output={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    page = tmp_path / "out" / "compare.html"
    assert done.stdout.splitlines()[-1] == f"Comparison: {page}"
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert found == json.loads(json.dumps(compare(runs)))
    assert page.read_text() == render(found)
    assert table(found) in done.stdout


def test_by_default_the_page_lies_beside_the_first_run_and_tensorflow_stays_out(tmp_path: Path) -> None:
    folder = written(tmp_path / "runs" / "a", made("a"))
    program = (
        "import os, runpy, sys\n"
        "end = os._exit\n"
        "os._exit = lambda code: end(99 if 'tensorflow' in sys.modules else code)\n"
        "runpy.run_module('trainer.compare', run_name='__main__', alter_sys=True)\n"
    )
    command = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr  # 99 if it had imported TensorFlow
    assert (tmp_path / "runs" / "compare.html").is_file()


def test_names_are_as_long_as_it_takes_to_tell_runs_apart(tmp_path: Path) -> None:
    folders = [str(written(tmp_path / lab / "cervix" / "r", made("r"))) for lab in ("x", "y")]
    assert [run.name for run in read_runs(folders, folds=False)] == ["x/cervix/r", "y/cervix/r"]
    assert [run.name for run in read_runs(folders[:1], folds=False)] == ["r"]


def _other_classes(run: FinishedRun) -> FinishedRun:
    return replace(run, classes=("benign", "atypical", "malignant"))


def _other_test(run: FinishedRun) -> FinishedRun:
    return replace(run, test=replace(TEST, ids=("other.png", *TEST.ids[1:])))


def _other_label(run: FinishedRun) -> FinishedRun:
    return replace(run, test=replace(TEST, labels=np.append((TEST.labels[0] + 1) % 3, TEST.labels[1:])))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            _other_classes,
            "a and b know different classes: benign, atypical, <malignant> and benign, atypical, malignant",
        ),
        (_other_test, "tested on different images: 239 by both, 1 only by a (00000.png), 1 only by b (other.png)"),
        (_other_label, "The test image '00000.png' is "),
    ],
)
def test_runs_that_cant_be_compared_are_refused(
    tmp_path: Path, change: Callable[[FinishedRun], FinishedRun], why: str
) -> None:
    folders = [str(written(tmp_path / run.name, run)) for run in (made("a"), change(made("b")))]
    with pytest.raises(RequestError, match=f"{re.escape(why)}.*To fix it: "):
        read_runs(folders, folds=False)


def test_folds_may_have_been_tested_on_other_images(tmp_path: Path) -> None:
    folders = [str(written(tmp_path / run.name, run)) for run in (made("a"), _other_test(made("b")))]
    assert [run.name for run in read_runs(folders, folds=True)] == ["a", "b"]


@pytest.mark.parametrize(
    ("runs", "why"),
    [
        (["{a}", "{a}"], "named twice"),
        (["{a}", "{a}/../nowhere"], "Expected the folder of a run"),
        (["{a}/config.json"], "Expected the folder of a run"),
        (["gs://bucket/runs/a"], "Received: 'gs://bucket/runs/a'"),
        (["{unfinished}"], "isn't finished: it has no metrics.json"),
        (["{old}"], "has no predictions.csv"),
        (["{cut}"], "it has 239 test images of 3 classes, metrics.json counts 240"),
        (["{torn}"], "metrics.json isn't as training left it"),
        (["{empty}"], "metrics.json isn't as training left it"),
    ],
)
def test_what_is_no_finished_run_is_refused_with_a_remedy(damaged: dict[str, Path], runs: list[str], why: str) -> None:
    with pytest.raises(RequestError, match=f"{re.escape(why)}.*To fix it: "):
        read_runs([run.format(**damaged) for run in runs], folds=False)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "Missing: RUN"),
        (["{a}", "{unfinished}"], "isn't finished"),
        (["{a}", "--output=gs://bucket"], "Invalid value for `--output`"),
    ],
)
def test_a_wrong_request_ends_with_code_2_and_a_remedy(
    damaged: dict[str, Path], arguments: list[str], why: str
) -> None:
    done = run_module("trainer.compare", *(argument.format(**damaged) for argument in arguments))
    assert done.returncode == EXIT_REQUEST, done.stderr
    assert why in done.stderr
    assert "To fix it: " in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(damaged["a"].parent.glob("compare.*"))


@pytest.mark.parametrize("value", ["gs://bucket/x", __file__])
def test_the_page_needs_a_local_folder(value: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"Invalid value for `--output`.*To fix it: "):
        output_folder(value, first=str(tmp_path))
    assert output_folder(str(tmp_path / "new"), first="elsewhere") == tmp_path / "new"


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("damaged")
    runs = {name: written(folder / name, made(name)) for name in ("a", "unfinished", "old", "cut", "torn", "empty")}
    (runs["unfinished"] / METRICS_NAME).unlink()
    (runs["old"] / PREDICTIONS).unlink()
    lines = (runs["cut"] / PREDICTIONS).read_bytes().splitlines(keepends=True)
    (runs["cut"] / PREDICTIONS).write_bytes(b"".join(lines[:-1]))
    whole = (runs["torn"] / METRICS_NAME).read_text()
    (runs["torn"] / METRICS_NAME).write_text(whole[: len(whole) // 2])
    (runs["empty"] / METRICS_NAME).write_text("{}")
    return runs
