"""What every program of this project does around its work: parse flags, end with the right exit code.

    if __name__ == "__main__":
        cli.run(main)

A scheduler reads the exit code, so it is part of the contract: `EXIT_REQUEST` is never worth a retry,
`EXIT_PREEMPTED` always is, anything else that isn't zero is a fault.
"""

import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

EXIT_DONE = 0
EXIT_FAULT = 1
EXIT_REQUEST = 2
EXIT_PREEMPTED = 75


class RequestError(Exception):
    """What was asked for can't be done, and asking again won't help: wrong flags, missing data, a bad manifest."""


class Preempted(Exception):
    """The process was told to stop and has saved what it needs to go on later."""


def invalid_flag(name: str, *, expected: str, received: object, fix: str) -> RequestError:
    """The one form in which a wrong flag is reported."""
    return RequestError(f"Invalid value for `--{name}`. Expected {expected}. Received: {received!r}. To fix it: {fix}")


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Parse flags, call `main(argv)` and exit with the code the outcome stands for. Never returns."""
    logging.set_verbosity(logging.WARNING)
    app.run(lambda argv: sys.exit(_exit_code(main, argv)), flags_parser=_parse_flags)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        return list(flags.FLAGS(list(argv)))
    except flags.Error as error:
        _say(f"{error}\nTo fix it: `{_command(argv)} --help` lists every flag.")
        sys.exit(EXIT_REQUEST)
    except SystemExit:
        # absl ends --help with 1; help that was asked for is no failure.
        sys.exit(EXIT_DONE)


def _exit_code(main: Callable[[Sequence[str]], None], argv: Sequence[str]) -> int:
    try:
        main(argv)
    except RequestError as error:
        _say(str(error))
        return EXIT_REQUEST
    except flags.Error as error:
        _say(str(error))
        return EXIT_REQUEST
    except Preempted as stop:
        _say(str(stop))
        return EXIT_PREEMPTED
    except KeyboardInterrupt:
        _say("Interrupted. Run the same command again to go on from here.")
        return 130
    return EXIT_DONE


def _command(argv: Sequence[str]) -> str:
    module = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {module.name.removesuffix('.__main__')}" if module else argv[0]


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
