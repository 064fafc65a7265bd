"""Archives that are damaged, or made by somebody with bad intentions."""

import gzip
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from data_pipeline import archive_readers, cli
from data_pipeline.sources import InputChangedError, Source, SourceFile, open_sources
from tests.data_pipeline.test_archive_source import SUFFIXES, only, pack, reasons
from tests.data_pipeline.test_sources import ONE, ORGANS, read_all


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../../x.png", "a/../../x.png", "C:/x.png", "c:x.png", "\\\\srv\\x.png"]
)
@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tgz"])
def test_an_unsafe_path_is_an_input_that_is_never_read(tmp_path: Path, suffix: str, name: str) -> None:
    archive = pack(tmp_path / f"x{suffix}", [*(f"top/{path}" for path in ORGANS), name])
    for source in open_sources(str(archive), ["all"]).values():
        ids = [file.id for file in source.files()]
        assert len(ids) == 3
        ((id, reason),) = reasons(source).items()
        assert reason == "unsafe path in the archive"
        assert id.startswith("unsafe path 000004 ")
        assert not set("/\\:\0") & set(id)
        assert SourceFile(id, "") in source.files()
        assert source.diagnoses() in (["benign", "malignant"], ["aca", "scc"])


def test_a_name_cut_by_a_nul_is_unsafe(tmp_path: Path) -> None:
    archive = pack(tmp_path / "x.zip", [*ONE, "benign/x.pngZ.exe"])
    archive.write_bytes(archive.read_bytes().replace(b"benign/x.pngZ.exe", b"benign/x.png\0.exe"))
    assert list(reasons(only(archive)).values()) == ["unsafe path in the archive"]


def test_nothing_is_written_beside_the_archive(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        read_all(only(pack(tmp_path / f"x{suffix}", [*ONE, "../evil.png"])))
    assert len(list(tmp_path.rglob("*"))) == len(SUFFIXES)
    assert not (tmp_path.parent / "evil.png").exists()


def changed_zip(tmp_path: Path, change: Callable[[zipfile.ZipInfo], None]) -> Source:
    """A zip whose directory says something else of `benign/a.png` than is true."""
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in ONE:
            file.writestr(path, path)
        change(file.getinfo("benign/a.png"))
    return only(archive)


def set_size(size_bytes: int) -> Callable[[zipfile.ZipInfo], None]:
    return lambda info: setattr(info, "file_size", size_bytes)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda info: setattr(info, "flag_bits", 1), "encrypted in the archive"),
        (lambda info: setattr(info, "compress_type", 9), "packed by method 9"),
        (lambda info: setattr(info, "compress_type", zipfile.ZIP_BZIP2), "packed by method 12"),
        (lambda info: setattr(info, "compress_type", 99), "packed by method 99"),
        (lambda info: setattr(info, "compress_type", 0), "damaged in the archive"),
        (lambda info: setattr(info, "CRC", 1), "damaged in the archive: Bad CRC-32"),
        (lambda info: setattr(info, "filename", "benign/A.png"), "damaged in the archive: File name in directory"),
        (lambda info: setattr(info, "header_offset", 7), "damaged in the archive"),
        (set_size((1 << 30) + 1), "1.0 GiB: too large"),
        (set_size(1 << 40), "1024.0 GiB: too large"),
        (set_size(65 << 20), "unpacks to more than 1000 times its size"),
        (set_size(3), "damaged in the archive: Bad CRC-32"),
        (set_size(300), "damaged in the archive"),
    ],
)
def test_a_member_of_a_zip_in_trouble_says_so_and_harms_no_other(
    tmp_path: Path, change: Callable[[zipfile.ZipInfo], None], reason: str
) -> None:
    source = changed_zip(tmp_path, change)
    ((id, found),) = reasons(source).items()
    assert id.lower() == "benign/a.png"
    assert found.startswith(reason)
    assert sum(contents.data is not None for contents in read_all(source).values()) == 2


def test_a_bomb_in_a_zip_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    archive = pack(tmp_path / "x.zip", [*ONE, ("benign/bomb.png", bytes(65 << 20))])
    source = only(archive)
    assert reasons(source) == {"benign/bomb.png": "unpacks to more than 1000 times its size, as no image does"}


