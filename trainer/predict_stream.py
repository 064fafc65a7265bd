"""Images in, predictions out, in order and as they come: what is in memory doesn't grow with their number.

    for row in predict(served, images, batch_size=32): ...

Threads read and look at the files of later batches while the model is at work, and the model has two batches at a
time: while one is decoded, the other goes through the network.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from data_pipeline.images import ImageRefusedError
from trainer.images_named import Image
from trainer.images_seen import as_seen, may_lack_data, pixels_seen

if TYPE_CHECKING:
    from trainer.export import Served

BATCH = 32
BATCH_BYTES = 64 << 20  # a batch of large files holds fewer of them
READERS = 8  # a bucket answers slowly, and many at once
RUNNERS = 2

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Prediction:
    """One file's row: `probabilities` is `[classes]`, or None beside an `error`."""

    path: str
    probabilities: NDArray[np.float32] | None
    error: str = ""


@dataclass(frozen=True)
class _File:
    """A file that was read: its `data`, or what is wrong with it."""

    path: str
    data: bytes
    error: str = ""


def predict(served: "Served", images: Sequence[Image], *, batch_size: int = BATCH) -> Iterator[Prediction]:
    """A prediction for each of `images`, in order. A bad file is a row with its error."""
    with _threads(READERS) as readers, _threads(RUNNERS) as runners:
        files = _in_order(readers, _read, images, ahead=max(2 * READERS, batch_size))
        batches = _batched(files, batch_size)
        for rows in _in_order(runners, lambda batch: _predicted(served, batch), batches, ahead=RUNNERS):
            yield from rows


def _predicted(served: "Served", batch: Sequence[_File]) -> list[Prediction]:
    good = [file for file in batch if not file.error]
    checked = served.checked([file.data for file in good]) if good else None
    if checked is None:  # one of them can't be decoded: by itself, each is told what is wrong with it
        outcomes = [_alone(served, file) for file in good]
    else:
        outcomes = [
            _thorough(file, row) if may_lack_data(file.data, last) else Prediction(file.path, row)
            for file, row, last in zip(good, *checked, strict=True)
        ]
    of_good = iter(outcomes)
    return [Prediction(file.path, None, file.error) if file.error else next(of_good) for file in batch]


def _thorough(file: _File, probabilities: NDArray[np.float32]) -> Prediction:
    try:
        as_seen(file.data, thoroughly=True)
    except ImageRefusedError as error:
        return Prediction(file.path, None, str(error))
    return Prediction(file.path, probabilities)


def _alone(served: "Served", file: _File) -> Prediction:
    """What TensorFlow refuses and conversion takes is seen as conversion sees it."""
    try:
        data = as_seen(file.data, thoroughly=True)
        checked = served.checked([data])
        probabilities = served.probabilities([pixels_seen(file.data)]) if checked is None else checked[0]
    except ImageRefusedError as error:
        return Prediction(file.path, None, str(error))
    return Prediction(file.path, probabilities[0])


def _read(image: Image) -> _File:
    try:
        return _File(str(image), as_seen(image.read_bytes()))
    except OSError as error:
        return _File(str(image), b"", f"can't be read: {error.strerror}")
    except ImageRefusedError as error:
        return _File(str(image), b"", str(error))


def _batched(files: Iterable[_File], batch_size: int) -> Iterator[list[_File]]:
    batch: list[_File] = []
    size = 0
    for file in files:
        batch.append(file)
        size += len(file.data)
        if len(batch) == batch_size or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _in_order(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterable[Item], *, ahead: int
) -> Iterator[Result]:
    """`work` of each item, in their order, while the pool is at work on those after it, `ahead` at the most."""
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """A pool that isn't waited for if the block is left early: who stops wants to stop now."""
    pool = ThreadPoolExecutor(count)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
