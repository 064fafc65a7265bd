"""A training as a process of its own, which outlives the sweep that started it and keeps others from starting it again.

    with claimed(folder / "r.lock") as lock:
        if lock:        # None: another process is at it
            code, last_words = run(["-m", "trainer", "--organ=cervix"], folder / "r.log", lock, stop)

The process writes what it says to a file, not into a pipe that would break with its reader, and inherits the lock. So
if the sweep is killed and started again, it finds the training under way and waits for its end.
"""

import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from trainer.preemption import StopSignal

POLL_S = 0.2
ERROR_BYTES, ERROR_LETTERS = 1 << 14, 4000


@contextmanager
def claimed(path: Path) -> Iterator[IO[str] | None]:
    """The lock file, held; None if another process holds it. A process that inherits it holds it too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file


def run(arguments: Sequence[str], log: Path, lock: IO[str], stop: StopSignal) -> tuple[int, str]:
    """Run Python with these arguments to its end; its exit code and last line.

    What it says is added to `log`, and shown on the way. A SIGTERM that comes to this process is handed on to it.
    """
    with log.open("ab") as said, log.open("rb") as saying:
        start = saying.seek(0, 2)
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            pass_fds=(lock.fileno(),),
        )
        try:
            told = False
            while _goes_on(process):
                if stop.is_set() and not told:
                    process.terminate()
                    told = True
                _show(saying)
        except BaseException:  # whatever it is, what has been learnt is worth a checkpoint
            process.terminate()
            process.wait()
            raise
        _show(saying)
        saying.seek(max(start, saying.seek(0, 2) - ERROR_BYTES))
        return process.returncode, _last_words(saying.read(), process.returncode)


def _goes_on(process: "subprocess.Popen[bytes]") -> bool:
    try:
        process.wait(timeout=POLL_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def _show(saying: IO[bytes]) -> None:
    sys.stderr.buffer.write(saying.read())
    sys.stderr.flush()


def _last_words(said: bytes, code: int) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").replace("\r", "\n").splitlines()]
    last = next((line for line in reversed(lines) if line), "nothing was said")[:ERROR_LETTERS]
    return f"ended by {signal.Signals(-code).name}; {last}" if code < 0 else last
