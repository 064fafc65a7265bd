"""The files of an organ in an archive as downloaded: .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz, read in place.

    sources = open_archive(Path("LC25000.zip"), ["lung_image_sets"])

Zip and plain tar are read in any order, by many processes; a compressed tar from front to back. Every member is an
input, as it would be had the archive been unpacked; one whose path leads out of the archive, or that another one of
the same name would overwrite, is listed under a name of its own and never read.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from data_pipeline import archive_readers
from data_pipeline.archive_readers import Member
from data_pipeline.cli import invalid_flag
from data_pipeline.sources import (
    ARCHIVE_SUFFIXES,
    FileContents,
    SourceFile,
    Tree,
    input_changed,
    is_system_name,
    locate,
    organ_name,
    whole_slide_reason,
    wrapping,
)

UNSAFE = "unsafe path in the archive"
# No file system takes longer ones; an archive of thousands of levels only means to fill the memory.
MAX_NAME, MAX_FOLDERS, MAX_LINKS = 4096, 100, 40
OVERWRITTEN = "another file of the same name follows in the archive"
LEADS_OUT = "a link that leads out of the archive"
BROKEN = "broken link: the archive holds no file of the name it leads to"

Kind = Literal["zip", "tar", "stream"]


@dataclass(frozen=True)
class Listing:
    """An archive's files by clean path, its folders, and files whose path is unsafe by a name made up for them."""

    members: dict[str, Member]
    folders: frozenset[str]
    unsafe: dict[str, Member]


@dataclass(frozen=True)
class ArchiveSource:
    """Every file below `folder`, a path in the archive that is empty for all of it."""

    path: Path
    folder: str
    kind: Kind
    version: str

    @property
    def description(self) -> str:
        return f"{self.path.name}: {self.folder}" if self.folder else self.path.name

    @property
    def sequential(self) -> bool:
        return self.kind == "stream"

    def files(self) -> list[SourceFile]:
        members = self._members()
        order = sorted(members)
        if self.sequential:
            order.sort(key=lambda id: members[id].position)
        return [SourceFile.of(id) for id in order]

    def diagnoses(self) -> list[str]:
        folders = _listing(self.path, self.kind, self.version).folders
        return sub_folders(folders, f"{self.folder}/" if self.folder else "")

    def stamp(self, file: SourceFile) -> str:
        member = self._members()[file.id]
        return f"{self.version} {member.size_bytes} {member.stamp}"

    def read(self, files: Sequence[SourceFile]) -> Iterator[FileContents]:
        """Raises `InputChangedError` if the archive has changed, besides what the protocol says."""
        if not self.path.exists() or _version(self.path) != self.version:
            raise input_changed(str(self.path), "was changed")
        members = self._members()
        reasons = [members[file.id].reason or whole_slide_reason(file.id, members.__contains__) for file in files]
        wanted = [members[file.id] for file, reason in zip(files, reasons, strict=True) if not reason]
        read = {
            "zip": archive_readers.read_zip,
            "tar": archive_readers.read_tar,
            "stream": archive_readers.read_stream,
        }[self.kind]
        contents = read(self.path, wanted)
        for reason in reasons:
            yield FileContents(None, reason) if reason else next(contents)

    def _members(self) -> dict[str, Member]:
        return _below(self.path, self.kind, self.version, self.folder)


def open_archive(path: Path, organs: Sequence[str]) -> dict[str, ArchiveSource]:
    """The source of each organ in the archive. Raises `RequestError`."""
    try:
        kind, version = _kind(path), _version(path)
    except OSError as error:
        fix = f"let this user read it ({error.strerror})"
        raise invalid_flag("images", expected="a readable archive", received=str(path), fix=fix) from error
    listing = _listing(path, kind, version)
    root = wrapping(listing.members)
    named: dict[str, list[str]] = {}
    for folder in sorted(listing.folders):
        if not any(map(is_system_name, folder.split("/"))):
            named.setdefault(folder.rpartition("/")[2], []).append(folder)
    tree = Tree(
        shown=f"{path}: {root}" if root else str(path),
        name=organ_name(stem(path.name)),
        root=root,
        folders=sub_folders(listing.folders, root),
        named=named,
        paths=lambda: [name.removeprefix(root) for name in listing.members if name.startswith(root)],
    )
    return {organ: ArchiveSource(path, folder, kind, version) for organ, folder in locate(tree, organs).items()}


