"""`predictions.csv` of a run: gives back every bit, and takes nothing that isn't what a run wrote."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.cli import RequestError
from tests.trainer.simulated import simulate
from trainer.metrics import Predictions
from trainer.predictions_file import PREDICTIONS, read_predictions, write_predictions

CLASSES = ("benign", 'odd, "quoted"\nname', "split")
ODD = (
    "a,b.png",
    'q"uote.png',
    "new\nline.png",
    "Ümlaut 日本.png",
    "bytes \udcff.png",
    "",
    " spaces ",
    "=1+1",
    "\r.png",
)


def same(a: Predictions, b: Predictions) -> bool:
    return (a.ids, a.groups) == (b.ids, b.groups) and all(
        one.dtype == other.dtype and np.array_equal(one, other)
        for one, other in ((a.labels, b.labels), (a.probabilities, b.probabilities))
    )


@pytest.fixture
def splits() -> tuple[Predictions, Predictions]:
    random = np.random.default_rng(0)
    test = simulate(random, n=200, classes=3, groups=9, skill=9.0)
    odd = replace(test, ids=ODD + test.ids[len(ODD) :], groups=ODD[::-1] + test.groups[len(ODD) :])
    return simulate(random, n=50, classes=3, groups=5), odd


def test_every_prediction_comes_back_bit_for_bit(tmp_path: Path, splits: tuple[Predictions, Predictions]) -> None:
    validation, test = splits
    assert write_predictions(tmp_path, CLASSES, validation=validation, test=test) == tmp_path / PREDICTIONS
    stored = read_predictions(tmp_path)
    assert stored.classes == CLASSES
    assert same(stored.validation, validation)
    assert same(stored.test, test)


def test_equal_predictions_give_equal_bytes(tmp_path: Path, splits: tuple[Predictions, Predictions]) -> None:
    validation, test = splits
    files = [write_predictions(tmp_path / name, CLASSES, validation=validation, test=test) for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_dataset_may_have_no_validation(tmp_path: Path, splits: tuple[Predictions, Predictions]) -> None:
    write_predictions(tmp_path, CLASSES, validation=None, test=splits[1])
    stored = read_predictions(tmp_path)
    assert stored.validation.ids == ()
    assert stored.validation.probabilities.shape == (0, 3)
    assert same(stored.test, splits[1])


HEADER = "split,id,group,label,p:a,p:b"
GOOD = "test,1.png,s,a,0.25,0.75"


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "first line should be split,id,group,label and a column p:CLASS"),
        (["split,id,label,group,p:a,p:b", GOOD], "first line should be"),
        (["split,id,group,label"], "first line should be"),
        (["split,id,group,label,p:a,p:a", GOOD], "first line should be"),
        (["split,id,group,label,a,b", GOOD], "first line should be"),
        ([HEADER], "no row of the test split"),
        ([HEADER, GOOD.replace("test", "validation")], "no row of the test split"),
        ([HEADER, GOOD, "test,2.png,s,a,0.25"], "line 3 has 5 columns of 6"),
        ([HEADER, GOOD.replace("test", "train")], "line 2 is of the split 'train'"),
        ([HEADER, GOOD.replace(",a,", ",c,")], "line 2 has the label 'c'"),
        ([HEADER, GOOD, GOOD], "'1.png' more than once"),
        ([HEADER, GOOD.replace("0.25", "a quarter")], "no number"),
        ([HEADER, GOOD.replace("0.25", "nan")], "'1.png' aren't from 0 to 1 with a sum of 1"),
        ([HEADER, GOOD.replace("0.25", "0.35")], "with a sum of 1"),
        ([HEADER, "test,1.png,s,a,-0.5,1.5"], "from 0 to 1"),
        ([HEADER, 'test,"1.png,s,a,0.25,0.75'], "unexpected end of data"),
    ],
)
def test_anything_else_is_refused_by_name_and_with_a_remedy(tmp_path: Path, lines: list[str], why: str) -> None:
    path = tmp_path / PREDICTIONS
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(RequestError) as refused:
        read_predictions(tmp_path)
    assert str(path) in str(refused.value)
    assert why in str(refused.value)
    assert "To fix it" in str(refused.value)


@pytest.mark.parametrize("prepare", [Path.touch, Path.mkdir, lambda path: None])
def test_no_file_at_all_is_refused_too(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    prepare(tmp_path / PREDICTIONS)
    with pytest.raises(RequestError, match="To fix it"):
        read_predictions(tmp_path)
