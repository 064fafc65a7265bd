"""Requests that are wrong in their dataset or their run: rows for `test_bad_requests.py`."""

import fcntl
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from data_pipeline.manifest import FILE_NAME
from tests.faults.disks import mounted
from tests.trainer.wrong_requests import Make, Place, Row, flip_bit, manifest_text, without

# ── The dataset ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _newer(text: str) -> str:
    values = json.loads(text)
    return json.dumps(values | {"version": values["version"] + 1, "more": {}}, indent=1) + "\n"


def _harm(change: Callable[[Path], object], *, index: bool = False) -> Make:
    def make(place: Place) -> None:
        path = place.shard()
        change(path.with_name(place.manifest.shards_of("train")[0].offsets.path) if index else path)

    return make


def _other_shard(place: Place) -> None:
    """Another shard of the same number of bytes, under this one's name."""
    first, second = place.shard(0), place.shard(1)
    data = second.read_bytes()
    size = first.stat().st_size
    first.write_bytes((data + bytes(size))[:size])


def _two_shards_swapped(place: Place) -> None:
    """Sealed with sizes that are alike, so that the contents alone tell."""
    first, second = place.manifest.shards_of("train")[:2]
    one, two = place.dataset / first.path, place.dataset / second.path
    data = one.read_bytes(), two.read_bytes()
    one.write_bytes(data[1])
    two.write_bytes(data[0])
    sizes = {first.path: second.bytes, second.path: first.bytes}
    shards = tuple(replace(shard, bytes=sizes.get(shard.path, shard.bytes)) for shard in place.manifest.shards)
    place.seal(replace(place.manifest, shards=shards))


def _one_class(place: Place) -> None:
    place.seal(replace(place.manifest, classes=place.manifest.classes[:1]))


def _small(place: Place) -> None:
    place.seal(replace(place.manifest, image_size=16))


def _unlink_manifest(place: Place) -> None:
    (place.dataset / FILE_NAME).unlink()


def _quarantine_gone(place: Place) -> None:
    (place.dataset / "quarantine.csv").unlink()


def _manifest_is_a_folder(place: Place) -> None:
    _unlink_manifest(place)
    (place.dataset / FILE_NAME).mkdir()


def _no_data_at_all(place: Place) -> None:
    shutil.rmtree(place.dataset)


SHARD = "gland-train.tfrecord-00000-of-0000"

DATASET = (
    Row("no dataset at all", _no_data_at_all, ("holds no dataset", "python -m data_pipeline")),
    Row("not sealed", _unlink_manifest, ("No sealed dataset", "manifest.json")),
    Row("a folder for a manifest", _manifest_is_a_folder, ("No sealed dataset",)),
    Row("manifest cut", manifest_text(lambda text: text[:300]), ("manifest.json is damaged",)),
    Row("manifest empty", manifest_text(lambda text: ""), ("manifest.json is damaged",)),
    Row("manifest is a list", manifest_text(lambda text: "[]"), ("manifest.json is damaged",)),
    Row("manifest too deep", manifest_text(lambda text: "[" * 10**5), ("manifest.json is damaged",)),
    Row(
        "manifest altered",
        manifest_text(lambda text: text.replace('"seed": 0', '"seed": 1')),
        ("manifest.json is damaged", "fingerprint"),
    ),
    Row("manifest laid out anew", manifest_text(lambda text: text + " "), ("manifest.json is damaged",)),
    Row("manifest of a newer version", manifest_text(_newer), ("version 3", "version 2", "convert again")),
    *(Row(f"no {split}", without(split), (f"no {split} records",)) for split in ("train", "validation", "test")),
    Row("one class", _one_class, ("one class, blue", "two diagnoses")),
    Row("images too small", _small, ("`--image_size`", "32 or more", "16")),
    Row("shard gone", _harm(Path.unlink), (SHARD, "No such file")),
    Row("shard cut", _harm(lambda path: path.write_bytes(path.read_bytes()[:-9])), (SHARD, "bytes", "were sealed")),
    Row("shard empty", _harm(lambda path: path.write_bytes(b"")), (SHARD, "has 0 bytes")),
    Row("shard longer", _harm(lambda path: path.write_bytes(path.read_bytes() + b"0")), (SHARD, "were sealed")),
    Row("shard is a folder", _harm(lambda path: (path.unlink(), path.mkdir())), (SHARD, "isn't a file")),
    Row("shard with one bit flipped", _harm(lambda path: flip_bit(path, 0.5)), (SHARD, ", record ")),
    Row("shard with another's data", _other_shard, (SHARD,)),
    Row("two shards swapped", _two_shards_swapped, (SHARD, "holds what was sealed as gland-train.tfrecord-00001")),
    Row("index gone", _harm(Path.unlink, index=True), (SHARD, "No such file")),
    Row("index with one bit flipped", _harm(lambda path: flip_bit(path, 0.5), index=True), (SHARD, "SHA-256")),
    Row("another sealed file gone", _quarantine_gone, ("quarantine.csv", "No such file")),
)


