"""Signals during a save: what was published before stays, whatever comes and however often."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Saves as fast as it can; each one that was published is told.
SAVES = """
import sys
from pathlib import Path
from tests.trainer.test_checkpoints import fill, new
from trainer.checkpoints import Progress
from trainer.preemption import StopSignal

stop = StopSignal()
stop.listen()
checkpoints, model = new(Path(sys.argv[1]))
checkpoints.clean()
progress = checkpoints.restore_last() or Progress()
print("ready", progress.step, flush=True)
for step in range(progress.step + 1, 10**6):
    fill(model, step)
    checkpoints.save(Progress(step=step))
    print("saved", step, flush=True)
"""


@pytest.mark.parametrize(
    "signals",
    [
        pytest.param([signal.SIGKILL], marks=pytest.mark.long),
        [signal.SIGTERM, signal.SIGTERM, signal.SIGKILL],
    ],
)
def test_killed_while_it_saves_nothing_published_is_lost(tmp_path: Path, signals: list[signal.Signals]) -> None:
    """Several times over; SIGTERM, even a second one, doesn't disturb a save."""
    published = 0
    for pause_s in (0.31, 0.173, 0.237, 0.419):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVES, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        assert ready[0] == "ready"
        assert int(ready[1]) >= published
        for number in signals:
            time.sleep(pause_s)
            process.send_signal(number)
        said = process.communicate(timeout=60)[0].split()
        assert process.returncode == -signal.SIGKILL
        published = int(said[-1]) if len(said) % 2 == 0 else int(said[-2])
        assert published > int(ready[1])
    assert len(list(tmp_path.glob("step-*"))) <= 4
