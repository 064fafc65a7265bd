"""What prediction and evaluation read from a bucket and write there: a model, images, a table.

with local_model("gs://lab/runs/cervix/r") as folder: ...       # a folder of this machine, while the block lasts
images = bucket_images("gs://lab/new")                          # each has a name and read_bytes()
output = BucketOutput.of("gs://lab/predictions.csv")
"""

import errno
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Self

from data_pipeline.bucket import Blob, BucketFolder, ConflictError
from data_pipeline.cli import RequestError, invalid_flag
from data_pipeline.storage import BUCKET_SCHEME
from data_pipeline.transfer import download
from trainer.images_named import is_image_name
from trainer.run_folder import MODEL, SAVED_MODEL


@contextmanager
def local_model(address: str) -> Iterator[Path]:
    """The SavedModel at an address, which may be a run's or the model's own, on this machine. Raises `RequestError`."""
    folder = BucketFolder.of("model", address)
    there = {blob.name: blob for blob in folder.files()}
    below = next((name for name in ("", f"{MODEL}/") if f"{name}{SAVED_MODEL}" in there), None)
    if below is None:
        fix = "name the folder `model` of a finished run"
        raise invalid_flag("model", expected="a folder with a SavedModel", received=address, fix=fix)
    own = [replace(blob, name=name.removeprefix(below)) for name, blob in there.items() if name.startswith(below)]
    with tempfile.TemporaryDirectory(prefix="model-") as target:
        download(folder / below if below else folder, own, Path(target), title=MODEL)
        yield Path(target)


@dataclass(frozen=True)
class BucketImage:
    """An image in a bucket, of the generation that was listed."""

    folder: BucketFolder
    blob: Blob

    def __str__(self) -> str:
        return f"{self.folder}/{self.blob.name}"

    def read_bytes(self) -> bytes:
        """Raises `FileNotFoundError` if it was replaced or removed since."""
        try:
            return self.folder.read(self.blob)
        except ConflictError:
            raise FileNotFoundError(errno.ENOENT, "replaced or removed since it was listed", str(self)) from None


def bucket_images(address: str) -> list[BucketImage]:
    """The object of this name, or the images below the folder of this name. Raises `RequestError`."""
    parent, name = _object(address)
    blob = parent.find(name) if name else None
    if blob:
        return [BucketImage(parent, blob)]
    folder = parent / name if name else parent
    blobs = folder.files()
    if not blobs:
        raise RequestError(f"{address} can't be read: nothing is there. To fix it: check the address.")
    return [BucketImage(folder, blob) for blob in blobs if is_image_name(PurePosixPath(blob.name))]


@dataclass(frozen=True)
class BucketOutput:
    """A file to write in a bucket."""

    folder: BucketFolder
    name: str
    flag: str = "output"  # that names it

    @classmethod
    def of(cls, address: str, *, flag: str = "output") -> Self:
        """Raises `RequestError` if it names no file, or none that can be written."""
        folder, name = _object(address)
        if not name or address.endswith("/"):
            fix = f"for example --{flag}={BUCKET_SCHEME}my-bucket/predictions.csv"
            raise invalid_flag(flag, expected="the address of a file to write", received=address, fix=fix)
        return cls(folder, name, flag)

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}"

    def check(self, images: Sequence[object]) -> None:
        """Write something beside it, and take it away again. Raises `RequestError` if that can't be done."""
        if str(self) in map(str, images):
            fix = "name another file (it is one of the images)"
            raise invalid_flag(self.flag, expected="a file to write", received=str(self), fix=fix)
        probe = f".probe-{uuid.uuid4().hex}"
        self.folder.write(probe, b"", generation=0)
        self.folder.delete([probe])

    def write(self, data: bytes) -> None:
        self.folder.write(self.name, data)

    @contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """A file of this machine that is uploaded when the block ends without an error."""
        with tempfile.TemporaryDirectory(prefix="output-") as folder:
            path = Path(folder) / "output"
            with path.open("wb") as file:
                yield file
            self.folder.write(self.name, path)


def _object(address: str) -> tuple[BucketFolder, str]:
    """The folder of an object, and its name there; empty for a whole bucket. Raises `RequestError`."""
    bucket, _, path = address.removeprefix(BUCKET_SCHEME).strip("/").partition("/")
    above, _, name = path.rpartition("/")
    try:
        BucketFolder.of("model", f"{BUCKET_SCHEME}{bucket}/{path}")  # all of it has to be an address
        return BucketFolder.of("model", f"{BUCKET_SCHEME}{bucket}/{above}"), name
    except RequestError:
        fix = f"write it as {BUCKET_SCHEME}my-bucket/folder/file"
        raise RequestError(f"{address} is no address in a bucket. To fix it: {fix}.") from None
