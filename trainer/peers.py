"""The other workers of a run while it goes on: none of them waits for ever for one that is gone.

    with meet(workers, key, timeout_s=600.0) as peers:      # meeting.py; the watch begins
        ...                                                 # a lost worker ends this process with exit code 75
                                                            # the end of the block says goodbye to the others

Worker 0 has a connection to each other worker. Every second each side says that it is there. One whose connection
breaks, or of which nothing was heard for `SILENCE_S`, is lost: then this process says which, tells the others and ends.
TensorFlow can't do this: some of its collectives never return when the other side is gone, and while it waits in C++ no
exception can be raised in the main thread. So a thread ends the process.
"""

import selectors
import threading
import time
from types import TracebackType
from typing import Self

from data_pipeline.cli import (
    EXIT_DONE,
    EXIT_FAULT,
    EXIT_PREEMPTED,
    EXIT_REQUEST,
    FaultError,
    Preempted,
    RequestError,
    WorkerLost,
)
from trainer.addresses import Workers
from trainer.last_resort import end_now
from trainer.wire import Line, Message

PING_EVERY_S = 1.0
SILENCE_S = 30.0
SUSPECT_S = 5.0
GRACE_S = 10.0  # what brought one worker down is likely to bring down this one, with a better message
AGAIN = "This process ends with exit code 75: started again, all of them go on from the last checkpoint."


class Peers:
    """Watches from `__enter__` to `__exit__`. `lines` are to all others in worker 0, to worker 0 in all others."""

    def __init__(self, workers: Workers, lines: dict[int, Line]) -> None:
        self._workers = workers
        self._lines = lines
        self._selector = selectors.DefaultSelector()
        for line in lines.values():
            self._selector.register(line, selectors.EVENT_READ)
        self._lock = threading.Lock()  # of the lines, between the watch and goodbye
        self._done = False
        self._alone = threading.Event()
        self._doom: tuple[float, str] | None = None  # when to end, and why

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="peers", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.goodbye(error)

    def goodbye(self, error: BaseException | None = None) -> None:
        """From now on nobody misses this worker, nor it anybody. `error` is what it ends with, if with anything."""
        with self._lock:
            self._done = True
            for line in self._lines.values():
                if isinstance(error, WorkerLost):
                    line.send("lost", text=str(error))
                else:
                    line.send("bye", code=_code(error), text=_first_line(error))
                line.finish()

    def wait_for_chief(self) -> None:
        """In the other workers, until worker 0 has said goodbye."""
        while not self._workers.chief and not self._alone.wait(PING_EVERY_S):
            pass

    def suspects(self) -> list[str]:
        """The workers of which nothing was heard for some seconds."""
        with self._lock:
            return [self._workers.name(i) for i, line in self._lines.items() if line.silent_s > SUSPECT_S]

    def leave(self, why: str) -> None:
        """Tell the others and end this process now, whatever the main thread waits for."""
        with self._lock:
            self._leave(why)

    def _watch(self) -> None:
        before = next_ping = time.monotonic()
        while True:
            self._selector.select(PING_EVERY_S)
            now = time.monotonic()
            with self._lock:
                if self._done:
                    return
                # Where this very process was stopped, or TensorFlow held Python's lock, nobody else was silent.
                self._listen(min(now - before, 2 * PING_EVERY_S))
                if now >= next_ping:
                    next_ping = now + PING_EVERY_S
                    for line in self._lines.values():
                        line.send("ping")
                if self._doom and now >= self._doom[0]:
                    self._leave(self._doom[1])
                if not self._lines and not self._doom:
                    self._alone.set()
                    return
            before = now

    def _listen(self, seconds: float) -> None:
        for index, line in list(self._lines.items()):
            line.silent_s += seconds
            for message in line.receive():
                self._hear(index, message)
            if index not in self._lines:
                continue
            if not line.open:
                self._lose(index, "its connection broke")
            elif line.silent_s > SILENCE_S:
                self._lose(index, f"nothing was heard of it for {SILENCE_S:g} s")

    def _hear(self, index: int, message: Message) -> None:
        if message["kind"] == "lost":
            self._leave(str(message.get("text")))
        if message["kind"] != "bye":
            return
        self._selector.unregister(self._lines[index])
        self._lines.pop(index).close()
        code = message.get("code")
        # Workers that were told to stop have agreed on it, and worker 0 still saves; when it is done, so are all.
        if code != EXIT_DONE and not (code == EXIT_PREEMPTED and self._workers.chief):
            what = f"{_capital(self._workers.name(index))} has ended with exit code {code}: {message.get('text')}"
            self._doom = self._doom or (time.monotonic() + GRACE_S, f"{what}\n{AGAIN}")

    def _lose(self, index: int, how: str) -> None:
        self._leave(f"{_capital(self._workers.name(index))} was lost: {how}. {AGAIN}")

    def _leave(self, why: str) -> None:
        for line in self._lines.values():
            line.send("lost", text=why)
            line.finish()
        end_now(why)


def _code(error: BaseException | None) -> int:
    if isinstance(error, RequestError):
        return EXIT_REQUEST
    if isinstance(error, Preempted):
        return EXIT_PREEMPTED
    return EXIT_FAULT if error else EXIT_DONE


def _first_line(error: BaseException | None) -> str:
    if isinstance(error, RequestError | FaultError | Preempted):
        return str(error)
    return f"{type(error).__name__}: {error}".splitlines()[0][:500] if error else ""


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
