"""The folder on this machine where what goes to or comes from a bucket lies meanwhile.

    folder = scratch_for("/var/tmp/cytotrain", BucketFolder.of("tfrecords", "gs://lab/tfrecords"))
    need_room(folder, 3 << 30)

What is left there by a run that was cut off is where the next one goes on; that it is lost is no harm.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipeline.cli import FaultError
from data_pipeline.storage import scratch_root

if TYPE_CHECKING:
    from data_pipeline.bucket import BucketFolder

BELOW = "conversions"  # the trainer keeps other things beside it, and might remove a bucket that was called like one


def scratch_for(value: str, folder: "BucketFolder") -> Path:
    """A folder below the one the flag `--scratch` names, for this folder of a bucket alone. Raises `RequestError`."""
    top = scratch_root(value)
    return top / BELOW / folder.bucket / folder.prefix.rstrip("/")


def need_room(folder: Path, size_bytes: int) -> None:
    """Raises `FaultError` if the disk of `folder`, which needn't be there yet, has less than that left."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < size_bytes:
        raise FaultError(
            f"{folder} needs room for {size_bytes / 1e9:.1f} GB, and there are {free / 1e9:.1f} GB. To fix it: free "
            "some space there, or name a folder on a larger disk as --scratch."
        )
