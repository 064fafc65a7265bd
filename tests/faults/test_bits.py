"""One bit, one byte or one file that isn't what was sealed: `verify` names it, and no reader takes it for data."""

import random
import re
import shutil
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline import cli
from data_pipeline.audit import audit_file, audit_shard
from data_pipeline.manifest import FILE_NAME, DatasetError, Manifest, ShardSeal, load_offsets
from data_pipeline.verify import verify
from tests.conftest import make_images, run_module
from tests.faults.program import run_here
from trainer.records import RecordReader

FLIPS = 1000
WHOLE_VERIFIES = 40  # of so many flips the whole dataset is verified, of the others the file that was changed


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 72 images, which nobody changes."""
    folder = tmp_path_factory.mktemp("sealed")
    make_images(folder / "images" / "gland")
    run_here(folder / "images", folder / "tf")
    return folder / "tf" / "gland"


@pytest.fixture
def folder(sealed: Path, tmp_path: Path) -> Path:
    """A copy of it to be damaged."""
    shutil.copytree(sealed, tmp_path / "gland")
    return tmp_path / "gland"


def found_by_verify(folder: Path) -> list[str]:
    try:
        return verify(folder, workers=1)
    except DatasetError as error:
        return [str(error)]


def found_in(folder: Path, manifest: Manifest, name: str) -> list[str]:
    """What the parts of `verify` that look at this file find."""
    if name == FILE_NAME:
        return found_by_verify(folder)
    for shard in manifest.shards:
        if name in (shard.path, shard.offsets.path):
            return list(audit_shard(folder, shard, decode_images=True, image_size=manifest.image_size).problems)
    return [audit_file(folder, next(file for file in manifest.files if file.path == name))]


def read_everything(folder: Path, manifest: Manifest) -> list[bytes]:
    """All records of all splits, one at a time, by the reader that trains."""
    found = []
    for split in manifest.splits:
        reader = RecordReader(folder, manifest, split)
        found += [reader.read(np.array([index]))[0] for index in range(len(reader))]
    return found


def refused_by_reader(folder: Path, manifest: Manifest) -> str:
    """The message with which the trainer refuses it; empty if it reads all of it."""
    try:
        read_everything(folder, manifest)
    except DatasetError as error:
        return str(error)
    return ""


def record_at(folder: Path, shard: ShardSeal, byte: int) -> int:
    return int(np.searchsorted(load_offsets(folder, shard), byte, side="right")) - 1


def kind_of(name: str) -> str:
    return "offsets" if name.endswith(".offsets") else "shard" if ".tfrecord-" in name else name


def test_each_of_a_thousand_flipped_bits_is_found_by_verify_and_by_the_trainer(folder: Path) -> None:
    manifest, rng, kinds = Manifest.load(folder), random.Random(1000), Counter[str]()
    shards = {shard.path: shard for shard in manifest.shards}
    by_index = {shard.offsets.path: shard for shard in manifest.shards}
    assert found_by_verify(folder) == []
    assert refused_by_reader(folder, manifest) == ""
    names = sorted(path.name for path in folder.iterdir())
    for number in range(FLIPS):
        name = rng.choice(names)
        path = folder / name
        whole = path.read_bytes()
        data, place = bytearray(whole), rng.randrange(8 * len(whole))
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(data)
        kinds[kind_of(name)] += 1
        every = FLIPS // WHOLE_VERIFIES
        problems = found_by_verify(folder) if number % every == 0 else found_in(folder, manifest, name)
        assert any(name in problem for problem in problems), f"bit {place} of {name}"
        if name in shards:
            path.write_bytes(whole)
            record = record_at(folder, shards[name], place // 8)
            path.write_bytes(data)
            assert any(problem.startswith(f"{name}: record {record}: ") for problem in problems), problems
            assert f"{name}, record {record}: " in refused_by_reader(folder, manifest)
        elif name in by_index:
            assert name in refused_by_reader(folder, manifest)
        path.write_bytes(whole)
    print(kinds)
    assert found_by_verify(folder) == []


def test_a_bit_anywhere_in_a_record_counts(folder: Path) -> None:
    manifest = Manifest.load(folder)
    shard = manifest.shards_of("train")[0]
    whole = (folder / shard.path).read_bytes()
    start, end = load_offsets(folder, shard)[1:3].tolist()
    for bit in range(8 * start, 8 * end, 5):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        (folder / shard.path).write_bytes(data)
        reader = RecordReader(folder, manifest, "train")
        reader.read(np.array([0, 2]))
        with pytest.raises(DatasetError, match="record 1: "):
            reader.read(np.array([1]))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_a_shard_cut_at_any_record_is_found(folder: Path, split: str) -> None:
    manifest = Manifest.load(folder)
    shard = manifest.shards_of(split)[0]
    path = folder / shard.path
    whole = path.read_bytes()
    for end in load_offsets(folder, shard)[:-1].tolist():  # the first leaves an empty file
        path.write_bytes(whole[:end])
        assert any(problem.startswith(shard.path) for problem in found_by_verify(folder))
        assert f"{shard.path} has {end:,} bytes" in refused_by_reader(folder, manifest)


@pytest.mark.parametrize("with_index", [False, True])
def test_two_shards_that_changed_names_are_found(folder: Path, with_index: bool) -> None:
    """Within a split and across splits, each with its index or without."""
    manifest = Manifest.load(folder)
    for left, right in combinations(manifest.shards, 2):
        pairs = [(left.path, right.path)] + [(left.offsets.path, right.offsets.path)] * with_index
        for one, other in pairs:
            exchange(folder / one, folder / other)
        problems = " ".join(found_by_verify(folder))
        assert left.path in problems
        assert right.path in problems
        assert re.search(f"{left.path}|{right.path}", refused_by_reader(folder, manifest))
        for one, other in pairs:
            exchange(folder / one, folder / other)
    assert found_by_verify(folder) == []


def exchange(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def test_shards_of_equal_layout_that_changed_names_are_found(tmp_path: Path) -> None:
    """Uncompressed files that are stored as they are make records of one size, and equal offsets."""
    for label, diagnosis in enumerate(("aa", "bb")):
        for number in range(200):
            path = tmp_path / "images" / "gland" / diagnosis / f"S{label}{number // 5:02d}_{number % 5}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(1000 * label + number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path, compress_level=0)
    run_here(tmp_path / "images", tmp_path / "tf")
    folder = tmp_path / "tf" / "gland"
    manifest = Manifest.load(folder)
    left, right = manifest.shards_of("train")[0], manifest.shards_of("test")[0]
    assert (load_offsets(folder, left) == load_offsets(folder, right)).all()
    exchange(folder / left.path, folder / right.path)
    assert len(found_by_verify(folder)) >= 2
    assert left.path in refused_by_reader(folder, manifest)


def test_a_lost_file_is_found(folder: Path) -> None:
    manifest = Manifest.load(folder)
    for path in sorted(folder.iterdir()):
        path.rename(folder.with_name("aside"))
        assert any(path.name in problem for problem in found_by_verify(folder))
        if ".tfrecord-" in path.name:
            assert path.name in refused_by_reader(folder, manifest)
        folder.with_name("aside").rename(path)


def test_a_record_too_many_is_found(folder: Path) -> None:
    manifest = Manifest.load(folder)
    for shard in manifest.shards:
        path = folder / shard.path
        whole, offsets = path.read_bytes(), load_offsets(folder, shard).tolist()
        path.write_bytes(whole + whole[offsets[-2] :])
        assert any(problem.startswith(shard.path) for problem in found_by_verify(folder))
        assert shard.path in refused_by_reader(folder, manifest)
        path.write_bytes(whole)


def test_records_that_changed_places_are_found_by_verify(folder: Path) -> None:
    """Each is whole and its image and label are its own; only the hash of the shard tells."""
    manifest = Manifest.load(folder)
    for shard in manifest.shards:
        path = folder / shard.path
        whole, offsets = path.read_bytes(), load_offsets(folder, shard).tolist()
        frames = [whole[start:end] for start, end in pairwise(offsets)]
        path.write_bytes(b"".join([frames[1], frames[0], *frames[2:]]))
        assert any(problem.startswith(shard.path) for problem in found_by_verify(folder))
        path.write_bytes(whole)


@pytest.mark.parametrize("change", ["indent", "line ends", "order", "blank at the end", "escape"])
def test_a_manifest_that_says_the_same_in_other_bytes_is_not_the_sealed_one(folder: Path, change: str) -> None:
    path = folder / FILE_NAME
    text = path.read_text()
    manifest = Manifest.load(folder)
    changed = {
        "indent": text.replace("\n  ", "\n    "),
        "line ends": text.replace("\n", "\r\n"),
        "order": text.replace('{\n "format"', '{\n "organ": "gland",\n "format"', 1),
        "blank at the end": text + " ",
        "escape": text.replace('"gland"', '"\\u0067land"', 1),
    }[change]
    assert changed != text
    path.write_bytes(changed.encode())
    assert Manifest.from_json(changed) == manifest
    with pytest.raises(DatasetError, match="not in the bytes that were sealed"):
        Manifest.load(folder)


def test_the_program_says_what_is_wrong_in_lines_and_not_in_a_traceback(folder: Path) -> None:
    path = folder / FILE_NAME
    data = bytearray(path.read_bytes())
    data[20] |= 0x80  # no text any more
    path.write_bytes(data)
    done = run_module("data_pipeline.verify", folder)
    assert done.returncode == cli.EXIT_REQUEST
    assert "manifest.json is damaged" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_was_flipped_before_sealing_is_made_again(tmp_path: Path, sealed: Path) -> None:
    """Chunks, shards, indexes and receipts of a run that was interrupted."""
    images, rng = sealed.parent.parent / "images", random.Random(3)
    whole = {path.name: path.read_bytes() for path in sealed.iterdir()}
    run_here(images, tmp_path / "before", "inspect", "plan", "write")
    for folder in ("inspect", "dataset", "receipts"):
        for number in range(12):
            tfrecords = tmp_path / f"{folder}{number}"
            shutil.copytree(tmp_path / "before", tfrecords)
            path = rng.choice(sorted((tfrecords / ".gland.partial" / folder).iterdir()))
            data = bytearray(path.read_bytes())
            place = rng.randrange(8 * len(data)) if number else 8 * len(data) - 1
            data[place // 8] ^= 1 << place % 8
            path.write_bytes(data)
            run_here(images, tfrecords)
            assert {path.name: path.read_bytes() for path in (tfrecords / "gland").iterdir()} == whole
