"""What is checked before training, beyond the wrong requests of `test_bad_requests.py`: how, and how often."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline.cli import EXIT_REQUEST, RequestError
from data_pipeline.manifest import DatasetError, Manifest
from tests.conftest import run_module
from tests.faults.disks import mounted
from tests.trainer.conftest import train_command
from tests.trainer.test_records import copy_of
from tests.trainer.wrong_requests import flip_bit
from trainer.config import MODEL_NAMES, TrainConfig
from trainer.model_names import LEAST_PX, OWN_MODELS
from trainer.models import MODELS, build_model
from trainer.preflight import check_batch, check_seal, chosen_organs
from trainer.run_folder import check_same, check_writable, open_run
from trainer.seal_check import MAX_NAMED, NOTES, check_contents, check_sizes, sealed_files

Dataset = tuple[Path, Manifest]


@pytest.fixture
def copied(dataset: Dataset, tmp_path: Path) -> Dataset:
    return copy_of(dataset, tmp_path), dataset[1]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "run" / NOTES


def harm_unseen(path: Path) -> None:
    """Flip a bit and leave size, time and inode as they were."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_what_was_found_right_is_not_read_a_second_time(copied: Dataset, notes: Path) -> None:
    check_contents(*copied, notes=notes)
    assert set(json.loads(notes.read_text())) == {seal.path for seal in sealed_files(copied[1])}
    for shard in copied[1].shards:
        harm_unseen(copied[0] / shard.path)
    check_contents(*copied, notes=notes)
    with pytest.raises(DatasetError):
        check_contents(*copied)


@pytest.mark.parametrize("change", ["time", "inode", "size"])
def test_a_file_that_is_not_as_it_was_noted_is_read_again(copied: Dataset, notes: Path, change: str) -> None:
    check_contents(*copied, notes=notes)
    path = copied[0] / copied[1].shards[0].path
    harm_unseen(path)
    if change == "time":
        os.utime(path)
    elif change == "inode":
        before = path.stat()
        shutil.copy(path, path.with_suffix(".copy"))
        path.with_suffix(".copy").replace(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        before = path.stat()
        path.write_bytes(path.read_bytes()[:-1])
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DatasetError, match=path.name):
        check_contents(*copied, notes=notes)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"gland": 1}', "\udcff"])
def test_garbled_notes_cost_a_reading_and_no_more(copied: Dataset, notes: Path, text: str) -> None:
    notes.parent.mkdir()
    notes.write_bytes(text.encode(errors="surrogateescape"))
    check_contents(*copied, notes=notes)
    assert copied[1].shards[0].path in json.loads(notes.read_text())
    flip_bit(copied[0] / copied[1].shards[0].path, 0.5)
    notes.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DatasetError, match=copied[1].shards[0].path):
        check_contents(*copied, notes=notes)


def test_notes_on_another_dataset_vouch_for_nothing(copied: Dataset, notes: Path) -> None:
    """The same files to the eye, but another seal."""
    check_contents(*copied, notes=notes)
    first, *others = copied[1].shards
    manifest = replace(copied[1], shards=(replace(first, sha256="0" * 64), *others))
    with pytest.raises(DatasetError, match=rf"{first.path} isn't the file that was sealed"):
        check_contents(copied[0], manifest, notes=notes)


def test_a_harmed_shard_leaves_no_notes(copied: Dataset, notes: Path) -> None:
    flip_bit(copied[0] / copied[1].shards[0].path, 0.5)
    with pytest.raises(DatasetError):
        check_contents(*copied, notes=notes)
    assert not notes.parent.exists()


def test_the_record_that_differs_is_named(copied: Dataset) -> None:
    shard = copied[1].shards_of("train")[1]
    flip_bit(copied[0] / shard.path, 0.999)
    with pytest.raises(DatasetError, match=rf"{shard.path}, record {shard.records - 1}: .*\n.*To fix it: "):
        check_contents(*copied)


def test_all_files_that_differ_are_named(copied: Dataset) -> None:
    one, two = copied[1].shards_of("train")[0], copied[1].shards_of("test")[0]
    for shard in (one, two):
        flip_bit(copied[0] / shard.path, 0.5)
    with pytest.raises(DatasetError, match=f"(?s){one.path}.*{two.path}"):
        check_contents(*copied)


