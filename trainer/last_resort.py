"""Ends a process that Python itself can't end any more.

    with exit_after(50.0):
        ...     # C++ that may wait for ever and holds Python's lock, so that neither thread nor signal handler runs

A timer of the C library calls `_exit(75)` in a thread of its own, without Python.
"""

import ctypes
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from data_pipeline.cli import EXIT_PREEMPTED

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
