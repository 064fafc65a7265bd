"""Images decoded once and kept, so that later epochs needn't: the same pixels for less work, where there is room.

    cache = choose_cache(reader, mode="auto", budget_bytes=4 * 10**9, scratch=scratch, name="cervix")
    dataset = train_batches(cache or reader, order, how, layout, ...)

`auto` keeps them in memory if they take at most the budget and a quarter of what this process may still use: training
needs the rest. `decoded` keeps them in any case, in a file below `scratch` if they are too many for memory; the file
has no name, and goes with the process. Pixels are kept as they are stored, `size · size · 3` bytes an image.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data_pipeline.cli import invalid_flag, say
from trainer.config import CACHES
from trainer.input_pipeline import Layout, decoded_batches
from trainer.records import RecordReader
from trainer.scratch import Scratch
from trainer.sizes import as_text

AUTO, NONE, DECODED = CACHES
MEMORY_SHARE = 4
BATCH = 64
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


class DecodedCache:
    """All images of a split: `pixels [records, size, size, 3] uint8` and `labels [records] int64`."""

    def __init__(self, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self.pixels, self.labels = pixels, labels
        self.image_size = int(pixels.shape[1])

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The pixels and labels of these records."""
        return self.pixels[indices], self.labels[indices]


def choose_cache(
    reader: RecordReader,
    *,
    mode: str,
    budget_bytes: int,
    scratch: Scratch,
    name: str,
) -> DecodedCache | None:
    """The cache that `mode` asks for, filled; None if there is to be none.

    Raises `RequestError` if it is asked for and there is room neither in memory nor on the disk of `scratch`.
    """
    size = len(reader) * reader.image_size**2 * 3
    in_memory = size <= min(budget_bytes, available_bytes() // MEMORY_SHARE)
    if mode == NONE or (mode == AUTO and not in_memory):
        return None
    shape = (len(reader), reader.image_size, reader.image_size, 3)
    pixels = np.empty(shape, np.uint8) if in_memory else _in_file(shape, scratch)
    where = "in memory" if in_memory else f"in {scratch.root}"
    say(f"{name}: {len(reader)} training images are decoded once and kept, {as_text(size)} {where}")
    labels = np.empty(len(reader), np.int64)
    slow = 0.1 if sys.stderr.isatty() else 10.0
    with tqdm(total=len(reader), desc=f"decode {name}", unit="image", leave=False, mininterval=slow) as bar:
        for batch in decoded_batches(reader, BATCH, Layout()).as_numpy_iterator():
            real = batch["index"] >= 0
            numbers = batch["index"][real]
            pixels[numbers], labels[numbers] = batch["image"][real], batch["label"][real]
            bar.update(int(real.sum()))
    pixels.flags.writeable = labels.flags.writeable = False
    return DecodedCache(pixels, labels)


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
        fix = "name another disk with --scratch, raise --scratch_budget, or leave --cache out"
        room = f"{scratch.root} has, or may give, {as_text(free)}"
        expected = f"auto or none, as the decoded images take {as_text(size)} and {room}"
        raise invalid_flag("cache", expected=expected, received=DECODED, fix=fix)
    with tempfile.TemporaryFile(dir=scratch.root) as file:
        return np.memmap(file, np.uint8, "w+", shape=shape)
