"""Datasets fetched from a bucket: checked, kept, fetched again where they are damaged, within a budget."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipeline.bucket import ConflictError
from data_pipeline.cli import FaultError, RequestError
from data_pipeline.manifest import DatasetError, Manifest
from data_pipeline.transfer import upload
from tests.bucket_faults import matching
from tests.bucket_server import IN_MEMORY, BucketServer, FaultyBucket
from tests.conftest import ROOT
from tests.faults.disks import mounted
from tests.trainer.test_preflight import harm_unseen
from tests.trainer.wrong_requests import flip_bit
from trainer.records import RecordReader
from trainer.scratch import Dataset, Scratch
from trainer.seal_check import check_contents, sealed_files
from trainer.staging import BucketDatasets, fetched_again

GB = 10**9
ANY_MEMORY = pytest.mark.parametrize("faulty_bucket", IN_MEMORY, indirect=True)


def put(server: BucketServer, tfrecords: Path) -> None:
    files = {path.relative_to(tfrecords).as_posix(): path for path in tfrecords.rglob("*") if path.is_file()}
    upload(server.folder("tfrecords"), files)


@pytest.fixture
def bucket(faulty_bucket: FaultyBucket, tfrecords: Path) -> FaultyBucket:
    put(faulty_bucket.server, tfrecords)
    return faulty_bucket


def stage(scratch: Path, *splits: str, budget: int = GB) -> tuple[Path, Manifest]:
    """As a process that is started does it."""
    datasets = BucketDatasets("gs://lab/tfrecords", Scratch(scratch, budget))
    manifest = datasets.manifest("gland")
    datasets.reserve([manifest], *splits)
    return datasets.stage(manifest, *splits) / "gland", manifest


def contents_asked(bucket: FaultyBucket) -> list[str]:
    """The objects whose contents were asked for, without the manifest's."""
    return [seen.address for seen in bucket.front.log if seen.media and "manifest.json" not in seen.address]


@ANY_MEMORY
def test_what_is_fetched_is_the_dataset_and_is_not_fetched_again(
    bucket: FaultyBucket, tfrecords: Path, tmp_path: Path
) -> None:
    folder, manifest = stage(tmp_path / "s")
    check_contents(folder, manifest)
    for seal in sealed_files(manifest):
        assert (folder / seal.path).read_bytes() == (tfrecords / "gland" / seal.path).read_bytes()
    asked = len(contents_asked(bucket))
    assert asked == len(sealed_files(manifest))
    assert stage(tmp_path / "s") == (folder, manifest)
    assert len(contents_asked(bucket)) == asked


@ANY_MEMORY
@pytest.mark.parametrize("harm", ["bit", "cut", "gone"])
def test_a_file_that_was_damaged_is_fetched_again_and_no_other(bucket: FaultyBucket, tmp_path: Path, harm: str) -> None:
    folder, manifest = stage(tmp_path / "s")
    asked = len(contents_asked(bucket))
    shard = folder / manifest.shards[1].path
    if harm == "bit":
        flip_bit(shard, 0.5)
    elif harm == "cut":
        os.truncate(shard, 100)
    else:
        shard.unlink()
    stage(tmp_path / "s")
    check_contents(folder, manifest)
    assert [shard.name in address for address in contents_asked(bucket)[asked:]] == [True]


@ANY_MEMORY
def test_damage_that_only_reading_shows_is_fetched_again_the_next_time(bucket: FaultyBucket, tmp_path: Path) -> None:
    folder, manifest = stage(tmp_path / "s")
    harm_unseen(folder / manifest.shards[0].path)
    stage(tmp_path / "s")
    with pytest.raises(DatasetError):
        check_contents(folder, manifest)
    with pytest.raises(FaultError), fetched_again(folder.parent, "gs://lab/tfrecords"):
        check_contents(folder, manifest)
    stage(tmp_path / "s")
    check_contents(folder, manifest)


@ANY_MEMORY
def test_one_split_is_fetched_alone(bucket: FaultyBucket, tmp_path: Path) -> None:
    folder, manifest = stage(tmp_path / "s", "test")
    assert len(RecordReader(folder, manifest, "test")) == manifest.splits["test"].records
    assert not list(folder.glob("*train*"))
    folder, manifest = stage(tmp_path / "s")
    check_contents(folder, manifest)


