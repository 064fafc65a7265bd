"""The classical baseline: what it learns from, that it repeats itself, and datasets that are hardly any."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.manifest import Manifest
from tests.conftest import ROOT, run_module
from trainer.classical import Table, answers_of, answers_on_test, baseline_row, classical_predictions, joined, quotas
from trainer.records import RecordReader

NAME = "colour_texture"
NOTHING = joined((), (NAME,))


def table(labels: list[int], seed: int, *, per_group: int = 1, noise: float = 0.2) -> Table:
    """Vectors of which the first numbers are the label, with noise around it."""
    random = np.random.default_rng(seed)
    vectors = random.normal(0, noise, (len(labels), 8)) + np.eye(64)[labels][:, :8]
    names = tuple(f"{seed}-{number}" for number in range(len(labels)))
    groups = tuple(f"{seed}-{number // per_group}" for number in range(len(labels)))
    return Table(names, groups, np.array(labels, np.int64), {NAME: vectors.astype(np.float32)})


def test_a_sealed_dataset_of_three_colours_is_told_apart(dataset: tuple[Path, Manifest]) -> None:
    folder, manifest = dataset
    answer = classical_predictions(folder, manifest, seed=0)
    row = baseline_row(answer, manifest.classes)
    assert row["accuracy"] == row["balanced_accuracy"] == row["macro_f1"] == 1.0
    assert row["trained_on"] == manifest.splits["train"].records
    assert row["chosen_by"] == "validation"
    reader = RecordReader(folder, manifest, "test")
    records = reader.records(np.arange(len(reader)))
    assert answer.predictions.ids == tuple(record.id for record in records)
    assert answer.predictions.groups == tuple(record.group for record in records)
    assert answer.predictions.labels.tolist() == [record.label for record in records]


def test_a_sample_of_a_large_train_split_is_as_large_as_told_and_the_same_again(
    dataset: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.classical.MOST_TRAINED_ON", 30)
    first, second = (answers_on_test(*dataset, seed=3, names=("mean_colour",))["mean_colour"] for _ in range(2))
    assert first.trained_on == 30
    assert np.array_equal(first.predictions.probabilities, second.predictions.probabilities)


@pytest.mark.parametrize("noise", [0.2, 2.0])
def test_answers_do_not_depend_on_the_number_of_cores(noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    train, held, test = (table([0, 1, 2] * 20, seed, noise=noise) for seed in (1, 2, 3))
    answers = []
    for cores in ("1", "2", "7"):
        monkeypatch.setenv("LOKY_MAX_CPU_COUNT", cores)
        answers.append(answers_of(train, held, [test], classes=3, seed=5)[NAME].predictions.probabilities.tobytes())
    assert len(set(answers)) == 1


def test_permuted_labels_score_chance() -> None:
    random = np.random.default_rng(0)
    parts = [table([0, 1, 2, 3] * 40, seed, noise=0.1) for seed in (1, 2, 3)]
    shuffled = [replace(part, labels=random.permutation(part.labels)) for part in parts]
    answer = answers_of(shuffled[0], shuffled[1], [shuffled[2]], classes=4, seed=0)[NAME]
    assert abs(baseline_row(answer, list("abcd"))["balanced_accuracy"] - 0.25) < 0.12
    honest = answers_of(parts[0], parts[1], [parts[2]], classes=4, seed=0)[NAME]
    assert baseline_row(honest, list("abcd"))["balanced_accuracy"] > 0.95


@pytest.mark.parametrize(
    ("train", "held", "classes", "chosen_by"),
    [
        ([0, 0, 1, 1], [], 2, "folds"),
        ([0, 1], [], 2, "default"),
        ([1], [], 2, "default"),
        ([1, 1, 1], [0, 1], 3, "default"),
        ([0, 0, 2, 2], [1, 1, 2], 3, "validation"),
        (list(range(30)) * 2, [4, 29], 30, "validation"),
    ],
)
def test_tiny_splits_and_missing_classes_are_answered(
    train: list[int], held: list[int], classes: int, chosen_by: str
) -> None:
    validation = table(held, 2) if held else NOTHING
    test = [table(list(range(classes)), 3), table([0], 4)]
    answer = answers_of(table(train, 1), validation, test, classes=classes, seed=0)[NAME]
    probabilities = answer.predictions.probabilities
    assert answer.chosen_by == chosen_by
    assert probabilities.shape == (classes + 1, classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    missing = sorted(set(range(classes)) - set(train))
    assert not probabilities[:, missing].any()


def test_nothing_to_train_or_test_on_is_told() -> None:
    with pytest.raises(ValueError, match="train split"):
        answers_of(NOTHING, NOTHING, [table([0], 1)], classes=2, seed=0)
    with pytest.raises(ValueError, match="test split"):
        answers_of(table([0, 1], 1), NOTHING, [], classes=2, seed=0)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=30), st.integers(1, 2000))
def test_quotas_cut_only_the_common_classes_and_as_little_as_they_must(counts: list[int], most: int) -> None:
    found = quotas(counts, most)
    level = max(found)
    assert all(quota in (count, level) and quota <= count for quota, count in zip(found, counts, strict=True))
    assert sum(found) <= max(most, sum(count > 0 for count in counts))
    assert found == counts or sum(min(count, level + 1) for count in counts) > most


def test_the_baseline_needs_no_tensorflow() -> None:
    code = "import sys, trainer.shortcuts; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=120).returncode == 0


def test_real_cells_of_the_blood_are_told_apart(real_images: Path, tmp_path: Path) -> None:
    for diagnosis in ("lymphocyte", "neutrophil", "platelet"):
        (tmp_path / "images" / "blood" / diagnosis).mkdir(parents=True)
        for path in sorted((real_images / "blood_cells" / diagnosis).iterdir())[:30]:
            (tmp_path / "images" / "blood" / diagnosis / path.name).symlink_to(path)
    flags = (f"--images={tmp_path / 'images'}", f"--tfrecords={tmp_path}", "--organ=blood", "--image_size=128")
    done = run_module("data_pipeline", *flags)
    assert done.returncode == 0, done.stderr
    manifest = Manifest.load(tmp_path / "blood")
    row = baseline_row(classical_predictions(tmp_path / "blood", manifest, seed=0), manifest.classes)
    assert row["balanced_accuracy"] > 0.8
