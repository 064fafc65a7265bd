"""The model beside all that it must beat, one row each, on one scale. Pure arithmetic.

rows = scoreboard(metrics["test"], metrics["baselines"], metrics["shortcuts"])
rows = recalls(metrics["test"], classes)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PROBES = {
    "mean_colour": ("Mean colour alone", "the mean colour of the image, without any shape or texture"),
    "border": ("Border pixels alone", "the pixels along the border of the image, without what it shows"),
}


@dataclass(frozen=True, slots=True)
class Range:
    """A score from 0 to 1 and where it lies with 95 % confidence; `kind` is `model`, `baseline`, `probe` or `alarm`."""

    name: str
    value: float
    interval: tuple[float, float] | None
    kind: str


def scoreboard(
    test: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]], shortcuts: Mapping[str, Any] | None
) -> tuple[Range, ...]:
    """Balanced accuracy on the test split, of the model first and of what answers without looking last."""
    rows = [Range("This network", test["balanced_accuracy"], interval_of(test, "balanced_accuracy"), "model")]
    classical, majority = baselines.get("classical"), baselines["majority"]
    if classical:
        name = f"Classical: {classical['model']}"
        rows.append(
            Range(name, classical["balanced_accuracy"], interval_of(classical, "balanced_accuracy"), "baseline")
        )
    for key, (name, _) in PROBES.items():
        probe = (shortcuts or {}).get(key)
        if probe:
            kind = "alarm" if probe["high"] else "probe"
            rows.append(Range(name, probe["balanced_accuracy"], _pair(probe.get("interval")), kind))
    rows.append(Range(f"Always “{majority['answer']}”", majority["balanced_accuracy"], None, "baseline"))
    return tuple(rows)


def recalls(test: Mapping[str, Any], classes: Sequence[str]) -> tuple[Range, ...]:
    """How many images of each diagnosis were found; those that the split doesn't hold are left out."""
    known = (test.get("intervals") or {}).get("recall") or {}
    rows = [(name, test["per_class"][name]) for name in classes]
    return tuple(Range(name, row["recall"], _pair(known.get(name)), "model") for name, row in rows if row["support"])


def interval_of(scores: Mapping[str, Any], name: str) -> tuple[float, float] | None:
    """The interval of a score, if it was looked for and found."""
    return _pair((scores.get("intervals") or {}).get(name))


def _pair(interval: Sequence[float] | None) -> tuple[float, float] | None:
    return (interval[0], interval[1]) if interval else None
