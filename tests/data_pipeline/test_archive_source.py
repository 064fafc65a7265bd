"""Archives as they are downloaded, and as somebody with bad intentions makes them."""

import bz2
import gzip
import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import cli
from data_pipeline.archive_readers import Member
from data_pipeline.archive_source import clean_path, settle
from data_pipeline.sources import Source, open_sources
from tests.data_pipeline.test_sources import ONE, ONE_STRAY, ORGANS, SLIDES, fill, read_all

TAR_MODES = {".tar": "w:", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}
SUFFIXES = [".zip", *TAR_MODES]


def pack(archive: Path, members: Sequence[str | tuple[str, bytes]]) -> Path:
    """An archive of these members; a name alone is a file that holds its name, one with `/` at the end a folder."""
    named = [(member, member.encode()) if isinstance(member, str) else member for member in members]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in named:
                file.writestr(zipfile.ZipInfo(name), b"" if name.endswith(("/", "\\")) else data, zipfile.ZIP_DEFLATED)
        return archive
    with tarfile.open(archive, TAR_MODES["".join(archive.suffixes)]) as tar:  # type: ignore[call-overload]
        for name, data in named:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = 0 if name.endswith("/") else len(data)
            tar.addfile(info, io.BytesIO(data))
    return archive


def only(archive: Path, organ: str = "all") -> Source:
    (source,) = open_sources(str(archive), [organ]).values()
    return source


def reasons(source: Source) -> dict[str, str]:
    return {id: contents.reason for id, contents in read_all(source).items() if contents.data is None}


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def tar_of(archive: Path, members: Sequence[tarfile.TarInfo | str]) -> Path:
    with tarfile.open(archive, TAR_MODES["".join(archive.suffixes)]) as tar:  # type: ignore[call-overload]
        for member in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            data = info.name.encode() if info.isreg() else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return archive


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("members", "organs", "found"),
    [
        (ORGANS, ["all"], {"cervix": "cervix", "lung": "lung"}),
        (SLIDES, ["lung"], {"lung": "lung"}),
        ([f"top/{path}" for path in ORGANS], ["all"], {"cervix": "top/cervix", "lung": "top/lung"}),
        ([f"top/sub/{path}" for path in ORGANS], ["lung"], {"lung": "top/sub/lung"}),
        ([*(f"top/sub/{path}" for path in ORGANS), "x/sub"], ["sub"], {"sub": "top/sub"}),
        (ONE, ["all"], {"archive": ""}),
        (ONE, ["skin"], {"skin": ""}),
        ([f"Skin tiles/{path}" for path in ONE_STRAY], ["all"], {"archive": "Skin tiles"}),
        ([f"top/skin/{path}" for path in ONE], ["skin"], {"skin": "top/skin"}),
        ([f"skin/{path}" for path in SLIDES[:2]], ["skin"], {"skin": "skin"}),
        (
            [*(f"repo-main/data/{path}" for path in ONE), "repo-main/README.md", "repo-main/src/train.py"],
            ["all"],
            {"archive": "repo-main/data"},
        ),
        (
            [
                "lung_colon_image_set/lung_image_sets/lung_aca/a.jpeg",
                "lung_colon_image_set/lung_image_sets/lung_n/b.jpeg",
                "lung_colon_image_set/colon_image_sets/colon_n/c.jpeg",
                "__MACOSX/lung_colon_image_set/._x",
            ],
            ["all"],
            {
                "colon_image_sets": "lung_colon_image_set/colon_image_sets",
                "lung_image_sets": "lung_colon_image_set/lung_image_sets",
            },
        ),
    ],
)
def test_organs_are_found_below_the_folders_that_wrap_them(
    tmp_path: Path, suffix: str, members: list[str], organs: list[str], found: dict[str, str]
) -> None:
    archive = pack(tmp_path / f"archive{suffix}", members)
    sources = open_sources(str(archive), organs)
    assert {organ: source.description for organ, source in sources.items()} == {
        organ: f"{archive.name}: {folder}" if folder else archive.name for organ, folder in found.items()
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_archive_gives_the_files_its_folder_would(tmp_path: Path, suffix: str) -> None:
    names = [
        "b/z.png",
        "a/Ünïcode 漢字.png",
        "a/s/1.png",
        "stray.txt",
        "a/.DS_Store",
        "a/empty.png",
        f"a/{'n' * 240}.png",
    ]
    contents = [(name, b"" if "empty" in name else os.urandom(5000)) for name in names]
    for name, data in contents:
        fill(tmp_path / "organ", [name])
        (tmp_path / "organ" / name).write_bytes(data)
    (tmp_path / "organ" / "c").mkdir()
    folder = open_sources(str(tmp_path), ["organ"])["organ"]
    source = only(pack(tmp_path / f"organ{suffix}", [*((f"organ/{n}", d) for n, d in contents), "organ/c/"]), "organ")
    assert source.sequential == (suffix not in (".zip", ".tar"))
    assert source.files() == source.files()
    assert sorted(source.files(), key=lambda file: file.id) == folder.files()
    assert source.sequential or source.files() == folder.files()
    assert source.diagnoses() == folder.diagnoses() == ["a", "b", "c"]
    assert read_all(source) == read_all(folder)
    some = source.files()[1::2]
    assert [found.data for found in source.read(some)] == [dict(contents)[file.id] for file in some]
    assert list(source.read([])) == []
    copy = pickle.loads(pickle.dumps(source))
    assert read_all(copy) == read_all(folder)
    assert len(pickle.dumps(source)) < 1000
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(read_all, source).result() == read_all(folder)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_mistyped_organ_is_refused(tmp_path: Path, suffix: str) -> None:
    archive = pack(tmp_path / f"x{suffix}", [f"top/{path}" for path in ORGANS])
    with pytest.raises(cli.RequestError, match=r"--organ.*one of cervix, lung.*'cervx'.*To fix it"):
        open_sources(str(archive), ["cervx"])


def test_a_name_that_two_folders_bear_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "x.zip", [f"{top}/skin/{path}" for top in ("a", "b") for path in ONE])
    with pytest.raises(cli.RequestError, match="a/skin, b/skin"):
        open_sources(str(archive), ["skin"])


