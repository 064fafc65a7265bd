"""The files of a folder, as they are on the disk."""

import os
import pickle
import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest

from data_pipeline import cli
from data_pipeline.sources import FileContents, InputChangedError, SourceFile, open_sources
from tests.data_pipeline.test_sources import ORGANS, fill, read_all


def test_a_folder_lists_every_file_in_the_order_of_the_ids(tmp_path: Path) -> None:
    fill(tmp_path, ["organ/b/z.png", "organ/b/s/a.png", "organ/a/x.png", "organ/stray.png", "organ/a/.hidden"])
    (tmp_path / "organ" / "empty").mkdir()
    source = open_sources(str(tmp_path), ["organ"])["organ"]
    assert not source.sequential
    assert source.files() == source.files()
    assert source.files() == [
        SourceFile("a/.hidden", "a"),
        SourceFile("a/x.png", "a"),
        SourceFile("b/s/a.png", "b"),
        SourceFile("b/z.png", "b"),
        SourceFile("stray.png", ""),
    ]
    assert source.diagnoses() == ["a", "b", "empty"]
    assert {id: contents.data for id, contents in read_all(source).items()} == {
        file.id: f"organ/{file.id}".encode() for file in source.files()
    }


def test_a_source_survives_the_way_to_a_worker(tmp_path: Path) -> None:
    source = open_sources(str(fill(tmp_path, ORGANS)), ["lung"])["lung"]
    copy = pickle.loads(pickle.dumps(source))
    assert read_all(copy) == read_all(source)


def test_links_are_followed_and_loops_are_cut(tmp_path: Path) -> None:
    organ = fill(tmp_path / "organ", ["a/x.png", "b/y.png"])
    (organ / "a" / "loop").symlink_to(organ)
    (organ / "b" / "more").symlink_to(organ / "a")
    (organ / "b" / "z.png").symlink_to(organ / "a" / "x.png")
    source = open_sources(str(tmp_path), ["organ"])["organ"]
    assert [file.id for file in source.files()] == ["a/x.png", "b/more/x.png", "b/y.png", "b/z.png"]
    assert read_all(source)["b/z.png"].data == b"a/x.png"


def test_a_very_deep_folder_ends_no_run(tmp_path: Path) -> None:
    deep, here = tmp_path / "organ" / "a", os.getcwd()  # noqa: PTH109
    deep.mkdir(parents=True)
    try:
        os.chdir(deep)
        for _ in range(1100):
            os.mkdir("d")  # noqa: PTH102
            os.chdir("d")
        Path("x.png").touch()
    finally:
        os.chdir(here)
    assert len(open_sources(str(tmp_path), ["organ"])["organ"].files()) == 1
    assert list(open_sources(str(tmp_path), ["all"])) == ["organ"]
    subprocess.run(["rm", "-rf", tmp_path / "organ"], check=True)  # `shutil` doesn't come that far down


def test_what_is_no_readable_file_says_why(tmp_path: Path) -> None:
    organ = fill(tmp_path / "organ", ["a/x.png", "a/slide.SVS", "a/m/Slidedat.ini", "a/m/Data0001.dat", "a/n/Data.dat"])
    os.mkfifo(organ / "a" / "pipe")
    (organ / "a" / "nowhere.png").symlink_to("nowhere")
    (organ / "a" / "self.png").symlink_to("self.png")
    (organ / "a" / "zero.png").symlink_to("/dev/zero")
    (organ / "a" / "huge.png").touch()
    (organ / "a" / "m.mrxs").touch()
    os.truncate(organ / "a" / "huge.png", (1 << 30) + 1)
    contents = read_all(open_sources(str(tmp_path), ["organ"])["organ"])
    reasons = {PurePosixPath(id).name: found.reason for id, found in contents.items() if found.data is None}
    assert reasons.pop("self.png").startswith("can't be read: ")
    assert reasons == {
        "Data0001.dat": "part of a whole-slide file: cut it into tiles first, for example with OpenSlide or QuPath",
        "Slidedat.ini": "part of a whole-slide file: cut it into tiles first, for example with OpenSlide or QuPath",
        "huge.png": "1.0 GiB: too large for one image, cut it into tiles",
        "m.mrxs": "a whole-slide file: cut it into tiles first, for example with OpenSlide or QuPath",
        "nowhere.png": "can't be read: broken link",
        "pipe": "not a regular file",
        "slide.SVS": "a whole-slide file: cut it into tiles first, for example with OpenSlide or QuPath",
        "zero.png": "not a regular file",
    }
    assert contents["a/n/Data.dat"].data == b"a/n/Data.dat"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_locked_file_says_so_and_a_locked_folder_is_a_wrong_request(tmp_path: Path) -> None:
    organ = fill(tmp_path / "organ", ["a/x.png", "a/y.png"])
    source = open_sources(str(tmp_path), ["organ"])["organ"]
    (organ / "a" / "x.png").chmod(0)
    assert read_all(source)["a/x.png"] == FileContents(None, "can't be read: Permission denied")
    (organ / "a").chmod(0)
    try:
        with pytest.raises(cli.RequestError, match="Can't list the images"):
            source.files()
    finally:
        (organ / "a").chmod(0o700)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_file_that_vanishes_after_it_was_listed_ends_the_run(tmp_path: Path, what: str) -> None:
    organ = fill(tmp_path / "organ", ["a/x.png", "b/y.png"])
    source = open_sources(str(tmp_path), ["organ"])["organ"]
    files = source.files()
    if what == "file":
        (organ / "b" / "y.png").unlink()
    else:
        shutil.rmtree(organ / "b")
        (organ / "b").touch()
    contents = source.read(files)
    assert next(contents).data == b"a/x.png"
    with pytest.raises(InputChangedError, match=r"y\.png has vanished.*To fix it"):
        next(contents)


def test_a_stamp_changes_with_the_contents_and_not_without(tmp_path: Path) -> None:
    fill(tmp_path, ["organ/a/x.png", "organ/a/y.png"])
    source = open_sources(str(tmp_path), ["organ"])["organ"]
    first, second = source.files()
    before, times = (source.stamp(first), source.stamp(second)), (tmp_path / "organ/a/x.png").stat()
    assert before == (source.stamp(first), source.stamp(second))
    (tmp_path / "organ/a/x.png").write_bytes(b"organ/a/z.png")
    os.utime(tmp_path / "organ/a/x.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert source.stamp(first) != before[0]
    assert source.stamp(second) == before[1]
    (tmp_path / "organ/a/y.png").unlink()
    assert source.stamp(second) not in before
