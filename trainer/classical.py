"""The baseline that a network must beat: extra trees or logistic regression on colour and texture. No TensorFlow.

    answers = answers_on_test(dataset_folder, manifest, seed=0)          # one pass for the baseline and the probes
    row = baseline_row(answers[CLASSICAL], manifest.classes)             # ["baselines"]["classical"] of metrics.json
    answer = classical_predictions(dataset_folder, manifest, seed=0)     # the baseline alone

Classifiers are trained on the train split alone. The validation split chooses among them by balanced accuracy; without
one, parts of the train split that were left out in turn do, whole groups at a time. The test split is read once, in
chunks, so that memory doesn't grow with its pixels. Of a larger train split a fixed sample is used, see `quotas`:
`trained_on` says how many images that were.

The same seed gives the same answers, whatever the number of cores: trees are grown in parallel, but their votes are
added up in order, and linear algebra runs on one thread.
"""

import warnings
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from tqdm import tqdm

from data_pipeline.images import ImageRefusedError, decode
from data_pipeline.manifest import DatasetError, Manifest
from data_pipeline.schema import Record
from trainer.features import FEATURES, image_features
from trainer.metrics import Predictions
from trainer.records import RecordReader
from trainer.scores import scores_with_intervals

CLASSICAL = "colour_texture"
MOST_TRAINED_ON, MOST_VALIDATED_ON = 3000, 1000
CHUNK = 64  # images at once
FOLDS = 3
BAR: Mapping[str, Any] = {"unit": "image", "leave": False}
TREES = 200
LEAST_IN_LEAF = (1, 3)
INVERSE_PENALTIES = (0.01, 0.1)
MOST_ITERATIONS = 200
ROW = ("accuracy", "balanced_accuracy", "macro_f1")


@dataclass(frozen=True)
class Table:
    """Examples as vectors: `labels [n] int64`, and for each name of `FEATURES` that was asked for `[n, numbers]`."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    labels: NDArray[np.int64]
    features: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Answer:
    """What a classifier says of the test split.

    `model` is its name for people, `settings` what was chosen and `chosen_by` what chose it: `validation`, `folds` of
    the train split, or `default` if there was too little of both.
    """

    predictions: Predictions
    model: str
    settings: str
    chosen_by: str
    trained_on: int


@dataclass(frozen=True)
class _Candidate:
    model: str
    settings: str
    classifier: Any


def classical_predictions(dataset_folder: Path, manifest: Manifest, *, seed: int) -> Answer:
    """The baseline's answers for the test split of a sealed dataset. Raises as `answers_on_test` does."""
    return answers_on_test(dataset_folder, manifest, seed=seed, names=(CLASSICAL,))[CLASSICAL]


def answers_on_test(
    dataset_folder: Path, manifest: Manifest, *, seed: int, names: Sequence[str] = tuple(FEATURES)
) -> dict[str, Answer]:
    """For each name of `FEATURES` the answers of a classifier that sees nothing else; every image is decoded once.

    Raises `DatasetError` for a record that isn't the sealed one, `ValueError` if there is nothing to train or test on.
    """

    def read(split: str, most: int | None) -> Iterator[Table]:
        reader, counts = RecordReader(dataset_folder, manifest, split), manifest.splits[split].per_class
        chunks = _records(reader, [counts.get(name, 0) for name in manifest.classes], most, seed)
        with tqdm(total=min(len(reader), most or len(reader)), desc=f"{split}, colours and texture", **BAR) as bar:
            for records in chunks:
                yield table_of(records, names)
                bar.update(len(records))

    train = joined(read("train", MOST_TRAINED_ON), names)
    validation = joined(read("validation", MOST_VALIDATED_ON), names)
    return answers_of(train, validation, read("test", None), classes=len(manifest.classes), seed=seed)


