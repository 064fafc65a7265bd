"""Which folder is which organ, from paths alone and on the disk."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import cli
from data_pipeline.sources import (
    WHOLE_SLIDE_SUFFIXES,
    FileContents,
    Source,
    Tree,
    is_one_organ,
    locate,
    open_sources,
    organ_name,
    whole_slide_reason,
    wrapping,
)

ORGANS = ["cervix/benign/a.png", "cervix/malignant/b.png", "lung/aca/c.png", "lung/scc/d.png"]
SLIDES = ["cervix/benign/s1/a.png", "cervix/malignant/s2/b.png", "lung/aca/s3/c.png", "lung/scc/s4/d.png"]
ONE = ["benign/a.png", "benign/b.png", "malignant/c.png"]
ONE_MIXED = [*ONE, "malignant/s1/d.png", "suspicious/e.png"]
ONE_STRAY = [*ONE, "README", "overview.png", ".DS_Store", ".git/objects/aa/f.png", "__MACOSX/benign/a.png", "doc/x.txt"]
STRAY_FILES = [*ORGANS, "cervix/README.md", "cervix/LICENSE", "provenance.csv", "lung/.DS_Store", "tools/plot.py"]


def fill(folder: Path, paths: Sequence[str]) -> Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(path.encode())
    return folder


def read_all(source: Source) -> dict[str, FileContents]:
    files = source.files()
    return {file.id: contents for file, contents in zip(files, source.read(files), strict=True)}


@pytest.mark.parametrize(
    ("paths", "one"),
    [
        (ORGANS, False),
        (SLIDES, False),
        (STRAY_FILES, False),
        (ONE, True),
        (ONE_MIXED, True),
        (ONE_STRAY, True),
        ([], False),
        (["a.png", "b.png"], False),
        (["cervix/benign/"], False),
        (["benign/a", "benign/b", "malignant/c"], True),  # no name looks like an image's
        ([*ONE, "lung/aca/c.png", "liver/hcc/c.png"], None),
        ([*ORGANS, "thumbnails/a.png"], False),
    ],
)
def test_most_sub_folders_decide_whether_a_folder_is_one_organ(paths: list[str], one: bool | None) -> None:
    assert is_one_organ(paths) is one


@pytest.mark.parametrize(
    ("paths", "root"),
    [
        (ORGANS, ""),
        (ONE, ""),
        (["benign/a.png"], ""),
        (["cervix/benign/a.png"], "cervix/"),
        ([f"top/{path}" for path in ORGANS], "top/"),
        ([*(f"repo-main/data/{path}" for path in ONE), "repo-main/README.md", "repo-main/src/a.py"], "repo-main/data/"),
        ([*(f"a/b/{path}" for path in ONE_STRAY), "__MACOSX/a/b/._x.png"], "a/b/"),
    ],
)
def test_folders_that_wrap_everything_are_seen_through(paths: list[str], root: str) -> None:
    assert wrapping(paths) == root


PARTS = st.sampled_from(["a", "b", "c", "x.png", "y.jpg", "notes.txt", ".hidden", "__MACOSX"])
PATHS = st.lists(st.lists(PARTS, min_size=1, max_size=5).map("/".join), max_size=12)


@given(PATHS, st.randoms())
def test_the_order_of_the_files_decides_nothing(paths: list[str], random: Random) -> None:
    shuffled = list(paths)
    random.shuffle(shuffled)
    assert is_one_organ(shuffled) is is_one_organ(paths)
    assert wrapping(shuffled) == wrapping(paths)


@given(PATHS)
def test_what_wraps_is_a_folder_that_holds_folders(paths: list[str]) -> None:
    root = wrapping(paths)
    below = [path.removeprefix(root) for path in paths if path.startswith(root)]
    assert root == "" or (root.endswith("/") and any("/" in path for path in below))
    assert wrapping(below) == ""


@pytest.mark.parametrize(
    ("paths", "organs", "found"),
    [
        (ORGANS, ["all"], {"cervix": "cervix", "lung": "lung"}),
        (SLIDES, ["all"], {"cervix": "cervix", "lung": "lung"}),
        (ORGANS, ["lung"], {"lung": "lung"}),
        (SLIDES, ["cervix", "lung"], {"cervix": "cervix", "lung": "lung"}),
        (ONE, ["all"], {"images": ""}),
        (ONE, ["skin"], {"skin": ""}),
        (ONE_MIXED, ["skin"], {"skin": ""}),
        (ONE_STRAY, ["skin"], {"skin": ""}),
        (ONE, ["benign"], {"benign": "benign"}),
        (SLIDES, ["images"], {"images": ""}),  # the folder is called so
    ],
)
def test_an_organ_is_a_folder_or_the_images_themselves(
    tmp_path: Path, paths: list[str], organs: list[str], found: dict[str, str]
) -> None:
    images = fill(tmp_path / "images", paths)
    sources = open_sources(str(images), organs)
    assert {organ: source.description for organ, source in sources.items()} == {
        organ: str(images / path) for organ, path in found.items()
    }


@pytest.mark.parametrize("paths", [ORGANS, SLIDES, STRAY_FILES, ORGANS[:2], [], ["a.png"]])
@pytest.mark.parametrize("organs", [["cervx"], ["cervix", "lung", "livr"], [".."], ["cervix/benign"], ["."], [""]])
def test_a_mistyped_organ_is_refused_with_the_names_there_are(
    tmp_path: Path, paths: list[str], organs: list[str]
) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(cli.RequestError, match=r"Invalid value for `--organ`.*To fix it") as caught:
        open_sources(str(fill(tmp_path / "images", paths)), organs)
    assert not any(organs) or paths[:1] not in (ORGANS[:1], SLIDES[:1]) or "cervix" in str(caught.value)


def test_a_layout_that_can_mean_two_things_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "images", [*ONE, "lung/aca/c.png", "liver/hcc/c.png"])
    with pytest.raises(cli.RequestError, match=r"Can't tell whether .* To fix it: name the organ"):
        open_sources(str(tmp_path / "images"), ["all"])
    assert open_sources(str(tmp_path / "images"), ["images"])["images"].diagnoses() == [
        "benign",
        "liver",
        "lung",
        "malignant",
    ]


def test_all_skips_system_folders_and_keeps_empty_ones(tmp_path: Path) -> None:
    images = fill(tmp_path / "images", [*ORGANS, ".git/a/b.png", "__MACOSX/a/b.png", "@eaDir/a/b.png"])
    (images / "skin").mkdir()
    assert list(open_sources(str(images), ["all"])) == ["cervix", "lung", "skin"]


def test_one_organ_is_named_after_its_folder_in_clean_words(tmp_path: Path) -> None:
    images = fill(tmp_path / "-cervix (tiles), 2024", ONE)
    assert list(open_sources(str(images), ["all"])) == ["cervix _tiles__ 2024"]
    assert list(open_sources(f"{images}/../{images.name}/.", ["all"])) == ["cervix _tiles__ 2024"]


@given(st.text())
def test_any_name_becomes_the_name_of_an_organ(name: str) -> None:
    assert organ_name(name)
    assert organ_name(organ_name(name)) == organ_name(name)
    assert not set("/\\\0\n") & set(organ_name(name))
    assert organ_name(name)[0] not in " .-"


@given(PATHS, st.sampled_from(["a", "b", "tree", "all", "c"]))
def test_an_organ_lies_in_the_tree_or_is_refused(paths: list[str], organ: str) -> None:
    folders = sorted({path.split("/")[0] for path in paths if "/" in path})
    tree = Tree(shown="tree", name="tree", root="", folders=folders, named={}, paths=lambda: paths)
    try:
        found = locate(tree, [organ])
    except cli.RequestError:
        return
    assert set(found.values()) <= {"", *folders}
    assert organ == "all" or set(found) == {organ}


@pytest.mark.parametrize("images", ["", "s3://bucket/x", "/nowhere", "/dev/null", __file__, "images.rar"])
def test_images_that_are_none_of_these_are_refused(images: str) -> None:
    with pytest.raises(cli.RequestError, match=r"Invalid value for `--images`.*To fix it"):
        open_sources(images, ["all"])


@pytest.mark.parametrize("suffix", sorted(WHOLE_SLIDE_SUFFIXES))
def test_every_kind_of_whole_slide_is_known_in_any_case(suffix: str) -> None:
    assert whole_slide_reason(f"a/x{suffix}", lambda _: False)
    assert whole_slide_reason(f"a/x{suffix.upper()}", lambda _: False)
    assert not whole_slide_reason(f"a{suffix}/x.png", lambda _: True)