@given(st.text(alphabet="ab./\\:\0C ", max_size=12))
def test_a_clean_path_stays_below_its_folder(name: str) -> None:
    path = clean_path(name)
    if path is not None:
        assert os.path.normpath(f"/root/{path}") == f"/root/{path}"
        assert not {"", ".", ".."} & set(path.split("/"))
        assert "\0" not in path
        assert clean_path(path) == path


MEMBERS = st.lists(
    st.builds(
        Member,
        name=st.sampled_from(["a/x", "a/y", "./a//x", "../x", "/x", "a/", "a", "b/z", "a/x (member 0)", "a\0"]),
        position=st.integers(0, 9),
        size_bytes=st.just(0),
        folder=st.booleans(),
        target=st.sampled_from([None, None, "a/x", "a/y", "b/z", "../x", "", "a"]),
    ),
    max_size=12,
)


@given(MEMBERS)
def test_every_file_of_an_archive_is_listed_exactly_once(members: list[Member]) -> None:
    listing = settle(members)
    assert len(listing.members) + len(listing.unsafe) == sum(not member.folder for member in members)
    assert all(member.reason or member.target is None for member in listing.members.values())
    assert all(member.reason for member in listing.unsafe.values())
    assert all(clean_path(path) == path for path in [*listing.members, *listing.folders, *listing.unsafe])


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tgz"])
def test_of_files_of_one_name_the_last_is_read_as_if_unpacked(tmp_path: Path, suffix: str) -> None:
    same = [("benign/a.png", b"first"), ("./benign//a.png", b"second"), ("benign/a.png", b"third")]
    source = only(pack(tmp_path / f"x{suffix}", [*same, *ONE[1:]]))
    contents = read_all(source)
    assert len(contents) == 5
    assert contents["benign/a.png"].data == b"third"
    assert list(reasons(source).values()) == ["another file of the same name follows in the archive"] * 2


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_links_in_a_tar_lead_to_members_and_nowhere_else(tmp_path: Path, suffix: str) -> None:
    links = [
        special("t/benign/0.png", tarfile.SYMTYPE, "../malignant/c.png"),  # before what it leads to
        *(f"t/{path}" for path in ONE),
        special("t/benign/1.png", tarfile.SYMTYPE, "./a.png"),
        special("t/benign/2.png", tarfile.LNKTYPE, "t/benign/b.png"),
        special("t/benign/3.png", tarfile.SYMTYPE, "2.png"),
        special("t/benign/out1.png", tarfile.SYMTYPE, "/etc/passwd"),
        special("t/benign/out2.png", tarfile.SYMTYPE, "../../../etc/passwd"),
        special("t/benign/out3.png", tarfile.LNKTYPE, "../etc/passwd"),
        special("t/benign/loop1.png", tarfile.SYMTYPE, "loop2.png"),
        special("t/benign/loop2.png", tarfile.SYMTYPE, "loop1.png"),
        special("t/benign/self.png", tarfile.SYMTYPE, "self.png"),
        special("t/benign/none.png", tarfile.LNKTYPE, "t/benign/gone.png"),
        special("t/benign/folder", tarfile.SYMTYPE, "../malignant"),
        special("t/benign/pipe", tarfile.FIFOTYPE),
        special("t/benign/device", tarfile.CHRTYPE),
    ]
    source = only(tar_of(tmp_path / f"x{suffix}", links))
    contents = {id.removeprefix("benign/"): found for id, found in read_all(source).items()}
    assert len(contents) == len(links)
    read = {id: found.data.decode() for id, found in contents.items() if found.data is not None}
    assert read == {
        "0.png": "t/malignant/c.png",
        "1.png": "t/benign/a.png",
        "2.png": "t/benign/b.png",
        "3.png": "t/benign/b.png",
        "a.png": "t/benign/a.png",
        "b.png": "t/benign/b.png",
        "malignant/c.png": "t/malignant/c.png",
    }
    why = {id: found.reason for id, found in contents.items() if found.data is None}
    assert {why[f"out{n}.png"] for n in (1, 2, 3)} == {"a link that leads out of the archive"}
    assert {why[id] for id in ("loop1.png", "loop2.png", "self.png", "none.png", "folder")} == {
        "broken link: the archive holds no file of the name it leads to"
    }
    assert why["pipe"] == why["device"] == "not a regular file"


