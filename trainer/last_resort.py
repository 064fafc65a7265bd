"""Ends a process whose main thread can't end it any more.

    end_now("Worker 2 was lost: …")     # from whatever thread
    with exit_after(50.0):
        ...     # C++ that may wait for ever and holds Python's lock, so that neither thread nor signal handler runs

For the second, a timer of the C library calls `_exit(75)` in a thread of its own, without Python.
"""

import ctypes
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from data_pipeline.cli import EXIT_PREEMPTED

STUCK_S = 10.0  # with a stderr that nobody reads
SIGEV_THREAD = 2  # <bits/sigevent-consts.h>


class _SigEvent(ctypes.Structure):
    """`struct sigevent` of 64-bit Linux; its union has 48 bytes."""

    _fields_ = [
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("padding", ctypes.c_byte * 32),
    ]


class _TimerSpec(ctypes.Structure):
    """`struct itimerspec`: interval and time left, each as seconds and nanoseconds."""

    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "left_s", "left_ns")]


def end_now(why: str) -> None:
    """Say why, and end with exit code 75. In a thread of its own: what is stuck may be stderr itself."""
    writer = threading.Thread(target=_write, args=(f"\n{why}\n".encode(errors="backslashreplace"),), daemon=True)
    writer.start()
    writer.join(STUCK_S)
    os._exit(EXIT_PREEMPTED)


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(2, data) :]


@contextmanager
def exit_after(seconds: float) -> Iterator[None]:
    """Exit code 75, without a word, if the block takes longer."""
    libc = ctypes.CDLL(None, use_errno=True)
    timer = ctypes.c_void_p()
    event = _SigEvent(
        value=EXIT_PREEMPTED,
        signo=signal.SIGALRM,
        notify=SIGEV_THREAD,
        function=ctypes.cast(libc._exit, ctypes.c_void_p).value,
    )
    if libc.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) != 0:
        raise OSError(ctypes.get_errno(), "timer_create")
    when = _TimerSpec(0, 0, int(seconds), int(seconds % 1 * 1e9) + 1)
    libc.timer_settime(timer, 0, ctypes.byref(when), None)
    try:
        yield
    finally:
        libc.timer_delete(timer)
