"""Memory kept for the next batch: not taken anew from the system, and not more of it than is used at once."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# A batch of 64 and what it is made from, again and again, from two threads as tf.data has them.
PROGRAM = """
import json, resource, sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from trainer.allocation import keep_freed_memory

def batch(number):
    pixels = np.full([64, 256, 256, 3], number % 256, np.uint8)
    return float((pixels * np.float32(2)).sum())

kept = sys.argv[1] == "kept" and keep_freed_memory()
usage = lambda: resource.getrusage(resource.RUSAGE_SELF)
with ThreadPoolExecutor(2) as threads:
    list(threads.map(batch, range(6)))
    before = usage()
    list(threads.map(batch, range(30)))
after = usage()
print(json.dumps([kept, after.ru_minflt - before.ru_minflt, (after.ru_maxrss - before.ru_maxrss) / 1024]))
"""
BATCH_PAGES = 64 * 256 * 256 * 3 * 4 // 4096


def run(mode: str) -> tuple[bool, int, float]:
    """Whether it is kept, page faults, MiB that the process grew by."""
    command = [sys.executable, "-c", PROGRAM, mode]
    # NumPy asks the system for larger pages, TensorFlow doesn't.
    env = os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    kept, faults, grown = json.loads(done.stdout)
    return bool(kept), int(faults), float(grown)


def test_batches_after_the_first_ones_take_no_new_memory() -> None:
    kept, faults, grown_mib = run("kept")
    if not kept:
        pytest.skip("not glibc")
    _, anew, _ = run("given back")
    assert anew > 20 * BATCH_PAGES  # what is saved
    assert faults < 4 * BATCH_PAGES
    assert grown_mib < 100
