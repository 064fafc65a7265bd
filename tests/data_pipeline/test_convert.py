"""Conversion as a whole, from real files through real processes."""

import csv
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import cli
from data_pipeline.discover import discover
from data_pipeline.grouping import parse_rule
from data_pipeline.images import decode
from data_pipeline.inspect_stage import inspect
from data_pipeline.manifest import DatasetError, FileSeal, Manifest, ShardSeal, load_offsets, read_quarantine
from data_pipeline.plan import Settings, make_plan
from data_pipeline.schema import Record, decode_example, encode_example, frame_record, unframe_record
from data_pipeline.verify import verify
from data_pipeline.write import InputChangedError, write_shards
from tests.conftest import ROOT, image_bytes, make_images, run_module


def convert(images: Path, tfrecords: Path, *arguments: object, code: int = 0) -> str:
    """Run the program; its output."""
    done = run_module(
        "data_pipeline",
        "--organ=gland",
        f"--images={images}",
        f"--tfrecords={tfrecords}",
        "--image_size=32",
        *arguments,
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def read_all(folder: Path, manifest: Manifest, split: str) -> list[Record]:
    records = []
    for shard in manifest.shards_of(split):
        data, offsets = (folder / shard.path).read_bytes(), load_offsets(folder, shard).tolist()
        records += [decode_example(unframe_record(data, start, end)) for start, end in pairwise(offsets)]
    return records


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


def test_a_failing_overwrite_keeps_the_old_dataset(images: Path, tmp_path: Path) -> None:
    convert(images, tmp_path / "tf")
    old = contents(tmp_path / "tf" / "gland")
    shutil.rmtree(images / "gland" / "red")
    shutil.rmtree(images / "gland" / "green")
    assert "at least 2" in convert(images, tmp_path / "tf", "--overwrite", code=cli.EXIT_REQUEST)
    assert contents(tmp_path / "tf" / "gland") == old


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


@pytest.mark.parametrize(
    "name", ["manifest.json", "shard", "offsets", "quarantine.csv", "card.html", "dataset_info.json"]
)
def test_a_flipped_bit_anywhere_is_found(images: Path, tmp_path: Path, name: str) -> None:
    convert(images, tmp_path / "tf")
    folder = tmp_path / "tf" / "gland"
    shard = Manifest.load(folder).shards[0].path
    path = folder / {"shard": shard, "offsets": f"{shard}.offsets"}.get(name, name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    if name == "manifest.json":
        with pytest.raises(DatasetError, match="damaged"):
            verify(folder, workers=1)
    else:
        assert any(path.name in problem for problem in verify(folder, workers=1))
    done = run_module("data_pipeline.verify", folder)
    assert done.returncode == cli.EXIT_REQUEST
    assert path.name in done.stderr


def test_verify_names_shard_and_record(images: Path, tmp_path: Path) -> None:
    convert(images, tmp_path / "tf")
    folder = tmp_path / "tf" / "gland"
    shard = Manifest.load(folder).shards[0]
    data = bytearray((folder / shard.path).read_bytes())
    data[load_offsets(folder, shard)[2] + 40] ^= 1
    (folder / shard.path).write_bytes(data)
    assert any(problem.startswith(f"{shard.path}: record 2:") for problem in verify(folder, workers=1))


def test_verify_finds_a_leak_that_was_planted(images: Path, tmp_path: Path) -> None:
    """A training record copied into the test split, every hash and count made to fit, must still be found."""
    convert(images, tmp_path / "tf")
    folder = tmp_path / "tf" / "gland"
    manifest = Manifest.load(folder)
    stolen = read_all(folder, manifest, "train")[0]
    test_shard = manifest.shards_of("test")[0]
    frames = [frame_record(encode_example(r)) for r in [*read_all(folder, manifest, "test"), stolen]]
    offsets = np.cumsum([0] + [len(frame) for frame in frames]).astype("<i8").tobytes()
    data = b"".join(frames)
    (folder / test_shard.path).write_bytes(data)
    (folder / test_shard.offsets.path).write_bytes(offsets)
    forged = ShardSeal(
        test_shard.path,
        "test",
        hashlib.sha256(data).hexdigest(),
        len(data),
        len(frames),
        FileSeal(test_shard.offsets.path, hashlib.sha256(offsets).hexdigest(), len(offsets)),
    )
    test_split = manifest.splits["test"]
    name = manifest.classes[stolen.label]
    counts = test_split.per_class | {name: test_split.per_class[name] + 1}
    splits = manifest.splits | {"test": replace(test_split, records=len(frames), per_class=counts)}
    more = replace(manifest.counts, written=manifest.counts.written + 1, inputs=manifest.counts.inputs + 1)
    shards = tuple(forged if shard == test_shard else shard for shard in manifest.shards)
    (folder / "manifest.json").write_text(replace(manifest, splits=splits, counts=more, shards=shards).to_json())
    problems = verify(folder, workers=1)
    assert any(f"leak: group {stolen.group} lies in test and train" in problem for problem in problems)
    assert any("leak: image" in problem for problem in problems)
    assert f"record {stolen.id} is there 2 times" in problems
    assert len(problems) == 3


def test_an_interrupted_conversion_goes_on_and_ends_with_the_same_bytes(images: Path, tmp_path: Path) -> None:
    convert(images, tmp_path / "whole")
    # Nothing is sealed while an image can't be read back: a real stop in the middle of stage 3.
    rows = inspect(
        images / "gland", discover(images / "gland"), work=tmp_path / "cut/.gland.partial/inspect", workers=1
    )
    settings = Settings(image_size=32)
    plan = make_plan(rows, organ="gland", settings=settings, rule=parse_rule("auto"))
    image = images / "gland" / plan.shards[-1].records[-1].row.id
    kept, times = image.read_bytes(), image.stat()
    image.unlink()
    with pytest.raises(InputChangedError, match=image.name):
        write_shards(plan, images / "gland", work=tmp_path / "cut/.gland.partial", settings=settings, workers=1)
    assert not (tmp_path / "cut" / "gland").exists()
    image.write_bytes(kept)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    done = {p: p.stat().st_mtime_ns for p in (tmp_path / "cut/.gland.partial/dataset").glob("*.tfrecord-*")}
    assert done
    convert(images, tmp_path / "cut")
    assert contents(tmp_path / "whole" / "gland") == contents(tmp_path / "cut" / "gland")
    for path, written in done.items():  # finished shards were not written again
        assert (tmp_path / "cut" / "gland" / path.name).stat().st_mtime_ns == written
    assert not (tmp_path / "cut" / ".gland.partial").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_ends_with_code_75_and_a_second_run_finishes(images: Path, tmp_path: Path, workers: int) -> None:
    make_images(images / "gland", slides=60, tiles=6, size=200)
    command = [sys.executable, "-m", "data_pipeline", "--organ=gland", f"--images={images}"]
    command += [f"--tfrecords={tmp_path / 'tf'}", "--image_size=32", f"--workers={workers}"]
    chunks = tmp_path / "tf/.gland.partial/inspect"
    for finished in (0, 4, 9):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while len(list(chunks.glob("*.jsonl"))) <= finished and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        _, errors = process.communicate(timeout=60)
        assert time.monotonic() - asked < 10
        assert process.returncode == cli.EXIT_PREEMPTED, errors
        assert "run the same command again" in errors
        assert "Traceback" not in errors
        assert not (tmp_path / "tf" / "gland").exists()
    convert(images, tmp_path / "tf")
    manifest = Manifest.load(tmp_path / "tf" / "gland")
    assert manifest.counts.quarantined == 0
    assert verify(tmp_path / "tf" / "gland", workers=1) == []


def test_killed_at_random_moments_it_ends_with_the_same_bytes(images: Path, tmp_path: Path) -> None:
    make_images(images / "gland", slides=30, tiles=4, size=100)
    convert(images, tmp_path / "whole")
    command = [sys.executable, "-m", "data_pipeline", "--organ=gland", f"--images={images}"]
    command += [f"--tfrecords={tmp_path / 'cut'}", "--image_size=32"]
    kills = 0
    for delay in np.random.default_rng(0).uniform(0.3, 2.5, 8):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait(timeout=delay)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
            process.wait()
    convert(images, tmp_path / "cut")
    assert contents(tmp_path / "whole" / "gland") == contents(tmp_path / "cut" / "gland")
    assert not (tmp_path / "cut" / ".gland.partial").exists()
    assert kills


def test_a_kill_between_the_two_renames_of_an_overwrite_loses_nothing(images: Path, tmp_path: Path) -> None:
    convert(images, tmp_path / "tf")
    old = contents(tmp_path / "tf" / "gland")
    (tmp_path / "tf" / "gland").rename(tmp_path / "tf" / ".gland.replaced")
    assert "nothing to do" in convert(images, tmp_path / "tf")
    assert contents(tmp_path / "tf" / "gland") == old


def test_the_old_dataset_is_there_until_the_moment_the_new_one_is(images: Path, tmp_path: Path) -> None:
    convert(images, tmp_path / "tf")
    target = tmp_path / "tf" / "gland" / "manifest.json"
    before = target.read_bytes()
    command = [sys.executable, "-m", "data_pipeline", "--organ=gland", f"--images={images}", "--overwrite"]
    command += [f"--tfrecords={tmp_path / 'tf'}", "--image_size=40"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    seen, absences = [], 0
    while process.poll() is None:
        try:
            seen.append(target.read_bytes())
        except FileNotFoundError:
            absences += 1  # the instant between two renames; what a restart then does is tested above
    after = target.read_bytes()
    assert set(seen) <= {before, after}
    assert absences < 0.01 * len(seen)
    assert before in seen
    assert Manifest.load(target.parent).image_size == 40


def test_a_second_conversion_of_the_same_organ_is_kept_out(images: Path, tmp_path: Path) -> None:
    (tmp_path / "tf").mkdir()
    with (tmp_path / "tf" / ".gland.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another process" in convert(images, tmp_path / "tf", code=cli.EXIT_REQUEST)
    convert(images, tmp_path / "tf")


def test_a_duplicate_ties_two_slides_together(images: Path, tmp_path: Path) -> None:
    organ = images / "gland" / "red"
    shutil.copy(organ / "S200_0.png", organ / "S207_9.png")
    convert(images, tmp_path / "tf")
    folder = tmp_path / "tf" / "gland"
    manifest = Manifest.load(folder)
    groups = {r.id: r.group for split in manifest.splits for r in read_all(folder, manifest, split)}
    assert groups["red/S200_1.png"] == groups["red/S207_1.png"] == "S200"
    assert manifest.grouping.groups == 23


def test_a_shard_that_rots_before_sealing_is_written_again(images: Path, tmp_path: Path) -> None:
    work, settings = tmp_path / "tf/.gland.partial", Settings(image_size=32)
    rows = inspect(images / "gland", discover(images / "gland"), work=work / "inspect", workers=1)
    plan = make_plan(rows, organ="gland", settings=settings, rule=parse_rule("auto"))
    shard = work / "dataset" / write_shards(plan, images / "gland", work=work, settings=settings, workers=1)[0].path
    data = bytearray(shard.read_bytes())
    data[50] ^= 1
    shard.write_bytes(data)
    assert "does not hold what was written" in convert(images, tmp_path / "tf", code=cli.EXIT_FAULT)
    convert(images, tmp_path / "tf")
    assert verify(tmp_path / "tf" / "gland", workers=1) == []


def test_shards_of_other_flags_are_not_taken_for_these(images: Path, tmp_path: Path) -> None:
    work, settings = tmp_path / "tf/.gland.partial", Settings(image_size=32)
    rows = inspect(images / "gland", discover(images / "gland"), work=work / "inspect", workers=1)
    plan = make_plan(rows, organ="gland", settings=settings, rule=parse_rule("auto"))
    write_shards(plan, images / "gland", work=work, settings=settings, workers=1)
    convert(images, tmp_path / "tf", "--image_size=40")
    convert(images, tmp_path / "whole", "--image_size=40")
    assert contents(tmp_path / "tf" / "gland") == contents(tmp_path / "whole" / "gland")


def test_an_image_changed_after_inspection_is_inspected_again(images: Path, tmp_path: Path) -> None:
    """Even if size and time of modification are those of before."""
    image = images / "gland" / "red" / "S200_0.png"
    data, times = image.read_bytes(), image.stat()
    image.write_bytes(data[:-1] + b"?")
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    inspect(images / "gland", discover(images / "gland"), work=tmp_path / "tf/.gland.partial/inspect", workers=1)
    image.write_bytes(data)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    convert(images, tmp_path / "tf")
    assert Manifest.load(tmp_path / "tf" / "gland").counts.quarantined == 0


def test_a_killed_parent_takes_its_workers_with_it(images: Path, tmp_path: Path) -> None:
    make_images(images / "gland", slides=60, tiles=6, size=200)
    command = [sys.executable, "-m", "data_pipeline", "--organ=gland", f"--images={images}", "--workers=2"]
    process = subprocess.Popen([*command, f"--tfrecords={tmp_path / 'tf'}"], cwd=ROOT, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    chunks = tmp_path / "tf/.gland.partial/inspect"
    while not any(chunks.glob("*.jsonl")) and process.poll() is None:
        time.sleep(0.01)
    workers = children.read_text().split()
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


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


def test_one_organ_in_trouble_keeps_no_other_waiting(images: Path, tmp_path: Path) -> None:
    (images / "bad organ").mkdir()
    done = run_module("data_pipeline", "--organ=all", f"--images={images}", f"--tfrecords={tmp_path / 'tf'}")
    assert done.returncode == cli.EXIT_REQUEST
    assert "bad organ has usable images of 0 diagnoses" in done.stderr
    assert Manifest.load(tmp_path / "tf" / "gland").counts.written == 72


def test_verify_misses_no_dataset_of_a_folder(images: Path, tmp_path: Path) -> None:
    convert(images, tmp_path / "tf")
    shutil.copytree(tmp_path / "tf" / "gland", tmp_path / "tf" / "other")
    (tmp_path / "tf" / "other" / "manifest.json").unlink()
    done = run_module("data_pipeline.verify", tmp_path / "tf")
    assert done.returncode == cli.EXIT_REQUEST
    assert "No sealed dataset" in done.stderr
    assert "nothing is wrong" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--images=/nowhere"], "--images"),
        (["--organ=liver"], "gland"),
        (["--test_fraction=1.5"], "--test_fraction"),
        (["--group_by=magic"], "--group_by"),
        (["--group_by=regex:["], "regular expression"),
        (["--group_by=regex:abc"], "parentheses"),
        (["--group_by=csv:/nowhere.csv"], "csv:FILE"),
        (["--image_size=0"], "image_size"),
        (["--unknown=1"], "unknown"),
        (["--organ="], "organ"),
        (["--folds=1"], "--folds"),
        (["--folds=3", "--fold=3"], "--folds"),
        (["--fold=1"], "--folds"),
        (["--group_by=regex:(ZZZ)"], "--group_by"),
        (["stray"], "stray"),
        (["--tfrecords=gs://bucket/x"], "mounted"),
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
