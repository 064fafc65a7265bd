"""Waits until the dataset is sealed, that is until its manifest.json is there. The train Job runs it before training:

    python wait_for_dataset.py --flagfile=both.flags --limit_s=21600

It sees the volume or the bucket and nothing else, so a conversion that failed looks to it like one that hasn't
finished: only `--limit_s` ends the wait. A manifest that an earlier conversion left counts as well.
"""

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from data_pipeline import cli
from data_pipeline.manifest import FILE_NAME
from data_pipeline.storage import in_bucket

_ORGAN = flags.DEFINE_list("organ", None, "Organs to wait for.", required=True)
_TFRECORDS = flags.DEFINE_string("tfrecords", None, "Folder or gs:// address of a dataset per organ.", required=True)
_LIMIT_S = flags.DEFINE_float("limit_s", 21600, "Seconds to wait at most.", lower_bound=0)
_EVERY_S = flags.DEFINE_float("every_s", 5, "Seconds between two looks.", lower_bound=0.01)

EXIT_TERMINATED = 128 + signal.SIGTERM


def missing_manifests(tfrecords: str, organs: Sequence[str]) -> list[str]:
    """The manifests that aren't there yet. Raises `RequestError` if there isn't even the bucket."""
    names = [f"{organ}/{FILE_NAME}" for organ in organs]
    if in_bucket(tfrecords):
        from data_pipeline.bucket import BucketFolder  # takes memory that waiting for a volume can do without

        folder = BucketFolder.of("tfrecords", tfrecords)
        return [f"{folder}/{name}" for name in names if folder.find(name) is None]
    return [str(path) for path in (Path(tfrecords) / name for name in names) if not path.is_file()]


def wait(tfrecords: str, organs: Sequence[str], *, limit_s: float, every_s: float) -> None:
    """Return as soon as every organ's manifest is there. Raises `RequestError` after `limit_s` seconds."""
    end_s = time.monotonic() + limit_s
    announced: list[str] = []
    while missing := missing_manifests(tfrecords, organs):
        names = ", ".join(missing)
        if time.monotonic() >= end_s:
            raise cli.RequestError(
                f"Still no {names} after {limit_s:g} s. To fix it: see why conversion hasn't finished "
                "(kubectl logs job/cytotrain-convert), then start both Jobs again."
            )
        if missing != announced:
            print(f"Waiting for {names}", flush=True)
            announced = missing
        time.sleep(every_s)
    print(f"Sealed: {', '.join(organs)}", flush=True)


def main(argv: Sequence[str]) -> None:
    """Wait as the flags say."""
    del argv
    # Process 1 of a container ignores a SIGTERM that it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    organs: list[str] = _ORGAN.value
    if not organs or "all" in organs:
        raise cli.invalid_flag(
            "organ",
            expected="names, since only conversion sees which organs there are",
            received=",".join(organs),
            fix="name each organ in flags/both.flags",
        )
    wait(_TFRECORDS.value, organs, limit_s=_LIMIT_S.value, every_s=_EVERY_S.value)


if __name__ == "__main__":
    cli.run(main)
