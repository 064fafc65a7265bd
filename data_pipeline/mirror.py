"""What a conversion has inspected, kept in the bucket too: a machine that is lost takes no work with it.

    with mirrored(conversion, folder) as end_mirror:      # gs://lab/tfrecords/.cervix.partial
        convert(conversion, before_seal=end_mirror)

Chunks of the inspection are whole, never change, and are named by what they are made of (`inspect_stage.py`); so they
can be copied while others are being made, and a run that finds its scratch folder empty fetches those it needs. The
plan and the shards aren't copied: they are made from the chunks at the speed of the disk.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_pipeline.bucket import BucketFolder
from data_pipeline.cli import FaultError, RequestError, say
from data_pipeline.conversion import Conversion
from data_pipeline.scratch import need_room
from data_pipeline.spool import SUFFIX
from data_pipeline.transfer import download, upload
from data_pipeline.write import INSPECT_FOLDER

LOOK_S = 1.0
AT_ONCE = 8


@contextmanager
def mirrored(conversion: Conversion, folder: BucketFolder) -> Iterator[Callable[[], None]]:
    """Fetch the chunks that `folder` has and this machine hasn't; copy there what is made within this block.

    What it gives ends the copying sooner.
    """
    chunks, here = folder / INSPECT_FOLDER, conversion.work / INSPECT_FOLDER
    kept = _fetch(conversion, chunks, here)
    ended = threading.Event()
    thread = threading.Thread(target=_keep, args=(chunks, here, kept, ended), daemon=True, name="mirror")
    thread.start()

    def end() -> None:
        ended.set()
        thread.join()

    try:
        yield end
    except BaseException:
        ended.set()  # nobody waits for it: the process is about to end
        raise
    end()


def _fetch(conversion: Conversion, chunks: BucketFolder, here: Path) -> set[str]:
    """The names of the chunks that are in the bucket."""
    there = {blob.name: blob for blob in chunks.files()}
    wanted = [there[chunk.file_name] for chunk in conversion.chunks if chunk.file_name in there]
    missing = [blob for blob in wanted if not (here / blob.name).exists()]
    if missing:
        files = sum(len(chunk.files) for chunk in conversion.chunks if chunk.file_name in {one.name for one in missing})
        say(f"{conversion.organ}: {files} files were inspected by a run before; what it found is fetched")
        need_room(here, sum(blob.size for blob in missing))
        download(chunks, missing, here, title="fetch")
    return set(there)


def _keep(chunks: BucketFolder, here: Path, kept: set[str], ended: threading.Event) -> None:
    """Copy chunks until told to end; a bucket that is away for a while costs only the safety meanwhile."""
    told = False
    while not ended.wait(LOOK_S):
        try:
            while new := sorted({path.name for path in here.glob(f"*{SUFFIX}")} - kept)[:AT_ONCE]:
                if ended.is_set():
                    return
                upload(chunks, {name: here / name for name in new})
                kept.update(new)
                told = False
        except FileNotFoundError:
            continue  # a chunk that was damaged is made again
        except (FaultError, RequestError, OSError) as error:
            if not told:
                say(f" warning  what is inspected can't be kept in {chunks}, and a lost machine would lose it: {error}")
            told = True
            if isinstance(error, RequestError):
                return
