"""Disks that refuse a checkpoint: it is said, training goes on, and the result is the one of a disk that never did."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from data_pipeline.cli import FaultError, Preempted
from tests.faults.disks import Disk, mounted
from tests.trainer.jobs import Dataset, StopAfter, best_of, job_of, scores, state_of, untimed
from trainer import saving
from trainer.checkpoints import Progress
from trainer.intervals import Interval
from trainer.loop import train
from trainer.preemption import StopSignal

SCORES = (0.1, 0.9, 0.3, 0.2)  # the second epoch is the best one
EPOCHS = len(SCORES)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """Room for five checkpoints."""
    with mounted(tmp_path / "disk") as disk:
        yield disk


@dataclass(frozen=True)
class Undisturbed:
    """How a run ends whose disk never refuses anything."""

    progress: Progress
    state: list[bytes]
    best: list[bytes]


@pytest.fixture(scope="module")
def undisturbed(two_devices: None, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    job = job_of(dataset, folder, StopSignal(), epochs=EPOCHS, validate=scores(*SCORES))
    progress = train(job, Progress())
    return Undisturbed(progress, state_of(job), best_of(job, progress))


def full(disk: Disk) -> None:
    disk.fill(spare_pages=1)


def nearly_full(disk: Disk) -> None:
    """Room for some of the weights."""
    disk.fill(spare_pages=600)


def freed(disk: Disk) -> None:
    disk.free()


def read_only(disk: Disk) -> None:
    disk.remount("ro")


def writable(disk: Disk) -> None:
    disk.remount("rw")


Trouble = tuple[Callable[[Disk], None], Callable[[Disk], None], str]
TROUBLES: list[Trouble] = [
    (full, freed, "No space left on device"),
    (nearly_full, freed, "No space left on device"),
    (read_only, writable, "Read-only file system"),
]
during_trouble = pytest.mark.parametrize(("begin", "end", "says"), TROUBLES, ids=["full", "nearly_full", "read_only"])


@during_trouble
@pytest.mark.parametrize("every", [0, 1])
def test_an_outage_around_the_best_epoch_changes_nothing(
    dataset: Dataset,
    disk: Disk,
    undisturbed: Undisturbed,
    capsys: pytest.CaptureFixture[str],
    begin: Callable[[Disk], None],
    end: Callable[[Disk], None],
    says: str,
    every: int,
) -> None:
    """The disk refuses what comes after epochs 2 and 3, and takes it again after epoch 4."""
    folder = disk.folder / "checkpoints"

    def on_epoch(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            begin(disk)
        if row["epoch"] == EPOCHS:
            assert not list(folder.glob(".*"))
            end(disk)

    job = job_of(dataset, folder, StopSignal(), epochs=EPOCHS, validate=scores(*SCORES), on_epoch=on_epoch)
    progress = train(replace(job, checkpoint_every=Interval(steps=every)), Progress())
    said = capsys.readouterr().err
    assert "step 6 could NOT be saved in" in said
    assert says in said
    assert "To fix it: " in said
    assert "the disk takes them again" in said
    assert untimed(progress) == untimed(undisturbed.progress)
    assert state_of(job) == undisturbed.state
    again = job_of(dataset, folder, StopSignal())
    assert again.checkpoints.restore_last() == progress
    assert state_of(again) == undisturbed.state
    assert best_of(again, progress) == undisturbed.best != state_of(job)
    assert progress.best_step == 6
    kept = {"last.json", "step-00000006", "step-00000012"}
    assert {path.name for path in folder.iterdir()} - {"step-00000003", "step-00000011"} == kept


@during_trouble
def test_when_it_lasts_longer_than_the_deadline_it_ends_with_what_was_saved_before(
    dataset: Dataset, disk: Disk, begin: Callable[[Disk], None], end: Callable[[Disk], None], says: str
) -> None:
    folder = disk.folder / "checkpoints"
    job = job_of(dataset, folder, StopSignal(), checkpoint_deadline_s=0.5, checkpoint_every=Interval(steps=1))
    job = replace(job, epochs=200, on_epoch=lambda row: begin(disk) if row["epoch"] == 1 else None)
    began = time.monotonic()
    expected = rf"{says}[\s\S]*--checkpoint_deadline is 0.5 s.*To fix it.*goes back to that of step 2"
    with pytest.raises(FaultError, match=expected):
        train(job, Progress())
    assert time.monotonic() - began < 30
    end(disk)
    last = job.checkpoints.restore_last()
    assert last is not None
    assert last.step == 2


@during_trouble
def test_told_to_stop_it_says_what_it_goes_back_to(
    dataset: Dataset, disk: Disk, begin: Callable[[Disk], None], end: Callable[[Disk], None], says: str
) -> None:
    folder = disk.folder / "checkpoints"
    stop = StopAfter(10**6)

    def on_epoch(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            begin(disk)
            stop.looks_left = 0

    job = job_of(dataset, folder, stop, on_epoch=on_epoch)
    expected = rf"step 6, which could NOT be saved: [\s\S]*{says}[\s\S]*goes back to that of step 3"
    with pytest.raises(Preempted, match=expected):
        train(job, Progress())
    end(disk)


def test_a_disk_that_is_full_from_the_start_loses_nothing_once_it_is_freed(
    dataset: Dataset, disk: Disk, undisturbed: Undisturbed
) -> None:
    """Only the end is saved, and the best epoch before it."""
    disk.fill(spare_pages=1)
    job = job_of(dataset, disk.folder / "c", StopSignal(), epochs=EPOCHS, validate=scores(*SCORES))
    job = replace(job, on_epoch=lambda row: disk.free() if row["epoch"] == EPOCHS else None)
    progress = train(job, Progress())
    assert best_of(job, progress) == undisturbed.best


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "RETRY_S", 0.2)
    monkeypatch.setattr(saving, "LAST_RETRY_S", 0.2)


@pytest.mark.usefixtures("quick_retries")
def test_the_end_of_training_waits_for_the_disk(dataset: Dataset, disk: Disk, undisturbed: Undisturbed) -> None:
    job = job_of(dataset, disk.folder / "c", StopSignal(), epochs=EPOCHS, validate=scores(*SCORES))
    timer = threading.Timer(3, disk.free)

    def on_epoch(row: dict[str, float]) -> None:
        if row["epoch"] == EPOCHS:
            disk.fill(1)
            timer.start()

    progress = train(replace(job, on_epoch=on_epoch), Progress())
    timer.join()
    assert state_of(job) == undisturbed.state
    assert job.checkpoints.restore_last() == progress


@pytest.mark.usefixtures("quick_retries")
def test_the_wait_at_the_end_ends_when_told_to_stop(dataset: Dataset, disk: Disk) -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = StopSignal()
    stop.listen()
    try:
        job = job_of(dataset, disk.folder / "c", stop)
        timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM))

        def on_epoch(row: dict[str, float]) -> None:
            if row["epoch"] == 3:
                disk.fill(1)
                timer.start()

        with pytest.raises(Preempted, match="could NOT be saved"):
            train(replace(job, on_epoch=on_epoch), Progress())
    finally:
        signal.signal(signal.SIGTERM, before)


class Frees(StopSignal):
    """Never stops, but frees the disk before the first step that finds it full, which takes a little."""

    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self._disk = disk

    def is_set(self) -> bool:
        if (self._disk.folder / "filler").exists():
            time.sleep(0.3)
            self._disk.free()
        return False


@pytest.mark.usefixtures("quick_retries")
def test_what_failed_is_tried_again_before_the_next_one_is_due(
    dataset: Dataset, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only ends of epochs are due. The first one fails, and the step after it makes up for it."""
    job = job_of(dataset, disk.folder / "c", StopAfter(0))
    job = replace(job, stop=Frees(disk), on_epoch=lambda row: disk.fill(1) if row["epoch"] == 1 else None)
    assert train(job, Progress()).finished
    said = capsys.readouterr().err
    assert "step 3 could NOT be saved" in said
    assert "The checkpoint of step 4 is saved: the disk takes them again" in said


