"""Disks that are full, read-only or locked: one line says what to do, and doing it is enough."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_pipeline import cli
from data_pipeline.manifest import FILE_NAME, Manifest
from data_pipeline.settings import Settings
from data_pipeline.stages import convert
from tests.conftest import make_images
from tests.data_pipeline.conversion import contents
from tests.faults.disks import Disk, mounted, without_privileges
from tests.faults.program import command, conversion, finish, run_here, start

BEFORE = {"inspect": (), "write": ("inspect", "plan"), "seal": ("inspect", "plan", "write")}


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """198 images, which nobody changes: four chunks."""
    images = tmp_path_factory.mktemp("some") / "images"
    make_images(images / "gland", slides=11, tiles=6)
    return images


@pytest.fixture(scope="module")
def whole(some: Path) -> dict[str, str]:
    """What a conversion of `some` makes that nothing disturbs."""
    run_here(some, some.parent / "tf")
    return contents(some.parent / "tf" / "gland")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk") as disk:
        yield disk


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("stage", BEFORE)
def test_a_full_disk_is_named_and_with_space_the_same_command_ends_with_the_same_bytes(
    some: Path, whole: dict[str, str], disk: Disk, stage: str, workers: int
) -> None:
    if BEFORE[stage]:
        run_here(some, disk.folder, *BEFORE[stage])
    disk.fill(spare_pages=1)
    for _ in range(2):  # trying again costs no space
        said = finish(start(some, disk.folder, f"--workers={workers}"), cli.EXIT_FAULT)
        place = {"inspect": "inspect", "write": "dataset", "seal": "sealing"}[stage]
        assert re.search(rf"^No space left on device: {disk.folder}/\.gland\.partial/{place}/[^.].*", said, re.M)
        assert said.endswith("To fix it: free some space there, then run the same command again.\n")
        assert "Traceback" not in said
        assert not (disk.folder / "gland").exists()
    disk.free()
    finish(start(some, disk.folder, f"--workers={workers}"), cli.EXIT_DONE)
    assert contents(disk.folder / "gland") == whole
    assert {path.name for path in disk.folder.iterdir()} == {"gland", ".gland.lock"}


def test_whichever_file_finds_the_disk_full_nothing_is_half_sealed(
    some: Path, whole: dict[str, str], disk: Disk
) -> None:
    run_here(some, disk.folder, *BEFORE["seal"])
    refused = set()
    for spare_pages in range(100):
        disk.fill(spare_pages)
        try:
            run_here(some, disk.folder)
        except OSError as error:
            refused.add((error.errno, Path(error.filename).name))
            assert not (disk.folder / "gland").exists()
        disk.free()
        if (disk.folder / "gland").exists():
            break
    assert {number for number, _ in refused} == {errno.ENOSPC}
    files = {"quarantine.csv", "near_duplicates.csv", "card.html", FILE_NAME}
    assert {name for _, name in refused} == files | {"sealing"}  # the folder, for the files that TFDS writes
    assert contents(disk.folder / "gland") == whole


def test_a_disk_that_fills_while_a_dataset_is_replaced_keeps_the_old_one(
    some: Path, whole: dict[str, str], disk: Disk
) -> None:
    run_here(some, disk.folder)
    for spare_pages in (0, 120, 140):
        disk.fill(spare_pages)
        with pytest.raises(OSError, match="No space left"):
            convert(conversion(some, disk.folder, settings=Settings(image_size=40), overwrite=True))
        assert contents(disk.folder / "gland") == whole
        disk.free()
    convert(conversion(some, disk.folder, settings=Settings(image_size=40), overwrite=True))
    assert Manifest.load(disk.folder / "gland").image_size == 40


def test_what_killed_writers_left_is_cleared_away(some: Path, whole: dict[str, str], tmp_path: Path) -> None:
    run_here(some, tmp_path, *BEFORE["write"])
    left = tmp_path / ".gland.partial" / "inspect" / ".3f.chunk.elsewhere.99.tmp"
    left.write_bytes(b"half")
    run_here(some, tmp_path, "write")
    assert not left.exists()
    run_here(some, tmp_path)
    assert contents(tmp_path / "gland") == whole


def test_a_read_only_disk_is_refused_before_any_work(some: Path, disk: Disk) -> None:
    disk.remount("ro")
    said = finish(start(some, disk.folder), cli.EXIT_REQUEST)
    assert "`--tfrecords`. Expected a writable folder" in said
    assert "To fix it: " in said
    assert "Traceback" not in said


def test_a_dataset_on_a_read_only_disk_still_verifies(some: Path, disk: Disk) -> None:
    from data_pipeline.verify import verify

    run_here(some, disk.folder)
    disk.remount("ro")
    assert verify(disk.folder / "gland", workers=1) == []


def test_a_folder_this_user_may_not_write_to_is_refused(some: Path, tmp_path: Path) -> None:
    (tmp_path / "tf").mkdir(mode=0o555)
    done = without_privileges(command(some, tmp_path / "tf"))
    assert done.returncode == cli.EXIT_REQUEST
    assert "name a folder that this user may write to" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_lock_of_another_user_is_refused_with_its_name(some: Path, tmp_path: Path) -> None:
    (tmp_path / ".gland.lock").touch(mode=0o000)
    done = without_privileges(command(some, tmp_path))
    assert done.returncode == cli.EXIT_REQUEST
    assert f"Permission denied: {tmp_path}/.gland.lock. To fix it: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_chunk_that_cannot_be_read_any_more_is_made_again(some: Path, whole: dict[str, str], tmp_path: Path) -> None:
    for stage in BEFORE["write"]:
        run_here(some, tmp_path, stage)
    chunk = next((tmp_path / ".gland.partial" / "inspect").glob("*.chunk"))
    chunk.chmod(0o000)
    for arguments in (["--stage=write", "--workers=1"], []):
        done = without_privileges(command(some, tmp_path, *arguments))
        assert done.returncode == cli.EXIT_DONE, done.stderr
    assert contents(tmp_path / "gland") == whole


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EROFS", "EIO"])
def test_trouble_with_a_disk_is_one_line_and_worth_a_retry(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    number = getattr(errno, name)

    def main(argv: object) -> None:
        raise OSError(number, os.strerror(number), "/data/tf/x")

    assert cli._exit_code(main, []) == cli.EXIT_FAULT
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"{os.strerror(number)}: /data/tf/x. To fix it: ")


def test_an_error_that_is_no_trouble_with_a_disk_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file", "x")

    assert cli._exit_code(main, []) == cli.EXIT_FAULT
    assert "Traceback" in capsys.readouterr().err
