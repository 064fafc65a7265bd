"""Random access to records, and what happens to a byte that nobody can vouch for."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.manifest import DatasetError, Manifest, load_offsets
from tests.conftest import ROOT
from trainer.records import RecordReader

READ_ALL = """
import pathlib, resource, sys
import numpy as np
from data_pipeline.manifest import Manifest
from trainer.records import RecordReader

folder = pathlib.Path(sys.argv[1])
manifest = Manifest.load(folder)
resource.setrlimit(resource.RLIMIT_NOFILE, (8, int(sys.argv[2])))
readers = [RecordReader(folder, manifest, split) for split in ("train", "validation")]
print(sum(len(reader.read(np.arange(len(reader)))) for reader in readers))
"""
Dataset = tuple[Path, Manifest]


def copy_of(dataset: Dataset, folder: Path) -> Path:
    shutil.copytree(dataset[0], folder / "gland")
    return folder / "gland"


def test_any_record_in_any_order(dataset: Dataset) -> None:
    reader = RecordReader(*dataset, "train")
    everything = reader.records(np.arange(len(reader)))
    assert len({record.id for record in everything}) == len(reader) == dataset[1].splits["train"].records
    some = np.array([5, 0, len(reader) - 1, 5])
    assert [record.id for record in reader.records(some)] == [everything[i].id for i in some]


@pytest.mark.parametrize("place", ["length", "data", "checksum"])
def test_a_flipped_bit_stops_the_reader_at_that_record_only(dataset: Dataset, tmp_path: Path, place: str) -> None:
    folder = copy_of(dataset, tmp_path)
    shard = dataset[1].shards_of("train")[1]
    start, end = load_offsets(folder, shard)[3:5].tolist()
    data = bytearray((folder / shard.path).read_bytes())
    data[{"length": start + 1, "data": start + 60, "checksum": end - 2}[place]] ^= 0x10
    (folder / shard.path).write_bytes(data)
    reader = RecordReader(folder, dataset[1], "train")
    first = dataset[1].shards_of("train")[0].records
    reader.read(np.array([first + 2, first + 4]))
    with pytest.raises(DatasetError, match=rf"{shard.path}, record 3: "):
        reader.read(np.array([first + 2, first + 3]))
    assert reader.failure is not None


@pytest.mark.parametrize(("allowed", "works"), [(4096, True), (8, False)])
def test_there_may_be_more_shards_than_files_may_be_open(dataset: Dataset, allowed: int, works: bool) -> None:
    """In a process of its own that has room for a few shards only, and may or may not ask for more."""
    command = [sys.executable, "-c", READ_ALL, str(dataset[0]), str(allowed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    splits = dataset[1].splits
    assert (done.stdout == f"{splits['train'].records + splits['validation'].records}\n") == works, done.stderr
    assert ("ulimit -n" in done.stderr) != works


@pytest.mark.parametrize("harm", ["cut at a record", "longer", "gone", "offsets"])
def test_a_shard_that_is_not_the_sealed_one_is_refused_at_the_start(
    dataset: Dataset, tmp_path: Path, harm: str
) -> None:
    folder = copy_of(dataset, tmp_path)
    shard = dataset[1].shards_of("train")[0]
    path = folder / shard.path
    if harm == "cut at a record":
        path.write_bytes(path.read_bytes()[: load_offsets(folder, shard)[5]])
    elif harm == "longer":
        path.write_bytes(path.read_bytes() + b"\0")
    elif harm == "gone":
        path.unlink()
    else:
        (folder / shard.offsets.path).write_bytes(b"\0" * shard.offsets.bytes)
    with pytest.raises(DatasetError, match=shard.path):
        RecordReader(folder, dataset[1], "train")
