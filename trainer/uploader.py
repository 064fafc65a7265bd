"""Brings a run to its bucket in the background, while it is trained: each checkpoint, and at the end the results.

    with uploading(config, fingerprint, folder, stop, chief=True) as uploads:
        ...     # Checkpoints(…, uploads=uploads) calls it after each save

The thread that trains only leaves word: links to the files of a checkpoint, which stay when the run's folder is
pruned. Another thread uploads them, one checkpoint at a time, then the pointer, then removes what isn't needed any
more. If several have been saved meanwhile, the newest goes next, with all that has to stay beside it, such as the best:
so whatever is published is enough to go on from. What fails is told and tried again until `--checkpoint_deadline`.
"""

import shutil
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.bucket import ConflictError
from data_pipeline.cli import FaultError, Preempted, RequestError, say
from trainer.config import TrainConfig
from trainer.intervals import parse_seconds
from trainer.preemption import SIGTERM, StopSignal
from trainer.published import Name, names_in, read_pointer
from trainer.remote_publishing import Job, Publisher, linked, links_of
from trainer.remote_run import RemoteRun
from trainer.run_folder import CHECKPOINTS
from trainer.uploads import NoUploads, Uploads

RETRY_S = 30.0
LEAVING_RETRY_S = 1.0  # when there is nothing else left to do
POLL_S = 0.1
OURS = (FaultError, RequestError, OSError)  # their text says what is wrong


@contextmanager
def uploading(
    config: TrainConfig, fingerprint: str, folder: Path, stop: StopSignal, *, chief: bool
) -> Iterator[Uploads]:
    """For the length of a run: what `Checkpoints` needs. When the block has ended well, all is in the bucket.

    Raises `Preempted` that says what isn't there yet, `ConflictError` if another process publishes too, and
    `FaultError` or `RequestError` if uploading has failed for too long.
    """
    if not chief:
        yield NoUploads()
        shutil.rmtree(folder, ignore_errors=True)
        return
    run = RemoteRun(config.run_place(fingerprint), folder)
    grace_s = parse_seconds("stop_timeout", config.stop_timeout)
    uploader = Uploader(run, deadline_s=parse_seconds("checkpoint_deadline", config.checkpoint_deadline))
    with stop.at_once():  # a bucket that is away is asked for minutes, and nothing is new yet
        uploader.begin()
    try:
        yield uploader
        uploader.finish(stop)
    except Preempted as told:
        raise Preempted(f"{told}\n{uploader.leave(grace_s - stop.since_s())}".strip()) from told
    except Exception:
        uploader.leave(grace_s, tell=True)
        raise
    finally:
        uploader.close()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(links_of(folder), ignore_errors=True)


@dataclass(frozen=True)
class _Failure:
    """What went wrong last, and since when nothing has gone right."""

    error: Exception
    since: float


