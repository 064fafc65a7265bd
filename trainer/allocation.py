"""Memory that is freed is kept for the next batch, instead of being given back and taken anew.

    keep_freed_memory()         # before threads begin to make batches; again does nothing

glibc gives large blocks back to the system at once. Batches of images are such blocks: each would be mapped anew, page
by page and filled with zeros by the kernel, which took as long as augmenting it. What a process holds is bounded by
what it has used at once, as before; only between batches it is more.
"""

import ctypes
from functools import cache

_MMAP_MAX, _TRIM_THRESHOLD, _ARENA_MAX = -4, -1, -8  # of malloc.h
_NEVER = -1  # the largest size there is


@cache
def keep_freed_memory() -> bool:
    """Whether it could be done: only glibc knows how."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # One arena for all threads: what one of them frees is there for the next batch, whichever thread makes it.
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, _NEVER), mallopt(_ARENA_MAX, 1)])
