"""The names of checkpoints in their folder, and the pointer to the one that was published last.

write_pointer(folder, Name(step=1234))
read_pointer(folder)    # Name(step=1234, generation=1), or None if it is missing or damaged
names_in(folder)        # newest first
"""

import hashlib
import json
import re
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.storage import write_atomic

LAST = "last.json"
_NAME = re.compile(r"step-(\d{8,})(?:-(\d+))?")


@dataclass(frozen=True, order=True, slots=True)
class Name:
    """`step-00001234`, or `step-00001234-2` for the second checkpoint made of that step."""

    step: int
    generation: int = 1

    def __str__(self) -> str:
        return f"step-{self.step:08d}" + (f"-{self.generation}" if self.generation > 1 else "")


def parse_name(text: str) -> Name | None:
    """The name that `text` is; None if it isn't one."""
    match = _NAME.fullmatch(text)
    name = Name(int(match[1]), int(match[2] or 1)) if match else None
    return name if str(name) == text else None


def names_in(folder: Path) -> list[Name]:
    """Everything there that is named like a checkpoint, newest first."""
    names = (parse_name(path.name) for path in folder.glob("step-*"))
    return sorted((name for name in names if name), reverse=True)


def read_pointer(folder: Path) -> Name | None:
    """The checkpoint published last; None if the pointer is missing, damaged, or names nothing that is there."""
    try:
        name = parse_pointer((folder / LAST).read_bytes())
    except OSError:
        return None
    return name if name and (folder / str(name)).exists() else None


def parse_pointer(data: bytes) -> Name | None:
    """The name that the contents of a pointer say; None if they are damaged."""
    try:
        pointer = json.loads(data)
        text = str(pointer["checkpoint"])
        return parse_name(text) if pointer["sha256"] == _digest(text) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def pointer_to(name: Name) -> bytes:
    """The contents of a pointer."""
    return json.dumps({"checkpoint": str(name), "sha256": _digest(str(name))}).encode()


def kept_with(newest: Name, earlier: Iterable[Name], steps: Collection[int]) -> set[Name]:
    """The checkpoints that have to stay: this one, and of each of `steps` the newest made before."""
    pinned = {name.step: name for name in sorted(earlier) if name.step in steps and name.step < newest.step}
    return {newest, *pinned.values()}


def write_pointer(folder: Path, name: Name) -> None:
    """Publish a checkpoint."""
    path = folder / LAST
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)  # damage that a rename would stumble over
    write_atomic(path, pointer_to(name))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