def test_links_in_a_zip_lead_to_members_and_nowhere_else(tmp_path: Path) -> None:
    archive = pack(tmp_path / "x.zip", ONE)
    with zipfile.ZipFile(archive, "a") as file:
        for name, kind, target in [
            ("benign/in.png", 0o120777, "../malignant/c.png"),
            ("benign/out.png", 0o120777, "/etc/passwd"),
            ("benign/pipe.png", 0o010666, ""),
        ]:
            info = zipfile.ZipInfo(name)
            info.external_attr = kind << 16
            file.writestr(info, target)
    source = only(archive)
    assert read_all(source)["benign/in.png"].data == b"malignant/c.png"
    assert reasons(source) == {
        "benign/out.png": "a link that leads out of the archive",
        "benign/pipe.png": "not a regular file",
    }


def test_backslashes_of_windows_are_slashes(tmp_path: Path) -> None:
    archive = pack(tmp_path / "x.zip", [path.replace("/", "\\") for path in ORGANS] + ["cervix\\empty\\"])
    assert list(open_sources(str(archive), ["all"])) == ["cervix", "lung"]
    source = only(archive, "cervix")
    assert [file.id for file in source.files()] == ["benign/a.png", "malignant/b.png"]
    assert source.diagnoses() == ["benign", "empty", "malignant"]
    assert not reasons(source)


def test_a_zip_of_more_than_65535_files_is_listed_in_seconds(tmp_path: Path) -> None:
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(66_000):
            file.writestr(zipfile.ZipInfo(f"d{number % 3}/{number}.png"), b"")
    assert len(only(archive).files()) == 66_000


def test_a_compressed_tar_under_the_name_of_a_plain_one_is_read(tmp_path: Path) -> None:
    archive = pack(tmp_path / "x.tar", ONE)
    plain = read_all(only(archive))
    for compress in (gzip.compress, bz2.compress):
        packed = tmp_path / f"{compress.__module__}.tar"
        packed.write_bytes(compress(archive.read_bytes()))
        assert only(packed).sequential
        assert read_all(only(packed)) == plain


def test_a_zip_with_something_before_it_is_read(tmp_path: Path) -> None:
    archive = pack(tmp_path / "x.zip", ONE)
    archive.write_bytes(struct.pack("<100i", *range(100)) + archive.read_bytes())
    assert len(read_all(only(archive))) == 3
    assert not reasons(only(archive))
