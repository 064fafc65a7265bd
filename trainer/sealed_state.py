"""Whether a checkpoint's folder is whole: `state.json` vouches for every file beside it, and for itself.

    (folder / STATE).write_text(sealed({"files": {"weights.index": "…sha256…"}, …}))
    state = read_whole(folder)      # raises DamagedError

Without TensorFlow, so that what is fetched from a bucket is checked before it is imported.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from data_pipeline.storage import file_sha256

STATE = "state.json"


class DamagedError(Exception):
    """A checkpoint isn't what was written."""


def sealed(state: dict[str, Any]) -> str:
    """`state` with its own SHA-256, as JSON."""
    digest = hashlib.sha256(json.dumps(state).encode()).hexdigest()
    return json.dumps({"sha256": digest, "state": state}, indent=1)


def read_whole(folder: Path) -> dict[str, Any]:
    """The state of a checkpoint, after each of its files has been read. Raises `DamagedError`."""
    state = unsealed(folder / STATE)
    for name, digest in state["files"].items():
        if _sha256_as_read(folder / name) != digest:
            raise DamagedError(f"{name} isn't what was written")
    return state


def unsealed(path: Path) -> dict[str, Any]:
    """The inverse of `sealed`: not a byte may differ. Raises `DamagedError`."""
    try:
        text = _plain(path).read_text()
        state: dict[str, Any] = json.loads(text)["state"]
        if sealed(state) == text:
            return state
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"{path.name} can't be read") from error
    raise DamagedError(f"{path.name} isn't what was written")


def _plain(path: Path) -> Path:
    if path.parent.is_symlink() or path.is_symlink() or not path.is_file():
        raise DamagedError(f"{path.name} is missing, or is no plain file")
    return path


def _sha256_as_read(path: Path) -> str:
    try:
        return file_sha256(_plain(path))
    except OSError as error:
        raise DamagedError(f"{path.name} can't be read ({error.strerror})") from error
