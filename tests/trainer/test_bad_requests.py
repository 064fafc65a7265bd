"""Every wrong request ends before TensorFlow is imported, with code 2 and the remedy, and leaves nothing behind."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import run_module
from tests.trainer.conftest import SIZE
from tests.trainer.witness import IMPORTED, NOT_IMPORTED, Outcome, Witness, assert_refused
from tests.trainer.wrong_data import DATASET, RUN
from tests.trainer.wrong_models import EVALUATE, MODELS, PREDICT
from tests.trainer.wrong_requests import FLAGS, Place, Row
from trainer.export import export
from trainer.models import build_model


@pytest.fixture(scope="module")
def witness() -> Iterator[Witness]:
    with Witness("trainer.preflight", "data_pipeline.images") as running:
        yield running


@pytest.fixture(scope="module")
def witness_of_evaluation() -> Iterator[Witness]:
    with Witness("trainer.export", "trainer.metrics") as running:
        yield running


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model of other classes than the dataset's."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    network = build_model("seed_pooled", image_size=SIZE, classes=2)
    export(network, classes=("blue", "yellow"), image_size=SIZE, folder=folder)
    return folder


@pytest.fixture
def place(tmp_path: Path, tfrecords: Path) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(tmp_path, tfrecords, stack)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """All that is below `folder`, and when it was changed last."""
    there = sorted(folder.rglob("*"))
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in there}


@pytest.mark.parametrize("row", [*FLAGS, *DATASET, *RUN], ids=lambda row: row.name[:60])
def test_a_wrong_request_is_refused_before_tensorflow_is_imported(witness: Witness, place: Place, row: Row) -> None:
    more = row.make(place) or []
    before = contents(place.folder)
    outcome = witness.run("trainer", *place.flags(*more), **place.env)
    assert_refused(outcome, *row.says)
    assert contents(place.folder) == before


@pytest.mark.parametrize("row", [FLAGS[0], DATASET[-1], RUN[0]], ids=lambda row: row.name)
def test_a_process_of_its_own_ends_alike(place: Place, row: Row) -> None:
    more = row.make(place) or []
    done = run_module("trainer", *place.flags(*more))
    assert_refused(Outcome(done.returncode, done.stdout, done.stderr, NOT_IMPORTED), *row.says)


@pytest.mark.parametrize("missing", ["organ", "tfrecords", "runs"])
def test_a_flag_that_is_missing_is_named(witness: Witness, place: Place, missing: str) -> None:
    given = [text for text in place.flags() if not text.startswith(f"--{missing}=")]
    outcome = witness.run("trainer", *given)
    assert_refused(outcome, f"--{missing}")


@pytest.mark.parametrize("row", PREDICT, ids=lambda row: row.name)
def test_a_wrong_prediction_is_refused_before_tensorflow_is_imported(
    witness: Witness, place: Place, model: Path, row: Row
) -> None:
    place.model = model
    arguments = row.make(place) or []
    before = contents(place.folder)
    outcome = witness.run("trainer.predict", *arguments)
    assert_refused(outcome, *row.says)
    assert contents(place.folder) == before


@pytest.mark.parametrize("row", EVALUATE, ids=lambda row: row.name)
def test_a_wrong_evaluation_is_refused_before_tensorflow_is_used(
    witness_of_evaluation: Witness, place: Place, model: Path, row: Row
) -> None:
    place.model = model
    more = row.make(place) or []
    flags = [f"--model={place.model}", f"--tfrecords={place.tfrecords}", "--organ=gland", *more]
    outcome = witness_of_evaluation.run("trainer.evaluate", *flags)
    assert_refused(outcome, *row.says, tensorflow=IMPORTED)


@pytest.mark.parametrize("row", MODELS, ids=lambda row: row.name)
@pytest.mark.parametrize("program", ["evaluate", "predict"])
def test_a_model_that_only_loading_tells_is_wrong(
    witness_of_evaluation: Witness, place: Place, model: Path, row: Row, program: str
) -> None:
    place.model = model
    row.make(place)
    dataset = [f"--tfrecords={place.tfrecords}", "--organ=gland"]
    more = dataset if program == "evaluate" else [str(place.image())]
    outcome = witness_of_evaluation.run(f"trainer.{program}", f"--model={place.model}", *more)
    assert_refused(outcome, *row.says, tensorflow=outcome.tensorflow)


def test_a_model_of_other_classes_is_not_evaluated(witness_of_evaluation: Witness, place: Place, model: Path) -> None:
    flags = [f"--model={model}", f"--tfrecords={place.tfrecords}", "--organ=gland"]
    outcome = witness_of_evaluation.run("trainer.evaluate", *flags)
    assert_refused(outcome, "blue, yellow", "blue, green, red", "same classes", tensorflow=outcome.tensorflow)
