"""How slides, smears and patients are written into file names: the schemes `--group_by=auto` tries, in their order.

    for scheme in SCHEMES:
        slide = scheme.find("carcinoma/149147848-149147864-003.jpg")  # "" where it doesn't fit

A scheme is `specific` if it can hardly fit by accident. The others fit nearly any name with numbers in it, and are
believed only if they make more than a few groups.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scheme:
    """A naming scheme: `find` gives the slide's or patient's name in an id (`DIAGNOSIS/…/FILE`), or nothing."""

    name: str
    description: str
    find: Callable[[str], str]
    specific: bool = True


def pattern(regex: str) -> Callable[[str], str]:
    """The named group `group` of the first match, in either case of letters."""
    compiled = re.compile(regex, re.IGNORECASE)

    def find(name: str) -> str:
        match = compiled.search(name)
        return match["group"] if match else ""

    return find


# What follows a slide's name in that of a tile: counters, coordinates, magnifications, sides, kinds of augmentation.
_TAIL = (
    r"(?:\d+|x\d+|y\d+|\d+x|[lr]|left|right|rot(?:ated?)?\d*|[hv]?flip(?:ped)?|aug\w*"
    r"|(?:idx|class|tile|patch|crop|img|image|roi|field|fov|cell|copy|frame|page|level)[ _-]?\d*)"
)
_SEPARATOR = r"[ _.-]+"
# Copies that an augmentation made begin with its name; what follows is the original's.
_NO_COPY = r"(?!(?:aug|rot|flip|copy|crop)[a-z]*[ _-])"
_EXPORT = r"(?:_(?:jpe?g|png|bmp|tiff?))?(?:\.rf\.[0-9a-f]+)?"  # as Roboflow renames files
# Sub-folders that say how an image was taken or used, not of whom.
_NO_SLIDE = re.compile(
    r"(?:train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?|\d+x|images?|masks?|tiles?|patch(?:es)?|raw|orig(?:inal)?|cropped"
    r"|aug\w*|(?:fold|batch)[ _-]?\d*)",
    re.IGNORECASE,
)


def _numbered(tail: str) -> Callable[[str], str]:
    return pattern(rf"(?:^|/){_NO_COPY}(?P<group>[^/]*?\d[^/]*?){tail}{_EXPORT}\.[^./]+$")


def _word(words: str) -> Callable[[str], str]:
    """One of `words` with its number, in what follows the diagnosis."""
    return pattern(rf"^[^/]+/.*?(?<![a-z])(?P<group>(?:{words})[ _-]?[a-z]?\d+)(?=[ _./-])")


def _sub_folder(name: str) -> str:
    return "/".join(part for part in name.split("/")[1:-1] if not _NO_SLIDE.fullmatch(part))


SCHEMES = (
    Scheme(
        "tcga",
        "TCGA barcode: the patient is project-site-participant",
        pattern(r"(?P<group>TCGA-[0-9A-Z]{2}-[0-9A-Z]{4})(?![0-9A-Z])"),
    ),
    Scheme(
        "breakhis",
        "BreakHis name: the patient is the slide number between year and magnification",
        pattern(r"(?:^|/)[A-Z]+_[BM]_[A-Z]+-(?P<group>\d+-[0-9A-Z]+)-\d+-\d+\."),
    ),
    Scheme(
        "kather",
        "Kather name: the slide is CRC-Prim-HE-number",
        pattern(r"_(?P<group>CRC-Prim-HE-\d+)_\d+\.tif_Row_"),
    ),
    Scheme(
        "malaria",
        "NIH malaria name: the patient is C…P… before the smear",
        pattern(r"(?:^|/)(?P<group>C\d+P\d+)thin"),
    ),
    Scheme(
        "c-nmc",
        "C-NMC name: the patient is the number after UID",
        pattern(r"(?:^|/)(?P<group>UID_H?\d+)_\d+_\d+_"),
    ),
    Scheme(
        "slide-file",
        "tile of a whole-slide file: the slide's file name comes first",
        pattern(r"(?:^|/)(?P<group>[^/]+?)\.(?:svs|ndpi|mrxs|bif|scn|vms)(?![a-z0-9])[^/]+$"),
    ),
    Scheme(
        "smear",
        "Herlev name, smear-cell-number: the smear is the first number",
        pattern(r"(?<!\d)(?P<group>\d{6,})-\d{6,}-\d+\.[^./]+$"),
    ),
    Scheme("patient", "a word for patient stands before a number", _word("patient|subject|donor|case")),
    Scheme("slide", "a word for slide stands before a number", _word("slide|smear|wsi")),
    Scheme("folder", "a folder for each slide or patient below the diagnosis", _sub_folder, specific=False),
    Scheme(
        "numbered",
        "name ending in numbers: what stands before them is the slide or patient",
        _numbered(rf"(?:{_SEPARATOR}\(?{_TAIL}\)?)+"),
        specific=False,
    ),
    Scheme(
        "counted",
        "name ending in a number: all that stands before it is the slide or patient",
        _numbered(rf"{_SEPARATOR}\(?\d+\)?"),
        specific=False,
    ),
    Scheme(
        "exported",
        "Roboflow name: copies of one image have its name before .rf.",
        pattern(r"(?:^|/)(?P<group>[^/]+?)_(?:jpe?g|png|bmp|tiff?)\.rf\.[0-9a-f]+\."),
    ),
)
