"""Where the results of a program go: a file, an object in a bucket, or standard output.

output = output_of("out.csv")       # None for an empty name
output.check(images)                # raises RequestError if it is no place for the result
with output.opened() as file:       # whole or not there, however long writing takes
    file.write(b"…")
"""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn, Protocol

from data_pipeline import cli
from data_pipeline.storage import atomic_file, in_bucket, write_atomic
from trainer.images_named import Image

PROBE_BYTES = 1 << 16
STDERR, STOPPED = 2, b"Stopped by SIGTERM. What was being written is discarded.\n"


class Sink(Protocol):
    """What rows are written to."""

    def write(self, data: bytes, /) -> object: ...


class Output(Protocol):
    """Where a table goes."""

    def check(self, images: Sequence[Image]) -> None: ...
    def write(self, data: bytes) -> None: ...
    def opened(self) -> AbstractContextManager[Sink]: ...


@dataclass(frozen=True)
class FileOutput:
    """A file to write."""

    path: Path
    flag: str = "output"  # that names it

    def __str__(self) -> str:
        return str(self.path)

    def check(self, images: Sequence[Image]) -> None:
        """Raises `RequestError` if it is no place for the result; one of the images isn't."""
        check_output(self.path, [image for image in images if isinstance(image, Path)], flag=self.flag)

    def write(self, data: bytes) -> None:
        write_atomic(self.path, data)

    def opened(self) -> AbstractContextManager[BinaryIO]:
        return atomic_file(self.path)


class StandardOutput:
    """Each row is on its way as soon as it is written."""

    def write(self, data: bytes, /) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def output_of(value: str, *, flag: str = "output") -> Output | None:
    """What `--output` names; None if it names nothing. Raises `RequestError`."""
    if in_bucket(value):
        from trainer.remote_files import BucketOutput  # only now: the client of Cloud Storage takes half a second

        return BucketOutput.of(value, flag=flag)
    return FileOutput(Path(value), flag) if value else None


def check_output(path: Path, images: Sequence[Path], *, flag: str = "output") -> None:
    """Raises `RequestError` if `path` is no place for the result; one of the images isn't."""
    fix = "name a file in a folder that exists and that this user may write to"
    reason = ""
    try:
        if path.is_dir():
            reason = "a folder has that name"
        if path.exists() and any(path.samefile(image) for image in images):
            reason = "it is one of the images"
        with tempfile.TemporaryFile(dir=path.absolute().parent) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise cli.invalid_flag(flag, expected="a file to write", received=str(path), fix=f"{fix} ({reason})")


@contextmanager
def tidied_on_sigterm() -> Iterator[None]:
    """Within this block SIGTERM ends the program by way of its `finally`s, so that nothing half-written is left.

    Outside of it, the signal ends the process as it ends any other, at once. Either way the code is 143.
    """

    def stop(signum: int, frame: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one finds us on the way out already
        # `print` might have been what was interrupted.
        os.write(STDERR, STOPPED)
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, before)
