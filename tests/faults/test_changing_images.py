"""Images that vanish, change or can't be read while they are converted."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from data_pipeline import cli
from data_pipeline.manifest import Manifest, read_quarantine
from data_pipeline.sources import InputChangedError
from data_pipeline.stages import convert
from tests.conftest import image_bytes, make_images
from tests.data_pipeline.conversion import contents, read_all
from tests.faults.disks import without_privileges
from tests.faults.program import command, conversion, finish, run_here, start


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.001)


def test_an_image_that_vanishes_after_it_was_listed_is_named_and_a_second_run_ends(
    images: Path, tmp_path: Path
) -> None:
    listed = conversion(images, tmp_path)
    assert len(listed.files) == 72
    gone = images / "gland" / "red" / "S203_1.png"
    gone.unlink()
    with pytest.raises(InputChangedError, match=r"S203_1\.png has vanished while .* To fix it: let the images rest"):
        convert(listed)
    assert not (tmp_path / "gland").exists()
    run_here(images, tmp_path)
    run_here(images, tmp_path / "whole")
    assert contents(tmp_path / "gland") == contents(tmp_path / "whole" / "gland")


def test_an_image_that_changes_after_it_was_listed_is_taken_as_it_is_now(images: Path, tmp_path: Path) -> None:
    """Whether the old or the new one is read is chance; its hash, its pixels and its record are of the same."""
    listed = conversion(images, tmp_path)
    assert len(listed.chunks) == 2
    (images / "gland" / "red" / "S203_1.png").write_bytes(image_bytes(99))
    first = convert(listed)
    assert run_here(images, tmp_path) == first  # up to date
    run_here(images, tmp_path / "whole")
    assert contents(tmp_path / "gland") == contents(tmp_path / "whole" / "gland")


def test_an_image_that_changes_between_two_runs_of_an_interrupted_one_is_read_anew(
    images: Path, tmp_path: Path
) -> None:
    run_here(images, tmp_path, "inspect", "plan", "write")
    (images / "gland" / "red" / "S203_1.png").write_bytes(image_bytes(99))
    run_here(images, tmp_path)
    run_here(images, tmp_path / "whole")
    assert contents(tmp_path / "gland") == contents(tmp_path / "whole" / "gland")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_folder_that_is_deleted_during_inspection_ends_the_run_with_a_remedy_that_works(
    tmp_path: Path, workers: int
) -> None:
    images, says = tmp_path / "images", tmp_path / "says"
    make_images(images / "gland", slides=40, tiles=8, size=64)
    process = start(images, tmp_path / "tf", f"--workers={workers}", says=says)
    while "files in" not in says.read_text() and process.poll() is None:
        time.sleep(0.001)
    shutil.rmtree(images / "gland" / "red")
    finish(process, cli.EXIT_FAULT)
    said = says.read_text()
    assert "has vanished while it was being converted. To fix it: let the images rest" in said
    assert "Traceback" not in said
    finish(start(images, tmp_path / "tf"), cli.EXIT_DONE)
    run_here(images, tmp_path / "whole")
    assert contents(tmp_path / "tf" / "gland") == contents(tmp_path / "whole" / "gland")


def test_an_image_that_vanishes_after_inspection_is_in_the_dataset_and_the_next_run_says_so(
    images: Path, tmp_path: Path
) -> None:
    process = start(images, tmp_path)
    wait_for(tmp_path / ".gland.partial" / "plan" / "plan.json")
    (images / "gland" / "red" / "S203_1.png").unlink()
    finish(process, cli.EXIT_DONE)
    manifest = Manifest.load(tmp_path / "gland")
    assert manifest.counts.written == 72
    records = [record.id for split in manifest.splits for record in read_all(tmp_path / "gland", manifest, split)]
    assert "red/S203_1.png" in records
    assert "the images have changed" in finish(start(images, tmp_path), cli.EXIT_REQUEST)
    finish(start(images, tmp_path, "--overwrite"), cli.EXIT_DONE)
    assert Manifest.load(tmp_path / "gland").counts.inputs == 71


def test_an_image_that_cannot_be_read_is_left_out_with_its_reason(images: Path, tmp_path: Path) -> None:
    (images / "gland" / "red" / "S203_1.png").chmod(0o000)
    done = without_privileges(command(images, tmp_path))
    assert done.returncode == cli.EXIT_DONE, done.stderr
    (row,) = read_quarantine(tmp_path / "gland")
    assert (row.path, row.reason) == ("red/S203_1.png", "can't be read: Permission denied")


def test_an_image_that_can_be_read_again_is_inspected_again_by_a_run_that_comes_back(
    images: Path, tmp_path: Path
) -> None:
    run_here(images, tmp_path / "whole")
    locked = images / "gland" / "red" / "S203_1.png"
    locked.chmod(0o000)
    for stage in ("inspect", "plan", "write"):
        done = without_privileges(command(images, tmp_path, f"--stage={stage}"))
        assert done.returncode == cli.EXIT_DONE, done.stderr
    plan = json.loads((tmp_path / ".gland.partial" / "plan" / "plan.json").read_text())
    assert plan["counts"]["quarantined"] == 1
    if os.geteuid():
        locked.chmod(0o644)  # root reads it as it is: then nothing about the file says that it should be tried again
    run_here(images, tmp_path)
    assert contents(tmp_path / "gland") == contents(tmp_path / "whole" / "gland")