def test_a_zip_of_overlapping_members_is_refused_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_readers, "MAX_TOTAL_BYTES", 1 << 20)
    archive = tmp_path / "x.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/x.png", bytes(1 << 20))
        first = file.getinfo("a/x.png")
        for number in range(500):
            info = zipfile.ZipInfo(f"a/{number:03d}.png")
            for name in ("CRC", "compress_size", "file_size", "header_offset", "compress_type"):
                setattr(info, name, getattr(first, name))
            file.filelist.append(info)
            file.NameToInfo[info.filename] = info
    with pytest.raises(cli.RequestError, match=r"unpacks to more than 1000 times its size.*To fix it"):
        only(archive, "a")


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_stream_that_swells_without_end_is_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive_readers, "MAX_TOTAL_BYTES", 1 << 20)
    monkeypatch.setattr(archive_readers, "MAX_RATIO", 100)
    archive = pack(tmp_path / f"x{suffix}", [*ONE, ("benign/zeros.png", bytes(32 << 20))])
    with pytest.raises(cli.RequestError, match=r"unpacks to more than 100 times its size.*To fix it"):
        only(archive)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.3, 0.9, 0.999])
def test_an_archive_that_is_cut_short_is_refused_as_a_whole(tmp_path: Path, suffix: str, keep: float) -> None:
    archive = pack(tmp_path / f"x{suffix}", [(path, os.urandom(20_000)) for path in ONE])
    whole = archive.read_bytes()
    kept = whole[: int(keep * len(whole))]
    if suffix == ".tar":  # the end mark is followed by filling
        kept = whole[: int(keep * 3 * 20_992)]
    archive.write_bytes(kept)
    with pytest.raises(cli.RequestError, match=r"Can't read .* as an archive: .*To fix it: download it again"):
        only(archive)


def test_a_tar_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "x.tar", [(path, bytes(1024)) for path in ONE])
    archive.write_bytes(archive.read_bytes()[: 2 * 1536])
    with pytest.raises(cli.RequestError, match="without its end mark"):
        only(archive)


def test_a_zip_whose_directory_lacks_a_file_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "x.zip", ONE)
    data = bytearray(archive.read_bytes())
    entry = 46 + len(ONE[2])  # the last one, left out of the directory's size and start
    size, start = struct.unpack_from("<II", data, len(data) - 10)
    struct.pack_into("<I", data, len(data) - 10, size - entry)
    archive.write_bytes(data[: start + size - entry] + data[start + size :])
    with pytest.raises(cli.RequestError, match="directory isn't whole"):
        only(archive)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_damaged_byte_loses_no_file_silently(tmp_path: Path, suffix: str) -> None:
    archive = pack(tmp_path / f"x{suffix}", [(path, os.urandom(1000)) for path in ONE])
    whole = bytearray(archive.read_bytes())
    for place in range(0, min(len(whole), 5000), 97):
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        os.utime(archive, ns=(place, place))
        try:
            source = only(archive, "all")
        except cli.RequestError:
            continue
        assert len(source.files()) == 3
        assert len(read_all(source)) == 3


@pytest.mark.parametrize(
    "data", [b"<!DOCTYPE html><title>Sign in</title>", b"", b"PK\5\6" + bytes(17), b"\x1f\x8b\x08garbage", bytes(10)]
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_archive_is_refused_with_the_remedy(tmp_path: Path, suffix: str, data: bytes) -> None:
    (tmp_path / f"x{suffix}").write_bytes(data)
    with pytest.raises(cli.RequestError, match="download it again"):
        only(tmp_path / f"x{suffix}")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_archive_without_folders_is_refused(tmp_path: Path, suffix: str) -> None:
    for members in ([], ["a.png", "b.png"]):
        archive = pack(tmp_path / f"x{suffix}", members)
        with pytest.raises(cli.RequestError, match=r"holds no folders.*To fix it"):
            only(archive)
        archive.unlink()


def header(size: bytes, kind: bytes, checksum: Callable[[bytes], int] = sum) -> bytes:
    """A tar header with a size field of one's own."""
    block = bytearray(tarfile.TarInfo("benign/x.png").tobuf(tarfile.GNU_FORMAT))
    block[124:136], block[156:157] = size, kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % checksum(block)
    return bytes(block)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_name_of_gigabytes_is_refused_before_it_fills_memory(tmp_path: Path, kind: bytes) -> None:
    archive = tmp_path / "x.tgz"
    with gzip.open(archive, "wb", 1) as file:
        file.write(header(b"%011o\0" % (4 << 30), kind))
        file.write(bytes(1 << 20))
    with pytest.raises(cli.RequestError, match="a header makes no sense"):
        only(archive)


@pytest.mark.parametrize("size", [b"\xff" * 12, b"\xff" * 11 + b"\0"])
def test_a_negative_size_ends_the_listing(tmp_path: Path, size: bytes) -> None:
    (tmp_path / "x.tar").write_bytes(header(size, tarfile.REGTYPE) + bytes(1024))
    with pytest.raises(cli.RequestError, match="a header makes no sense"):
        only(tmp_path / "x.tar")


def test_a_negative_size_in_an_extended_header_ends_the_listing(tmp_path: Path) -> None:
    info = tarfile.TarInfo("benign/x.png")
    info.pax_headers = {"size": "-1536"}
    archive = tmp_path / "x.tar"
    archive.write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(4096))
    with pytest.raises(cli.RequestError, match="a header makes no sense"):
        only(archive)


