"""The seal of a dataset: what conversion wrote, and the only thing a reader has to trust.

    manifest = Manifest.load(Path("tfrecords/cervix"))
    for shard in manifest.shards_of("train"): ...

`manifest.json` is written last. A folder without it isn't a dataset; a file that doesn't match it isn't data.
"""

import csv
import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, astuple, dataclass, fields
from io import StringIO
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from data_pipeline.cli import RequestError, invalid_flag

FILE_NAME = "manifest.json"
FORMAT = "cytotrain-dataset"
VERSION = 2
SPLITS = ("train", "validation", "test")
QUARANTINE_NAME, NEAR_NAME = "quarantine.csv", "near_duplicates.csv"


class DatasetError(RequestError):
    """A folder that isn't a dataset, or one whose files don't match its manifest."""


class OtherVersionError(ValueError):
    """A manifest that another release has written."""


@dataclass(frozen=True, slots=True)
class FileSeal:
    """A file of the dataset: `path` is relative to the dataset's folder."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class ShardSeal:
    """A shard and the index of its record offsets beside it."""

    path: str
    split: str
    sha256: str
    bytes: int
    records: int
    offsets: FileSeal


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """How much of the dataset a split holds; `per_class` follows `Manifest.classes`."""

    records: int
    groups: int
    shards: int
    per_class: dict[str, int]


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of every input file. `inputs == written + duplicates + quarantined`."""

    inputs: int
    written: int
    duplicates: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """An input that was not written: `outcome` is `duplicate` or `quarantined`."""

    path: str
    outcome: str
    reason: str
    duplicate_of: str


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which rule tied images of one slide, smear or patient together, and what it found."""

    rule: str
    description: str
    groups: int
    examples: dict[str, str]


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """Images that look alike and were put into one group: `pairs` were found, of `images` images.

    `threshold` is the least similarity of a pair, 0 if none were looked for.
    """

    threshold: float = 0.0
    pairs: int = 0
    images: int = 0


@dataclass(frozen=True, slots=True)
class OriginalSizes:
    """How large the written images were before conversion: of how many sizes, and the least and most of each side.

    `commonest` holds some sizes, as text, and how many images are of each. All in pixels.
    """

    commonest: tuple[tuple[str, int], ...]
    distinct: int
    width: tuple[int, int]
    height: tuple[int, int]


@dataclass(frozen=True)
class Manifest:
    """Everything a reader may rely on. `fingerprint` is the SHA-256 of all the rest."""

    organ: str
    classes: tuple[str, ...]
    image_size: int
    counts: Counts
    splits: dict[str, SplitCounts]
    grouping: Grouping
    near_duplicates: NearDuplicates
    shards: tuple[ShardSeal, ...]
    files: tuple[FileSeal, ...]
    settings: dict[str, Any]
    warnings: tuple[str, ...]
    inputs_sha256: str

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(_canonical(asdict(self))).hexdigest()

    def shards_of(self, split: str) -> tuple[ShardSeal, ...]:
        """The shards of `split`, in order."""
        return tuple(shard for shard in self.shards if shard.split == split)

    def to_json(self) -> str:
        head = {"format": FORMAT, "version": VERSION, "fingerprint": self.fingerprint}
        return json.dumps(head | asdict(self), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises `ValueError`, `KeyError` or `TypeError` if `text` isn't a manifest, whole and unaltered."""
        values: dict[str, Any] = json.loads(text)
        if values.pop("format") != FORMAT:
            raise ValueError(f"not a {FORMAT}")
        version = values.pop("version")
        if version != VERSION:
            raise OtherVersionError(f"it is of version {version!r}, and this release reads version {VERSION}")
        fingerprint = values.pop("fingerprint")
        shards = [shard | {"offsets": FileSeal(**shard["offsets"])} for shard in values["shards"]]
        manifest = cls(
            **values
            | {
                "classes": tuple(values["classes"]),
                "counts": Counts(**values["counts"]),
                "splits": {name: SplitCounts(**split) for name, split in values["splits"].items()},
                "grouping": Grouping(**values["grouping"]),
                "near_duplicates": NearDuplicates(**values["near_duplicates"]),
                "shards": tuple(ShardSeal(**shard) for shard in shards),
                "files": tuple(FileSeal(**file) for file in values["files"]),
                "warnings": tuple(values["warnings"]),
            }
        )
        if manifest.fingerprint != fingerprint:
            raise ValueError("the fingerprint doesn't match the contents")
        return manifest

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the manifest of the dataset in `folder`. Raises `DatasetError`."""
        path = folder / FILE_NAME
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DatasetError(
                f"No sealed dataset in {folder}: {path.name} can't be read ({error.strerror}). "
                "To fix it: run `python -m data_pipeline` for this organ, to its end."
            ) from error
        return cls.of_file(data, path)

    @classmethod
    def of_file(cls, data: bytes, name: object) -> Self:
        """The manifest whose file, called `name` in messages, holds `data`. Raises `DatasetError`."""
        try:
            manifest = cls.from_json(data.decode())
            if manifest.to_json().encode() != data:
                raise ValueError("it says the same, but not in the bytes that were sealed")
            return manifest
        except OtherVersionError as error:
            fix = "use the release that wrote it, or convert again with --overwrite"
            raise DatasetError(f"Can't use {name}: {error}. To fix it: {fix}.") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DatasetError(
                f"{name} is damaged: {error}. To fix it: restore the file, or convert again with --overwrite."
            ) from error


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """Where the records of a shard lie and what they are.

    `offsets` is where each starts, in bytes, and where the last one ends: `[records + 1] int64`. `checksums` are those
    of their data, as the frames hold them, `[records] uint32`: without, shards of equal layout could change names.
    """

    offsets: NDArray[np.int64]
    checksums: NDArray[np.uint32]

    def to_bytes(self) -> bytes:
        return self.offsets.astype("<i8").tobytes() + self.checksums.astype("<u4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, records: int) -> Self:
        """Raises `ValueError` if `data` isn't the index of so many records."""
        if len(data) != 12 * records + 8:
            raise ValueError(f"not the index of {records} records")
        edge = 8 * (records + 1)
        return cls(np.frombuffer(data[:edge], dtype="<i8"), np.frombuffer(data[edge:], dtype="<u4"))


