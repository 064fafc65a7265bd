"""Converting in tests: the program run as a process, and what it wrote."""

import hashlib
from itertools import pairwise
from pathlib import Path

from data_pipeline.manifest import Manifest, load_offsets
from data_pipeline.schema import Record, decode_example, unframe_record
from tests.conftest import run_module


def convert(images: Path | str, tfrecords: Path | str, *arguments: object, code: int = 0) -> str:
    """Run the program; its output."""
    done = run_module(
        "data_pipeline",
        "--organ=gland",
        f"--images={images}",
        f"--tfrecords={tfrecords}",
        "--image_size=32",
        "--workers=1",
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