@ANY_MEMORY
def test_a_bucket_that_holds_other_bytes_than_were_sealed_is_told_by_its_address(
    bucket: FaultyBucket, tfrecords: Path, tmp_path: Path
) -> None:
    shard = Manifest.load(tfrecords / "gland").shards[0].path
    data = bytearray((tfrecords / "gland" / shard).read_bytes())
    data[len(data) // 2] ^= 1
    bucket.server.folder("tfrecords/gland").write(shard, bytes(data))
    with pytest.raises(DatasetError, match=f"gs://lab/tfrecords/gland/{shard}") as refusal:
        stage(tmp_path / "s")
    assert str(tmp_path) not in str(refusal.value)
    bucket.server.folder("tfrecords/gland").write(shard, bytes(data[:-1]))
    with pytest.raises(DatasetError, match=rf"gs://lab/tfrecords/gland/{shard} has .* bytes, .* were sealed"):
        stage(tmp_path / "s")
    bucket.server.folder("tfrecords/gland").delete([shard])
    with pytest.raises(DatasetError, match=rf"gs://lab/tfrecords/gland/{shard} is missing"):
        stage(tmp_path / "s")


@ANY_MEMORY
def test_a_dataset_that_is_replaced_meanwhile_is_an_error(
    bucket: FaultyBucket, tfrecords: Path, tmp_path: Path
) -> None:
    datasets = BucketDatasets("gs://lab/tfrecords", Scratch(tmp_path / "s", GB))
    manifest = datasets.manifest("gland")
    datasets.reserve([manifest])
    other = replace(manifest, warnings=("another",))
    bucket.server.folder("tfrecords/gland").write("manifest.json", other.to_json().encode())
    with pytest.raises(ConflictError, match=r"dataset in gs://lab/tfrecords/gland was replaced while it was fetched"):
        datasets.stage(manifest)


@ANY_MEMORY
@pytest.mark.parametrize("text", ["", "{", "no json", '{"format": "cytotrain-dataset", "version": 99}'])
def test_a_damaged_manifest_is_told_by_its_address(bucket: FaultyBucket, tmp_path: Path, text: str) -> None:
    bucket.server.folder("tfrecords/gland").write("manifest.json", text.encode())
    with pytest.raises(DatasetError, match=r"gs://lab/tfrecords/gland/manifest\.json.*To fix it"):
        stage(tmp_path / "s")
    bucket.server.folder("tfrecords/gland").delete(["manifest.json"])
    with pytest.raises(DatasetError, match=r"No sealed dataset in gs://lab/tfrecords/gland: .*To fix it"):
        stage(tmp_path / "s")


@ANY_MEMORY
def test_a_dataset_larger_than_the_budget_or_the_disk_is_refused_with_its_size(
    bucket: FaultyBucket, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=r"`--scratch_budget`. Expected at least \d+ kB: gland with \d+ kB.*100 kB"):
        stage(tmp_path / "s", budget=100_000)
    assert not list((tmp_path / "s").glob("datasets/*"))
    with mounted(tmp_path / "disk", size_mb=2) as disk:
        with pytest.raises(RequestError, match=r"gland with 3 MB can't be fetched to .*: its disk lacks [\d.]+ kB"):
            Scratch(disk.folder / "s", GB).reserve({Dataset("a" * 64, "gland"): 3_000_000})
        assert not list((disk.folder / "s").glob("datasets/*"))


def fill(scratch: Scratch, fingerprint: str, *, used: int) -> None:
    """A dataset of 400 kB from an earlier process, used at that time."""
    program = (
        "import sys; from pathlib import Path; from trainer.scratch import Dataset, Scratch\n"
        "Scratch(Path(sys.argv[1]), 10**9).reserve({Dataset(sys.argv[2], 'x'): 400_000})"
    )
    subprocess.run([sys.executable, "-c", program, scratch.root, fingerprint], cwd=ROOT, check=True)
    folder = scratch.dataset(fingerprint)
    (folder / "data").write_bytes(bytes(400_000))
    os.utime(folder / ".in_use", (used, used))


def test_those_used_least_recently_make_room_but_none_that_is_in_use(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path, 1_300_000)
    for name, used in (("a" * 64, 3), ("b" * 64, 1), ("c" * 64, 2)):
        fill(scratch, name, used=used)
    scratch.reserve({Dataset("b" * 64, "b"): 400_000})  # from now on this process uses it
    os.utime(scratch.dataset("b" * 64) / ".in_use", (1, 1))
    scratch.reserve({Dataset("d" * 64, "d"): 400_000})
    assert {path.name[0] for path in (tmp_path / "datasets").iterdir()} == {"a", "b", "d"}
    scratch.reserve({Dataset("e" * 64, "e"): 400_000})
    assert {path.name[0] for path in (tmp_path / "datasets").iterdir()} == {"b", "d", "e"}
    with pytest.raises(RequestError, match=r"f with 400 kB can't be fetched .* 1\.2 MB are in use by other processes"):
        scratch.reserve({Dataset("f" * 64, "f"): 400_000})
    assert {path.name[0] for path in (tmp_path / "datasets").iterdir()} == {"b", "d", "e"}


def test_a_scratch_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match=r"`--scratch`.*Not a directory|`--scratch`.*File exists"):
        Scratch(tmp_path / "file", GB).reserve({Dataset("a" * 64, "a"): 1})


@pytest.mark.parametrize("faults", [["cut"], ["flip"], ["short"], ["reset after"], ["503"], ["429"]])
@ANY_MEMORY
def test_a_transfer_that_fails_in_its_midst_is_made_good(
    bucket: FaultyBucket, tmp_path: Path, faults: list[str]
) -> None:
    bucket.front.rule = matching("GET", "gland-train.tfrecord-00000", faults[0], times=2)
    folder, manifest = stage(tmp_path / "s")
    assert faults[0] in bucket.front.hit()
    check_contents(folder, manifest)


@ANY_MEMORY
def test_a_process_killed_while_it_fetches_leaves_nothing_in_the_way(bucket: FaultyBucket, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from trainer.scratch import Scratch; from trainer.staging import BucketDatasets\n"
        "datasets = BucketDatasets('gs://lab/tfrecords', Scratch(Path(sys.argv[1]), 10**9))\n"
        "manifest = datasets.manifest('gland')\n"
        "datasets.reserve([manifest])\n"
        "datasets.stage(manifest)"
    )
    bucket.front.rule = lambda seen: "hang" if "validation" in seen.address and seen.media else ""
    process = subprocess.Popen([sys.executable, "-c", program, tmp_path / "s"], cwd=ROOT)
    while "hang" not in bucket.front.hit():
        assert process.poll() is None
    process.kill()
    process.wait()
    bucket.front.rule = lambda seen: ""
    folder, manifest = stage(tmp_path / "s")
    check_contents(folder, manifest)
    shutil.rmtree(folder)
