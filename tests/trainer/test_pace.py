"""What is said of the pace, and that it is measured."""

import json
from pathlib import Path

import pytest

from trainer.pace import CLOCK_COLUMNS, Pace


def test_the_input_is_named_when_much_is_waited_for() -> None:
    fast = Pace(images=4096, steps=32, seconds=2.0, waiting_seconds=0.04)
    assert str(fast) == "2048 images/s, 62 ms/step, 2 % waiting for data"
    slow = Pace(images=4096, steps=32, seconds=4.0, waiting_seconds=2.2)
    assert str(slow) == "1024 images/s, 125 ms/step, 55 % waiting for data: the input is the bottleneck"


def test_nothing_done_is_no_error() -> None:
    assert str(Pace(0, 0, 0.0, 0.0)) == "0 images/s, 0 ms/step, 0 % waiting for data"


def test_every_epoch_of_a_run_has_it(finished_run: Path) -> None:
    history = json.loads((finished_run / "metrics.json").read_text())["history"]
    for row in history:
        assert set(CLOCK_COLUMNS) <= set(row)
        assert 0 <= row["waiting_share"] <= 1
        steps = row["seconds"] / row["ms_per_step"] * 1000
        assert steps == pytest.approx(round(steps))
