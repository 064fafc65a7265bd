"""Datasets in a bucket: found, described, fetched.

    seen = look(BucketFolder.of("tfrecords", "gs://lab/tfrecords"), "cervix")
    seen.manifest, seen.generation                  # None and 0 if there is none
    for place in find_datasets(folder): fetch(place, Path("scratch/cervix"))

Beside a dataset `.ORGAN.published.json` notes the CRC32C of each of its objects as they were uploaded, by which one
listing tells whether it is still whole, and which objects it was made of. The manifest alone makes it a dataset: a
note that is lost or of another manifest says nothing.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from data_pipeline.bucket import Blob, BucketFolder
from data_pipeline.bucket_source import BucketSource
from data_pipeline.cli import RequestError
from data_pipeline.conversion import Conversion
from data_pipeline.manifest import FILE_NAME, SPLITS, DatasetError, Manifest
from data_pipeline.scratch import need_room
from data_pipeline.transfer import check_name, download

_OTHERS = r"(manifest|dataset_info|features)\.json|quarantine\.csv|near_duplicates\.csv|card\.html|label\.labels\.txt"
_SHARD = rf"-({'|'.join(SPLITS)})\.tfrecord-\d{{5}}-of-\d{{5}}(\.offsets)?"


@dataclass(frozen=True)
class Note:
    """`objects` maps names to (size, CRC32C); `inputs` stands for the objects the images were, empty for others."""

    manifest_sha256: str
    inputs: str
    objects: dict[str, tuple[int, str]]

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()


@dataclass(frozen=True)
class Seen:
    """What a place holds: `data` and `generation` are those of the manifest, `blobs` are all objects by name."""

    blobs: Mapping[str, Blob]
    data: bytes = b""
    generation: int = 0
    note: Note | None = None

    def damage(self) -> list[str] | None:
        """The objects that aren't what was uploaded; None if nothing notes what that was."""
        if self.note is None:
            return None
        known = self.note.objects.items()
        return [f"{name} was changed or is missing" for name, sums in known if self._sums(name) != tuple(sums)]

    def _sums(self, name: str) -> tuple[int, str] | None:
        blob = self.blobs.get(name)
        return (blob.size, blob.crc32c) if blob else None


def look(folder: BucketFolder, organ: str) -> Seen:
    """What is at `folder/organ`. Raises `RequestError` if it isn't a dataset, nor anything that becomes one."""
    place = folder / organ
    blobs = {blob.name: blob for blob in place.files()}
    if FILE_NAME not in blobs:
        strangers = [name for name in blobs if not is_ours(name, organ)]
        if strangers:
            fix = "move it away, or name another --tfrecords"
            raise RequestError(f"{place} holds {strangers[0]}, which is no part of a dataset. To fix it: {fix}.")
        return Seen(blobs)
    data = place.read(blobs[FILE_NAME])
    return Seen(blobs, data, blobs[FILE_NAME].generation, _read_note(folder, organ, data))


def is_ours(name: str, organ: str) -> bool:
    """Whether a dataset of this organ has a file of that name."""
    return re.fullmatch(rf"{re.escape(organ)}{_SHARD}|{_OTHERS}", name) is not None


def note_name(organ: str) -> str:
    """The object that holds the `Note`, in the folder of datasets."""
    return f".{organ}.published.json"


def inputs_noted(conversion: Conversion) -> str:
    """Stands for the objects that are the images; empty for images elsewhere, which nothing pins to their contents."""
    if not isinstance(conversion.source, BucketSource):
        return ""
    stamps = [[file.id, conversion.source.stamp(file)] for file in conversion.files]
    return hashlib.sha256(json.dumps([conversion.source.description, stamps]).encode()).hexdigest()


def find_datasets(folder: BucketFolder) -> list[BucketFolder]:
    """`folder` itself if it is a dataset, else all folders in it. Raises `DatasetError` if there are none."""
    if folder.find(FILE_NAME):
        return [folder]
    found = [folder / name for name in folder.folders() if name and not name.startswith(".")]
    if not found:
        fix = "run `python -m data_pipeline` for this organ, to its end"
        raise DatasetError(f"No sealed dataset in {folder}. To fix it: {fix}.")
    return found


def fetch(place: BucketFolder, target: Path) -> None:
    """Make `target` hold what `place` does, and nothing else. Raises `DatasetError` if there is no manifest."""
    blobs = place.files()
    if FILE_NAME not in {blob.name for blob in blobs}:
        fix = "run `python -m data_pipeline` for this organ, to its end"
        raise DatasetError(f"No sealed dataset in {place}: there is no {FILE_NAME}. To fix it: {fix}.")
    for blob in blobs:
        check_name(blob.name)
    wanted = {target / blob.name for blob in blobs}
    for path in target.rglob("*"):
        if path.is_file() and path not in wanted and not path.name.startswith("."):
            path.unlink()
    there = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    need_room(target, max(sum(blob.size for blob in blobs) - there, 0))
    download(place, blobs, target, title="fetch")


def _read_note(folder: BucketFolder, organ: str, manifest: bytes) -> Note | None:
    try:
        values = json.loads(folder.read(note_name(organ)))
        note = Note(**values)
        return note if note.manifest_sha256 == hashlib.sha256(manifest).hexdigest() else None
    except (FileNotFoundError, ValueError, TypeError):
        return None


def manifest_of(seen: Seen, place: BucketFolder) -> Manifest | None:
    """The manifest that was seen; None if there was none. Raises `DatasetError`."""
    return Manifest.of_file(seen.data, f"{place}/{FILE_NAME}") if seen.generation else None
