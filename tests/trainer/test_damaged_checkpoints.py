"""Damage of any kind to any file of a checkpoint: the one before is used, with a message, and training goes on."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.trainer.test_checkpoints import fill, new, saved, weight
from trainer.checkpoints import Progress
from trainer.published import Name, read_pointer


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def folder_instead(path: Path) -> None:
    remove(path)
    (path / "in it").mkdir(parents=True)


def link_instead(path: Path) -> None:
    """To the same bytes, which someone else may change."""
    shutil.move(path, path.with_name(f"elsewhere-{path.name}"))
    path.symlink_to(path.with_name(f"elsewhere-{path.name}"))


def dangling_link(path: Path) -> None:
    remove(path)
    path.symlink_to("nowhere")


def loop(path: Path) -> None:
    remove(path)
    path.symlink_to(path.name)


def file_instead(path: Path) -> None:
    remove(path)
    path.write_bytes(b"no folder")


def emptied(path: Path) -> None:
    remove(path)
    path.mkdir()


FILES = ["weights.index", "weights.data-00000-of-00001", "state.json"]
HARMS = [flip, cut, empty, remove, folder_instead, link_instead, dangling_link, loop]
DAMAGES = [(file, harm) for file in FILES for harm in HARMS]
DAMAGES += [("", harm) for harm in (emptied, file_instead, link_instead, dangling_link)]


@pytest.mark.parametrize(
    ("file", "harm"), DAMAGES, ids=[f"{file or 'folder'}-{harm.__name__}" for file, harm in DAMAGES]
)
def test_a_damaged_newest_one_is_passed_over_with_a_message(
    tmp_path: Path, file: str, harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, 3)
    harm(tmp_path / "step-00000003" / file)
    checkpoints, model = new(tmp_path)
    progress = checkpoints.restore_last()
    assert progress is not None
    assert progress.step == weight(model) == 2
    said = capsys.readouterr().err
    # A dangling link in place of the folder is as good as nothing, which a pointer doesn't point to.
    gone = file == "" and harm is dangling_link
    assert ("doesn't name a checkpoint that is there" if gone else "step-00000003 is damaged") in said
    goes_on(tmp_path, progress)


def goes_on(folder: Path, progress: Progress) -> None:
    """Whatever lies in the way, the next checkpoint is saved, and is the last one."""
    checkpoints, model = new(folder)
    for step in (progress.step + 1, progress.step + 2):
        fill(model, step)
        checkpoints.save(replace(progress, step=step))
    again, model = new(folder)
    last = again.restore_last()
    assert last is not None
    assert last.step == weight(model) == progress.step + 2
    assert read_pointer(folder) == Name(progress.step + 2)


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_damaged_pointer_costs_nothing(
    tmp_path: Path, harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, 3)
    harm(tmp_path / "last.json")
    checkpoints, model = new(tmp_path)
    checkpoints.clean()
    progress = checkpoints.restore_last()
    assert progress is not None
    assert progress.step == weight(model) == 3
    assert ("doesn't name a checkpoint" in capsys.readouterr().err) == (harm is not link_instead)
    goes_on(tmp_path, progress)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    saved(folder, 3)
    return folder


@given(data=st.data(), file=st.sampled_from([*FILES, "../last.json"]), bit=st.integers(0, 7))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_and_any_cut_is_found(three: Path, data: st.DataObject, file: str, bit: int) -> None:
    path = three / "step-00000003" / file
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    harmed = bytearray(whole)
    harmed[place] ^= 1 << bit
    try:
        for damage in (bytes(harmed), whole[:place]):
            path.write_bytes(damage)
            checkpoints, model = new(three)
            progress = checkpoints.restore_last()
            assert progress is not None
            assert progress.step == weight(model) == (3 if "last" in file else 2)
    finally:
        path.write_bytes(whole)


def test_with_none_left_whole_there_is_nothing_to_restore(tmp_path: Path) -> None:
    saved(tmp_path, 3)
    for folder in tmp_path.glob("step-*"):
        flip(folder / "state.json")
    assert new(tmp_path)[0].restore_last() is None
