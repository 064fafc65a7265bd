"""Where an organ's files are: a folder, an archive as downloaded, a bucket, or a tensorflow-datasets set.

    for organ, source in open_sources("LC25000.zip", ["all"]).items():
        files = source.files()
        for file, contents in zip(files, source.read(files)): ...

Every file is an input, whatever its name: a later stage says what became of it. Which folder is which organ is decided
by `locate`, from paths alone, in the same way for a folder and for an archive.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from data_pipeline.cli import FaultError, RequestError, invalid_flag
from data_pipeline.storage import in_bucket, local_path

TFDS_PREFIX = "tfds:"
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
SYSTEM_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx", "icon\r", "@eadir", "lost+found"})
WHOLE_SLIDE_SUFFIXES = frozenset({".svs", ".ndpi", ".bif", ".mrxs", ".scn", ".vms", ".vmu", ".svslide"})
# By these names a folder of images is told from a folder of other things. A file of any name is an input.
IMAGE_SUFFIXES = WHOLE_SLIDE_SUFFIXES | {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib"),
    *(".gif", ".webp", ".jp2", ".j2k", ".pbm", ".pgm", ".pnm", ".ppm"),
}
MAX_FILE_BYTES = 1 << 30
UNREADABLE = "can't be read"
NOT_REGULAR = "not a regular file"
SHOWN_NAMES = 20


class InputChangedError(FaultError):
    """An image isn't the file any more that was listed or inspected."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """An input: `id` is its path below the organ's folder with `/` between parts, `diagnosis` the first of them.

    `diagnosis` is empty for a file that lies directly in the organ's folder.
    """

    id: str
    diagnosis: str

    @classmethod
    def of(cls, id: str) -> "SourceFile":
        """The file of this id."""
        diagnosis, slash, _ = id.partition("/")
        return cls(id, diagnosis if slash else "")


@dataclass(frozen=True, slots=True)
class FileContents:
    """A file's bytes, or None and the reason why it isn't read, in words a person understands."""

    data: bytes | None
    reason: str


class Source(Protocol):
    """One organ's files, wherever they are. Small when pickled: a worker opens what it needs when it first reads."""

    @property
    def description(self) -> str:
        """For messages, such as `images/cervix` or `LC25000.zip: lung_image_sets`."""

    @property
    def sequential(self) -> bool:
        """Whether it is only readable from front to back: in one process, in the order of `files()`."""

    def files(self) -> list[SourceFile]:
        """Every file, whatever its name: ordered by id, or by place in the stream if `sequential`."""

    def diagnoses(self) -> list[str]:
        """The organ's sub-folders, empty ones included, those of operating systems and archivers not."""

    def stamp(self, file: SourceFile) -> str:
        """Changes whenever the file's contents may have changed. Reads none."""

    def read(self, files: Sequence[SourceFile]) -> Iterator[FileContents]:
        """The contents of each, in the order given, which for a sequential source is that of `files()`.

        Never fails because of one file. Raises `InputChangedError` if a file isn't there any more.
        """


def open_sources(images: str, organs: Sequence[str]) -> dict[str, Source]:
    """The source of each organ. `organs` is the flag `--organ`: names, or `["all"]`. Raises `RequestError`."""
    if not any(organs):
        raise invalid_flag("organ", expected="the name of an organ", received="", fix="name one, or `all`")
    # Imported here because each of them is written in the words of this module.
    if images.startswith(TFDS_PREFIX):
        from data_pipeline.tfds_source import open_tfds

        return {**open_tfds(images.removeprefix(TFDS_PREFIX), organs)}
    if in_bucket(images):
        from data_pipeline.bucket_source import open_bucket

        return {**open_bucket(images, organs)}
    path = local_path("images", images)
    if path.is_dir():
        from data_pipeline.folder_source import open_folder

        return {**open_folder(path, organs)}
    if path.is_file() and path.name.lower().endswith(ARCHIVE_SUFFIXES):
        from data_pipeline.archive_source import open_archive

        return {**open_archive(path, organs)}
    expected = (
        f"a folder that holds one folder per organ, one organ's folder, an archive ({', '.join(ARCHIVE_SUFFIXES)}), "
    )
    fix = "check the path"
    if path.is_file():
        fix = "unpack the file and name the folder"
    raise invalid_flag("images", expected=expected + "tfds:NAME or gs://BUCKET/FOLDER", received=str(path), fix=fix)


@dataclass(frozen=True)
class Tree:
    """What `locate` needs to know of a folder or an archive.

    `root` is the folder below which organs lie, as a path that is empty or ends with `/`; `folders` are the names of
    its sub-folders. `named` gives for a name the paths of folders so called, wherever they are. `paths` gives the
    files' paths below `root`; a path that ends with `/` is a folder nobody looked into.
    """

    shown: str
    name: str
    root: str
    folders: Sequence[str]
    named: Mapping[str, Sequence[str]]
    paths: Callable[[], Sequence[str]]


