"""Datasets in a bucket: what conversion leaves there is what it leaves on a disk, whatever happens on the way."""

import subprocess
import sys
from pathlib import Path

import pytest

from data_pipeline import cli
from data_pipeline.bucket import BucketFolder
from data_pipeline.bucket_dataset import is_ours
from data_pipeline.scratch import scratch_for
from data_pipeline.verify import judge
from tests.bucket_faults import EVERY_FAULT, seeded
from tests.bucket_server import BucketServer, FaultyBucket
from tests.conftest import ROOT, image_bytes, run_module
from tests.data_pipeline.bucket_files import TO, convert_here, fetched, fill, to_bucket
from tests.data_pipeline.conversion import contents, convert


def test_from_bucket_to_bucket_is_from_disk_to_disk_byte_for_byte(
    faulty_bucket: FaultyBucket, images: Path, tmp_path: Path
) -> None:
    """Through a network that fails; nothing is left over, neither there nor here."""
    server, front = faulty_bucket.server, faulty_bucket.front
    fill(server.folder("images"), images)
    front.rule = seeded(5, rate=0.05, faults=[fault for fault in EVERY_FAULT if fault != "429 wait"])
    said = to_bucket("gs://lab/images", tmp_path / "scratch")
    assert "Dataset: gs://lab/tf/gland (72 inputs" in said
    convert(images, tmp_path / "tf")
    assert len(set(front.hit())) > 2
    front.rule = lambda seen: ""
    assert fetched(server.folder("tf"), tmp_path / "theirs") == contents(tmp_path / "tf" / "gland")
    assert all(is_ours(name, "gland") for name in contents(tmp_path / "theirs"))
    names = [blob.name for blob in server.folder("tf").files() if not blob.name.startswith("gland/")]
    assert names == [".gland.published.json"]
    left = [path.name for path in (tmp_path / "scratch").rglob("*") if not path.name.endswith(".lock")]
    assert left == ["conversions", "lab", "tf"]


