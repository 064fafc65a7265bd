"""Checkpoints in a bucket: published whole or not at all, never over another process's, and found again."""

import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline.bucket import ConflictError
from data_pipeline.cli import Preempted, RequestError
from tests.bucket_faults import Seen
from tests.bucket_server import FaultyBucket
from tests.trainer.bucket_runs import ADDRESS, STARTED, Lake, Machine
from tests.trainer.test_checkpoints import fill, new, weight
from tests.trainer.workers import until
from trainer.checkpoints import Progress
from trainer.preemption import StopSignal
from trainer.published import names_in
from trainer.remote_run import Known, RemoteRun
from trainer.run_folder import RESULTS


@pytest.fixture
def lake(faulty_bucket: FaultyBucket, tmp_path: Path) -> Lake:
    return Lake(tmp_path)


@pytest.fixture(autouse=True)
def _impatient(faulty_bucket: FaultyBucket, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Failures are told soon, and no thread outlives its test."""
    monkeypatch.setenv("CYTOTRAIN_STORAGE_PATIENCE_S", "0.2")
    monkeypatch.setattr("trainer.uploader.RETRY_S", 0.1)
    monkeypatch.setattr("trainer.uploader.LEAVING_RETRY_S", 0.1)
    yield
    faulty_bucket.front.rule = lambda seen: "400"
    faulty_bucket.front.release()
    while STARTED:
        STARTED.pop().uploader.close(10)


def test_at_every_moment_what_the_pointer_names_is_whole_and_the_best_is_beside_it(
    faulty_bucket: FaultyBucket, lake: Lake, tmp_path: Path
) -> None:
    """Looked at before each request, which is what a kill at that moment would leave."""
    seen_before: list[int] = []

    def look(seen: Seen) -> str:
        seen_before.append(lake.published())
        return ""

    faulty_bucket.front.rule = look
    machine = Machine(tmp_path / "a")
    for step, best in ((1, 1), (2, 1), (3, 3), (4, 3), (5, 3)):
        machine.publish(step, best=best)
    assert seen_before == sorted(seen_before)
    assert set(seen_before) == {-1, 1, 2, 3, 4}
    assert lake.published() == 5
    assert lake.steps() == {3, 4, 5}  # the best, and one to fall back to


def test_saving_never_waits_for_a_bucket_the_newest_wins_and_the_best_is_not_lost(
    faulty_bucket: FaultyBucket, lake: Lake, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "a")
    faulty_bucket.front.rule = lambda seen: "hang" if "step-" in seen.address + str(seen.body) else ""
    machine.save(1)
    until(lambda: "hang" in faulty_bucket.front.hit(), 10, "an upload")
    for step in range(2, 12):
        machine.save(step, best=3)
    assert lake.published() == -1
    faulty_bucket.front.rule = lambda seen: ""
    faulty_bucket.front.release()
    machine.wait()
    assert lake.published() == 11
    assert lake.steps() >= {3, 11}
    assert not lake.steps() & set(range(4, 11))
    assert Machine(tmp_path / "b").restored() == 11
    other = Machine(tmp_path / "b")
    other.checkpoints.restore_best(Progress(best_step=3))
    assert weight(other.model) == 3


def test_of_two_processes_on_a_run_the_one_that_was_overtaken_ends_and_overwrites_nothing(
    faulty_bucket: FaultyBucket, lake: Lake, tmp_path: Path
) -> None:
    first = Machine(tmp_path / "a")
    first.publish(1)
    second = Machine(tmp_path / "b")
    assert second.restored() == 1
    second.publish(2)
    first.save(3)
    with pytest.raises(ConflictError, match=r"Another process works on the run gs://lab/runs/gland/r .*To fix it: "):
        first.wait()
    assert lake.published() == 2
    second.publish(4)
    assert Machine(tmp_path / "c").restored() == 4


def test_of_two_processes_that_write_the_same_step_one_ends(
    faulty_bucket: FaultyBucket, lake: Lake, tmp_path: Path
) -> None:
    first, second = Machine(tmp_path / "a"), Machine(tmp_path / "b")
    first.publish(1)
    fill(second.model, 7)  # with other bytes
    second.checkpoints.save(Progress(step=1))
    with pytest.raises(ConflictError, match="Another process works on the run"):
        second.wait()
    assert Machine(tmp_path / "c").restored() == 1


def test_what_a_killed_process_left_half_uploaded_is_never_taken_for_a_checkpoint_nor_added_to(
    faulty_bucket: FaultyBucket, lake: Lake, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "a")
    machine.publish(1)
    faulty_bucket.front.rule = lambda seen: "hang" if re.search("step-0+2/weights.index", str(seen.body)) else ""
    machine.save(2)
    until(lambda: "hang" in faulty_bucket.front.hit(), 10, "an upload")
    faulty_bucket.front.rule = lambda seen: ""  # but that thread stays where it is, as that of a killed process
    assert lake.steps() == {1, 2}
    second = Machine(tmp_path / "b")
    assert second.restored() == 1
    second.publish(2)
    assert str(max(lake.names())) == "step-00000002-2"
    assert Machine(tmp_path / "c").restored() == 2
    second.publish(3)
    assert [str(name) for name in lake.names()] == ["step-00000003", "step-00000002-2"]


@pytest.mark.parametrize("harm", ["file gone", "other bytes", "pointer gone", "pointer garbled"])
def test_a_checkpoint_that_is_not_whole_in_the_bucket_is_passed_over(
    faulty_bucket: FaultyBucket, lake: Lake, tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(tmp_path / "a")
    machine.publish(1)
    machine.publish(2)
    there = faulty_bucket.server.folder("runs/gland/r/checkpoints")
    if harm == "file gone":
        there.delete(["step-00000002/weights.index"])
    elif harm == "other bytes":
        there.write("step-00000002/weights.index", b"other")
    elif harm == "pointer gone":
        there.delete(["last.json"])
    else:
        there.write("last.json", b"{")
    second = Machine(tmp_path / "b")
    assert second.restored() == (2 if "pointer" in harm else 1)
    said = capsys.readouterr().err
    assert harm == "pointer gone" or "gs://lab/runs/gland/r/checkpoints/" in said
    second.publish(3)
    assert Machine(tmp_path / "c").restored() == 3


def test_a_bucket_that_is_away_is_told_and_borne_until_the_deadline(
    faulty_bucket: FaultyBucket, lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(tmp_path / "a", deadline_s=3.0)
    faulty_bucket.front.rule = lambda seen: "503"
    machine.save(1)
    until(lambda: "could NOT be uploaded" in capsys.readouterr().err, 10, "a word on it")
    machine.uploader.check()
    faulty_bucket.front.rule = lambda seen: ""
    machine.wait()
    assert f"The checkpoint of step 1 is uploaded: {ADDRESS} takes them again" in capsys.readouterr().err
    faulty_bucket.front.rule = lambda seen: "403"  # what a person has to change may be changed meanwhile, too
    began = time.monotonic()
    machine.save(2)
    with pytest.raises(RequestError, match=r"--checkpoint_deadline.*Run the same command") as error:
        until(machine.uploader.check, 20, "the end")
    assert time.monotonic() - began >= 3.0
    assert "Not permitted" in str(error.value)
    assert lake.published() == 1


def test_a_pointer_whose_answer_was_lost_is_not_taken_for_another_process(
    faulty_bucket: FaultyBucket, lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(tmp_path / "a")
    machine.publish(1)
    faulty_bucket.front.rule = lambda seen: "reset after" if is_pointer(seen) else "503" if seen.number % 2 else ""
    machine.save(2)
    until(lambda: "could NOT be uploaded" in capsys.readouterr().err, 10, "a word on it")
    assert lake.published() == 2
    machine.save(3)
    faulty_bucket.front.rule = lambda seen: ""
    machine.wait()
    assert lake.published() == 3


def is_pointer(seen: Seen) -> bool:
    return "last.json" in seen.address + seen.body.decode(errors="replace")


def test_told_to_stop_with_the_bucket_away_it_says_so_and_the_same_machine_goes_on_from_it(
    faulty_bucket: FaultyBucket, lake: Lake, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "a")
    machine.publish(1)
    faulty_bucket.front.rule = lambda seen: "503"
    machine.save(2)
    began = time.monotonic()
    said = machine.uploader.leave(1.0)
    assert 0.9 < time.monotonic() - began < 5.0
    assert f"The checkpoint of step 2 is NOT in {ADDRESS}: gs://" in said
    assert "on this machine alone, elsewhere from that of step 1" in said
    machine.uploader.close(10)  # as its process
    faulty_bucket.front.rule = lambda seen: ""
    elsewhere = RemoteRun(ADDRESS, tmp_path / "b" / "r")
    elsewhere.fetch(lambda progress: (), alone=True)
    assert [name.step for name in names_in(elsewhere.local / "checkpoints")] == [1]
    again = Machine(tmp_path / "a")
    assert again.restored() == 2
    again.wait()
    assert lake.published() == 2


def test_what_a_machine_has_kept_counts_no_more_once_another_has_published(
    faulty_bucket: FaultyBucket, lake: Lake, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "a")
    machine.publish(1)
    shutil.copytree(tmp_path / "a", tmp_path / "old")
    machine.publish(2)
    checkpoints, model = new(tmp_path / "old" / "r" / "checkpoints")
    fill(model, 9)
    checkpoints.save(Progress(step=9))  # it had got further, but has told nobody
    assert Machine(tmp_path / "old").restored() == 2
    faulty_bucket.front.rule = lambda seen: "503"
    machine.save(3)
    machine.uploader.leave(0.0)
    machine.uploader.close(10)  # as its process: nothing may be uploaded any more
    faulty_bucket.front.rule = lambda seen: ""
    machine.run.fetch(lambda progress: (), alone=False)  # several workers all go on from what the bucket has
    assert [name.step for name in names_in(machine.run.local / "checkpoints")] == [2]


def test_a_run_that_was_begun_anew_in_the_bucket_takes_nothing_from_before(
    faulty_bucket: FaultyBucket, lake: Lake, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "a")
    machine.publish(1)
    there = faulty_bucket.server.folder("runs/gland/r")
    there.delete(blob.name for blob in there.files())
    again = Machine(tmp_path / "a")
    assert again.restored() == 0
    assert again.run.known() == Known(0)
    again.publish(5)
    assert lake.steps() == {5}


def test_results_come_after_the_last_checkpoint_and_the_report_last(
    faulty_bucket: FaultyBucket, lake: Lake, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "a")
    for name in (*RESULTS, "model/variables/variables.index", "tensorboard/events"):
        (machine.run.local / name).parent.mkdir(parents=True, exist_ok=True)
        (machine.run.local / name).write_text(name)
    machine.save(1)
    faulty_bucket.front.rule = lambda seen: "hang" if "report.html" in str(seen.body) else ""
    finishing = threading.Thread(target=machine.uploader.finish, args=(StopSignal(),))
    finishing.start()
    until(lambda: "hang" in faulty_bucket.front.hit(), 10, "the report")
    assert lake.published() == 1
    assert not RemoteRun(ADDRESS, tmp_path / "look").has(RESULTS)
    there = {blob.name for blob in machine.run.folder.files()}
    assert there >= {*RESULTS, "model/variables/variables.index", "tensorboard/events"} - {"report.html"}
    faulty_bucket.front.rule = lambda seen: ""
    faulty_bucket.front.release()
    finishing.join(20)
    assert RemoteRun(ADDRESS, tmp_path / "look").has(RESULTS)


def test_a_stop_while_results_are_uploaded_ends_at_once(
    faulty_bucket: FaultyBucket, lake: Lake, tmp_path: Path
) -> None:
    machine = Machine(tmp_path / "a")
    machine.save(1)
    faulty_bucket.front.rule = lambda seen: "503"
    stop = StopSignal()
    stop._set = True
    began = time.monotonic()
    with pytest.raises(Preempted):
        machine.uploader.finish(stop)
    assert time.monotonic() - began < 1
