"""Sizes of data as flags and messages say them: `500MB`, `100GB`, `2TB`. Pure.

parse_bytes("scratch_budget", "100GB")      # 100_000_000_000
as_text(12_345_678)                         # "12.3 MB"
"""

import re

from data_pipeline.cli import invalid_flag

UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
MAX_BYTES = 10**18
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(MB|GB|TB)", re.ASCII)


def parse_bytes(flag: str, text: str) -> int:
    """Raises `RequestError` if `text` is no size above zero."""
    match = _SIZE.fullmatch(text)
    size = round(float(match[1]) * UNITS[match[2]]) if match else 0
    if 0 < size <= MAX_BYTES:
        return size
    expected = "a size such as 500MB, 100GB or 2TB"
    raise invalid_flag(flag, expected=expected, received=text, fix=f"for example --{flag}=100GB")


def as_text(size_bytes: int) -> str:
    """With three digits, in the largest unit that leaves one before the point."""
    for unit, factor in reversed(UNITS.items()):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.3g} {unit}"
    return f"{size_bytes / 1000:.3g} kB"
