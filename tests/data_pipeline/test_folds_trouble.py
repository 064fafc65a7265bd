"""Cutting into folds when something is wrong: the dataset, the request, the moment."""

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline import cli
from data_pipeline.manifest import FILE_NAME, DatasetError, Manifest, load_offsets
from data_pipeline.pool import copied_frames, read_pool
from data_pipeline.storage import exclusive
from data_pipeline.verify import verify
from tests.conftest import ROOT, make_images, run_module
from tests.data_pipeline.conversion import convert
from tests.data_pipeline.cutting import FOLDS, all_contents, command, cut, every_fold, fold, nothing_in
from tests.data_pipeline.test_interruption import flip


@pytest.fixture(scope="module")
def tfrecords(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that tests only read."""
    folder = tmp_path_factory.mktemp("datasets")
    make_images(folder / "images" / "gland", tiles=12)
    convert(folder / "images", folder / "tfrecords")
    return folder / "tfrecords"


@pytest.fixture
def own(tfrecords: Path, tmp_path: Path) -> Path:
    """One to be changed by a test."""
    return Path(shutil.copytree(tfrecords, tmp_path / "tfrecords"))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_damaged_record_of_the_source_is_named_and_nothing_is_written(own: Path, split: str) -> None:
    folder, output = own / "gland", own.parent / "folds"
    shard = Manifest.load(folder).shards_of(split)[-1]
    flip(folder / shard.path, int(load_offsets(folder, shard)[3]) + 50)
    said = cut(own, output, code=cli.EXIT_REQUEST)
    assert f"{shard.path}: record 3: the checksum" in said
    assert "To fix it: restore the dataset" in said
    assert nothing_in(output)


@pytest.mark.parametrize("name", ["index", "near_duplicates.csv", "manifest.json"])
def test_a_damaged_file_of_the_source_is_named_and_nothing_is_written(own: Path, name: str) -> None:
    folder, output = own / "gland", own.parent / "folds"
    path = folder / {"index": Manifest.load(folder).shards[0].offsets.path}.get(name, name)
    flip(path, 20)
    assert path.name in cut(own, output, code=cli.EXIT_REQUEST)
    assert nothing_in(output)


@pytest.mark.parametrize("name", ["shard", "index"])
def test_a_lost_or_cut_off_shard_is_named(own: Path, name: str) -> None:
    shard = Manifest.load(own / "gland").shards[0]
    path = own / "gland" / {"shard": shard.path, "index": shard.offsets.path}[name]
    path.write_bytes(path.read_bytes()[:-9])
    assert path.name in cut(own, own.parent / "folds", code=cli.EXIT_REQUEST)
    path.unlink()
    assert path.name in cut(own, own.parent / "folds", code=cli.EXIT_REQUEST)


@pytest.mark.parametrize("other", ["damaged", "another record"])
def test_a_record_that_changes_between_reading_and_copying_is_never_copied(own: Path, other: str) -> None:
    folder = own / "gland"
    first, second, *_ = (record.place for record in read_pool(folder, Manifest.load(folder), workers=1).found)
    assert len(list(copied_frames(folder, [first, second]))) == 2
    if other == "damaged":
        flip(folder / second.shard, second.start + 50)
    else:
        second = replace(second, checksum=first.checksum)
    copied = copied_frames(folder, [first, second])
    next(copied)
    with pytest.raises(DatasetError, match=f"{second.shard} has changed: .* byte {second.start}.*To fix it: "):
        next(copied)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--folds=1"], "`--folds`. Expected 2 or more. Received: 1. To fix it: for example --folds=5"),
        (["--folds=900"], "`--folds`. Expected at most the number of groups to be cut, "),
        (["--validation_fraction=0"], "`--validation_fraction`. Expected a number between 0 and 1. Received: 0.0"),
        (["--validation_fraction=1"], "`--validation_fraction`. Expected a number between 0 and 1. Received: 1.0"),
        (["--validation_fraction=nan"], "`--validation_fraction`. Expected a number between 0 and 1. Received: nan"),
        (["--organ=liver"], "`--organ`. Expected one of gland, a list of them, or all. Received: 'liver'"),
        (["--tfrecords=gs://lab/tfrecords"], "`--tfrecords`. Expected a folder on a local or mounted disk."),
        (["--output=gs://lab/folds"], "`--output`. Expected a folder on a local or mounted disk."),
        (["--tfrecords=/nowhere"], "`--tfrecords`. Expected a folder. Received: '/nowhere'"),
        (["--output=/dev/null/folds"], "`--output`. Expected a writable folder. Received: '/dev/null/folds'"),
        (["--seed=-1"], "seed"),
        (["stray"], "Unexpected argument 'stray'"),
    ],
)
def test_a_wrong_request_is_refused_with_its_remedy(
    tfrecords: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    said = cut(tfrecords, tmp_path / "folds", *arguments, code=cli.EXIT_REQUEST)
    assert told in said
    assert "To fix it: " in said
    assert nothing_in(tmp_path / "folds")


@pytest.mark.parametrize("output", ["", "folds", "gland/folds"])
def test_folds_never_lie_among_the_datasets(own: Path, output: str) -> None:
    said = cut(own, own / output, code=cli.EXIT_REQUEST)
    assert "`--output`. Expected no folder in --tfrecords." in said
    assert [path.name for path in own.iterdir() if path.is_dir()] == ["gland"]


def test_a_fold_can_be_cut_further_but_never_takes_its_own_place(tfrecords: Path, tmp_path: Path) -> None:
    cut(tfrecords, tmp_path / "folds")
    before = all_contents(tmp_path / "folds")
    said = cut(fold(tmp_path / "folds", 2).parent, tmp_path / "folds", "--overwrite", code=cli.EXIT_REQUEST)
    assert "`--output`. Expected not the folder of this fold." in said
    assert all_contents(tmp_path / "folds") == before
    cut(fold(tmp_path / "folds", 2).parent, tmp_path / "inner")
    assert all(verify(folder, workers=1) == [] for folder in every_fold(tmp_path / "inner"))


def test_a_dataset_without_its_manifest_and_a_folder_without_datasets_are_told(own: Path, tmp_path: Path) -> None:
    (own / "gland" / FILE_NAME).unlink()
    assert "No sealed dataset in" in cut(own, tmp_path / "folds", code=cli.EXIT_REQUEST)
    (tmp_path / "empty").mkdir()
    assert "holds no dataset" in cut(tmp_path / "empty", tmp_path / "folds", code=cli.EXIT_REQUEST)


def test_all_datasets_are_cut_and_the_trouble_of_one_keeps_no_other_waiting(own: Path, tmp_path: Path) -> None:
    for name in ("ash", "zinc"):
        shutil.copytree(own / "gland", own / name)
    flip(own / "ash" / Manifest.load(own / "ash").shards[0].path, 100)
    said = cut(own, tmp_path / "folds", "--organ=all", code=cli.EXIT_REQUEST)
    assert f"{own / 'ash'} is damaged" in said
    assert sorted(path.name for path in (tmp_path / "folds/fold-1-of-3").iterdir()) == ["gland", "zinc"]
    assert verify(tmp_path / "folds/fold-3-of-3/zinc", workers=1) == []


def test_two_never_cut_the_same_dataset_at_once(tfrecords: Path, tmp_path: Path) -> None:
    with exclusive(tmp_path / ".gland.lock", otherwise="unused"):
        assert "by another process" in cut(tfrecords, tmp_path, code=cli.EXIT_REQUEST)
    assert nothing_in(tmp_path)


# ── Stops and kills ──────────────────────────────────────────────────────────────────────────────────────────────────


def stopped(tfrecords: Path, output: Path, number: int, with_signal: signal.Signals) -> "tuple[int, str]":
    """Stop the program while it writes fold `number`; (exit code, what it said)."""
    program = [sys.executable, "-m", "data_pipeline.folds", *command(tfrecords, output)]
    process = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    work = fold(output, number).with_name(".gland.partial")
    deadline = time.monotonic() + 60
    while not work.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(with_signal)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.parametrize("number", range(1, FOLDS + 1))
def test_sigterm_ends_with_code_75_and_leaves_whole_folds_or_none(tfrecords: Path, tmp_path: Path, number: int) -> None:
    code, errors = stopped(tfrecords, tmp_path / "folds", number, signal.SIGTERM)
    assert code == cli.EXIT_PREEMPTED, errors
    assert "run the same command again" in errors
    assert "Traceback" not in errors
    assert [folder.exists() for folder in every_fold(tmp_path / "folds")] == [n < number for n in (1, 2, 3)]
    assert not list((tmp_path / "folds").glob("*/.*"))
    check_finished_as_if_never_stopped(tfrecords, tmp_path)


@pytest.mark.parametrize("number", [1, 3])
def test_a_kill_leaves_whole_folds_or_none(tfrecords: Path, tmp_path: Path, number: int) -> None:
    code, _ = stopped(tfrecords, tmp_path / "folds", number, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert [folder.exists() for folder in every_fold(tmp_path / "folds")] == [n < number for n in (1, 2, 3)]
    assert list((tmp_path / "folds").glob("*/.*"))
    check_finished_as_if_never_stopped(tfrecords, tmp_path)


def check_finished_as_if_never_stopped(tfrecords: Path, tmp_path: Path) -> None:
    cut(tfrecords, tmp_path / "folds")
    cut(tfrecords, tmp_path / "whole")
    assert all_contents(tmp_path / "folds") == all_contents(tmp_path / "whole")
    assert not list((tmp_path / "folds").glob("*/.*"))


def test_a_kill_between_the_two_renames_of_an_overwrite_loses_nothing(tfrecords: Path, tmp_path: Path) -> None:
    cut(tfrecords, tmp_path)
    before = all_contents(tmp_path)
    fold(tmp_path, 2).rename(fold(tmp_path, 2).with_name(".gland.replaced"))
    assert "nothing to do" in cut(tfrecords, tmp_path)
    assert all_contents(tmp_path) == before


def test_help_tells_what_comes_next() -> None:
    done = run_module("data_pipeline.folds", "--help")
    assert done.returncode == 0
    for words in (
        "for k in 1 2 3 4 5; do",
        "--tfrecords=folds/fold-$k-of-5",
        "trainer.compare --folds",
        "--[no]overwrite",
    ):
        assert words in done.stdout
