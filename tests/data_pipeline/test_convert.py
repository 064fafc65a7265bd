"""Conversion as a whole, from real files through real processes."""

import csv
import os
import shutil
from pathlib import Path

import pytest

from data_pipeline import cli
from data_pipeline.images import decode
from data_pipeline.manifest import Manifest, read_quarantine
from data_pipeline.verify import verify
from tests.conftest import image_bytes, make_images, run_module
from tests.data_pipeline.conversion import contents, convert, read_all


def test_every_input_is_written_or_left_out_with_its_reason(images: Path, tmp_path: Path) -> None:
    organ = images / "gland"
    first = (organ / "red" / "S200_0.png").read_bytes()
    (organ / "red" / "copy of it.png").write_bytes(first)  # duplicate
    (organ / "red" / "S299_0.png").write_bytes(first[: len(first) // 2])  # truncated
    (organ / "blue" / "empty.png").touch()
    (organ / "blue" / "text.jpg").write_text("not an image")
    (organ / "blue" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (organ / "green" / "both.png").write_bytes(image_bytes(999_999))
    shutil.copy(organ / "green" / "both.png", organ / "red" / "both.png")  # label conflict
    (organ / "stray.png").write_bytes(image_bytes(999_998))
    convert(images, tmp_path / "tf")
    manifest = Manifest.load(tmp_path / "tf" / "gland")
    counts = manifest.counts
    assert (counts.inputs, counts.written, counts.duplicates, counts.quarantined) == (72 + 8, 72, 1, 7)
    rows = {row.path: row for row in read_quarantine(tmp_path / "tf" / "gland")}
    assert len(rows) == 8
    assert rows["red/copy of it.png"].duplicate_of == "red/S200_0.png" or rows["red/S200_0.png"].duplicate_of
    assert "damaged" in rows["red/S299_0.png"].reason
    assert rows["blue/empty.png"].reason == "empty file"
    assert "not an image" in rows["blue/text.jpg"].reason
    assert "hidden" in rows["blue/.DS_Store"].reason
    assert "diagnosis folder" in rows["stray.png"].reason
    for name in ("green/both.png", "red/both.png"):
        assert rows[name].outcome == "quarantined"
        assert "label conflict" in rows[name].reason
        assert "green and red" in rows[name].reason
    with (tmp_path / "tf" / "gland" / "quarantine.csv").open() as file:
        assert next(csv.reader(file)) == ["path", "outcome", "reason", "duplicate_of"]


def test_a_group_never_lies_in_two_splits_and_every_record_is_there_once(images: Path, tmp_path: Path) -> None:
    convert(images, tmp_path / "tf")
    folder = tmp_path / "tf" / "gland"
    manifest = Manifest.load(folder)
    by_split = {split: read_all(folder, manifest, split) for split in manifest.splits}
    groups = {split: {record.group for record in records} for split, records in by_split.items()}
    assert all(groups.values())
    assert not groups["train"] & groups["validation"]
    assert not groups["train"] & groups["test"]
    assert not groups["validation"] & groups["test"]
    assert manifest.grouping.groups == 24
    ids = sorted(record.id for records in by_split.values() for record in records)
    assert ids == sorted(p.relative_to(images / "gland").as_posix() for p in images.rglob("*.png"))
    for records in by_split.values():
        for record in records:
            assert record.id.startswith(manifest.classes[record.label] + "/")
            assert (record.width, record.height) == (48, 48)
            assert decode(record.image).pixels.shape == (32, 32, 3)


def test_the_number_of_workers_changes_no_byte(images: Path, tmp_path: Path) -> None:
    for workers in (1, 2, 3):
        convert(images, tmp_path / f"tf{workers}", f"--workers={workers}")
    one = contents(tmp_path / "tf1" / "gland")
    assert one == contents(tmp_path / "tf2" / "gland") == contents(tmp_path / "tf3" / "gland")


def test_an_image_that_fits_is_stored_as_it_is(tmp_path: Path) -> None:
    make_images(tmp_path / "images" / "gland", size=32)
    convert(tmp_path / "images", tmp_path / "tf")
    folder = tmp_path / "tf" / "gland"
    manifest = Manifest.load(folder)
    records = [record for split in manifest.splits for record in read_all(folder, manifest, split)]
    assert len(records) == 72
    for record in records:
        assert record.image == (tmp_path / "images" / "gland" / record.id).read_bytes()


def test_a_second_run_does_nothing_and_says_so(images: Path, tmp_path: Path) -> None:
    convert(images, tmp_path / "tf")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "tf" / "gland").iterdir()}
    assert "nothing to do" in convert(images, tmp_path / "tf")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "tf" / "gland").iterdir()}


