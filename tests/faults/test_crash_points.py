"""A kill before each single change a conversion makes to the disk: no moment is left out."""

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT, make_images


def test_killed_before_any_change_the_old_or_the_new_dataset_is_whole_and_a_second_run_ends_well(
    tmp_path: Path,
) -> None:
    make_images(tmp_path / "images" / "gland", slides=4)
    program = [sys.executable, "-m", "tests.faults.crash_points", str(tmp_path / "images"), str(tmp_path / "folder")]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    points = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(points) > 60
    assert [point for point in points if not point["ended"]] == []
    found = [point["found"] for point in points]
    swap = found.index(".gland.replaced: old")  # the one moment between two renames: the next run puts it back
    assert set(found[:swap]) == {"gland: old"}
    assert set(found[swap + 1 :]) == {"gland: new"}
    assert "sealing', '/gland'" in points[swap]["change"]
