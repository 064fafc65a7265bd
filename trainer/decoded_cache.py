"""Images kept once they were decoded, so that later epochs needn't: the same pixels for less work, where there is room.

    cache = choose_cache(reader, mode="auto", budget_bytes=4 * 10**9, scratch=scratch, name="cervix")
    dataset = train_batches(cache or reader, order, how, layout, ...)

An image is decoded when a batch first needs it, so that training begins, and goes on after an interruption, as soon as
without it. `auto` keeps them in memory if all of them take at most the budget and a quarter of what this process may
still use: training needs the rest. `decoded` keeps them in any case, in a file below `scratch` if they are too many for
memory; the file has no name, and goes with the process. Pixels are kept as they are stored, `size · size · 3` bytes an
image. Of several processes on a machine each keeps its own, within a budget of its own.
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_pipeline.cli import RequestError, invalid_flag, say
from trainer.config import CACHES
from trainer.input_pipeline import decode_stored
from trainer.records import RecordReader
from trainer.scratch import Scratch
from trainer.sizes import as_text

AUTO, NONE, DECODED = CACHES
MEMORY_SHARE = 4
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


class DecodedCache:
    """Images that were decoded, for any number of threads; with a `reader`, those that will be too: none is there yet.

    `pixels` is `[records, size, size, 3] uint8`, `labels` `[records] int64`, `there` `[records] bool`.
    """

    def __init__(
        self, pixels: NDArray[np.uint8], labels: NDArray[np.int64], reader: RecordReader | None = None
    ) -> None:
        self.pixels, self.labels = pixels, labels
        self.image_size = int(pixels.shape[1])
        self.there = np.full(len(labels), reader is None)
        self._reader = reader

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def kept_bytes(self) -> int:
        """What the images decoded so far take."""
        return int(self.there.sum()) * self.image_size**2 * 3

    def take(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The pixels and labels of these records. Raises `DatasetError` for a record that is damaged."""
        if self._reader:
            self._decode(np.unique(indices[~self.there[indices]]), self._reader)
        return self.pixels[indices], self.labels[indices]

    def _decode(self, missing: NDArray[np.int64], reader: RecordReader) -> None:
        # Two threads may decode the same image: they write the same bytes.
        for index, record in zip(missing.tolist(), reader.records(missing), strict=True):
            pixels = decode_stored(record.image, stored_size=self.image_size, image_size=self.image_size)
            self.pixels[index], self.labels[index] = pixels.numpy(), record.label
            self.there[index] = True  # last: from now on another thread may read it


def choose_cache(
    reader: RecordReader,
    *,
    mode: str,
    budget_bytes: int,
    scratch: Scratch,
    name: str,
) -> DecodedCache | None:
    """The cache that `mode` asks for, empty yet; None if there is to be none.

    Raises `RequestError` if it is asked for and there is room neither in memory nor on the disk of `scratch`.
    """
    size = len(reader) * reader.image_size**2 * 3
    available = available_bytes()
    in_memory = size <= min(budget_bytes, available // MEMORY_SHARE)
    if mode == NONE or (mode == AUTO and not in_memory):
        return None
    shape = (len(reader), reader.image_size, reader.image_size, 3)
    pixels = np.empty(shape, np.uint8) if in_memory else _in_file(shape, scratch)
    where = f"of {as_text(available)} of free memory" if in_memory else f"in {scratch.root}"
    say(f"{name}: {len(reader)} training images are decoded once and kept, in the end {as_text(size)} {where}")
    return DecodedCache(pixels, np.empty(len(reader), np.int64), reader)


def available_bytes() -> int:
    """What this process may still use: of the machine, or of its container if that is less."""
    with Path("/proc/meminfo").open() as file:
        fields = dict(line.split(":", 1) for line in file)
    found = [int(fields["MemAvailable"].split()[0]) * 1024]
    for limit, used in _CGROUPS:
        try:
            found.append(int(limit.read_text()) - int(used.read_text()))
        except (OSError, ValueError):  # none, or "max"
            continue
    return max(min(found), 0)


def _in_file(shape: tuple[int, ...], scratch: Scratch) -> NDArray[np.uint8]:
    """An array in a file without a name."""
    size = int(np.prod(shape, dtype=np.int64))
    scratch.open()
    free = min(shutil.disk_usage(scratch.root).free, scratch.budget_bytes)
    if free < size:
        raise _no_room(size, free, scratch)
    with tempfile.TemporaryFile(dir=scratch.root) as file:
        try:
            # All of it now: on a disk that is full later, writing to the mapped file would end the process.
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise _no_room(size, free, scratch) from error
        return np.memmap(file, np.uint8, "r+", shape=shape)


def _no_room(size: int, free: int, scratch: Scratch) -> RequestError:
    fix = "name another disk with --scratch, raise --scratch_budget, or leave --cache out"
    room = f"{scratch.root} has, or may give, {as_text(free)}"
    expected = f"auto or none, as the decoded images take {as_text(size)} and {room}"
    return invalid_flag("cache", expected=expected, received=DECODED, fix=fix)
