"""Worker 0's side of the start-up meeting: who has come, who is refused, who is missing.

    with Reception(workers, key) as reception:
        while not reception.complete:
            reception.turn(listener, 0.1)
        lines = reception.open_doors()

Whatever else connects, such as a port scanner, is dropped without a word.
"""

import selectors
import socket
import time
from types import TracebackType
from typing import Self

from data_pipeline.cli import WorkerLost, say
from trainer.addresses import Workers
from trainer.peers import PING_EVERY_S, SILENCE_S
from trainer.wire import Line, Message

HELLO_S = 10.0  # how long a stranger may keep quiet
PROOF_S = 3.0  # in which a worker that is alive is heard
MAX_STRANGERS = 256
SHOWN = 5


class Reception:
    """The connections of a meeting, each of a stranger, of a worker, or of a second one with the same index."""

    def __init__(self, workers: Workers, key: str) -> None:
        self._workers = workers
        self._key = key
        self._selector = selectors.DefaultSelector()
        self._strangers: list[Line] = []
        self._arrived: dict[int, Line] = {}
        self._twins: dict[int, Line] = {}
        self._refusals: list[str] = []
        self._before = time.monotonic()
        self._next_ping = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._selector.close()
        for line in (*self._strangers, *self._twins.values(), *(self._arrived.values() if error else ())):
            line.close()

    @property
    def missing(self) -> list[int]:
        return [index for index in range(1, len(self._workers.addresses)) if index not in self._arrived]

    @property
    def complete(self) -> bool:
        return not self.missing and not self._twins

    def open_doors(self) -> dict[int, Line]:
        """All have come: tell them. The connections, by index."""
        for line in self._arrived.values():
            line.send("welcome")
        return self._arrived

    def give_up(self, timeout_s: float) -> WorkerLost:
        """Some haven't come: tell those who have, and return the error to raise."""
        names = ", ".join(self._workers.name(index) for index in self.missing)
        refused = "".join(f" {text}" for text in self._refusals[:SHOWN])
        text = (
            f"Didn't come within {timeout_s:g} s: {names}.{refused} This process ends with exit code 75. To fix it: "
            "see that all workers are started and reach worker 0, or give a longer --start_timeout."
        )
        for line in self._arrived.values():
            line.send("missing", text=text)
            line.finish()
        return WorkerLost(text)

    def turn(self, listener: socket.socket, wait_s: float) -> None:
        """Wait for a moment, let in whoever knocks and hear everybody."""
        if listener not in self._selector.get_map():
            self._selector.register(listener, selectors.EVENT_READ)
        self._selector.select(wait_s)
        now = time.monotonic()
        for line in (*self._strangers, *self._arrived.values(), *self._twins.values()):
            line.silent_s += now - self._before
        self._before = now
        self._let_in(listener)
        self._hear_arrived()
        self._hear_strangers()
        self._judge_twins()
        if now >= self._next_ping:
            self._next_ping = now + PING_EVERY_S
            for line in (*self._arrived.values(), *self._twins.values()):
                line.send("wait")

    def _let_in(self, listener: socket.socket) -> None:
        while True:
            try:
                line = Line(listener.accept()[0])
            except OSError:  # nobody more, or one who has gone already
                return
            self._selector.register(line, selectors.EVENT_READ)
            self._strangers.append(line)
            if len(self._strangers) > MAX_STRANGERS:
                self._drop(self._strangers.pop(0))

    def _hear_arrived(self) -> None:
        for index, line in list(self._arrived.items()):
            line.receive()
            if not line.open or line.silent_s > SILENCE_S:  # it may come back
                self._drop(self._arrived.pop(index))

    def _hear_strangers(self) -> None:
        for line in list(self._strangers):
            messages = line.receive()
            if messages:
                self._strangers.remove(line)
                self._admit(line, messages[0])
            elif not line.open or line.silent_s > HELLO_S:
                self._strangers.remove(line)
                self._drop(line)

    def _admit(self, line: Line, hello: Message) -> None:
        index, count, key = hello.get("index"), hello.get("workers"), hello.get("key")
        if hello["kind"] != "hello" or type(index) is not int or type(count) is not int or not isinstance(key, str):
            self._drop(line)
        elif count != len(self._workers.addresses):
            self._refuse(line, index, f"it was told of {count} workers, worker 0 of {len(self._workers.addresses)}")
        elif key != self._key:
            self._refuse(line, index, f"it was started otherwise: {_difference(self._key, key)}")
        elif index not in range(1, count):
            self._refuse(line, index, f"there is a worker 0 already, and the others are 1 to {count - 1}")
        elif index in self._arrived:
            if index in self._twins:
                self._drop(self._twins[index])
            self._twins[index] = line
            # Heard after this, it is alive.
            self._arrived[index].silent_s = max(self._arrived[index].silent_s, 1e-9)
            line.silent_s = 0.0
        else:
            self._arrived[index] = line

    def _judge_twins(self) -> None:
        """A second worker with the same index takes the place of a dead one; while that one lives, it is wrong."""
        for index, twin in list(self._twins.items()):
            twin.receive()
            former = self._arrived.get(index)
            if not twin.open:
                self._drop(self._twins.pop(index))
            elif former is None or former.silent_s > PROOF_S:
                if former:
                    self._drop(former)
                self._arrived[index] = self._twins.pop(index)
            elif former.silent_s == 0.0:
                del self._twins[index]
                self._refuse(twin, index, f"there is a worker {index} already, at {former.peer}")

    def _refuse(self, line: Line, index: object, why: str) -> None:
        text = f"Worker {index}, at {line.peer}, was refused by {self._workers.name(0)}: {why}."
        say(text)
        self._refusals.append(text)
        fix = "give all workers the same command and dataset, and each an index of its own"
        line.send("refused", text=f"{text} To fix it: {fix}.")
        line.finish()
        self._drop(line)

    def _drop(self, line: Line) -> None:
        self._selector.unregister(line)
        line.close()


def _difference(ours: str, theirs: str) -> str:
    """The lines that two keys don't share."""
    here, there = ours.splitlines(), theirs.splitlines()
    told = [("worker 0 has", [line for line in here if line not in there])]
    told += [("it has", [line for line in there if line not in here])]
    return ", ".join(f"{who} {'; '.join(lines[:SHOWN])[:500]}" for who, lines in told if lines)
