"""Programs of this project, run as they are, that say at their end what they had TensorFlow do.

    with Witness("trainer.preflight") as witness:
        outcome = witness.run("trainer", "--organ=liver")
        outcome.code, outcome.errors, outcome.tensorflow

One process imports what is named, and each request is a fork of it: the same program from its first line to its last,
without the time that starting Python and importing take.
"""

import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from typing import NoReturn, Self

from data_pipeline.cli import EXIT_REQUEST
from tests.conftest import ROOT

NOT_IMPORTED, IMPORTED, USED = "not imported", "imported", "used"
_exit = os._exit


@dataclass(frozen=True)
class Outcome:
    """How a program ended; `tensorflow` is `used` if a device was opened, without which nothing can be computed."""

    code: int
    output: str
    errors: str
    tensorflow: str


def assert_refused(outcome: Outcome, *says: str, code: int = EXIT_REQUEST, tensorflow: str = NOT_IMPORTED) -> None:
    """It ended as a wrong request should: told what is wrong and what to do, and nothing else."""
    assert (outcome.code, outcome.output, outcome.tensorflow) == (code, "", tensorflow), outcome
    assert "Traceback" not in outcome.errors
    for words in (*says, "To fix it: "):
        assert words in outcome.errors, outcome.errors


class Witness:
    """The process that the requests are forks of."""

    def __init__(self, *imports: str) -> None:
        self._imports = imports

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.trainer.witness", *self._imports]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate(timeout=60)

    def run(self, module: str, *arguments: str, **env: str) -> Outcome:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([[module, *arguments], env]) + "\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))


def _outcome(arguments: list[str], env: dict[str, str]) -> Outcome:
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as said:
        child = os.fork()
        if child == 0:
            os.environ.update(env)
            os.dup2(output.fileno(), 1)
            os.dup2(errors.fileno(), 2)
            _become(arguments, said.fileno())
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (output, errors, said):
            file.seek(0)
            texts.append(file.read().decode())
        return Outcome(os.waitstatus_to_exitcode(status), *texts)


def _become(arguments: list[str], said: int) -> NoReturn:
    """Run the program in this process, and write what TensorFlow did to the file `said`."""

    def leave(code: int) -> NoReturn:  # programs of this project end by `os._exit`
        os.write(said, _tensorflow().encode())
        _exit(code)

    os._exit = leave  # type: ignore[assignment]
    sys.argv = list(arguments)
    try:
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:  # absl's way to end when flags are wrong
        sys.stdout.flush()
        sys.stderr.flush()
        leave(end.code if isinstance(end.code, int) else 1)
    leave(1)


def _tensorflow() -> str:
    if "tensorflow" not in sys.modules:
        return NOT_IMPORTED
    from tensorflow.python.eager import context

    return USED if context.context()._context_handle is not None else IMPORTED


def main() -> None:
    for name in sys.argv[1:]:
        importlib.import_module(name)
    assert _tensorflow() != USED  # it doesn't survive a fork
    for line in sys.stdin:
        print(json.dumps(asdict(_outcome(*json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