@pytest.mark.parametrize("what", ["flag", "added", "changed", "removed", "renamed"])
def test_changed_flags_or_images_are_refused_until_overwrite(images: Path, tmp_path: Path, what: str) -> None:
    convert(images, tmp_path / "tf")
    old = contents(tmp_path / "tf" / "gland")
    image = images / "gland" / "red" / "S200_0.png"
    flags = ["--seed=7"] if what == "flag" else []
    if what == "added":
        (image.parent / "S290_0.png").write_bytes(image_bytes(77))
    elif what == "changed":
        image.write_bytes(image_bytes(78, size=48))
    elif what == "removed":
        image.unlink()
    elif what == "renamed":
        image.rename(image.parent / "S200_9.png")
    message = convert(images, tmp_path / "tf", *flags, code=cli.EXIT_REQUEST)
    assert "--overwrite" in message
    assert contents(tmp_path / "tf" / "gland") == old
    convert(images, tmp_path / "tf", "--overwrite", *flags)
    assert contents(tmp_path / "tf" / "gland") != old
    assert verify(tmp_path / "tf" / "gland", workers=1) == []


@pytest.mark.usefixtures("two_devices")
def test_tfds_reads_the_same_records(images: Path, tmp_path: Path) -> None:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    convert(images, tmp_path / "tf")
    folder = tmp_path / "tf" / "gland"
    manifest = Manifest.load(folder)
    builder = tfds.builder_from_directory(str(folder))
    assert builder.info.features["label"].names == list(manifest.classes)
    for split in manifest.splits:
        ours = {record.id: record for record in read_all(folder, manifest, split)}
        theirs = list(tfds.as_numpy(builder.as_dataset(split=split)))
        assert builder.info.splits[split].num_examples == len(theirs) == len(ours)
        for example in theirs:
            record = ours.pop(example["id"].decode())
            assert example["label"] == record.label
            assert example["group"].decode() == record.group
            assert (example["width"], example["height"]) == (record.width, record.height)
            assert (example["image"] == tf.io.decode_image(record.image).numpy()).all()
        assert not ours


def test_a_duplicate_ties_two_slides_together(images: Path, tmp_path: Path) -> None:
    organ = images / "gland" / "red"
    shutil.copy(organ / "S200_0.png", organ / "S207_9.png")
    convert(images, tmp_path / "tf")
    folder = tmp_path / "tf" / "gland"
    manifest = Manifest.load(folder)
    groups = {r.id: r.group for split in manifest.splits for r in read_all(folder, manifest, split)}
    assert groups["red/S200_1.png"] == groups["red/S207_1.png"] == "S200"
    assert manifest.grouping.groups == 23


def test_odd_files_and_folders_end_no_run(images: Path, tmp_path: Path) -> None:
    organ = images / "gland"
    os.mkfifo(organ / "red" / "pipe.png")
    (organ / "red" / "hole.svs").touch()
    os.truncate(organ / "red" / "hole.svs", 1 << 40)
    (organ / "red" / "nowhere.png").symlink_to("nowhere")
    (organ / "red" / "loop").symlink_to(organ / "red")
    (organ / "no images").mkdir()
    (organ / os.fsdecode(b"\xff")).mkdir()
    (organ / os.fsdecode(b"\xff") / "a.png").write_bytes(image_bytes(1))
    for number, name in enumerate(("Ünïcode 漢字.png", "-rf.png", "a\u202fb.png", "new\nline.png", "n" * 250 + ".png")):
        (organ / "blue" / name).write_bytes(image_bytes(4000 + number))
    output = convert(images, tmp_path / "tf")
    manifest = Manifest.load(tmp_path / "tf" / "gland")
    assert manifest.counts.inputs == 72 + 9
    assert manifest.counts.written == 72 + 4
    reasons = {row.path: row.reason for row in read_quarantine(tmp_path / "tf" / "gland")}
    assert reasons["red/pipe.png"] == "not a regular file"
    assert "cut it into tiles" in reasons["red/hole.svs"]
    assert "can't be read" in reasons["red/nowhere.png"]
    assert "rename" in reasons["blue/new\nline.png"]
    assert "No usable image of no images" in output
    assert verify(tmp_path / "tf" / "gland", workers=1) == []
    assert "nothing to do" in convert(images, tmp_path / "tf")


def test_a_linked_folder_is_seen_under_both_names(images: Path, tmp_path: Path) -> None:
    """Its images carry two diagnoses then, which is a conflict, and never silently one of them."""
    (images / "gland" / "blue" / "more").symlink_to(images / "gland" / "green")
    convert(images, tmp_path / "tf")
    manifest = Manifest.load(tmp_path / "tf" / "gland")
    assert manifest.classes == ("blue", "red")
    assert manifest.counts.quarantined == 48
    assert any("No usable image of green" in warning for warning in manifest.warnings)


