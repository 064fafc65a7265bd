"""Objects below a `gs://` address: listed, read and written exactly, however often the network fails.

    folder = BucketFolder.of("tfrecords", "gs://lab/tfrecords")
    for blob in (folder / "cervix").files(): ...    # names relative to the folder, sizes, checksums, generations
    data = folder.read("cervix/manifest.json")      # CRC32C checked
    folder.write("cervix/manifest.json", data, generation=0)        # only if there is none yet

Everything that is read is checked against the object's CRC32C, and pinned to one generation of it. Everything that is
written names the generation it replaces, so that of two writers one is told. Each call is tried again as `retrying.py`
says. Credentials come from the environment alone: Workload Identity, or Application Default Credentials. Whole files
go through `transfer.py`.
"""

import functools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from google.api_core.exceptions import NotFound, PreconditionFailed
from google.cloud import storage
from requests.adapters import HTTPAdapter

from data_pipeline.cli import FaultError, invalid_flag
from data_pipeline.crc32c import crc32c_of, size_and_crc32c
from data_pipeline.resumable import LEAST_BYTES, send
from data_pipeline.retrying import TruncatedError, retrying
from data_pipeline.storage import BUCKET_SCHEME

CONNECTIONS = 32
TIMEOUT_S = (10.0, 60.0)  # to connect, and between two pieces of an answer
PAGE = 1000  # objects in one answer of a listing: the most there can be
FIELDS = "items(name,size,crc32c,generation),nextPageToken"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


class ConflictError(FaultError):
    """Somebody else has written the object that was to be written, or replaced the one that was to be read."""


@dataclass(frozen=True, slots=True)
class Blob:
    """One object: `name` is its path below the folder it was listed in, `crc32c` as the service writes it (Base64)."""

    name: str
    size: int
    crc32c: str
    generation: int


@dataclass
class _Place:
    """Which generation of an object a write is to replace."""

    generation: int


