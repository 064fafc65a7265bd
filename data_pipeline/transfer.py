"""Many whole files to and from a bucket at once, each of them checked, and none moved twice.

    download(folder, folder.files(), Path("scratch/cervix"), title="stage")
    upload(folder, {"model/saved_model.pb": path, ...}, title="upload")

A file that is there already with the same CRC32C is left. A download that was cut off, even by SIGKILL, goes on where
it was: its pieces are appended to `.NAME.part`, and only a file whose checksum is right gets its name.
"""

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

import google_crc32c
from tqdm import tqdm

from data_pipeline.bucket import Blob, BucketFolder
from data_pipeline.cli import FaultError
from data_pipeline.crc32c import crc32c_of_file, crc32c_text
from data_pipeline.retrying import retrying
from data_pipeline.storage import errors_naming, sync_folder

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = 8
PIECE_BYTES = 16 << 20
PART = ".part"


def download(
    folder: BucketFolder, blobs: Sequence[Blob], target: Path, *, title: str = "", threads: int = THREADS
) -> list[Path]:
    """Fetch `blobs` to files below `target`, with a progress bar if there is a `title`. Their paths, in order.

    Raises `ConflictError` if one is replaced meanwhile, `OSError` if the disk refuses.
    """
    for blob in blobs:
        check_name(blob.name)

    def fetch(blob: Blob, moved: Callable[[int], object]) -> Path:
        path = target / blob.name
        _fetch(folder, blob, path, moved)
        return path

    return _each(fetch, blobs, [blob.size for blob in blobs], title=title, threads=threads)


def upload(
    folder: BucketFolder,
    files: Mapping[str, Path],
    *,
    title: str = "",
    threads: int = THREADS,
    generations: Mapping[str, int] | None = None,
) -> dict[str, Blob]:
    """Write `files`, named by their objects, in place of what is there; those that are there already are left.

    With `generations` each replaces the one given for it, 0 for none. Raises `ConflictError` if somebody else writes
    one meanwhile.
    """
    names = sorted(files)

    def send(name: str, moved: Callable[[int], object]) -> Blob:
        blob = folder.write(name, files[name], generation=generations[name] if generations else None)
        moved(blob.size)
        return blob

    sizes = [files[name].stat().st_size for name in names]
    return dict(zip(names, _each(send, names, sizes, title=title, threads=threads), strict=True))


def remove(folder: BucketFolder, names: Sequence[str], *, threads: int = THREADS) -> None:
    """Delete objects; those that aren't there are no error."""
    _each(lambda name, moved: folder.delete([name]), names, [0] * len(names), title="", threads=threads)


def check_name(name: str) -> None:
    """Raises `FaultError` for an object whose name would lead out of the folder it is fetched to."""
    path = PurePosixPath(name)
    if path.is_absolute() or str(path) != name or {"..", "."} & set(path.parts):
        raise FaultError(f"An object is called {name!r}, which can't be a file. To fix it: rename the object.")


def is_copy(path: Path, blob: Blob) -> bool:
    """Whether the file holds what the object does."""
    try:
        return path.stat().st_size == blob.size and crc32c_of_file(path) == blob.crc32c
    except OSError:
        return False


def _each(
    work: Callable[[Item, Callable[[int], object]], Result],
    items: Iterable[Item],
    sizes: Sequence[int],
    *,
    title: str,
    threads: int,
) -> list[Result]:
    """`work` on all items in threads; the first error ends it all, without beginning what hasn't begun.

    Being told to stop means now: threads that wait for an answer aren't waited for, since the process is about to end.
    """
    seconds_between = 0.1 if sys.stderr.isatty() else 10.0
    bar = tqdm(
        total=sum(sizes), desc=f"{title:>8}", unit="B", unit_scale=True, mininterval=seconds_between, disable=not title
    )
    pool = ThreadPoolExecutor(max(1, min(threads, len(sizes))), thread_name_prefix="transfer")
    stopped = False

    def moved(count: int) -> None:
        if stopped:  # what is still under way would go on for as long as it takes
            raise FaultError("The transfer of another file has failed. To fix it: run the same command again.")
        bar.update(count)

    with bar:
        futures = [pool.submit(work, item, moved) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException as error:
            stopped = True
            pool.shutdown(wait=isinstance(error, Exception), cancel_futures=True)
            raise
        finally:
            pool.shutdown(wait=False)


def _fetch(folder: BucketFolder, blob: Blob, path: Path, moved: Callable[[int], object]) -> None:
    if is_copy(path, blob):
        moved(blob.size)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{blob.generation}{PART}")
    with errors_naming(path):
        if not _complete(folder, blob, part, moved):
            # What an earlier try left was damaged: once more from the start.
            part.unlink()
            if not _complete(folder, blob, part, lambda count: None):
                part.unlink()
                raise FaultError(f"{folder}/{blob.name} arrives damaged. To fix it: look at the disk and the network.")
        part.replace(path)
        sync_folder(path.parent)


def _complete(folder: BucketFolder, blob: Blob, part: Path, moved: Callable[[int], object]) -> bool:
    """Append to `part` what it lacks. Whether it has the right checksum then."""
    checksum = done = 0
    with part.open("a+b") as file:
        file.seek(0)
        while piece := file.read(1 << 20):
            checksum, done = google_crc32c.extend(checksum, piece), done + len(piece)
        moved(done)
        while done < blob.size:
            piece = _piece(folder, blob, done)
            file.write(piece)
            checksum, done = google_crc32c.extend(checksum, piece), done + len(piece)
            moved(len(piece))
        file.flush()
        os.fsync(file.fileno())
    return done == blob.size and crc32c_text(checksum) == blob.crc32c


def _piece(folder: BucketFolder, blob: Blob, start: int) -> bytes:
    stop = min(start + PIECE_BYTES, blob.size)
    return retrying(lambda: folder.read_range(blob, start, stop), url=f"{folder}/{blob.name}")