class Uploader:
    """The thread that uploads, and what others ask and tell it. A failure lasts at most for `deadline_s`."""

    def __init__(self, run: RemoteRun, *, deadline_s: float) -> None:
        self._run = run
        self._publisher = Publisher(run)
        self._deadline_s = deadline_s
        self._changed = threading.Condition()
        self._next: Job | None = None
        self._current: Job | None = None
        self._failure: _Failure | None = None
        self._over: Exception | None = None
        self._leaving = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="upload", daemon=True)
        self._links = 0

    def begin(self) -> None:
        """Say in the bucket whose run this is, and upload what an earlier process had saved and couldn't."""
        shutil.rmtree(links_of(self._run.local), ignore_errors=True)
        self._publisher.claim()
        self._thread.start()
        checkpoints = self._run.local / CHECKPOINTS
        last = read_pointer(checkpoints)
        if last and str(last) not in self._publisher.known.complete:
            self.saved({name.step for name in names_in(checkpoints)})

    def taken(self) -> Collection[Name]:
        with self._changed:
            waiting = [job.names for job in (self._current, self._next) if job]
        return {*self._publisher.names(), *(name for names in waiting for name in names)}

    def saved(self, steps: Collection[int]) -> None:
        self._links += 1
        try:
            job = linked(self._run.local, steps, number=self._links, complete=self._publisher.known.complete)
        except OSError as error:  # the next checkpoint may fare better
            self._failed(error)
            return
        if job:
            self._submit(job)

    def check(self) -> None:
        if self._over:
            raise self._over
        failure = self._failure
        if failure and time.monotonic() - failure.since >= self._deadline_s:
            told = (
                f"{_said(failure.error)} Nothing could be uploaded to {self._run} for {self._deadline_s:g} s, which is "
                "--checkpoint_deadline. Run the same command again on this machine to go on from here."
            )
            raise type(failure.error)(told) if isinstance(failure.error, RequestError) else FaultError(told)

    def finish(self, stop: StopSignal) -> None:
        """Upload the results, after the last checkpoint. Raises what `check` does, and `Preempted` when told to."""
        self._wait(lambda: self._idle, stop)
        self._submit(Job(0, Path(), (), results=True))
        self._wait(lambda: self._idle, stop)

    def leave(self, grace_s: float, *, tell: bool = False) -> str:
        """Wait for what is under way, but not longer; what there is to say of it, said if it is to `tell`.

        Of a process that was overtaken nothing counts any more: all there is to say is that.
        """
        self._leaving.set()
        unfinished = self._next or self._current
        if unfinished and not self._over:
            say(f"Uploading {unfinished} to {self._run}, for up to {max(grace_s, 0.0):.0f} s.")
            deadline = time.monotonic() + grace_s
            with self._changed:
                while not self._idle and not self._over and time.monotonic() < deadline:
                    self._changed.wait(POLL_S)
        if self._over:
            return str(self._over)
        there = self._publisher.last
        unfinished = self._next or self._current
        if unfinished is None:
            return f"{self._run} has {there}." if there else ""
        cause = _said(self._failure.error) if self._failure else "there was no time for it."
        told = (
            f"{_capitalized(unfinished)} is NOT in {self._run}: {cause}\nThe same command "
            f"goes on from it on this machine alone, elsewhere from {there or 'the start'}."
        )
        if tell:
            say(told)
        return told

    def close(self, wait_s: float = 0.0) -> None:
        """Begin nothing more, and wait so long for what is under way."""
        with self._changed:
            self._closed = True
            self._leaving.set()
            self._changed.notify_all()
        self._thread.join(wait_s)

    @property
    def _idle(self) -> bool:
        return self._next is None and self._current is None

    def _wait(self, condition: Callable[[], bool], stop: StopSignal) -> None:
        while not condition():
            self.check()
            with stop.at_once():
                time.sleep(POLL_S)
        self.check()

    def _submit(self, job: Job) -> None:
        with self._changed:
            replaced, self._next = self._next, job
            self._changed.notify_all()
        if replaced:
            replaced.drop()

    def _work(self) -> None:
        # The main thread waits for it, and a handler runs there alone.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGTERM)
        while self._over is None:
            with self._changed:
                while self._next is None and not self._closed:
                    self._changed.wait()
                if self._closed or self._next is None:
                    return
                job, self._current, self._next = self._next, self._next, None
            try:
                self._publisher.publish(job)
            except ConflictError as error:
                self._over = error
            except Exception as error:  # whatever it is, the next try may fare better
                self._failed(error)
                self._put_back(job)
                continue
            self._succeeded(job)

    def _succeeded(self, job: Job) -> None:
        if self._failure and self._over is None:
            say(f"{_capitalized(job)} is uploaded: {self._run} takes them again.")
        job.drop()  # first: whoever waits for this thread to be idle may copy or remove the folder
        with self._changed:
            self._current, self._failure = None, None
            self._changed.notify_all()

    def _put_back(self, job: Job) -> None:
        """Wait a while, then try again: what has been saved since, or else the same."""
        with self._changed:
            newer = self._next is not None
            if not newer:
                self._next = job
            self._current = None
        if newer:
            job.drop()
        if self._leaving.wait(RETRY_S):
            time.sleep(LEAVING_RETRY_S)

    def _failed(self, error: Exception) -> None:
        began = self._failure.since if self._failure else time.monotonic()
        self._failure = _Failure(error, began)
        left_s = max(began + self._deadline_s - time.monotonic(), 0.0)
        say(
            f"A checkpoint could NOT be uploaded to {self._run}: {_said(error)}\n"
            f"Training goes on, and it is tried again; the run gives up in {left_s:.0f} s."
        )


def _capitalized(job: Job) -> str:
    return str(job)[0].upper() + str(job)[1:]


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, OURS) else repr(error)