def test_a_second_run_does_nothing_and_reads_neither_images_nor_shards(
    faulty_bucket: FaultyBucket, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, front = faulty_bucket.server, faulty_bucket.front
    fill(server.folder("images"), images)
    convert_here("gs://lab/images", tmp_path / "scratch")
    before, began = server.folder("tf").files(), len(front.log)
    convert_here("gs://lab/images", tmp_path / "scratch")
    assert server.folder("tf").files() == before
    assert "up to date, nothing to do" in capsys.readouterr().err
    read = [seen.address for seen in front.log[began:] if seen.media]
    assert len(read) == 2, read  # the manifest and the note
    assert all(".json" in address for address in read)
    server.folder("tf").delete([".gland.published.json"])  # then all of it is read
    convert_here("gs://lab/images", tmp_path / "scratch")
    convert_here(images, tmp_path / "scratch")
    assert capsys.readouterr().err.count("up to date, nothing to do") == 2
    assert len(front.log) - began > 72


@pytest.mark.parametrize("note", [True, False])
@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_damage_is_found_and_mended_with_overwrite(
    bucket_server: BucketServer, images: Path, tmp_path: Path, harm: str, note: bool
) -> None:
    convert_here(images, tmp_path / "scratch")
    folder = bucket_server.folder("tf")
    whole = fetched(folder, tmp_path / "whole")
    shard = min(name for name in whole if "tfrecord" in name)
    data = folder.read(f"gland/{shard}")
    if harm == "changed":
        folder.write(f"gland/{shard}", data[:-1] + bytes([data[-1] ^ 1]))
    else:
        folder.delete([f"gland/{shard}"])
    if not note:
        folder.delete([".gland.published.json"])
    with pytest.raises(cli.RequestError, match=f"{shard}.*--overwrite"):
        convert_here(images, tmp_path / "scratch")
    convert_here(images, tmp_path / "scratch", overwrite=True)
    assert fetched(folder, tmp_path / "whole") == whole


def test_other_flags_or_images_are_refused_until_overwrite(
    bucket_server: BucketServer, images: Path, tmp_path: Path
) -> None:
    fill(bucket_server.folder("images"), images)
    folder = bucket_server.folder("tf")
    convert_here("gs://lab/images", tmp_path / "scratch")
    old = fetched(folder, tmp_path / "old")
    with pytest.raises(cli.RequestError, match="--seed was 0 and is 7"):
        convert_here("gs://lab/images", tmp_path / "scratch", seed=7)
    bucket_server.folder("images").write("gland/red/S200_0.png", image_bytes(78))
    with pytest.raises(cli.RequestError, match=r"the images have changed.*--overwrite"):
        convert_here("gs://lab/images", tmp_path / "scratch")
    assert fetched(folder, tmp_path / "old") == old
    folder.write("gland/gland-train.tfrecord-00007-of-00009", b"of a dataset with more shards")
    folder.write("gland/notes.txt", b"not ours")
    convert_here("gs://lab/images", tmp_path / "scratch", overwrite=True, seed=7)
    new = fetched(folder, tmp_path / "new")
    (images / "gland/red/S200_0.png").write_bytes(image_bytes(78))
    convert(images, tmp_path / "tf", "--seed=7")
    assert new.pop("notes.txt")
    assert new == contents(tmp_path / "tf" / "gland")


def test_what_is_no_dataset_is_never_replaced(bucket_server: BucketServer, images: Path, tmp_path: Path) -> None:
    bucket_server.folder("tf").write("gland/thesis.doc", b"years of work")
    with pytest.raises(cli.RequestError, match=r"gs://lab/tf/gland holds thesis\.doc.*To fix it"):
        convert_here(images, tmp_path / "scratch", overwrite=True)


def test_a_disk_that_is_too_small_is_told_before_the_work_begins(
    bucket_server: BucketServer, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(cli.FaultError, match=r"needs room for .* GB.*To fix it: free some space there, or .*--scratch"):
        convert_here(images, tmp_path / "scratch", image_size=4_000_000)
    assert bucket_server.folder("tf").files() == []


def test_verify_reads_datasets_of_a_bucket(bucket_server: BucketServer, images: Path, tmp_path: Path) -> None:
    convert_here(images, tmp_path / "scratch")
    scratch = f"--scratch={tmp_path / 'scratch'}"
    for address in (TO, f"{TO}/gland"):
        done = run_module("data_pipeline.verify", address, scratch)
        assert done.returncode == cli.EXIT_DONE, done.stderr
        assert done.stdout == "gs://lab/tf/gland: 72 records in 3 shards, nothing is wrong\n"
    folder = bucket_server.folder("tf/gland")
    shard = min(blob.name for blob in folder.files() if "tfrecord" in blob.name)
    data = bytearray(folder.read(shard))
    data[100] ^= 1
    folder.write(shard, bytes(data))
    folder.write("more.bin", b"?")
    done = run_module("data_pipeline.verify", TO, scratch)
    assert done.returncode == cli.EXIT_REQUEST
    assert f"gs://lab/tf/gland: {shard}: its contents were changed" in done.stderr
    assert "gs://lab/tf/gland: more.bin: is no part of the dataset" in done.stderr
    folder.delete(["manifest.json"])
    verdicts = list(judge(TO, workers=1, scratch=str(tmp_path / "scratch")))
    assert [verdict.shown for verdict in verdicts] == ["gs://lab/tf/gland"]
    assert "No sealed dataset in gs://lab/tf/gland" in verdicts[0].problems[0]


def test_verifying_stands_in_no_conversions_way(bucket_server: BucketServer, images: Path, tmp_path: Path) -> None:
    """Nor does a bucket that is called like a folder of the trainer's, in the scratch folder of both."""
    to_bucket(str(images), tmp_path / "scratch")
    done = run_module("data_pipeline.verify", TO, f"--scratch={tmp_path / 'scratch'}")
    assert done.returncode == cli.EXIT_DONE, done.stderr
    to_bucket(str(images), tmp_path / "scratch", "--overwrite", "--seed=7")
    for name in ("datasets", "runs"):
        place = scratch_for(str(tmp_path), BucketFolder.of("tfrecords", f"gs://{name}/tf"))
        assert tmp_path / name not in place.parents


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--stage=inspect"], "--stage"),
        (["--num_workers=2"], "--num_workers"),
        (["--tfrecords=gs://nowhere/tf"], "There is no bucket gs://nowhere"),
        (["--tfrecords=gs://Lab/tf"], "--tfrecords"),
        (["--tfrecords=gs://lab/images"], "another folder than the images"),
        (["--tfrecords=gs://lab"], "another folder than the images"),
        (["--scratch=/proc/nowhere"], "--scratch"),
    ],
)
def test_a_wrong_request_says_what_to_do(
    bucket_server: BucketServer, tmp_path: Path, arguments: list[str], says: str
) -> None:
    folder = "images" if "gs://lab/images" in arguments[0] else "" if "gs://lab" in arguments[0] else "x"
    bucket_server.folder(folder).write("gland/red/S200_0.png", image_bytes(1))
    address = f"gs://lab/{folder}".rstrip("/")
    said = to_bucket(address, tmp_path / "scratch", *arguments, code=cli.EXIT_REQUEST)
    assert says in said
    assert "To fix it" in said
    assert "Traceback" not in said


def test_who_names_no_bucket_waits_for_no_library_of_it() -> None:
    """It takes as long to import as all the rest, in every worker process."""
    modules = "data_pipeline.__main__, data_pipeline.stages, data_pipeline.verify"
    program = f"import sys, {modules}; sys.exit('google.cloud.storage' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)
