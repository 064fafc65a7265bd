"""What binds workers together: the sum they begin with, TensorFlow's errors of a lost one, the last resort."""

import subprocess
import sys
import time

import pytest
import tensorflow as tf

from data_pipeline.cli import EXIT_PREEMPTED, FaultError, WorkerLost
from tests.conftest import ROOT
from trainer.addresses import Workers
from trainer.cluster import lost_workers, self_test
from trainer.peers import Peers

ONE = Workers(("a:1",), 0)
THREE = Workers(("a:1", "b:1", "c:1"), 0)


def test_a_right_sum_is_accepted(strategy: tf.distribute.Strategy) -> None:
    self_test(strategy, ONE, Peers(ONE, {}), timeout_s=60)


def test_a_wrong_sum_is_a_fault_that_says_so(strategy: tf.distribute.Strategy) -> None:
    """The other two workers give nothing."""
    with pytest.raises(FaultError, match=r"The sum over 3 workers is \d and not \d+: .* To fix it: "):
        self_test(strategy, THREE, Peers(THREE, {}), timeout_s=60)


def run(*lines: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_no_answer_to_the_first_sum_ends_the_process() -> None:
    done = run(
        "import time, tensorflow as tf",
        "from trainer.cluster import self_test",
        "from trainer.addresses import Workers",
        "from trainer.peers import Peers",
        "class Stuck(tf.distribute.OneDeviceStrategy):",
        "    def run(self, *args, **kwargs): time.sleep(50)",
        "one = Workers(('a:1',), 0)",
        "self_test(Stuck('CPU:0'), one, Peers(one, {}), timeout_s=1)",
    )
    assert done.returncode == EXIT_PREEMPTED, done.stderr
    assert "The workers' first sum has no answer after 1 s" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.UnavailableError(None, None, "Connection reset by peer"),
        tf.errors.AbortedError(None, None, "x"),
        tf.errors.CancelledError(None, None, "x"),
        tf.errors.DeadlineExceededError(None, None, "x"),
        tf.errors.InternalError(None, None, "Collective ops is aborted by: x"),
    ],
)
def test_an_error_of_a_lost_worker_is_told_in_one_line(error: tf.errors.OpError) -> None:
    says = pytest.raises(WorkerLost, match=r"Another worker was lost, says TensorFlow: .*75.*")
    with says as lost, lost_workers(Peers(THREE, {}), chief=True):
        raise error
    assert "\n" not in str(lost.value)


@pytest.mark.parametrize(
    "error", [tf.errors.InternalError(None, None, "Blas GEMM failed"), tf.errors.DataLossError(None, None, "x")]
)
def test_other_errors_stay_as_they_are(error: tf.errors.OpError) -> None:
    with pytest.raises(type(error)), lost_workers(Peers(THREE, {}), chief=True):
        raise error


def test_the_last_resort_ends_a_process_in_which_python_stands_still() -> None:
    began = time.monotonic()
    done = run(
        "import ctypes, time",
        "from trainer.last_resort import exit_after",
        "with exit_after(0.5): pass",
        "time.sleep(1); print('alive', flush=True)",
        "with exit_after(1): ctypes.PyDLL(None).sleep(50)",
    )
    assert (done.returncode, done.stdout) == (EXIT_PREEMPTED, "alive\n")
    assert time.monotonic() - began < 20