@pytest.mark.parametrize("suffix", [".tar", ".tgz"])
def test_a_member_of_a_tar_that_claims_terabytes_fills_no_memory(tmp_path: Path, suffix: str) -> None:
    data = header(b"\x80" + (1 << 42).to_bytes(11, "big"), tarfile.REGTYPE) + bytes(4096)
    (tmp_path / f"x{suffix}").write_bytes(gzip.compress(data) if suffix == ".tgz" else data)
    with pytest.raises(cli.RequestError, match="Can't read"):
        only(tmp_path / f"x{suffix}")


def test_a_large_member_is_an_input_with_its_reason(tmp_path: Path) -> None:
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w") as tar:
        for path in ONE:
            tar.addfile(tarfile.TarInfo(path))
        info = tarfile.TarInfo("benign/huge.png")
        info.size = (1 << 30) + 512
        tar.addfile(info)
    with archive.open("r+b") as file:  # a hole on the disk, and the end mark after it
        file.truncate(4 * 512 + info.size + 10_240)
    assert reasons(only(archive)) == {"benign/huge.png": "1.0 GiB: too large for one image, cut it into tiles"}


def test_a_sparse_member_says_so(tmp_path: Path) -> None:
    info = tarfile.TarInfo("benign/holes.png")
    info.pax_headers = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,0,9,0"}
    info.pax_headers |= {"GNU.sparse.size": str(1 << 40), "GNU.sparse.name": "benign/holes.png"}
    archive = tmp_path / "x.tar"
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in ONE:
            tar.addfile(tarfile.TarInfo(path))
        tar.addfile(info)
    assert list(reasons(only(archive)).values()) == ["stored in the archive with holes: pack it anew without --sparse"]


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tgz"])
def test_an_archive_that_changes_under_way_ends_the_run(tmp_path: Path, suffix: str) -> None:
    archive = pack(tmp_path / f"x{suffix}", ONE)
    source = only(archive)
    files, stamps = source.files(), [source.stamp(file) for file in source.files()]
    assert stamps == [source.stamp(file) for file in files]
    pack(archive, [(path, b"other") for path in ONE])
    with pytest.raises(InputChangedError, match=r"was changed.*To fix it"):
        list(source.read(files))
    assert not set(stamps) & {only(archive).stamp(file) for file in files}
    archive.unlink()
    with pytest.raises(InputChangedError):
        list(source.read(files))


def test_whole_slides_in_an_archive_are_not_read(tmp_path: Path) -> None:
    names = ["benign/s.svs", "benign/m.mrxs", "benign/m/Slidedat.ini", "benign/m/Data0000.dat", "benign/n/Data0000.dat"]
    found = reasons(only(pack(tmp_path / "x.zip", [*ONE, *names]), "skin"))
    assert sorted(found) == sorted(names[:4])
    assert all("whole-slide" in reason for reason in found.values())


def test_an_archive_inside_an_archive_is_a_file(tmp_path: Path) -> None:
    inner = pack(tmp_path / "inner.zip", ["x/y.png"]).read_bytes()
    source = only(pack(tmp_path / "x.zip", [*ONE, ("benign/inner.zip", inner)]))
    assert read_all(source)["benign/inner.zip"].data == inner


@pytest.mark.parametrize("name", ["a/" * 60_000 + "x.png", "red/" + "n" * 200_000 + ".png"])
def test_a_path_no_disk_would_take_fills_no_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / "deep.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for member in ("lung/red/1.png", "lung/blue/2.png", "lung/" + name):
            archive.addfile(tarfile.TarInfo(member))
    (source,) = open_sources(str(path), ["lung"]).values()
    files = source.files()
    assert len(files) == 3
    assert max(len(file.id) for file in files) < 200
