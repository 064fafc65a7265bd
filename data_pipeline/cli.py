"""What every program of this project does around its work: parse flags, end with the right exit code.

    if __name__ == "__main__":
        cli.run(main)

A scheduler reads the exit code, so it is part of the contract: `EXIT_REQUEST` is never worth a retry,
`EXIT_PREEMPTED` always is, anything else that isn't zero is a fault.
"""

import errno
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from absl import app, flags
from absl import logging as absl_logging

EXIT_DONE = 0
EXIT_FAULT = 1
EXIT_REQUEST = 2
EXIT_PREEMPTED = 75
STOPPED = "Stopped by SIGTERM. What is finished is kept: run the same command again to go on from here."
# Errors of a disk that say enough without a traceback, and what to do about each.
DISK_TROUBLE = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there, or have the quota raised",
    errno.EROFS: "have the disk made writable",
    errno.EIO: "look at the disk and how it is mounted",
    errno.ESTALE: "have the network disk mounted anew",
    errno.EACCES: "let this user read and write it",
    errno.EPERM: "let this user read and write it",
    errno.EISDIR: "move that folder out of the way of the file of its name",
    errno.ENOTDIR: "move the file out of the way of the folder of its name",
    errno.EEXIST: "move out of the way what has that name",
}
MISSING = re.compile(r"flag --\w+=None: Flag --(\w+) must have a value other than None\.")  # as absl says it
NO_PERMISSION = (errno.EACCES, errno.EPERM)  # trying again won't help
_stopped: list[int] = []


class RequestError(Exception):
    """What was asked for can't be done, and asking again won't help: wrong flags, missing data, a bad manifest."""


class FaultError(Exception):
    """Something went wrong that may go right the next time: a message without a traceback, and exit code 1."""


class WorkerLost(Exception):
    """Another worker of the run hasn't come or has gone: a message without a traceback, and try again, exit code 75."""


class Preempted(BaseException):
    """The process was told to stop and has saved what it needs to go on later.

    Like `KeyboardInterrupt` no `Exception`: a signal handler may raise it anywhere, and code that survives a damaged
    file by catching `Exception` must not take it for the damage.
    """


def invalid_flag(name: str, *, expected: str, received: object, fix: str) -> RequestError:
    """The one form in which a wrong flag is reported."""
    return RequestError(f"Invalid value for `--{name}`. Expected {expected}. Received: {received!r}. To fix it: {fix}")


def chosen(names: Sequence[str], folders: Mapping[str, bool], *, place: str) -> list[str]:
    """The datasets that `--organ` names, each once; `folders` are those of `place`, and whether each is sealed.

    Raises `RequestError` if one isn't there.
    """
    there = [name for name, sealed in folders.items() if sealed and not name.startswith(".")]
    if not there and not any(name in folders for name in names):
        raise RequestError(f"{place} holds no dataset. To fix it: run python -m data_pipeline first.")
    if list(names) == ["all"]:
        return there
    for name in names or [""]:
        if name not in folders:  # one that is there without a manifest is told what it lacks, later
            expected = f"one of {', '.join(there)}, a list of them, or all"
            fix = "name an organ that is there, or convert its images with python -m data_pipeline"
            raise invalid_flag("organ", expected=expected, received=name, fix=fix)
    return list(dict.fromkeys(names))


def stop_on_sigterm() -> None:
    """From now on SIGTERM raises `Preempted` where the program is. For programs whose finished work is on the disk."""

    def stop(signum: int, frame: object) -> None:
        if not _stopped:  # a second one finds us on the way out already
            _stopped.append(signum)
            raise Preempted(STOPPED)

    signal.signal(signal.SIGTERM, stop)


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Parse flags, call `main(argv)` and exit with the code the outcome stands for. Never returns."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    app.run(lambda argv: _leave(_exit_code(main, argv)), flags_parser=_parse_flags)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        return list(flags.FLAGS(list(argv)))
    except flags.Error as error:
        _refuse(f"{_in_short(error)}\nTo fix it: `{_command(argv)} --help` lists every flag.")
        sys.exit(EXIT_REQUEST)
    except SystemExit:
        # absl ends --help with 1; help that was asked for is no failure.
        sys.exit(EXIT_DONE)


def _exit_code(main: Callable[[Sequence[str]], None], argv: Sequence[str]) -> int:
    try:
        main(argv)
    except (RequestError, flags.Error) as error:
        _refuse(str(error))
        return EXIT_REQUEST
    except FaultError as error:
        say(str(error))
        return EXIT_FAULT
    except (Preempted, WorkerLost) as stop:
        say(str(stop))
        return EXIT_PREEMPTED
    except KeyboardInterrupt:
        say("Interrupted. Run the same command again to go on from here.")
        return 130
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_FAULT
    except Exception as error:
        if _stopped:  # a library has made an error of its own of the stop
            say(STOPPED)
            return EXIT_PREEMPTED
        if isinstance(error, OSError) and error.errno in DISK_TROUBLE:
            say(_disk_trouble(error))
            return EXIT_REQUEST if error.errno in NO_PERMISSION else EXIT_FAULT
        traceback.print_exc()
        return EXIT_FAULT
    return EXIT_DONE


def _disk_trouble(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    return f"{error.strerror}{where}. To fix it: {DISK_TROUBLE[error.errno or 0]}, then run the same command again."


def _leave(code: int) -> NoReturn:
    """End the process now. Whatever had to be saved is saved.

    An ordinary exit waits for threads of TensorFlow's that may be waiting for Python: about every second run that
    ended while its input pipeline was full never returned.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def _in_short(error: flags.Error) -> str:
    """The message, with all flags that are missing in one line."""
    lines = str(error).splitlines()
    missing = [match[1] for line in lines if (match := MISSING.fullmatch(line))]
    others = [line for line in lines if not MISSING.fullmatch(line)]
    return "\n".join([*others, f"Missing: {', '.join(f'--{name}' for name in missing)}."] if missing else others)


def _refuse(message: str) -> None:
    """Say why not. Who gave no argument at all is told first what the program is for and how to call it."""
    usage = sys.modules["__main__"].__doc__
    say(message if sys.argv[1:] or not usage else f"{usage.strip()}\n\n{message}")


def _command(argv: Sequence[str]) -> str:
    module = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {module.name.removesuffix('.__main__')}" if module else argv[0]


def say(message: str) -> None:
    """Tell the person who watches."""
    print(message, file=sys.stderr, flush=True)
