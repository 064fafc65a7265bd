"""Ends a process that is stuck, so that a scheduler starts it again, after saying where it was.

    with Watchdog(600.0) as watchdog:
        for step in steps:
            watchdog.beat("step", f"{step}", compiles=True)
            ...

A collective operation whose other side has gone, a disk that doesn't answer, a driver that hangs: none of them raises
anything, and the main thread, inside C++, runs no handler. So a thread waits for the next beat. When it doesn't come in
time, the stacks of all threads go to stderr and the process ends with exit code 75; the run goes on from its last
checkpoint. What has to be compiled gets 10 times as long when it comes for the first time.
"""

import faulthandler
import os
import threading
import time
from types import TracebackType
from typing import Self

from trainer.last_resort import end_now

FIRST = 10


class Watchdog:
    """Watches from `__enter__` to `__exit__`, from the first beat on; never if `timeout_s` is 0."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._seen: set[str] = set()
        self._now: tuple[float, float, str] | None = None  # began, allowed seconds, what: replaced as a whole
        self._off = threading.Event()

    def beat(self, kind: str, detail: str = "", *, compiles: bool = False) -> None:
        """Something begins that must take less than the timeout: a `kind` such as "step", and which one."""
        allowed_s = self._timeout_s * (FIRST if compiles and kind not in self._seen else 1)
        self._seen.add(kind)
        self._now = (time.monotonic(), allowed_s, f"{kind} {detail}".rstrip())

    def __enter__(self) -> Self:
        self._off.clear()
        self._now = None
        if self._timeout_s:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._off.set()

    def _watch(self) -> None:
        wait_s = self._timeout_s / 4
        while not self._off.wait(wait_s):
            now = self._now
            if now is None:
                continue
            began, allowed_s, what = now
            left_s = began + allowed_s - time.monotonic()
            if left_s <= 0:
                _end(what, allowed_s)
            wait_s = min(left_s, self._timeout_s / 4)  # the next beat may allow less than this one


def _end(what: str, allowed_s: float) -> None:
    told = (
        f"Stuck in {what} for more than {allowed_s:g} s; the stacks of all threads are above. This ends the process "
        "with exit code 75: started again, it goes on from the last checkpoint. To fix it: look at the other workers "
        "and at the disk, or give a longer --step_timeout.\n"
    )
    end_now(_stacks() + told)


def _stacks() -> str:
    """What `faulthandler` says. It holds Python's lock while it writes, so it writes to memory first."""
    with os.fdopen(os.memfd_create("stacks"), "w+b") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        return file.read().decode(errors="replace")