def settle(members: Iterable[Member]) -> Listing:
    """Clean, unique paths for an archive's members, with links led to what they stand for. Pure."""
    files: dict[str, Member] = {}
    unsafe: dict[str, Member] = {}
    folders: set[str] = set()
    for number, member in enumerate(members):
        path = clean_path(member.name)
        if member.folder:
            folders.update(_ancestors(f"{path}/") if path else ())
            continue
        if not path:
            unsafe[_made_up(number, member.name)] = replace(member, reason=UNSAFE, target=None)
            continue
        if path in files:
            # As if unpacked: the last one stays.
            files[_unique(f"{path} (member {number})", files)] = replace(
                files.pop(path), reason=OVERWRITTEN, target=None
            )
        files[path] = member
        folders.update(_ancestors(path))
    return Listing({path: _resolve(files, path) for path in files}, frozenset(folders), unsafe)


def clean_path(name: str) -> str | None:
    """A member's name as a path below the archive's root; None if it leads out of it or can't be a path."""
    if len(name) > MAX_NAME or name.count("/") > MAX_FOLDERS:
        return None
    if "\0" in name or name.startswith("/") or ".." in re.split(r"[/\\]", name):
        return None
    path = "/".join(part for part in name.split("/") if part not in ("", "."))
    return None if re.match(r"\\|[A-Za-z]:", path) else path or None


def sub_folders(folders: Iterable[str], root: str) -> list[str]:
    """The names of the folders directly below `root`."""
    below = (folder.removeprefix(root) for folder in folders if folder.startswith(root))
    return sorted(name for name in below if "/" not in name and not is_system_name(name))


def stem(name: str) -> str:
    """An archive's name without its suffix."""
    endings = sorted((suffix for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix)), key=len)
    return name[: -len(endings[-1])] if endings else name


def _resolve(files: dict[str, Member], path: str) -> Member:
    """The member at `path`, or what the links that begin there lead to."""
    member, seen = files[path], {path}
    while member.target is not None and not member.reason:
        target = clean_path(member.target)
        if member.target and target is None:
            return replace(member, reason=LEADS_OUT)
        if target is None or target not in files or target in seen or len(seen) > MAX_LINKS:
            return replace(member, reason=BROKEN)
        seen.add(target)
        member = files[target]
    return member


def _ancestors(path: str) -> Iterator[str]:
    """Every folder that a path lies in."""
    end = path.rfind("/")
    while end > 0:
        yield path[:end]
        end = path.rfind("/", 0, end)


def _made_up(number: int, name: str) -> str:
    last = re.sub(r"[^\w.-]", "_", re.split(r"[/\\]", name)[-1])
    return f"unsafe path {number:06d} {last[-80:]}"


def _unique(name: str, taken: dict[str, Member]) -> str:
    while name in taken:
        name += "~"
    return name


@lru_cache(maxsize=2)
def _listing(path: Path, kind: Kind, version: str) -> Listing:
    """Read once for all organs of an archive, and once by each worker."""
    return settle(archive_readers.list_zip(path) if kind == "zip" else archive_readers.list_tar(path))


@lru_cache(maxsize=4)
def _below(path: Path, kind: Kind, version: str, folder: str) -> dict[str, Member]:
    listing = _listing(path, kind, version)
    prefix = f"{folder}/" if folder else ""
    below = {name.removeprefix(prefix): member for name, member in listing.members.items() if name.startswith(prefix)}
    # Where an unsafe path belongs can't be known, so every organ accounts for it.
    for name, member in listing.unsafe.items():
        below[_unique(name, below)] = member
    return below


def _kind(path: Path) -> Kind:
    if path.name.lower().endswith(".zip"):
        return "zip"
    return "stream" if archive_readers.decompressor(path) else "tar"


def _version(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
