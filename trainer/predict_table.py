"""Predictions as text: CSV, JSON lines or a table to read, a row at a time. Pure.

    form = FORMS["csv"](Wanted(classes=("a", "b"), top_k=2, threshold=0.8), width=0)
    form.header(), form.row(prediction, group="slide 7"), form.verdict_header(), form.verdict(verdict)

Columns depend on what was asked for and on the model, never on the images. In CSV and JSON a name stays what it is;
bytes in it that aren't UTF-8 are Python's surrogates (PEP 383). In the table, what can't be printed is escaped.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.predict_groups import Verdict
from trainer.predict_stream import Prediction

DIGITS = 6


@dataclass(frozen=True)
class Wanted:
    """Which columns there are. With a `threshold`, a confidence below it is marked as abstained."""

    classes: tuple[str, ...]
    top_k: int = 1
    threshold: float | None = None
    grouped: bool = False


class Form(Protocol):
    """A way to write rows."""

    def header(self) -> str: ...
    def row(self, row: Prediction, group: str) -> str: ...
    def verdict_header(self) -> str: ...
    def verdict(self, verdict: Verdict) -> str: ...


@dataclass(frozen=True)
class Csv:
    """As spreadsheets read it (RFC 4180, lines ending with a line feed)."""

    wanted: Wanted
    width: int = 0

    def header(self) -> str:
        w = self.wanted
        more = [f"{column}_{place}" for place in range(2, _shown(w) + 1) for column in ("class", "confidence")]
        abstained = ["abstained"] * (w.threshold is not None)
        return _line(
            ["path", *["group"] * w.grouped, "class", "confidence", *abstained, *more, *self._names(), "error"]
        )

    def row(self, row: Prediction, group: str) -> str:
        w = self.wanted
        start = [row.path, *[group] * w.grouped]
        if row.probabilities is None:
            empty = 2 * _shown(w) + (w.threshold is not None) + len(w.classes)
            return _line([*start, *[""] * empty, row.error])
        shares = [_share(share) for share in row.probabilities]
        (first, *more), abstains = _best(row.probabilities, _shown(w)), _abstains(row.probabilities, w.threshold)
        abstained = [] if abstains is None else [str(abstains).lower()]
        rest = [cell for place in more for cell in (w.classes[place], shares[place])]
        return _line([*start, w.classes[first], shares[first], *abstained, *rest, *shares, ""])

    def verdict_header(self) -> str:
        return _line(["group", "images", "failed", "class", "confidence", *self._names()])

    def verdict(self, verdict: Verdict) -> str:
        start = [verdict.group, str(verdict.images), str(verdict.failed)]
        if verdict.probabilities is None:
            return _line([*start, *[""] * (2 + len(self.wanted.classes))])
        shares = [_share(share) for share in verdict.probabilities]
        best = int(verdict.probabilities.argmax())
        return _line([*start, self.wanted.classes[best], shares[best], *shares])

    def _names(self) -> list[str]:
        return [f"probability_{name}" for name in self.wanted.classes]


@dataclass(frozen=True)
class JsonLines:
    """An object in each line; what there is none of is null."""

    wanted: Wanted
    width: int = 0

    def header(self) -> str:
        return ""

    def row(self, row: Prediction, group: str) -> str:
        w = self.wanted
        said: dict[str, Any] = {"path": row.path} | ({"group": group} if w.grouped else {})
        said |= self._answer(row.probabilities)
        if w.threshold is not None:
            said["abstained"] = None if row.probabilities is None else _abstains(row.probabilities, w.threshold)
        if w.top_k > 1:
            best = [] if row.probabilities is None else _best(row.probabilities, _shown(w))
            said["top"] = [{"class": w.classes[i], "confidence": _round(row.probabilities, i)} for i in best]
        return json.dumps(said | {"error": row.error or None}) + "\n"

    def verdict_header(self) -> str:
        return ""

    def verdict(self, verdict: Verdict) -> str:
        said = {"group": verdict.group, "images": verdict.images, "failed": verdict.failed}
        return json.dumps(said | self._answer(verdict.probabilities)) + "\n"

    def _answer(self, probabilities: NDArray[np.float32] | None) -> dict[str, Any]:
        if probabilities is None:
            return {"class": None, "confidence": None, "probabilities": None}
        best, classes = int(probabilities.argmax()), self.wanted.classes
        every = {name: _round(probabilities, place) for place, name in enumerate(classes)}
        return {"class": classes[best], "confidence": _round(probabilities, best), "probabilities": every}


@dataclass(frozen=True)
class Table:
    """For a person; names take `width` columns."""

    wanted: Wanted
    width: int = 0

    def header(self) -> str:
        return ""

    def row(self, row: Prediction, group: str) -> str:
        w = self.wanted
        name = f"{printable(row.path):<{self.width}}  "
        if row.probabilities is None:
            return f"{name}{printable(row.error)}\n"
        best = [f"{row.probabilities[i]:6.1%}  {w.classes[i]}" for i in _best(row.probabilities, _shown(w))]
        notes = (
            "  (abstained)" * bool(_abstains(row.probabilities, w.threshold)) + f"  [{printable(group)}]" * w.grouped
        )
        return f"{name}{'  '.join(best)}{notes}\n"

    def verdict_header(self) -> str:
        return f"{'group':<{self.width}}  images  verdict\n"

    def verdict(self, verdict: Verdict) -> str:
        failed = f"  ({verdict.failed} failed)" if verdict.failed else ""
        answer = "none"
        if verdict.probabilities is not None:
            best = int(verdict.probabilities.argmax())
            answer = f"{verdict.probabilities[best]:6.1%}  {self.wanted.classes[best]}"
        return f"{printable(verdict.group):<{self.width}}  {verdict.images:>6}  {answer}{failed}\n"


FORMS: dict[str, Callable[[Wanted, int], Form]] = {"csv": Csv, "jsonl": JsonLines, "table": Table}


def as_csv(predictions: Sequence[Prediction], classes: Sequence[str]) -> str:
    """All predictions as CSV text."""
    form = Csv(Wanted(tuple(classes)))
    return form.header() + "".join(form.row(row, "") for row in predictions)


def printable(name: str) -> str:
    """`name` on one line of any terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _shown(wanted: Wanted) -> int:
    return min(wanted.top_k, len(wanted.classes))


def _best(probabilities: NDArray[np.float32], count: int) -> list[int]:
    """The most probable first; of equal ones, as `argmax` has it, the one that comes first."""
    return [int(place) for place in np.argsort(-probabilities, kind="stable")[:count]]


def _abstains(probabilities: NDArray[np.float32], threshold: float | None) -> bool | None:
    return None if threshold is None else float(probabilities.max()) < threshold


def _share(share: Any) -> str:
    return f"{share:.{DIGITS}f}"


def _round(probabilities: NDArray[np.float32] | None, place: int) -> float:
    return round(float(probabilities[place]), DIGITS) if probabilities is not None else 0.0
