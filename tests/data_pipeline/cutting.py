"""Cutting into folds in tests: the program run as a process, and what it wrote."""

from itertools import pairwise
from pathlib import Path

from data_pipeline.manifest import Manifest, load_offsets
from data_pipeline.schema import decode_example, unframe_record
from tests.conftest import run_module
from tests.data_pipeline.conversion import contents

FOLDS = 3


def command(tfrecords: Path | str, output: Path | str, *arguments: object) -> list[str]:
    given = [f"--tfrecords={tfrecords}", f"--output={output}", f"--folds={FOLDS}", "--workers=1"]
    return ["--organ=gland", *given, *map(str, arguments)]


def cut(tfrecords: Path | str, output: Path | str, *arguments: object, code: int = 0) -> str:
    """Run the program; its output."""
    done = run_module("data_pipeline.folds", *command(tfrecords, output, *arguments))
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def fold(output: Path, number: int, of: int = FOLDS) -> Path:
    return output / f"fold-{number}-of-{of}" / "gland"


def every_fold(output: Path) -> list[Path]:
    return [fold(output, number) for number in range(1, FOLDS + 1)]


def frames(folder: Path, *splits: str) -> dict[str, bytes]:
    """Each record of these splits as it lies on the disk, frame and all, by its id."""
    manifest, found = Manifest.load(folder), {}
    for shard in (shard for split in splits for shard in manifest.shards_of(split)):
        data = (folder / shard.path).read_bytes()
        for start, end in pairwise(load_offsets(folder, shard).tolist()):
            found[decode_example(unframe_record(data, start, end)).id] = data[start:end]
    return found


def all_contents(output: Path) -> list[dict[str, str]]:
    return [contents(folder) for folder in every_fold(output)]


def nothing_in(output: Path) -> bool:
    return not list(output.glob("fold-*")) if output.exists() else True
