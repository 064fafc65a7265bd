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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Task = TypeVar("Task")
Result = TypeVar("Result")


def available_cpus() -> int:
    """The processors this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    workers: int,
    title: str,
    unit: str = "file",
    size: Callable[[Task], int] = lambda task: 1,
) -> Iterator[Result]:
    """`function(task)` for each task, in order. `size` says by how many `unit` a task moves the bar.

    An exception in a task is raised here; a worker that dies raises `BrokenProcessPool` instead of hanging.
    """
    seconds_between = 0.1 if sys.stderr.isatty() else 10.0
    total = sum(map(size, tasks))
    with tqdm(total=total, desc=f"{title:>8}", unit=unit, unit_scale=True, mininterval=seconds_between) as bar:
        for task, result in zip(tasks, _results(function, tasks, workers), strict=True):
            bar.update(size(task))
            yield result


def _results(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    if workers == 1 or len(tasks) <= 1:
        yield from map(function, tasks)
        return
    # Spawned, not forked: the parent may hold threads (TensorFlow's among them) that don't survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context, initializer=_begin_worker) as pool:
        waiting: deque[Future[Result]] = deque()
        upcoming = iter(tasks)
        try:
            for task in upcoming:
                waiting.append(pool.submit(function, task))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            # What is under way is written aside and can be thrown away: being asked to stop means now.
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


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