def load_index(folder: Path, shard: ShardSeal) -> ShardIndex:
    """The index of a shard. Raises `DatasetError` if it isn't the sealed one."""
    path = folder / shard.offsets.path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(
            f"Can't read {path}: {error.strerror}. To fix it: restore the file or convert again."
        ) from error
    if hashlib.sha256(data).hexdigest() != shard.offsets.sha256:
        raise DatasetError(f"{path} isn't the file that was sealed. To fix it: restore it or convert again.")
    try:
        return ShardIndex.from_bytes(data, shard.records)
    except ValueError as error:
        raise DatasetError(f"{path} is {error}. To fix it: restore the file or convert again.") from error


def load_offsets(folder: Path, shard: ShardSeal) -> NDArray[np.int64]:
    """The offsets of `load_index` alone."""
    return load_index(folder, shard).offsets


def is_dataset(folder: Path) -> bool:
    """Whether a folder holds a dataset of ours, be it damaged: nothing else may ever be replaced."""
    try:
        text = (folder / FILE_NAME).read_bytes()
    except OSError:
        return False
    return FORMAT.encode() in text or any(folder.glob(f"*-{SPLITS[0]}.tfrecord-*"))


def quarantine_csv(rows: Iterable[QuarantineRow]) -> str:
    """`rows` as the text of `quarantine.csv`."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(QuarantineRow))
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()


def read_quarantine(folder: Path) -> list[QuarantineRow]:
    """What the dataset in `folder` left out, and why."""
    csv.field_size_limit(1 << 20)  # names in archives may be long
    with (folder / QUARANTINE_NAME).open(encoding="utf-8", newline="") as file:
        return [QuarantineRow(**row) for row in csv.DictReader(file)]


def read_near_pairs(folder: Path) -> list[tuple[str, str]]:
    """The pairs of ids that were linked because they look alike; none if the file is lost."""
    try:
        with (folder / NEAR_NAME).open(encoding="utf-8", newline="") as file:
            return [(row["path"], row["near_duplicate_of"]) for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, KeyError, csv.Error):
        return []


def _canonical(values: dict[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def datasets_in(tfrecords: Path) -> dict[str, bool]:
    """The folders there, and whether each holds a sealed dataset. Raises `RequestError`."""
    try:
        return {path.name: (path / FILE_NAME).exists() for path in sorted(tfrecords.iterdir()) if path.is_dir()}
    except OSError as error:
        fix = f"name the folder that python -m data_pipeline has written to ({error.strerror})"
        raise invalid_flag("tfrecords", expected="a folder", received=str(tfrecords), fix=fix) from error
