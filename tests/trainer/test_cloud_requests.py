"""What is asked of a bucket and can't be done: told before TensorFlow is imported, with the exit code it deserves."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_pipeline.cli import EXIT_FAULT, EXIT_REQUEST, FaultError
from data_pipeline.manifest import DatasetError
from data_pipeline.storage import exclusive
from data_pipeline.transfer import upload
from tests.bucket_faults import Rule
from tests.bucket_server import FaultyBucket
from tests.trainer.witness import Outcome, Witness, assert_refused
from trainer.remote_run import RemoteRun
from trainer.scratch import Scratch
from trainer.staging import BucketDatasets, fetched_again


@pytest.fixture(scope="module")
def witness() -> Iterator[Witness]:
    with Witness("trainer.preflight", "data_pipeline.images") as running:
        yield running


@pytest.fixture
def ask(witness: Witness, faulty_bucket: FaultyBucket, tfrecords: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """Start the trainer on what is in the bucket; flags given twice count as they are given last."""
    files = {path.relative_to(tfrecords).as_posix(): path for path in tfrecords.rglob("*") if path.is_file()}
    upload(faulty_bucket.server.folder("tfrecords"), files)
    env = faulty_bucket.server.env | {"CYTOTRAIN_STORAGE_PATIENCE_S": "0.2"}

    def start(*more: str) -> Outcome:
        places = ["--tfrecords=gs://lab/tfrecords", "--runs=gs://lab/runs", f"--scratch={tmp_path / 's'}"]
        return witness.run("trainer", "--organ=gland", "--run=r", *places, *more, **env)

    return start


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--tfrecords=gs://nowhere/t"], ["There is no bucket gs://nowhere"]),
        (["--runs=gs://nowhere/r"], ["There is no bucket gs://nowhere"]),
        (["--tfrecords=gs://lab/other"], ["gs://lab/other holds no dataset"]),
        (["--organ=liver"], ["`--organ`", "one of gland"]),
        (["--scratch_budget=0.1MB"], ["`--scratch_budget`", "gland with"]),
        (["--scratch=/proc/nowhere"], ["`--scratch`", "/proc/nowhere"]),
        (["--runs=gs://lab/tfrecords"], ["`--runs`", "outside of --tfrecords"]),
    ],
    ids=lambda value: value[0][:40],
)
def test_a_wrong_request_is_refused(
    ask: Callable[..., Outcome], tmp_path: Path, flags: list[str], says: list[str]
) -> None:
    assert_refused(ask(*flags), *says)
    assert not list(tmp_path.glob("s/datasets/*"))


def test_runs_in_the_bucket_of_datasets_may_lie_beside_them(
    ask: Callable[..., Outcome], faulty_bucket: FaultyBucket
) -> None:
    """All is well up to the point where it is tried whether a run can be written."""
    faulty_bucket.front.rule = only(lambda method, address: method == "POST", "403")
    assert_refused(ask("--runs=gs://lab/tfrecords_runs"), "Not permitted: gs://lab/tfrecords_runs/gland")


def only(chosen: Callable[[str, str], bool], fault: str) -> Rule:
    return lambda seen: fault if chosen(seen.method, seen.address) else ""


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        ("401", EXIT_REQUEST, "GOOGLE_APPLICATION_CREDENTIALS"),
        ("403", EXIT_REQUEST, "roles/storage.objectViewer"),
        ("429", EXIT_FAULT, "asked too often"),
        ("503", EXIT_FAULT, "could not be reached for 0 s"),
        ("reset before", EXIT_FAULT, "could not be reached for 0 s"),
    ],
)
def test_a_service_that_refuses_or_is_away_is_told_with_the_right_code(
    ask: Callable[..., Outcome], faulty_bucket: FaultyBucket, fault: str, code: int, says: str
) -> None:
    faulty_bucket.front.rule = lambda seen: fault
    assert_refused(ask(), says, code=code)


def test_a_second_process_of_this_machine_is_kept_out(ask: Callable[..., Outcome], tmp_path: Path) -> None:
    folder = Scratch(tmp_path / "s", 1).runs("gs://lab/runs", worker=0) / "gland" / "r"
    folder.mkdir(parents=True)
    with exclusive(folder / ".lock", otherwise=""):
        assert_refused(ask(), "The run in gs://lab/runs/gland/r is under way")


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_run_that_does_not_say_whose_it_is_is_refused_by_its_address(
    ask: Callable[..., Outcome], faulty_bucket: FaultyBucket, text: str
) -> None:
    faulty_bucket.server.folder("runs/gland/r").write("config.json", text.encode())
    assert_refused(ask(), "There is a run in gs://lab/runs/gland/r, but its config.json")


def test_a_copy_that_turns_out_damaged_while_it_is_read_is_a_fault_and_checked_the_next_time(
    ask: Callable[..., Outcome], faulty_bucket: FaultyBucket, tmp_path: Path
) -> None:
    datasets = BucketDatasets("gs://lab/tfrecords", Scratch(tmp_path / "s", 10**9))
    manifest = datasets.manifest("gland")
    datasets.reserve([manifest])
    folder = datasets.stage(manifest)
    told = r"record 3: bad\. This copy of what is in gs://lab/tfrecords was right"
    with pytest.raises(FaultError, match=told), fetched_again(folder, "gs://lab/tfrecords"):
        raise DatasetError("record 3: bad. To fix it: convert again.")
    assert not (folder / ".checked.json").exists()


def test_a_probe_leaves_nothing_in_the_bucket(faulty_bucket: FaultyBucket, tmp_path: Path) -> None:
    run = RemoteRun("gs://lab/runs/gland/r", tmp_path)
    run.check_writable()
    assert run.folder.files() == []


@pytest.mark.parametrize("arguments", [["gs://lab/none"], ["gs://B/x"], ["gs://nowhere/x"]], ids=str)
def test_images_that_are_not_there_are_told(
    witness: Witness, faulty_bucket: FaultyBucket, arguments: list[str]
) -> None:
    outcome = witness.run("trainer.predict", "--model=gs://lab/m", *arguments, **faulty_bucket.server.env)
    assert_refused(outcome, arguments[0][:8])


@pytest.mark.parametrize("output", ["gs://lab", "gs://lab/out/", "gs://nowhere/o.csv", "gs://lab/i/a.png"])
def test_an_output_that_cannot_be_written_is_refused_first(
    witness: Witness, faulty_bucket: FaultyBucket, output: str
) -> None:
    faulty_bucket.server.folder("i").write("a.png", b"x")
    arguments = ["--model=gs://lab/m", f"--output={output}", "gs://lab/i"]
    assert_refused(witness.run("trainer.predict", *arguments, **faulty_bucket.server.env))
    assert [blob.name for blob in faulty_bucket.server.folder("").files()] == ["i/a.png"]


def test_a_model_that_is_not_there_is_told_by_its_address(witness: Witness, faulty_bucket: FaultyBucket) -> None:
    faulty_bucket.server.folder("i").write("a.png", b"x")
    outcome = witness.run("trainer.predict", "--model=gs://lab/runs/r", "gs://lab/i", **faulty_bucket.server.env)
    assert_refused(outcome, "`--model`", "gs://lab/runs/r", "a finished run")
