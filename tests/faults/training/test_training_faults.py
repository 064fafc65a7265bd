"""Training can't be lost: the part of `make test-faults` that finds most for its time.

One run on each topology, struck at one moment after another; after each it must go on where it was, and in the end be
bit for bit the run that nobody interrupted.
"""

from pathlib import Path

import pytest

from tests.faults.training.cases import Case, Moment, References, run_chain
from tests.faults.training.trial import MIRRORED, SINGLE, TWO_WORKERS, Topology, make_data

pytestmark = pytest.mark.long

# Counts are those of the process that is struck, but for `step@`, the number of the step.
BLOWS = {
    SINGLE: (
        (Moment("compiling", "compile"), "TERM"),
        (Moment("first-step", "stepped"), "KILL"),
        (Moment("mid-epoch", "step@9"), "TERM"),
        (Moment("validation", "validation@2"), "KILL"),
        (Moment("save-rename", "save-rename", chief=True), "KILL"),
        (Moment("last-validation", "validation@5"), "TERM"),
        (Moment("export-keras", "export-keras"), "KILL"),
    ),
    MIRRORED: ((Moment("save-pointer", "save-pointer@4"), "KILL"), (Moment("validation", "validation@2"), "TERM")),
    TWO_WORKERS: ((Moment("mid-epoch", "step@10"), "KILL"),),
}


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> References:
    folder = tmp_path_factory.mktemp("faults")
    return References(make_data(folder), folder)


@pytest.mark.timeout(600)  # a dozen processes, one after another
@pytest.mark.parametrize("topology", BLOWS, ids=lambda topology: topology.name)
def test_struck_at_one_moment_after_another_it_ends_bit_identical(
    topology: Topology, references: References, tmp_path: Path
) -> None:
    blows = BLOWS[topology]
    cases = [Case(topology, moment, name, victim=topology.workers - 1) for moment, name in blows]
    rows = run_chain(cases, references, tmp_path / "cut")
    print(*rows, sep="\n")
    assert [row for row in rows if row.failures] == []
