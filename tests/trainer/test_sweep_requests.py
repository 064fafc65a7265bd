"""Wrong requests of a sweep: told before TensorFlow is imported, naming the trial, and nothing is left behind."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from data_pipeline.cli import EXIT_REQUEST
from tests.trainer.test_sweep import RATES, sweep_command
from tests.trainer.witness import Witness, assert_refused
from tests.trainer.wrong_requests import FOUR_WORKERS, Place, Row, flag, without


def _in_cluster(place: Place) -> list[str]:
    place.env["TF_CONFIG"] = FOUR_WORKERS
    return [RATES]


WRONG = (
    flag("--search=learning_rate", "`--search`", "learning_rate:log:1e-4:1e-2"),
    flag("--search=lerning_rate:log:1e-4:1e-2", "`--search`", "did you mean learning_rate?"),
    *(flag(f"--search={name}:choice:a,b", "`--search`", "decides what is learnt") for name in ("organ", "runs", "run")),
    *(flag(f"--search={name}:choice:loss,accuracy", "`--search`") for name in ("monitor", "trials", "verbosity")),
    flag("--search=batch_size:choice:16,0", "Trial ", "--batch_size=0", "To fix it: "),
    flag("--search=batch_size:uniform:16:32", "Trial 0", "--batch_size=", "invalid literal"),
    flag("--search=image_size:choice:16,17", "Trial 0", "`--image_size`", "32 or more"),
    flag("--search=epochs:choice:few,many", "Trial 0", "--epochs="),
    flag("--search=model:choice:seed,huge", "Trial ", "--model=huge"),
    Row(
        "too few images for the replicas",
        lambda place: ["--search=batch_size:choice:2,3", "--logical_cpus=4"],
        ("Trial 0", "`--batch_size`", "4 or more"),
    ),
    Row(
        "what the recipe says",
        lambda place: [RATES, "--recipe=fast", "--logical_cpus=100"],  # the default would do: 128 images a batch
        ("Trial 0", "`--batch_size`", "100 or more"),
    ),
    Row(
        "too few epochs on the first rung",
        lambda place: [RATES, "--method=halving", "--epochs=30", "--freeze_epochs=4", "--trials=9"],
        ("Trial 0", "--epochs=4", "`--freeze_epochs`"),
    ),
    Row("too many trials", lambda place: ["--search=seed:choice:1,2", "--trials=3"], ("`--trials`", "at most 2")),
    Row("a trial too many", lambda place: [RATES, "--trials=2", "--trial=2"], ("`--trial`", "0 to 1")),
    Row("halving by trial", lambda place: [RATES, "--method=halving", "--trial=0"], ("`--trial`", "--method=random")),
    Row(
        "halving of epochs",
        lambda place: ["--search=epochs:integer:1:9", "--method=halving"],
        ("`--search`", "--method=random"),
    ),
    *(
        Row(text, lambda place, text=text: [RATES, text], says)
        for text, says in (
            ("--run=r", ("`--run`", "--sweep")),
            ("--sweep=a/b", ("`--sweep`", "plain name")),
            ("--sweep=" + "s" * 61, ("`--sweep`", "60")),
            ("--trials=0", ("trials",)),
            ("--method=grid", ("method", "halving")),
            ("--eta=1", ("eta",)),
            ("--organ=gland,gland2", ("`--organ`",)),
            ("--organ=liver", ("`--organ`", "gland")),
            ("--tfrecords=/proc/nowhere", ("`--tfrecords`",)),
            ("--num_workers=2", ("`--worker`",)),
            ("--output=/etc/hostname", ("`--output`", "a folder")),
            ("--output=s3://lab/x", ("`--output`",)),
            ("--learning_rat=1", ("learning_rat",)),
            ("--table_only", ("No trial of", "has ended")),
            ("stray", ("'stray'",)),
        )
    ),
    Row("no search", lambda place: [], ("Missing: --search",)),
    Row("several workers", _in_cluster, ("by one process",)),
    Row("into the dataset", lambda place: [RATES, f"--runs={place.dataset.parent}"], ("`--runs`", "no folder in a")),
    Row("no training images", without("train"), ("no train records",)),
)


@pytest.fixture(scope="module")
def witness() -> Iterator[Witness]:
    with Witness("trainer.preflight", "trainer.sweep_page") as running:
        yield running


@pytest.mark.parametrize("row", WRONG, ids=lambda row: row.name[:60])
def test_a_wrong_request_is_refused_before_anything_is_trained_or_written(
    witness: Witness, tmp_path: Path, tfrecords: Path, row: Row
) -> None:
    with ExitStack() as stack:
        place = Place(tmp_path, tfrecords, stack)
        more = row.make(place)
        more = [RATES] if more is None else more
        before = sorted(tmp_path.rglob("*"))
        where = ["--organ=gland", f"--tfrecords={place.tfrecords}", f"--runs={place.runs}"]
        outcome = witness.run("trainer.sweep", *where, *more, **place.env)
    assert_refused(outcome, *row.says)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_flag_file_may_hold_all_of_it(witness: Witness, tmp_path: Path, tfrecords: Path) -> None:
    flag_file = tmp_path / "sweep.flags"
    lines = [*sweep_command(tfrecords, tmp_path), "--search=batch_size:choice:16,0"]
    flag_file.write_text("# What to try.\n" + "\n".join(map(str, lines)) + "\n")
    outcome = witness.run("trainer.sweep", f"--flagfile={flag_file}", "--trials=9")
    assert outcome.code == EXIT_REQUEST
    assert "--batch_size=0 --learning_rate=0.00" in outcome.errors