@dataclass(frozen=True)
class BucketFolder:
    """All objects of a bucket whose names begin with `prefix`, which is empty or ends with `/`."""

    bucket: str
    prefix: str

    @classmethod
    def of(cls, flag: str, url: str) -> Self:
        """The folder a flag names. Raises `RequestError`."""
        bucket, _, path = url.removeprefix(BUCKET_SCHEME).partition("/")
        parts = path.strip("/").split("/") if path.strip("/") else []
        if not url.startswith(BUCKET_SCHEME) or not _BUCKET.fullmatch(bucket) or not all(map(_is_name, parts)):
            fix = f"write it as --{flag}={BUCKET_SCHEME}my-bucket/{flag}"
            raise invalid_flag(flag, expected="the address of a folder in a bucket", received=url, fix=fix)
        return cls(bucket, "".join(f"{part}/" for part in parts))

    def __str__(self) -> str:
        return f"{BUCKET_SCHEME}{self.bucket}/{self.prefix}".rstrip("/")

    def __truediv__(self, name: str) -> "BucketFolder":
        return BucketFolder(self.bucket, f"{self.prefix}{name.strip('/')}/")

    def files(self, prefix: str = "") -> list[Blob]:
        """Every object below, ordered by name; with `prefix` those whose names begin with it.

        An empty object called like a folder (`name/`), as consoles make them, is none.
        """

        found = (one for page in self._pages(self.prefix + prefix, fields=FIELDS) for one in page)
        return sorted(
            (self._blob(one) for one in found if int(one.size) or not one.name.endswith("/")),
            key=lambda blob: blob.name,
        )

    def folders(self) -> list[str]:
        """The names of the folders directly below."""
        names: set[str] = set()
        for page in self._pages(self.prefix, delimiter="/", fields="prefixes,nextPageToken"):
            names.update(page.prefixes)
        return sorted(name.removeprefix(self.prefix).removesuffix("/") for name in names)

    def _pages(self, prefix: str, **how: Any) -> Iterator[Any]:
        """The pages of a listing, each asked for again by itself: of a million objects there are a thousand."""
        token: str | None = None
        while True:

            def ask(token: str | None = token) -> tuple[Any, str | None]:
                found = self._client().list_blobs(
                    self.bucket, prefix=prefix, page_size=PAGE, page_token=token, timeout=TIMEOUT_S, retry=None, **how
                )
                page = next(found.pages)
                page.prefixes = found.prefixes
                return page, found.next_page_token

            page, token = retrying(ask, url=str(self))
            yield page
            if not token:
                return

    def find(self, name: str) -> Blob | None:
        """The object of this name; None if there is none. Raises `RequestError` if there isn't even the bucket."""

        def ask() -> Any:
            return self._client().bucket(self.bucket).get_blob(self.prefix + name, timeout=TIMEOUT_S, retry=None)

        found = retrying(ask, url=f"{self}/{name}")
        if found is None:
            next(iter(self._first()), None)
            return None
        return self._blob(found)

    def read(self, blob: Blob | str, *, tries: int = 3) -> bytes:
        """All of an object. Raises `FileNotFoundError`, and `ConflictError` if it isn't the one of `blob` any more."""
        if isinstance(blob, Blob):
            return self._read(blob)
        if not (found := self.find(blob)):
            raise FileNotFoundError(2, "No such object", f"{self}/{blob}")
        try:
            return self._read(found)
        except ConflictError:  # asked for by its name, the one that is there by now will do
            if tries == 1:
                raise
            return self.read(blob, tries=tries - 1)

    def _read(self, blob: Blob) -> bytes:
        def ask() -> bytes:
            data = self.read_range(blob, 0, blob.size) if blob.size else b""
            if crc32c_of(data) != blob.crc32c:
                raise TruncatedError(f"what came of {self}/{blob.name} isn't what is there")
            return data

        return retrying(ask, url=f"{self}/{blob.name}")

    def read_range(self, blob: Blob, start: int, stop: int) -> bytes:
        """The bytes from `start` up to `stop`, of this very generation; tried once.

        Raises `ConflictError` if there is another by now, `TruncatedError` if fewer came.
        """
        source = self._client().bucket(self.bucket).blob(self.prefix + blob.name, generation=blob.generation)
        try:
            data: bytes = source.download_as_bytes(
                start=start,
                end=stop - 1,
                raw_download=True,
                if_generation_match=blob.generation,
                checksum=None,  # of a range there is none: whoever has the whole checks it
                timeout=TIMEOUT_S,
                retry=None,
                single_shot_download=True,
            )
        except (NotFound, PreconditionFailed) as error:
            raise ConflictError(
                f"{self}/{blob.name} was replaced or removed while it was read. To fix it: run the same command again."
            ) from error
        if len(data) != stop - start:
            raise TruncatedError(f"{len(data)} of {stop - start} bytes of {self}/{blob.name} came")
        return data

    def write(self, name: str, data: bytes | Path, *, generation: int | None = None) -> Blob:
        """Write an object, whole or not at all, in place of the one of this `generation`; 0: only if there is none.

        None: whichever is there now. An object that is there with the same bytes is left. Raises `ConflictError` if
        there is another.
        """
        url = f"{self}/{name}"
        size, crc32c = (len(data), crc32c_of(data)) if isinstance(data, bytes) else size_and_crc32c(data)
        if generation is None:
            there = self.find(name)
            if there and (there.size, there.crc32c) == (size, crc32c):
                return there
            generation = there.generation if there else 0

        place = _Place(generation)

        def ask() -> Blob:
            target = self._client().bucket(self.bucket).blob(self.prefix + name)
            target.crc32c = crc32c  # the service refuses what arrives otherwise
            how: dict[str, Any] = {"if_generation_match": place.generation, "checksum": None, "retry": None}
            try:
                if isinstance(data, bytes):
                    target.upload_from_string(data, content_type=_type(name), timeout=TIMEOUT_S, **how)
                elif size < LEAST_BYTES:
                    target.upload_from_string(data.read_bytes(), content_type=_type(name), timeout=TIMEOUT_S, **how)
                else:
                    start = functools.partial(
                        target.create_resumable_upload_session, _type(name), size, timeout=TIMEOUT_S, **how
                    )
                    target._set_properties(send(self._client()._http, start, data, url=url))
            except PreconditionFailed:
                there = self.find(name)  # a try before may have arrived though its answer didn't
                if there and (there.size, there.crc32c) == (size, crc32c):
                    return there
                raise ConflictError(
                    f"{url} was written by somebody else meanwhile. To fix it: let only one process write there."
                ) from None
            if target.crc32c != crc32c:
                self._delete(name, generation=int(target.generation))
                place.generation = 0
                raise TruncatedError(f"what arrived at {url} isn't what was sent")
            return self._blob(target)

        return retrying(ask, url=url)

    def delete(self, names: Iterable[str], *, generation: int | None = None) -> None:
        """Remove objects; those that aren't there are no error.

        With `generation` only that one. Raises `ConflictError` if there is another by now.
        """
        for name in names:
            retrying(functools.partial(self._delete, name, generation=generation), url=f"{self}/{name}")

    def _delete(self, name: str, *, generation: int | None) -> None:
        target = self._client().bucket(self.bucket).blob(self.prefix + name)
        try:
            target.delete(if_generation_match=generation, timeout=TIMEOUT_S, retry=None)
        except NotFound:
            self._first()
        except PreconditionFailed as error:
            raise ConflictError(
                f"{self}/{name} was replaced by somebody else meanwhile. To fix it: let only one process write there."
            ) from error

    def _first(self) -> Iterator[Any]:
        """Ask for one object: an error if the bucket isn't there."""

        def ask() -> Any:
            return list(self._client().list_blobs(self.bucket, max_results=1, timeout=TIMEOUT_S, retry=None))

        return iter(retrying(ask, url=str(self)))

    def _client(self) -> Any:
        return _client(os.getpid(), os.environ.get("STORAGE_EMULATOR_HOST", ""))

    def _blob(self, found: Any) -> Blob:
        return Blob(found.name.removeprefix(self.prefix), int(found.size), found.crc32c, int(found.generation))


def _is_name(part: str) -> bool:
    return bool(part) and part not in (".", "..") and not any(ord(letter) < 32 for letter in part)


def _type(name: str) -> str:
    """So that a browser shows a report instead of saving it."""
    types = {"html": "text/html; charset=utf-8", "json": "application/json", "csv": "text/csv; charset=utf-8"}
    return types.get(name.rpartition(".")[2], "application/octet-stream")


@functools.lru_cache(maxsize=1)
def _client(process: int, service: str) -> Any:
    """One for all threads of a process; a forked one gets its own."""
    del process, service
    return retrying(_new_client, url="its objects")


def _new_client() -> Any:
    client = storage.Client(project=os.environ.get("GOOGLE_CLOUD_PROJECT", "none"))  # objects need no project
    adapter = HTTPAdapter(pool_connections=CONNECTIONS, pool_maxsize=CONNECTIONS)
    for scheme in ("https://", "http://"):
        client._http.mount(scheme, adapter)
    return client
