"""Cutting a sealed dataset into folds, from real files through real processes."""

import hashlib
import shutil
from pathlib import Path

import pytest
from PIL import Image

from data_pipeline import cli
from data_pipeline.manifest import SPLITS, Manifest, read_near_pairs, read_quarantine
from data_pipeline.verify import verify
from tests.conftest import image_bytes, make_images, run_module
from tests.data_pipeline.conversion import convert, read_all
from tests.data_pipeline.cutting import FOLDS, all_contents, cut, every_fold, fold, frames
from tests.data_pipeline.test_interruption import flip
from tests.data_pipeline.test_plan import texture


@pytest.fixture(scope="module")
def images_of_all_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of four diagnoses, one with a single image; turned copies, a file twice, and one that is no image."""
    folder = tmp_path_factory.mktemp("images")
    organ = make_images(folder / "gland", slides=10)
    for number in range(12):
        picture = Image.fromarray(texture(number)).convert("RGB")
        picture.save(organ / "red" / f"S{900 + number}_1.png")
        picture.rotate(90).save(organ / "red" / f"S{950 + number}_1.png")
    (organ / "rare").mkdir()
    (organ / "rare" / "S800_1.png").write_bytes(image_bytes(800, colour=(240, 240, 20)))
    shutil.copy(organ / "blue" / "S000_0.png", organ / "blue" / "S000_9.png")
    (organ / "blue" / "S001_9.png").write_text("not an image")
    return folder


@pytest.fixture(scope="module")
def tfrecords(images_of_all_kinds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets") / "tfrecords"
    convert(images_of_all_kinds, folder)
    assert Manifest.load(folder / "gland").counts.duplicates == 1
    return folder


@pytest.fixture(scope="module")
def folds(tfrecords: Path) -> Path:
    """All folds, which tests only read."""
    cut(tfrecords, tfrecords.parent / "folds")
    return tfrecords.parent / "folds"


@pytest.fixture
def own(tfrecords: Path, tmp_path: Path) -> Path:
    """The datasets, to be changed by a test."""
    return Path(shutil.copytree(tfrecords, tmp_path / "tfrecords"))


# ── What the folds are ───────────────────────────────────────────────────────────────────────────────────────────────


def test_each_record_of_the_training_part_is_tested_in_one_fold_byte_for_byte(tfrecords: Path, folds: Path) -> None:
    pool = frames(tfrecords / "gland", "train", "validation")
    tested = [frames(folder, "test") for folder in every_fold(folds)]
    assert sorted(name for records in tested for name in records) == sorted(pool)
    for folder in every_fold(folds):
        assert frames(folder, *SPLITS) == pool
        for split in SPLITS:  # neighbours aren't of one diagnosis
            ids = list(frames(folder, split))
            assert ids == sorted(ids, key=lambda name: hashlib.sha256(name.encode()).digest())
        assert all(Manifest.load(folder).splits[split].records for split in SPLITS)


def test_a_group_lies_in_one_split_of_a_fold_and_is_tested_in_one_fold(folds: Path) -> None:
    tested: list[str] = []
    for folder in every_fold(folds):
        manifest = Manifest.load(folder)
        groups = [{record.group for record in read_all(folder, manifest, split)} for split in SPLITS]
        assert len(set.union(*groups)) == sum(map(len, groups)) == manifest.grouping.groups
        tested += groups[SPLITS.index("test")]
    assert len(tested) == len(set(tested))


def test_each_fold_passes_verification_and_accounts_for_every_record(tfrecords: Path, folds: Path) -> None:
    source = Manifest.load(tfrecords / "gland")
    done = run_module("data_pipeline.verify", *(folder.parent for folder in every_fold(folds)), "--workers=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("nothing is wrong") == FOLDS
    for number, folder in enumerate(every_fold(folds), start=1):
        manifest = Manifest.load(folder)
        counts = manifest.counts
        written = source.counts.written - source.splits["test"].records
        assert (counts.inputs, counts.written, counts.duplicates, counts.quarantined) == (written, written, 0, 0)
        assert read_quarantine(folder) == []
        assert manifest.classes == source.classes == ("blue", "green", "rare", "red")
        told = {"fold": number, "folds": FOLDS, "seed": 0, "source_fingerprint": source.fingerprint}
        assert manifest.settings.items() >= told.items()
        card = (folder / "card.html").read_text()
        assert f"Fold {number} of {FOLDS}: {written} records" in card


def test_pairs_that_look_alike_are_those_of_the_source_and_lie_in_one_split(tfrecords: Path, folds: Path) -> None:
    ids = set(frames(tfrecords / "gland", "train", "validation"))
    pairs = [pair for pair in read_near_pairs(tfrecords / "gland") if set(pair) <= ids]
    assert 0 < len(pairs) < Manifest.load(tfrecords / "gland").near_duplicates.pairs
    for folder in every_fold(folds):
        found = Manifest.load(folder).near_duplicates
        assert read_near_pairs(folder) == pairs
        assert (found.pairs, found.images) == (len(pairs), len({name for pair in pairs for name in pair}))


def test_tfds_reads_a_fold(folds: Path) -> None:
    import tensorflow_datasets as tfds

    folder, manifest = fold(folds, 2), Manifest.load(fold(folds, 2))
    builder = tfds.builder_from_directory(str(folder))
    assert builder.info.features["label"].names == list(manifest.classes)
    for split in SPLITS:
        theirs = sorted(row["id"].decode() for row in tfds.as_numpy(builder.as_dataset(split=split)))
        assert theirs == sorted(record.id for record in read_all(folder, manifest, split))


def test_a_fold_that_lacks_a_diagnosis_in_training_can_be_trained_on(folds: Path, tmp_path: Path) -> None:
    lacking = [path for path in every_fold(folds) if Manifest.load(path).splits["train"].per_class["rare"] == 0]
    assert len(lacking) == 1
    assert any("No image of rare in train" in warning for warning in Manifest.load(lacking[0]).warnings)
    arguments = ["--organ=gland", f"--tfrecords={lacking[0].parent}", f"--runs={tmp_path}", "--epochs=1"]
    done = run_module("trainer", *arguments, "--batch_size=16", timeout=400)
    assert done.returncode == 0, done.stderr
    assert "Report: " in done.stdout


# ── What the folds depend on ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_test_split_of_the_source_is_never_opened(own: Path, folds: Path) -> None:
    for path in (own / "gland").glob("gland-test.*"):
        path.unlink()
    cut(own, own.parent / "folds")
    assert all_contents(own.parent / "folds") == all_contents(folds)


def test_neither_the_source_s_shards_nor_the_number_of_workers_play_a_part(
    images_of_all_kinds: Path, folds: Path, tmp_path: Path
) -> None:
    """Converted with another validation split, the same records lie in other shards."""
    convert(images_of_all_kinds, tmp_path / "tfrecords", "--validation_fraction=0.5")
    cut(tmp_path / "tfrecords", tmp_path / "folds", "--workers=2")
    for ours, theirs in zip(every_fold(tmp_path / "folds"), every_fold(folds), strict=True):
        assert Manifest.load(ours).shards == Manifest.load(theirs).shards
        assert Manifest.load(ours).inputs_sha256 == Manifest.load(theirs).inputs_sha256
        assert Manifest.load(ours).settings != Manifest.load(theirs).settings  # which name the source


def test_another_seed_gives_other_folds(tfrecords: Path, folds: Path, tmp_path: Path) -> None:
    cut(tfrecords, tmp_path, "--seed=1")
    assert set(frames(fold(tmp_path, 1), "test")) != set(frames(fold(folds, 1), "test"))


# ── What is there already ────────────────────────────────────────────────────────────────────────────────────────────


def test_folds_that_are_there_are_kept_and_a_missing_one_is_made(folds: Path, tfrecords: Path, tmp_path: Path) -> None:
    ours = Path(shutil.copytree(folds, tmp_path / "folds"))
    before = all_contents(ours)
    said = cut(tfrecords, ours)
    assert "there already, nothing to do" in said
    assert f"Folds: {fold(ours, 1)} … {fold(ours, 3)} " in said
    shutil.rmtree(fold(ours, 2))
    kept = (fold(ours, 1) / "manifest.json").stat().st_ino
    cut(tfrecords, ours)
    assert all_contents(ours) == before
    assert (fold(ours, 1) / "manifest.json").stat().st_ino == kept


@pytest.mark.parametrize(
    ("argument", "told"),
    [("--seed=1", "--seed was 0 and is 1"), ("--validation_fraction=0.4", "--validation_fraction was 0.15 and is 0.4")],
)
def test_folds_of_other_flags_are_replaced_only_if_that_is_asked_for(
    folds: Path, tfrecords: Path, tmp_path: Path, argument: str, told: str
) -> None:
    ours = Path(shutil.copytree(folds, tmp_path / "folds"))
    before = all_contents(ours)
    said = cut(tfrecords, ours, argument, code=cli.EXIT_REQUEST)
    assert told in said
    assert "--overwrite" in said
    assert all_contents(ours) == before
    cut(tfrecords, ours, argument, "--overwrite")
    assert all_contents(ours) != before
    assert all(verify(folder, workers=1) == [] for folder in every_fold(ours))
    assert not list(ours.glob("*/.*"))


def test_folds_of_another_dataset_or_damaged_ones_are_told(
    images_of_all_kinds: Path, folds: Path, tfrecords: Path, tmp_path: Path
) -> None:
    ours = Path(shutil.copytree(folds, tmp_path / "folds"))
    convert(images_of_all_kinds, tmp_path / "other", "--seed=1")
    assert "the dataset it was cut from was" in cut(tmp_path / "other", ours, code=cli.EXIT_REQUEST)
    shard = Manifest.load(fold(ours, 2)).shards[0].path
    flip(fold(ours, 2) / shard, 100)
    assert f"{shard}: its contents were changed" in cut(tfrecords, ours, code=cli.EXIT_REQUEST)
    cut(tfrecords, ours, "--overwrite")
    assert all_contents(ours) == all_contents(folds)


def test_what_is_no_dataset_is_never_replaced(tfrecords: Path, tmp_path: Path) -> None:
    thesis = fold(tmp_path, 2) / "thesis.txt"
    thesis.parent.mkdir(parents=True)
    thesis.write_text("years of work")
    said = cut(tfrecords, tmp_path, "--overwrite", code=cli.EXIT_REQUEST)
    assert "is no dataset of ours. To fix it: move it away" in said
    assert thesis.read_text() == "years of work"
    assert not fold(tmp_path, 1).exists()