def test_images_are_never_taken_for_a_dataset_to_replace(images: Path, tmp_path: Path) -> None:
    """Whatever lies among them, and however the folder is named."""
    (images / "gland" / "manifest.json").write_text("{}")
    before = contents_below(images)
    for given, target in ((images, images), (images / "gland", images), (images / "gland", images / "gland")):
        convert(given, target, "--overwrite", code=cli.EXIT_REQUEST)
    other = tmp_path / "tf" / "gland"
    shutil.copytree(images / "gland", other)
    assert "no dataset of ours" in convert(images, tmp_path / "tf", "--overwrite", code=cli.EXIT_REQUEST)
    assert contents_below(images) == before
    assert contents_below(other) == contents_below(images / "gland")


def contents_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("flags", [["--test_fraction=0"], ["--validation_fraction=0"]])
def test_a_split_may_be_empty(images: Path, tmp_path: Path, flags: list[str]) -> None:
    convert(images, tmp_path / "tf", *flags)
    manifest = Manifest.load(tmp_path / "tf" / "gland")
    assert 0 in {split.records for split in manifest.splits.values()}
    assert manifest.counts.written == 72
    assert verify(tmp_path / "tf" / "gland", workers=1) == []


def test_a_changed_table_of_groups_is_a_changed_flag(images: Path, tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("path,group\nred/S200_0.png,p1\n")
    convert(images, tmp_path / "tf", f"--group_by=csv:{table}")
    table.write_text("path,group\nred/S200_0.png,p1\nred/S201_0.png,p1\n")
    assert "--overwrite" in convert(images, tmp_path / "tf", f"--group_by=csv:{table}", code=cli.EXIT_REQUEST)


@pytest.mark.parametrize(
    ("organ", "inputs", "duplicates", "quarantined", "least_linked"),
    [
        ("blood_cells", 800, 0, 2, 0),
        ("cervix", 917, 0, 0, 5),
        ("lung", 720, 4, 0, 500),
        ("white_blood_cells", 300, 1, 0, 3),
    ],
)
def test_real_organs_are_converted_and_found_in_order(
    real_images: Path, tmp_path: Path, organ: str, inputs: int, duplicates: int, quarantined: int, least_linked: int
) -> None:
    flags = [f"--organ={organ}", f"--images={real_images}", f"--tfrecords={tmp_path}", "--image_size=128"]
    done = run_module("data_pipeline", *flags)
    assert done.returncode == cli.EXIT_DONE, done.stderr
    manifest = Manifest.load(tmp_path / organ)
    counts = manifest.counts
    assert (counts.inputs, counts.duplicates, counts.quarantined) == (inputs, duplicates, quarantined)
    assert least_linked <= manifest.near_duplicates.pairs <= 1.2 * least_linked + 3
    assert verify(tmp_path / organ, workers=1) == []


def test_one_organ_in_trouble_keeps_no_other_waiting(images: Path, tmp_path: Path) -> None:
    (images / "bad organ").mkdir()
    done = run_module("data_pipeline", "--organ=all", f"--images={images}", f"--tfrecords={tmp_path / 'tf'}")
    assert done.returncode == cli.EXIT_REQUEST
    assert "bad organ has usable images of 0 diagnoses" in done.stderr
    assert Manifest.load(tmp_path / "tf" / "gland").counts.written == 72


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--images=/nowhere"], "--images"),
        (["--organ=liver"], "gland"),
        (["--test_fraction=1.5"], "--test_fraction"),
        (["--group_by=magic"], "--group_by"),
        (["--group_by=regex:["], "regular expression"),
        (["--group_by=regex:abc"], "parentheses"),
        (["--group_by=csv:/nowhere.csv"], "columns path (DIAGNOSIS/FILE) and group"),
        (["--split_csv=/nowhere.csv"], "columns path (DIAGNOSIS/FILE) and split"),
        (["--stage=all", "--num_workers=2", "--worker=2"], "--num_workers"),
        (["--image_size=0"], "image_size"),
        (["--unknown=1"], "unknown"),
        (["--organ="], "organ"),
        (["--folds=1"], "--folds"),
        (["--folds=3", "--fold=3"], "--folds"),
        (["--fold=1"], "--folds"),
        (["--group_by=regex:(ZZZ)"], "--group_by"),
        (["stray"], "stray"),
        (["--tfrecords=s3://bucket/x"], "mounted"),
        (["--tfrecords=/proc/nowhere"], "writable"),
    ],
)
def test_a_wrong_request_ends_with_code_2_and_the_remedy(
    images: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    done = run_module(
        "data_pipeline", "--organ=gland", f"--images={images}", f"--tfrecords={tmp_path / 'tf'}", *arguments
    )
    assert done.returncode == cli.EXIT_REQUEST, done.stderr
    assert says in done.stderr
    assert "To fix it" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_teaches_and_is_no_failure() -> None:
    done = run_module("data_pipeline", "--help")
    assert done.returncode == cli.EXIT_DONE
    assert "python -m data_pipeline --organ=cervix" in done.stdout
    assert "--group_by" in done.stdout
