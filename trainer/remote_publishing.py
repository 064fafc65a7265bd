"""The order in which a run's files come to its bucket, so that at every moment what is published there is whole.

    publisher = Publisher(RemoteRun("gs://lab/runs/cervix/r", folder))
    publisher.claim()               # config.json
    publisher.publish(job)          # all files of its checkpoints, the pointer, and then what isn't needed is removed

Files of a checkpoint are only ever created, under a name that nobody has used: a process that comes upon another's
there, or upon another pointer than the one it wrote last, raises `ConflictError` and leaves it as it is. Of a run that
has ended, the report is written last: without it, it isn't finished.
"""

import shutil
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from data_pipeline.bucket import ConflictError
from data_pipeline.storage import link_or_copy
from data_pipeline.transfer import upload
from trainer.published import Name, kept_with, names_in, parse_name, pointer_to, read_pointer
from trainer.remote_run import POINTER, Known, RemoteRun
from trainer.run_folder import (
    CARD,
    CHECKPOINTS,
    CONFIG_NAME,
    METRICS,
    MODEL,
    PREDICTIONS,
    REPORT,
    TENSORBOARD,
    TFLITE,
    TFLITE_LABELS,
)
from trainer.sealed_state import STATE


@dataclass(frozen=True)
class Job:
    """Something to upload: checkpoints, of which the first is the newest, with links to them in `folder`; or results.

    A name without a link is one that is in the bucket already.
    """

    number: int
    folder: Path
    names: tuple[Name, ...]
    results: bool = False

    def __str__(self) -> str:
        return "the results" if self.results else f"the checkpoint of step {self.names[0].step}"

    def drop(self) -> None:
        """Remove the links."""
        if not self.results:
            shutil.rmtree(self.folder, ignore_errors=True)


def links_of(local: Path) -> Path:
    """Where the links are: beside the run's folder."""
    return local.with_name(f".{local.name}.upload")


def linked(local: Path, steps: Collection[int], *, number: int, complete: Collection[str]) -> Job | None:
    """The checkpoint that was published last in `local`, with those of `steps`; None if there is none.

    What isn't in the bucket yet is linked. Raises `OSError`.
    """
    checkpoints = local / CHECKPOINTS
    newest = read_pointer(checkpoints)
    if newest is None:
        return None
    kept = sorted(kept_with(newest, names_in(checkpoints), steps), reverse=True)
    folder = links_of(local) / str(number)
    for name in kept:
        if str(name) not in complete:
            (folder / CHECKPOINTS / str(name)).mkdir(parents=True)
            for path in (checkpoints / str(name)).iterdir():
                link_or_copy(path, folder / CHECKPOINTS / str(name) / path.name)
    if (local / TENSORBOARD).is_dir():  # a copy: these grow
        shutil.copytree(local / TENSORBOARD, folder / TENSORBOARD)
    return Job(number, folder, tuple(kept))


class Publisher:
    """Writes to the bucket; for one thread, but for `names`, `known` and `last`."""

    def __init__(self, run: RemoteRun) -> None:
        self._run = run
        self.known = run.known() or Known(0)
        self._tried = b""
        complete = [name for name in map(parse_name, self.known.complete) if name]
        self._published = max(complete) if complete and self.known.generation else None

    @property
    def last(self) -> str:
        """What a process elsewhere would go on from; empty if from the start."""
        return f"that of step {self._published.step}" if self._published else ""

    def names(self) -> set[Name]:
        """The checkpoints of which there may be a file in the bucket."""
        return {name for name in map(parse_name, (*self.known.taken, *self.known.complete)) if name}

    def claim(self) -> None:
        """Write whose run it is, unless that is there. Raises `ConflictError` if somebody else has just begun it."""
        data = (self._run.local / CONFIG_NAME).read_bytes()
        if self._run.config != data:
            try:
                self._run.folder.write(CONFIG_NAME, data, generation=0)
            except ConflictError as error:
                raise self._conflict() from error

    def publish(self, job: Job) -> None:
        """Raises `ConflictError` if another process has published too."""
        if job.results:
            self._publish_results()
            return
        folder = self._run.folder
        for name in reversed(job.names):  # the newest last
            if str(name) not in self.known.complete:
                self._know(replace(self.known, taken=tuple({*self.known.taken, str(name)})))
                self._send_checkpoint(job, name)
        upload(folder, _files(job.folder, TENSORBOARD))
        generation = self._point_to(job.names[0])
        self._published = job.names[0]
        complete = {*map(str, job.names), *self._before(job.names[0])}
        self._know(replace(self.known, generation=generation, complete=tuple(complete)))
        self._prune()

    def _point_to(self, name: Name) -> int:
        """Publish; the generation of the pointer. What is there may be an earlier try of ours without its answer."""
        folder, data = self._run.folder, pointer_to(name)
        earlier, self._tried = self._tried, data
        try:
            return folder.write(POINTER, data, generation=self.known.generation).generation
        except ConflictError as error:
            there = folder.find(POINTER)
            if there is None or not earlier or folder.read(there) != earlier:
                raise self._conflict() from error
            return folder.write(POINTER, data, generation=there.generation).generation

    def _send_checkpoint(self, job: Job, name: Name) -> None:
        source = job.folder / CHECKPOINTS / str(name)
        try:
            files = sorted(source.iterdir(), key=lambda path: (path.name == STATE, path.name))
            for path in files:  # the state last: it vouches for the others
                self._run.folder.write(f"{CHECKPOINTS}/{name}/{path.name}", path, generation=0)
        except ConflictError as error:
            raise self._conflict() from error
        self._know(replace(self.known, complete=tuple({*self.known.complete, str(name)})))

    def _before(self, newest: Name) -> list[str]:
        """The checkpoint to fall back to, should the newest be damaged."""
        earlier = [name for name in map(parse_name, self.known.complete) if name and name < newest]
        return [str(max(earlier))] if earlier else []

    def _prune(self) -> None:
        """Remove the checkpoints that aren't needed. Only after the pointer: no other process has published then."""
        gone = {name for name in self.known.taken if name not in self.known.complete}
        if gone:
            blobs = self._run.folder.files(f"{CHECKPOINTS}/step-")
            self._run.folder.delete(blob.name for blob in blobs if blob.name.split("/")[1] in gone)
        self._know(replace(self.known, taken=tuple(name for name in self.known.taken if name not in gone)))

    def _publish_results(self) -> None:
        local, folder = self._run.local, self._run.folder
        upload(folder, _files(local, TENSORBOARD) | _files(local, MODEL), title="upload")
        optional = [name for name in (TFLITE, TFLITE_LABELS) if (local / name).exists()]
        for name in (f"{MODEL}.keras", *optional, PREDICTIONS, CARD, METRICS, REPORT):
            folder.write(name, local / name)

    def _know(self, known: Known) -> None:
        self.known = known
        with suppress(OSError):  # costs the next process a look at the bucket
            self._run.remember(known)

    def _conflict(self) -> ConflictError:
        return ConflictError(
            f"Another process works on the run {self._run} and has written there. This one ends, and leaves what the "
            "other has published. To fix it: let one process train a run at a time, or give another --run."
        )


def _files(folder: Path, name: str) -> dict[str, Path]:
    """All files below a folder in `folder`, by the names of their objects."""
    below = (path for path in (folder / name).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in below}
