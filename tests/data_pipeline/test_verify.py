"""What `verify` finds: any changed bit, any leak."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline import cli
from data_pipeline.manifest import DatasetError, FileSeal, Manifest, NearDuplicates, ShardIndex, ShardSeal, load_offsets
from data_pipeline.schema import encode_example, frame_record
from data_pipeline.verify import verify
from tests.conftest import run_module
from tests.data_pipeline.conversion import convert, read_all
from tests.data_pipeline.test_plan import texture


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
    checksums = np.frombuffer(b"".join(frame[-4:] for frame in frames), dtype="<u4")
    offsets = ShardIndex(np.cumsum([0] + [len(frame) for frame in frames]), checksums).to_bytes()
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
    assert any("look alike" in problem for problem in problems)
    assert len(problems) == 4


def test_verify_finds_a_turned_copy_that_was_planted(images: Path, tmp_path: Path) -> None:
    """Converted without a look for near duplicates, and then declared to have none."""
    organ = images / "gland" / "red"
    for number in range(1, 8):
        picture = Image.fromarray(texture(number)).convert("RGB")
        picture.save(organ / f"S{900 + number}_1.png")
        picture.rotate(90).save(organ / f"S{950 + number}_1.png")
    convert(images, tmp_path / "tf", "--near_duplicates=ignore")
    folder = tmp_path / "tf" / "gland"
    assert verify(folder, workers=1) == []
    manifest = Manifest.load(folder)
    looked = replace(manifest, near_duplicates=NearDuplicates(threshold=0.7))
    (folder / "manifest.json").write_text(looked.to_json())
    problems = verify(folder, workers=1)
    assert problems
    assert all("look alike: red/S9" in problem for problem in problems)
    convert(images, tmp_path / "linked")
    assert verify(tmp_path / "linked" / "gland", workers=1) == []
    assert Manifest.load(tmp_path / "linked" / "gland").near_duplicates.pairs == 7


def test_verify_misses_no_dataset_of_a_folder(images: Path, tmp_path: Path) -> None:
    convert(images, tmp_path / "tf")
    shutil.copytree(tmp_path / "tf" / "gland", tmp_path / "tf" / "other")
    (tmp_path / "tf" / "other" / "manifest.json").unlink()
    done = run_module("data_pipeline.verify", tmp_path / "tf")
    assert done.returncode == cli.EXIT_REQUEST
    assert "No sealed dataset" in done.stderr
    assert "nothing is wrong" in done.stdout
