"""Work spread over processes, with a progress bar.

    for result in in_processes(inspect_chunk, chunks, workers=4, title="inspect"): ...

Results come in the order of the tasks, and only a few tasks are in flight, so that memory doesn't grow with their
number.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from tqdm import tqdm

Task = TypeVar("Task")
Result = TypeVar("Result")
# Pools that `keeping_workers` keeps, by their number of workers, and how many of its blocks are open.
_kept: dict[int, ProcessPoolExecutor] = {}
_keeping = 0


def available_cpus() -> int:
    """The processors this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    count: int,
    workers: int,
    title: str,
    unit: str = "file",
    size: Callable[[Task], int] = lambda task: 1,
    total: int | None = None,
) -> Iterator[Result]:
    """`function(task)` for each of the `count` tasks, in order. They may be made on the way: few are held at once.

    `size` says by how many `unit` a task moves the bar, to `total` in the end. An exception in a task is raised here;
    a worker that dies raises `BrokenProcessPool` instead of hanging.
    """
    if count == 0:
        return
    seconds_between = 0.1 if sys.stderr.isatty() else 10.0
    everything = count if total is None else total
    with _Bar(total=everything, desc=f"{title:>8}", unit=unit, unit_scale=True, mininterval=seconds_between) as bar:
        for step, result in _results(function, tasks, size, min(workers, count)):
            bar.update(step)
            yield result


class _Bar(tqdm):  # type: ignore[type-arg]
    """A bar that leaves without a traceback if SIGTERM comes while it is being made."""

    def __del__(self) -> None:
        with suppress(AttributeError):
            super().__del__()


def _results(
    function: Callable[[Task], Result], tasks: Iterable[Task], size: Callable[[Task], int], workers: int
) -> Iterator[tuple[int, Result]]:
    if workers <= 1:
        # Threads of NumPy's matrix products wait by spinning, which here costs more than all else together.
        with threadpool_limits(limits=1, user_api="blas"):
            for task in tasks:
                yield size(task), function(task)
        return
    pool = _kept.get(workers) or _start(workers)
    keep = _keeping > 0
    if keep:
        _kept[workers] = pool
    waiting: deque[tuple[int, Future[Result]]] = deque()
    try:
        for task in tasks:
            waiting.append((size(task), pool.submit(function, task)))
            if len(waiting) > 2 * workers:
                step, future = waiting.popleft()
                yield step, future.result()
        while waiting:
            step, future = waiting.popleft()
            yield step, future.result()
    except BaseException:
        # What is under way is written aside and can be thrown away: being asked to stop means now.
        _kept.pop(workers, None)
        keep = False
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        if not keep:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def keeping_workers() -> Iterator[None]:
    """Within this block, the workers one call has started serve the next ones: to start them takes half a second."""
    global _keeping
    _keeping += 1
    try:
        yield
    finally:
        _keeping -= 1
        while not _keeping and _kept:
            _kept.popitem()[1].shutdown(wait=True, cancel_futures=True)


def _start(workers: int) -> ProcessPoolExecutor:
    # Each worker has a processor: threads of its own would fight for it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Spawned, not forked: the parent may hold threads (TensorFlow's among them) that don't survive a fork.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)


def _begin_worker() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Ctrl-C reaches the whole process group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_with_parent() -> None:
    """A parent that is killed takes its workers with it, which nobody else would end."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
