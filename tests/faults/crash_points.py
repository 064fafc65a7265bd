"""A conversion that replaces a dataset, killed before the first, the second, the third … change it makes to the disk.

    python -m tests.faults.crash_points IMAGES FOLDER

Prints a line of JSON for each: the change, which dataset was there then, and whether the same conversion ended well
afterwards. A program of its own, since it forks, which a process that holds TensorFlow's threads mustn't.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

import tensorflow_datasets  # noqa: F401 - once here and not in every fork

from data_pipeline.manifest import Manifest
from data_pipeline.settings import Settings
from data_pipeline.stages import convert
from tests.data_pipeline.conversion import contents
from tests.faults.program import conversion

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")  # what Python announces before it does it
OLD_PX, NEW_PX = 24, 32


def main(images: Path, folder: Path) -> None:
    make(images, folder / "before", OLD_PX)
    make(images, folder / "after", NEW_PX)
    whole = {size: contents(folder / name / "gland") for name, size in (("before", OLD_PX), ("after", NEW_PX))}
    tfrecords, noted = folder / "cut", folder / "noted"
    for number in count(1):
        shutil.rmtree(tfrecords, ignore_errors=True)
        shutil.copytree(folder / "before", tfrecords)
        kill_at = lambda: kill_before(number, tfrecords, noted)  # noqa: E731, B023
        if not in_fork(lambda: make(images, tfrecords, NEW_PX), first=kill_at):
            break
        found = state(tfrecords, whole)
        in_fork(lambda: make(images, tfrecords, NEW_PX))
        ended = state(tfrecords, whole) == "gland: new" and not (tfrecords / ".gland.partial").exists()
        ended &= not (tfrecords / ".gland.replaced").exists()
        print(json.dumps({"change": noted.read_text(), "found": found, "ended": ended}), flush=True)


def make(images: Path, tfrecords: Path, size: int) -> None:
    tfrecords.mkdir(parents=True, exist_ok=True)
    convert(conversion(images, tfrecords, settings=Settings(image_size=size), overwrite=True))


def in_fork(work: Callable[[], None], first: Callable[[], None] = lambda: None) -> bool:
    """Whether `work`, done in a process of its own, was killed."""
    process = os.fork()
    if process == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        first()
        work()
        os._exit(0)
    _, status = os.waitpid(process, 0)
    assert status in (0, signal.SIGKILL), status
    return status == signal.SIGKILL


def kill_before(number: int, tfrecords: Path, noted: Path) -> None:
    """From now on, end this process before the `number`-th change, and note what it would have been."""
    seen = count(1)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        idle = event == "os.mkdir" and Path(str(arguments[0])).exists()
        ours = (event in CHANGES and not idle) or (writes and str(tfrecords) in str(arguments[0]))
        if ours and next(seen) == number:
            noted.write_text(f"{event} {arguments[:2]}".replace(str(tfrecords), ""))
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def state(tfrecords: Path, whole: dict[int, dict[str, str]]) -> str:
    """Under which name a dataset lies, and which: `damaged` if it isn't whole."""
    for name in ("gland", ".gland.replaced"):
        if (tfrecords / name).exists():
            size = Manifest.load(tfrecords / name).image_size
            which = {OLD_PX: "old", NEW_PX: "new"}[size]
            return f"{name}: {which if contents(tfrecords / name) == whole[size] else 'damaged'}"
    return "nothing"


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