def locate(tree: Tree, organs: Sequence[str]) -> dict[str, str]:
    """The path of each organ's folder. Raises `RequestError`.

    * `--organ=NAME`: the sub-folder of that name; else the only folder of that name at any depth (archives alone);
      else the images themselves if they are one organ's (`is_one_organ`) or are called NAME.
    * `--organ=all`: the images themselves if they are one organ's; else every sub-folder.
    """
    if list(organs) == ["all"]:
        return _locate_all(tree)
    found: dict[str, str] = {}
    for organ in organs:
        paths = [tree.root + organ] if organ in tree.folders else tree.named.get(organ, ())
        if len(paths) == 1:
            found[organ] = paths[0]
        elif paths:
            fix = f"unpack {tree.shown} and name the folder that holds {organ}"
            raise invalid_flag(
                "organ", expected=f"the name of one folder, not {shortened(paths)}", received=organ, fix=fix
            )
        elif len(organs) == 1 and tree.folders and (organ == tree.name or is_one_organ(tree.paths())):
            found[organ] = tree.root.rstrip("/")
        else:
            raise _not_there(tree, organ)
    return found


def is_one_organ(paths: Iterable[str]) -> bool | None:
    """Whether a folder that holds these paths is one organ's, or a folder of organs. None: one can't tell.

    Its sub-folders vote: one with most of its images directly in it is taken for a diagnosis, any other with images
    for an organ. Most votes decide. Loose files, system files and folders without images have none.
    """
    direct: Counter[str] = Counter()
    deeper: Counter[str] = Counter()
    for path in _telling(paths):
        top, *inner = path.split("/")
        if inner:
            (deeper if len(inner) > 1 else direct)[top] += 1
    voters = direct.keys() | deeper.keys()
    diagnoses = sum(direct[top] > deeper[top] for top in voters)
    organs = len(voters) - diagnoses
    return None if diagnoses == organs > 0 else diagnoses > organs


def wrapping(paths: Iterable[str]) -> str:
    """The folders that wrap everything, such as `repo-main/data/`: empty, or with `/` at the end.

    A folder wraps if it alone holds images, and most of them not directly: so a single diagnosis wraps nothing.
    """
    root, below = "", _telling(paths)
    while True:
        tops = {path.partition("/")[0] for path in below if "/" in path}
        if len(tops) != 1 or is_one_organ(below):
            return root
        top = tops.pop() + "/"
        root, below = root + top, [path.removeprefix(top) for path in below if path.startswith(top)]


def organ_name(name: str) -> str:
    """A file's or folder's name as the name of an organ."""
    return re.sub(r"[^\w .-]", "_", name).lstrip(" .-") or "images"


def is_system_name(name: str) -> bool:
    """Files and folders that operating systems and archivers leave behind."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def whole_slide_reason(id: str, exists: Callable[[str], bool]) -> str:
    """Why the file isn't read if it is (a part of) a whole-slide file; `exists` says which ids there are."""
    stem, dot, suffix = id.rpartition(".")
    suffix = dot + suffix.lower()
    how = "cut it into tiles first, for example with OpenSlide or QuPath"
    if suffix in WHOLE_SLIDE_SUFFIXES and stem.rpartition("/")[2]:
        return f"a whole-slide file: {how}"
    # MIRAX keeps the pixels of NAME.mrxs in NAME/Slidedat.ini and NAME/Data0000.dat, Data0001.dat, …
    folder = stem.rpartition("/")[0]
    if folder and suffix in (".dat", ".ini") and any(exists(f"{folder}{end}") for end in (".mrxs", ".MRXS", ".Mrxs")):
        return f"part of a whole-slide file: {how}"
    return ""


def too_large(size_bytes: int) -> str:
    """Why a file of more than `MAX_FILE_BYTES` isn't read."""
    return f"{size_bytes / 2**30:.1f} GiB: too large for one image, cut it into tiles"


def input_changed(name: str, what: str) -> InputChangedError:
    """The error for a file that isn't any more what it was."""
    return InputChangedError(
        f"{name} {what} while it was being converted. To fix it: let the images rest, then run the same command again."
    )


def shortened(names: Sequence[str]) -> str:
    """The first of `names`, for a message."""
    return ", ".join(names[:SHOWN_NAMES]) + (", …" if len(names) > SHOWN_NAMES else "")


def _locate_all(tree: Tree) -> dict[str, str]:
    one = is_one_organ(tree.paths())
    if one is None:
        raise RequestError(
            f"Can't tell whether {tree.shown} is one organ or holds several: some of its folders "
            f"({shortened(tree.folders)}) hold images directly, as many hold folders of images. To fix it: name the "
            f"organ, --organ={organ_name(tree.name)} if it is one, or name folders of {tree.shown}."
        )
    if one:
        return {organ_name(tree.name): tree.root.rstrip("/")}
    if not tree.folders:
        raise RequestError(f"{tree.shown} holds no folders. To fix it: put images at {tree.shown}/ORGAN/DIAGNOSIS/.")
    return {folder: tree.root + folder for folder in tree.folders}


def _not_there(tree: Tree, organ: str) -> RequestError:
    fix = f"name a folder of {tree.shown}, or move the images to {tree.shown}/{organ}/DIAGNOSIS/"
    if tree.folders:
        fix += f"; if {tree.shown} itself is one organ, name it --organ={organ_name(tree.name)}"
    expected = f"one of {shortened(tree.folders) or '(none)'}"
    return invalid_flag("organ", expected=expected, received=organ, fix=fix)


def _telling(paths: Iterable[str]) -> list[str]:
    """The paths that say how folders are laid out: those of images, or of any files where none looks like an image."""
    seen = [path for path in paths if not any(map(is_system_name, path.split("/")))]
    images = [path for path in seen if path.endswith("/") or PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES]
    return images or seen
