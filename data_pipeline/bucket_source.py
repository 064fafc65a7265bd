"""The files of an organ in a bucket of Cloud Storage.

    sources = open_bucket("gs://lab/images", ["cervix"])

Each object is an input, called by its name below the organ's folder. The bucket is listed once, by the process that
leads; whoever reads a file gets it together with the size, checksum and generation that were listed, so that no other
contents can be taken for it. Objects are fetched by several threads ahead of whoever decodes them.
"""

import functools
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import cast

from data_pipeline.bucket import Blob, BucketFolder, ConflictError
from data_pipeline.cli import RequestError, invalid_flag
from data_pipeline.sources import (
    ARCHIVE_SUFFIXES,
    MAX_FILE_BYTES,
    FileContents,
    SourceFile,
    Tree,
    input_changed,
    is_system_name,
    locate,
    too_large,
    whole_slide_reason,
)

THREADS = 16
AHEAD_BYTES = 64 << 20  # fetched or being fetched while an earlier one is decoded
OUTLINE_PARTS = 3  # ORGAN/DIAGNOSIS/file
NO_FILE = "no file could have its name: rename the object"


@dataclass(frozen=True, slots=True)
class BucketFile(SourceFile):
    """An object as it was listed; `reason` says why it is never read, if it isn't."""

    blob: Blob
    reason: str


@dataclass(frozen=True)
class BucketSource:
    """Every object below `folder`; `listed` are these if they are known already, which a pickle leaves behind."""

    folder: BucketFolder
    listed: Sequence[Blob] | None = field(default=None, compare=False, repr=False)

    def __reduce__(self) -> tuple[type["BucketSource"], tuple[BucketFolder]]:
        return BucketSource, (self.folder,)

    @property
    def description(self) -> str:
        return str(self.folder)

    @property
    def sequential(self) -> bool:
        return False

    def files(self) -> list[SourceFile]:
        """Every object, ordered by id: those that were there when they were first asked for."""
        return self._files

    @functools.cached_property
    def _files(self) -> list[SourceFile]:
        blobs = self.folder.files() if self.listed is None else self.listed
        names = [blob.name for blob in blobs]
        exists = functools.partial(_exists, names)
        return [BucketFile(blob.name, _diagnosis(blob.name), blob, _reason(blob, exists)) for blob in blobs]

    def diagnoses(self) -> list[str]:
        return _sub_folders(self.folder)

    def stamp(self, file: SourceFile) -> str:
        blob = cast("BucketFile", file).blob
        return f"{blob.size} {blob.crc32c} {blob.generation}"

    def read(self, files: Sequence[SourceFile]) -> Iterator[FileContents]:
        return _ahead(self._read, cast("Sequence[BucketFile]", files))

    def _read(self, file: BucketFile) -> FileContents:
        if file.reason:
            return FileContents(None, file.reason)
        try:
            return FileContents(self.folder.read(file.blob), "")
        except ConflictError as error:
            raise input_changed(f"{self.folder}/{file.id}", "was replaced or removed") from error


def open_bucket(images: str, organs: Sequence[str]) -> dict[str, BucketSource]:
    """The source of each organ below, or at, the address `images`. Raises `RequestError`."""
    if images.lower().endswith(ARCHIVE_SUFFIXES):
        fix = f"fetch it first (`gcloud storage cp {images} .`) and name the file, or unpack it into the bucket"
        raise invalid_flag(
            "images", expected="a folder of a bucket; an archive only on a disk", received=images, fix=fix
        )
    folder = BucketFolder.of("images", images)
    folders, seen = _sub_folders(folder), _Listing(folder)
    if not folders and not seen.blobs:
        raise RequestError(f"There is nothing at {folder}. To fix it: put images at {folder}/ORGAN/DIAGNOSIS/.")
    tree = Tree(
        shown=str(folder),
        name=str(folder).rpartition("/")[2],
        root="",
        folders=folders,
        named={},
        paths=lambda: outline(seen.blobs),
    )
    return {organ: seen.source(path) for organ, path in locate(tree, organs).items()}


class _Listing:
    """All objects below a folder, asked for when they are first needed: for one organ of many they aren't."""

    def __init__(self, folder: BucketFolder) -> None:
        self._folder = folder

    @functools.cached_property
    def blobs(self) -> list[Blob]:
        return self._folder.files()

    def source(self, path: str) -> BucketSource:
        """The one at `path` below the folder, which is empty for the folder itself."""
        folder = self._folder / path if path else self._folder
        if "blobs" not in vars(self):
            return BucketSource(folder)
        prefix = f"{path}/" if path else ""
        below = (blob for blob in self.blobs if blob.name.startswith(prefix))
        return BucketSource(folder, [replace(blob, name=blob.name.removeprefix(prefix)) for blob in below])


def _sub_folders(folder: BucketFolder) -> list[str]:
    return [name for name in folder.folders() if name and not is_system_name(name)]


def outline(blobs: Iterable[Blob]) -> list[str]:
    """As of a folder on a disk: paths of three parts, those of more cut off to a folder that nobody looked into."""
    paths: dict[str, None] = {}
    for blob in blobs:
        parts = blob.name.split("/", OUTLINE_PARTS)
        paths["/".join(parts[:OUTLINE_PARTS]) + ("/" if len(parts) > OUTLINE_PARTS else "")] = None
    return list(paths)


def _reason(blob: Blob, exists: Callable[[str], bool]) -> str:
    if any(part in ("", ".", "..") for part in blob.name.split("/")):
        return NO_FILE
    return whole_slide_reason(blob.name, exists) or (too_large(blob.size) if blob.size > MAX_FILE_BYTES else "")


def _exists(names: Sequence[str], id: str) -> bool:
    """Whether there is an object of that name, or a folder, in the ordered `names`."""
    at, below = bisect_left(names, id), bisect_left(names, f"{id}/")
    return names[at : at + 1] == [id] or (below < len(names) and names[below].startswith(f"{id}/"))


def _diagnosis(id: str) -> str:
    first, slash, _ = id.partition("/")
    return first if slash else ""


def _ahead(read: Callable[[BucketFile], FileContents], files: Sequence[BucketFile]) -> Iterator[FileContents]:
    """`read(file)` for each, in order, some of the next ones being read already."""
    pool = ThreadPoolExecutor(min(THREADS, len(files)) or 1, thread_name_prefix="fetch")
    waiting: deque[tuple[Future[FileContents], int]] = deque()
    held, todo = 0, deque(files)
    try:
        while todo or waiting:
            while todo and len(waiting) < 2 * THREADS and (not waiting or held + todo[0].blob.size <= AHEAD_BYTES):
                file = todo.popleft()
                waiting.append((pool.submit(read, file), file.blob.size))
                held += file.blob.size
            future, size = waiting.popleft()
            yield future.result()
            held -= size
    finally:
        # Nobody waits for what is under way: on an error, or being told to stop, it isn't wanted any more.
        pool.shutdown(wait=False, cancel_futures=True)
