"""What a run said about each image of validation and test, for whoever wants to compare or to count again.

    write_predictions(folder, manifest.classes, validation=validation, test=test)
    stored = read_predictions(folder)            # stored.classes, stored.validation, stored.test

`predictions.csv` has the columns split, id, group, label and one for each class, `p:` and its name. Nine digits give
every float32 back. Rows are in the order of the records, so equal predictions give equal bytes.
"""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.cli import RequestError
from data_pipeline.storage import write_atomic
from trainer.metrics import Predictions

PREDICTIONS = "predictions.csv"
VALIDATION, TEST = SPLITS = ("validation", "test")
_FIXED = ("split", "id", "group", "label")
_PREFIX = "p:"
SUM_TOLERANCE = 1e-3
ROUNDING = 1e-6  # a softmax in float32 may say a little more than 1


@dataclass(frozen=True)
class StoredPredictions:
    """The contents of a `predictions.csv`; `validation` has no rows if the dataset has no such split."""

    classes: tuple[str, ...]
    validation: Predictions
    test: Predictions


def write_predictions(
    folder: Path, classes: Sequence[str], *, validation: Predictions | None, test: Predictions
) -> Path:
    """Write `predictions.csv` into `folder`, whole or not at all, and return its path."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")  # with "\n" alone, a "\r" in a name isn't quoted
    writer.writerow([*_FIXED, *(_PREFIX + name for name in classes)])
    for split, predictions in ((VALIDATION, validation), (TEST, test)):
        if predictions is not None:
            writer.writerows(_rows(split, predictions, classes))
    path = folder / PREDICTIONS
    write_atomic(path, text.getvalue().encode("utf-8", errors="surrogateescape"))  # as Python has odd file names
    return path


def read_predictions(folder: Path) -> StoredPredictions:
    """What `write_predictions` wrote. Raises `RequestError`, naming the file and the line, for anything else."""
    path = folder / PREDICTIONS
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file, strict=True)
            classes = _classes(path, next(reader, []))
            rows = [_checked(path, reader.line_num, row, classes) for row in reader]
    except (OSError, csv.Error) as error:
        raise _unusable(path, str(error)) from None
    validation, test = (_predictions(path, [row for row in rows if row[0] == split], classes) for split in SPLITS)
    if not test.ids:
        raise _unusable(path, "it has no row of the test split")
    return StoredPredictions(classes, validation, test)


def _rows(split: str, predictions: Predictions, classes: Sequence[str]) -> Iterable[list[str]]:
    for name, group, label, probabilities in zip(
        predictions.ids, predictions.groups, predictions.labels, predictions.probabilities.tolist(), strict=True
    ):
        yield [split, name, group, classes[label], *(f"{probability:.9g}" for probability in probabilities)]


def _classes(path: Path, header: list[str]) -> tuple[str, ...]:
    names = tuple(column.removeprefix(_PREFIX) for column in header[len(_FIXED) :])
    if tuple(header) != (*_FIXED, *(_PREFIX + name for name in names)) or not names or len(set(names)) < len(names):
        expected = f"{','.join(_FIXED)} and a column {_PREFIX}CLASS for each class"
        raise _unusable(path, f"its first line should be {expected}, and is {','.join(header)[:200]!r}")
    return names


def _checked(path: Path, line: int, row: list[str], classes: tuple[str, ...]) -> list[str]:
    if len(row) != len(_FIXED) + len(classes):
        raise _unusable(path, f"line {line} has {len(row)} columns of {len(_FIXED) + len(classes)}")
    if row[0] not in SPLITS:
        raise _unusable(path, f"line {line} is of the split {row[0]!r}, not of {' or '.join(SPLITS)}")
    if row[3] not in classes:
        raise _unusable(path, f"line {line} has the label {row[3]!r}, which no column is for")
    return row


def _predictions(path: Path, rows: list[list[str]], classes: tuple[str, ...]) -> Predictions:
    numbers = {name: number for number, name in enumerate(classes)}
    predictions = Predictions(
        ids=tuple(row[1] for row in rows),
        groups=tuple(row[2] for row in rows),
        labels=np.array([numbers[row[3]] for row in rows], np.int64),
        probabilities=_probabilities(path, rows, len(classes)),
    )
    if len(set(predictions.ids)) < len(rows):
        twice, _ = Counter(predictions.ids).most_common(1)[0]
        raise _unusable(path, f"it has {twice!r} more than once in one split")
    return predictions


def _probabilities(path: Path, rows: list[list[str]], classes: int) -> NDArray[np.float32]:
    try:
        wide = np.array([[float(cell) for cell in row[len(_FIXED) :]] for row in rows]).reshape(len(rows), classes)
    except ValueError as error:
        raise _unusable(path, f"a probability is no number: {error}") from None
    good = ((wide >= 0) & (wide <= 1 + ROUNDING)).all(axis=1) & (np.abs(wide.sum(axis=1) - 1) <= SUM_TOLERANCE)
    if not good.all():
        row = rows[int(np.argmin(good))]
        raise _unusable(path, f"the probabilities of {row[1]!r} aren't from 0 to 1 with a sum of 1")
    probabilities: NDArray[np.float32] = wide.astype(np.float32)
    return probabilities


def _unusable(path: Path, why: str) -> RequestError:
    return RequestError(
        f"{path} doesn't hold the predictions of a run: {why}. "
        "To fix it: restore the file from a copy, or train the run again; nothing else writes it."
    )