def test_saving_by_the_clock_changes_nothing_that_is_learnt(
    dataset: Dataset, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    job = job_of(dataset, tmp_path / "c", StopSignal(), epochs=EPOCHS, validate=scores(*SCORES))
    seen: set[int] = set()
    timed = replace(job, checkpoint_every=Interval(seconds=1e-6), stop=Spy(seen, tmp_path / "c"))
    progress = train(timed, Progress())
    assert seen >= {1, 2, 4, 5, 7, 8, 10}
    assert state_of(timed) == undisturbed.state
    assert best_of(timed, progress) == undisturbed.best


class Spy(StopSignal):
    """Never stops, but looks which checkpoints are there before each step."""

    def __init__(self, seen: set[int], folder: Path) -> None:
        super().__init__()
        self._seen, self._folder = seen, folder

    def is_set(self) -> bool:
        self._seen.update(int(path.name.split("-")[1]) for path in self._folder.glob("step-*"))
        return False


def test_a_long_interval_saves_nothing_within_an_epoch(dataset: Dataset, tmp_path: Path) -> None:
    seen: set[int] = set()
    job = job_of(dataset, tmp_path / "c", Spy(seen, tmp_path / "c"), checkpoint_every=Interval(seconds=3600))
    train(job, Progress())
    assert seen == {3, 6, 9}


def test_a_worker_that_is_not_the_chief_writes_nothing(dataset: Dataset, tmp_path: Path) -> None:
    job = job_of(dataset, tmp_path / "c", StopSignal(), chief=False, checkpoint_every=Interval(steps=1))
    train(job, Progress())
    assert not (tmp_path / "c").exists()


def test_an_epoch_that_cannot_be_logged_is_no_end(
    dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def on_epoch(row: dict[str, float]) -> None:
        (tmp_path / "nowhere" / "log").write_text("")

    job = job_of(dataset, tmp_path / "c", StopSignal(), on_epoch=on_epoch)
    assert train(job, Progress()).finished
    assert "Epoch 1 could not be logged" in capsys.readouterr().err