# ── The run ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _file(name: str) -> Make:
    def make(place: Place) -> None:
        path = place.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a file")

    return make


def _read_only(place: Place) -> None:
    disk = place.stack.enter_context(mounted(place.runs))
    disk.remount("ro")


def _full(place: Place) -> None:
    place.stack.enter_context(mounted(place.runs)).fill(spare_pages=0)


def _other_settings(place: Place) -> list[str]:
    place.run(learning_rate=0.5)
    return ["--seed=3", "--noaugment"]


def _other_dataset(place: Place) -> None:
    place.run()
    place.seal(replace(place.manifest, warnings=("another",)))


def _config(text: str) -> Make:
    def make(place: Place) -> None:
        (place.run() / "config.json").write_bytes(text.encode(errors="surrogateescape"))

    return make


def _checkpoints_alone(place: Place) -> None:
    folder = place.run()
    (folder / "config.json").unlink()
    (folder / "checkpoints").mkdir()


def _under_way(place: Place) -> None:
    lock = place.stack.enter_context((place.run() / ".lock").open("w"))
    fcntl.flock(lock, fcntl.LOCK_EX)


def _into_the_dataset(place: Place) -> list[str]:
    return [f"--runs={place.dataset.parent}"]


RUN = (
    Row("a file for the runs", _file("runs"), ("`--runs`", "no file in place")),
    Row("a file for the organ's runs", _file("runs/gland"), ("`--runs`", "runs/gland")),
    Row("a file for the run", _file("runs/gland/r"), ("`--runs`", "runs/gland/r")),
    Row("runs where nothing can be made", lambda place: ["--runs=/proc/nowhere"], ("`--runs`", "writable")),
    Row("runs on a read-only disk", _read_only, ("`--runs`", "Read-only")),
    Row("runs on a full disk", _full, ("`--runs`", "No space left")),
    Row("runs among the dataset", _into_the_dataset, ("`--runs`", "outside of --tfrecords")),
    Row(
        "a run of other settings",
        _other_settings,
        ("--learning_rate was 0.5 and is 0.001", "--seed was 0 and is 3", "--augment was True and is False"),
    ),
    Row("a run of another dataset", _other_dataset, ("the dataset is another one", "give another --run")),
    Row("a run without its settings", _checkpoints_alone, ("config.json", "doesn't say of which settings")),
    Row("settings cut", _config('{"settings": {'), ("config.json", "doesn't say of which settings")),
    Row("settings of another kind", _config("[]"), ("config.json", "doesn't say of which settings")),
    Row("settings that are no text", _config("\udcff"), ("config.json",)),
    Row("settings too deep", _config("[" * 10**5), ("config.json",)),
    Row("a run under way", _under_way, ("is under way", "wait for its end")),
)