def answers_of(train: Table, validation: Table, test: Iterable[Table], *, classes: int, seed: int) -> dict[str, Answer]:
    """The same from tables. `test` may come in pieces, each of which is forgotten once it is answered."""
    if not train.ids:
        raise ValueError("There are no examples to train on. To fix it: give the train split at least one image.")
    asked: list[Table] = []
    said: dict[str, list[NDArray[np.float32]]] = {name: [] for name in train.features}
    with threadpool_limits(limits=1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what it reaches within its iterations is good enough
        chosen = {name: _choose(train, validation, name, seed) for name in train.features}
        for piece in test:
            asked.append(replace(piece, features={}))
            for name, (candidate, _) in chosen.items():
                said[name].append(_probabilities(candidate.classifier, piece.features[name], classes))
    whole = joined(asked, ())
    if not whole.ids:
        raise ValueError("There are no examples to test on. To fix it: give the test split at least one image.")
    return {
        name: Answer(
            Predictions(whole.ids, whole.groups, whole.labels, np.concatenate(said[name])),
            model=candidate.model,
            settings=candidate.settings,
            chosen_by=chosen_by,
            trained_on=len(train.ids),
        )
        for name, (candidate, chosen_by) in chosen.items()
    }


def baseline_row(answer: Answer, classes: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """The row of `metrics.json`, without the `difference` to the network. Raises `ValueError` as `compute_metrics`."""
    scores = scores_with_intervals(answer.predictions, classes, seed=seed, with_areas=False)
    facts = {name: getattr(answer, name) for name in ("model", "settings", "chosen_by", "trained_on")}
    return (
        facts | {name: scores[name] for name in ROW} | {"intervals": {name: scores["intervals"][name] for name in ROW}}
    )


def table_of(records: Sequence[Record], names: Sequence[str]) -> Table:
    """Decode these records, each once. Raises `DatasetError` naming one whose image can't be decoded."""
    vectors = [image_features(_pixels(record), names) for record in records]
    return Table(
        ids=tuple(record.id for record in records),
        groups=tuple(record.group for record in records),
        labels=np.array([record.label for record in records], np.int64),
        features={name: np.stack([vector[name] for vector in vectors]) for name in names},
    )


def joined(tables: Iterable[Table], names: Sequence[str]) -> Table:
    """One table of many; of none an empty one."""
    parts = list(tables)
    empty = np.zeros((0, 0), np.float32)
    return Table(
        ids=tuple(name for part in parts for name in part.ids),
        groups=tuple(name for part in parts for name in part.groups),
        labels=np.concatenate([np.zeros(0, np.int64), *(part.labels for part in parts)]),
        features={name: np.concatenate([part.features[name] for part in parts]) if parts else empty for name in names},
    )


def quotas(counts: Sequence[int], most: int) -> list[int]:
    """How many examples of each class to use so that there are at most `most`, and at least one of each.

    Only classes with more than a certain number are cut, all to that number, since every class weighs alike.
    """
    levels = range(max(counts, default=0) + 1)
    level = bisect_right(levels, most, key=lambda level: sum(min(count, level) for count in counts)) - 1
    return [min(count, max(1, level)) for count in counts]


def _records(reader: RecordReader, counts: Sequence[int], most: int | None, seed: int) -> Iterator[list[Record]]:
    """The records of a split in chunks: all in order, or a sample with so many of each class in an order of chance."""
    whole = most is None or len(reader) <= most
    left = list(counts) if most is None or whole else quotas(counts, most)
    order = np.arange(len(reader)) if whole else np.random.default_rng([seed, len(reader)]).permutation(len(reader))
    for start in range(0, len(order), CHUNK):
        kept = []
        for record in reader.records(order[start : start + CHUNK]):
            if left[record.label] > 0:
                left[record.label] -= 1
                kept.append(record)
        if kept:
            yield kept
        if not any(left):
            return


def _pixels(record: Record) -> NDArray[np.uint8]:
    try:
        return decode(record.image).pixels
    except ImageRefusedError as error:
        fix = "restore the dataset from a copy, or convert again with --overwrite"
        raise DatasetError(f"The stored image {record.id!r} can't be decoded: {error}. To fix it: {fix}.") from error


def _choose(train: Table, validation: Table, name: str, seed: int) -> tuple[_Candidate, str]:
    """The best candidate, trained, and what chose it; the first of equals, and the first if nothing can choose."""
    candidates = _candidates(seed)
    vectors, labels = train.features[name], train.labels
    if len(np.unique(labels)) < 2:
        return _trained(candidates[0], vectors, labels), "default"
    if validation.ids:
        trained = [_trained(candidate, vectors, labels) for candidate in candidates]
        answers = [candidate.classifier.predict(validation.features[name]) for candidate in trained]
        return trained[_best([_balanced(validation.labels, answer) for answer in answers])], "validation"
    folds = _folds(train, seed)
    if not folds:
        return _trained(candidates[0], vectors, labels), "default"
    best = _best([_score_of_folds(candidate, vectors, labels, folds) for candidate in candidates])
    return _trained(_candidates(seed)[best], vectors, labels), "folds"


def _candidates(seed: int) -> list[_Candidate]:
    trees = [
        _Candidate(
            "extra trees",
            f"{TREES} trees, at least {least} in a leaf",
            ExtraTreesClassifier(
                TREES, min_samples_leaf=least, class_weight="balanced", random_state=seed % 2**32, n_jobs=-1
            ),
        )
        for least in LEAST_IN_LEAF
    ]
    lines = [
        _Candidate(
            "logistic regression",
            f"inverse penalty {inverse_penalty:g}",
            make_pipeline(
                StandardScaler(),
                LogisticRegression(C=inverse_penalty, class_weight="balanced", max_iter=MOST_ITERATIONS),
            ),
        )
        for inverse_penalty in INVERSE_PENALTIES
    ]
    return trees + lines


def _trained(candidate: _Candidate, vectors: NDArray[np.float32], labels: NDArray[np.int64]) -> _Candidate:
    candidate.classifier.fit(vectors, labels)
    if candidate.classifier.__class__ is ExtraTreesClassifier:
        # Threads would add up the votes in the order in which they happen to finish, and round otherwise each time.
        candidate.classifier.set_params(n_jobs=1)
    return candidate


def _folds(train: Table, seed: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to train on and to choose by, in turn, no group in both; those that leave one class aren't any use."""
    count = min(FOLDS, len(set(train.groups)), int(np.bincount(train.labels).max()))
    if count < 2:
        return []
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed % 2**32)
    with warnings.catch_warnings(action="ignore"):  # a class with fewer examples than folds is no fault here
        folds = list(splitter.split(np.zeros(len(train.labels)), train.labels, train.groups))
    return [(rows, held_out) for rows, held_out in folds if len(np.unique(train.labels[rows])) > 1 and len(held_out)]


def _score_of_folds(
    candidate: _Candidate,
    vectors: NDArray[np.float32],
    labels: NDArray[np.int64],
    folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> float:
    answers = [_trained(candidate, vectors[rows], labels[rows]).classifier.predict(vectors[out]) for rows, out in folds]
    return _balanced(np.concatenate([labels[out] for _, out in folds]), np.concatenate(answers))


def _balanced(labels: NDArray[np.int64], answers: NDArray[np.int64]) -> float:
    return float(recall_score(labels, answers, labels=np.unique(labels), average="macro", zero_division=0.0))


def _best(scores: Sequence[float]) -> int:
    return int(np.argmax(scores))


def _probabilities(classifier: Any, vectors: NDArray[np.float32], classes: int) -> NDArray[np.float32]:
    """`[n, classes]`, 0 for classes that the train split lacks."""
    probabilities = np.zeros((len(vectors), classes), np.float32)
    probabilities[:, classifier.classes_] = classifier.predict_proba(vectors)
    return probabilities