def test_of_a_dataset_that_is_lost_only_some_files_are_named(copied: Dataset) -> None:
    seals = sealed_files(copied[1])
    assert len(seals) > MAX_NAMED
    for seal in seals:
        (copied[0] / seal.path).unlink()
    with pytest.raises(DatasetError, match=rf"… and {len(seals) - MAX_NAMED} more") as refusal:
        check_sizes(*copied)
    assert str(refusal.value).count("No such file") == MAX_NAMED


def test_one_split_is_checked_alone(copied: Dataset) -> None:
    flip_bit(copied[0] / copied[1].shards_of("train")[0].path, 0.5)
    check_contents(*copied, "test")
    with pytest.raises(DatasetError):
        check_contents(*copied, "train")


def test_workers_but_the_first_look_at_sizes_alone(copied: Dataset, tmp_path: Path) -> None:
    config = TrainConfig(organ="gland", tfrecords=copied[0].parent, runs=tmp_path / "runs")
    path = copied[0] / copied[1].shards[0].path
    flip_bit(path, 0.5)
    check_seal(config, copied[1], first=False)
    assert not config.runs.exists()
    with pytest.raises(DatasetError, match=path.name):
        check_seal(config, copied[1], first=True)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=path.name):
        check_seal(config, copied[1], first=False)


def test_a_bit_that_flips_after_the_check_ends_the_run_by_its_record(copied: Dataset, tmp_path: Path) -> None:
    notes = tmp_path / "runs" / "gland" / "r" / NOTES
    check_contents(*copied, notes=notes)
    shard = copied[1].shards_of("train")[0]
    harm_unseen(copied[0] / shard.path)
    done = run_module("trainer", *train_command(copied[0].parent, tmp_path / "runs"))
    assert done.returncode == EXIT_REQUEST, done.stderr
    assert re.search(rf"{shard.path}, record \d+: ", done.stderr)
    assert "To fix it" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_disk_that_has_filled_up_is_no_reason_to_refuse_a_run_that_has_begun(tmp_path: Path) -> None:
    config = TrainConfig(organ="gland", tfrecords=tmp_path, runs=tmp_path / "disk")
    with mounted(tmp_path / "disk") as disk:
        open_run(disk.folder / "begun", config, dataset="one", chief=True)
        disk.fill(spare_pages=0)
        check_writable(disk.folder / "begun")
        with pytest.raises(RequestError, match="No space left"):
            check_writable(disk.folder / "new")


def test_nothing_is_left_where_it_was_tried_whether_a_run_can_write(tmp_path: Path) -> None:
    check_writable(tmp_path / "runs" / "gland" / "r")
    assert not list(tmp_path.iterdir())


def test_a_run_of_another_dataset_is_told_both_fingerprints(tmp_path: Path) -> None:
    config = TrainConfig(organ="gland", tfrecords=tmp_path, runs=tmp_path)
    open_run(tmp_path / "r", config, dataset="1" * 64, chief=True)
    check_same(tmp_path / "r", config, dataset="1" * 64)
    with pytest.raises(RequestError, match=r"dataset is another one .fingerprint 11111111 then, 22222222 now"):
        check_same(tmp_path / "r", config, dataset="2" * 64)


def test_as_many_images_as_replicas_are_enough(tmp_path: Path) -> None:
    config = TrainConfig(organ="gland", tfrecords=tmp_path, runs=tmp_path, batch_size=4)
    check_batch([config], replicas=4)
    with pytest.raises(RequestError, match="`--batch_size`"):
        check_batch([config], replicas=5)


def test_organs_are_found_by_name_once_each_and_all_means_those_that_are_sealed(tmp_path: Path) -> None:
    for name in ("lung", "cervix", ".work"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").touch()
    (tmp_path / "unsealed").mkdir()
    assert chosen_organs(["all"], tmp_path) == ["cervix", "lung"]
    assert chosen_organs(["lung", "cervix", "lung"], tmp_path) == ["lung", "cervix"]
    with pytest.raises(RequestError, match="one of cervix, lung, a list of them, or all"):
        chosen_organs(["lungs"], tmp_path)


def test_the_names_that_flags_know_are_those_of_the_networks_and_ours_take_the_smallest_image() -> None:
    assert set(MODEL_NAMES) == set(MODELS)
    for name in OWN_MODELS:
        build_model(name, image_size=LEAST_PX, classes=2)
