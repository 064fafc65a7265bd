"""What a program and the processes it starts take at their peak, sampled while they run.

peak = watch([sys.executable, "-m", "data_pipeline", …])
peak.rss_bytes, peak.pss_bytes, peak.wall_s
"""

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

SAMPLE_S = 0.2


@dataclass(frozen=True, slots=True)
class Peak:
    """The highest sums over all processes at one moment: pages that are shared count once in each process's resident
    set size, and by their share in its proportional set size.
    """

    rss_bytes: int
    pss_bytes: int
    wall_s: float


def watch(command: Sequence[str]) -> Peak:
    """Run `command` to its end. Raises `CalledProcessError` if it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    root = psutil.Process(process.pid)
    rss = pss = 0
    with process:
        while process.poll() is None:
            now_rss, now_pss = _sums(root)
            rss, pss = max(rss, now_rss), max(pss, now_pss)
            time.sleep(SAMPLE_S)
        output = process.stdout.read() if process.stdout else b""
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    return Peak(rss, pss, time.perf_counter() - started)


def _sums(root: psutil.Process) -> tuple[int, int]:
    rss = pss = 0
    for process in _tree(root):
        try:
            found = process.memory_full_info()
        except psutil.Error:  # it has ended
            continue
        rss, pss = rss + found.rss, pss + found.pss
    return rss, pss


def _tree(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []
