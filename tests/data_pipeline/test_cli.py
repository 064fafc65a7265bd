"""Exit codes, whatever libraries make of a stop."""

import subprocess
import sys

import pytest

from data_pipeline import cli
from tests.conftest import ROOT

PROGRAM = """
import os, signal
from data_pipeline import cli

def main(argv):
    cli.stop_on_sigterm()
    {body}

cli.run(main)
"""
KILL = "os.kill(os.getpid(), signal.SIGTERM)"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("pass", cli.EXIT_DONE),
        ("raise ValueError('a bug')", cli.EXIT_FAULT),
        ("raise cli.FaultError('full disk')", cli.EXIT_FAULT),
        ("raise cli.RequestError('no such organ')", cli.EXIT_REQUEST),
        ("raise SystemExit(3)", 3),
        (KILL, cli.EXIT_PREEMPTED),
        (f"try: {KILL}\n    except Exception: pass", cli.EXIT_PREEMPTED),
        (f"try: {KILL}\n    except BaseException: raise ValueError('as a library may')", cli.EXIT_PREEMPTED),
        (f"try: {KILL}\n    finally: {KILL}", cli.EXIT_PREEMPTED),
    ],
)
def test_a_program_ends_with_the_code_its_outcome_stands_for(body: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert ("Traceback" in done.stderr) == ("a bug" in body)
