"""A worker without TensorFlow: it meets the others, then does what it is told, for the tests of the protocol.

Usage: python -m tests.trainer.meeting_process ADDRESSES INDEX KEY TIMEOUT_S

It prints "met" and then, for each line on stdin: bye ends it, fail raises, refuse raises a RequestError, hold keeps
Python's lock for 8 seconds, wait waits for worker 0's end.
"""

import ctypes
import sys

from trainer.preemption import exit_when_stopped

exit_when_stopped()  # as the trainer does

from collections.abc import Sequence  # noqa: E402

from data_pipeline import cli  # noqa: E402
from trainer.addresses import Workers  # noqa: E402
from trainer.meeting import meet  # noqa: E402


def main(argv: Sequence[str]) -> None:
    addresses, index, key, timeout_s = argv[1:]
    with meet(Workers(tuple(addresses.split(",")), int(index)), key, timeout_s=float(timeout_s)) as peers:
        print("met", flush=True)
        for line in sys.stdin:
            match line.strip():
                case "bye":
                    return
                case "fail":
                    raise ValueError("broken")
                case "refuse":
                    raise cli.RequestError("no such thing")
                case "preempt":
                    raise cli.Preempted("told to stop")
                case "hold":
                    ctypes.PyDLL(None).sleep(8)
                    print("held", flush=True)
                case "wait":
                    peers.wait_for_chief()
                    return


if __name__ == "__main__":
    cli.run(main)
