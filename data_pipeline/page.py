"""The page that the dataset card and the training report share: frame, style, number formats, escaping.

    text = page.render("trainer", "report.html", {"title": "cervix", ...})

A page is one file: it loads nothing, runs nothing (its Content-Security-Policy says so to the browser), follows the
reader's light or dark setting and prints. Everything that comes from outside is escaped. Equal input gives equal text.

`data_pipeline/templates/` holds `base.html` (the frame), `page.css` (all style) and `dataset.html` (the sections on a
dataset, which both pages show). A package that calls `render` adds its own templates to these.
"""

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from data_pipeline.manifest import SPLITS, Manifest, QuarantineRow

# Grouping.rule of a dataset in which nothing is known about slides, smears or patients.
NO_GROUPS = "none"

_IMAGE_TYPES = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """How many images of one diagnosis lie in each of `SPLITS`, and in all."""

    name: str
    splits: tuple[int, ...]
    total: int


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What of the input wasn't written: how many for each (outcome, reason), commonest first, and some `rows`."""

    total: int
    reasons: tuple[tuple[str, str, int], ...]
    rows: tuple[QuarantineRow, ...]


def class_counts(manifest: Manifest) -> list[ClassCounts]:
    """The images of `manifest`, one row a diagnosis; a split that doesn't exist holds none."""
    splits = [manifest.splits[split].per_class if split in manifest.splits else {} for split in SPLITS]
    rows = [(name, tuple(split.get(name, 0) for split in splits)) for name in manifest.classes]
    return [ClassCounts(name, counts, sum(counts)) for name, counts in rows]


def left_out(rows: Sequence[QuarantineRow], *, limit: int) -> LeftOut:
    """Sum up the rows of `quarantine.csv` and keep the first `limit` of them, quarantined ones before duplicates."""
    counted = Counter((row.outcome, row.reason) for row in rows)
    reasons = sorted(((*key, count) for key, count in counted.items()), key=lambda reason: (-reason[2], reason[:2]))
    first = sorted(rows, key=lambda row: row.outcome != "quarantined")[:limit]
    return LeftOut(total=len(rows), reasons=tuple(reasons), rows=tuple(first))


def render(package: str, template: str, context: Mapping[str, Any]) -> str:
    """`template` of `package`, filled in; always encodable as UTF-8, whatever bytes a file name was made of."""
    text = _environment(package).get_template(template).render(context)
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")


def data_uri(image: bytes) -> str:
    """`image`, a PNG or JPEG file, as an address that needs no network. Raises `ValueError` for anything else."""
    for magic, media_type in _IMAGE_TYPES.items():
        if image.startswith(magic):
            return f"data:{media_type};base64,{base64.b64encode(image).decode()}"
    raise ValueError(f"Expected the bytes of a PNG or JPEG file. Received {image[:8]!r}….")


@cache
def _environment(package: str) -> Environment:
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in dict.fromkeys((package, "data_pipeline"))]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"SPLITS": SPLITS, "NO_GROUPS": NO_GROUPS, "class_counts": class_counts}
    environment.filters |= {
        "count": lambda number: f"{number:,}",
        "data_uri": data_uri,
        "duration": _duration,
        "fixed": lambda number, digits: f"{number:.{digits}f}",
        "of": _of,
        "percent": lambda rate, digits=1: f"{100 * rate:.{digits}f}%",
        "sentence": lambda text: text[:1].upper() + text[1:].rstrip(".") + ".",
        "setting": _setting,
    }
    return environment


def _of(number: int, noun: str, plural: str = "") -> str:
    """A number and what it counts: `1 image`, `1,204 images`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _setting(value: object) -> str:
    if value == "":
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
