"""Workers of one run as real processes on loopback, and what became of them."""

import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from tests.conftest import ROOT


def free_addresses(count: int) -> list[str]:
    """Ports that nobody has now."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in taken]
    for one in taken:
        one.close()
    return addresses


class Worker:
    """A process whose output is read as it comes, with the time each line came."""

    def __init__(self, module: str, *arguments: object, **env: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.ended_at = 0.0
        self.lines: queue.Queue[str] = queue.Queue()
        self._errors: list[str] = []
        streams = ((self.process.stdout, self.lines.put), (self.process.stderr, self._errors.append))
        self._readers = [threading.Thread(target=_read, args=pair, daemon=True) for pair in streams]
        self._readers += [threading.Thread(target=self._await_end, daemon=True)]
        for reader in self._readers:
            reader.start()

    @property
    def errors(self) -> str:
        return "".join(self._errors)

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def code(self, timeout: float) -> int:
        """The exit code, once all output has been read."""
        code = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(10)
        return code

    def _await_end(self) -> None:
        self.process.wait()
        self.ended_at = time.monotonic()


def _read(stream: Sequence[str], take: Callable[[str], object]) -> None:
    for line in stream:
        take(line)


def until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until something is true. Raises `AssertionError` if it isn't in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def kill(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.process.kill()
