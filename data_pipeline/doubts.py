"""What a person should hear before trusting a dataset: the warnings of its card. Pure.

    warnings = about_images(table, rows, labels, classes, image_size=256)

Nothing here leaves an image out. A blank crop may be blank on purpose, and a person has to look.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np
from numpy.typing import NDArray

from data_pipeline.grouping import NO_RULE, GroupedImages
from data_pipeline.images import DEEP, SEVERAL_PAGES
from data_pipeline.manifest import SplitCounts
from data_pipeline.table import Table

# A group this large, and at that twice as large as the mean, may be no slide but what the names have in common.
LARGE_GROUP, LARGER_THAN_MEAN = 0.15, 2
# Standard deviation of grey levels of the stored image, seen in small, below which it shows next to nothing. Crops of
# plain background have 1 to 5; of 2,737 real images the faintest cell in a smear has 8, the faintest tissue 18.
BLANK_CONTRAST = 6.0
BLANK = "nearly blank: does the picture show the diagnosis?"
BLANK_DEEP = (
    "of 16 bits and nearly blank. A camera of 12 or 14 bits fills a part of that range only: if it was one, scale all "
    "images of the dataset by the same factor first."
)
SMALL = 0.5
# A property is telling if the share of images that have it differs by this much between one diagnosis and the others.
TELLING, TELLING_LEAST = 0.5, 4
SHOWN = 3


def about_splits(splits: Mapping[str, SplitCounts], unused: Iterable[str]) -> list[str]:
    """Folders that are no class, classes that are missing from a split."""
    found = [f"No usable image of {_printable(name)}: it is no class of this dataset." for name in sorted(unused)]
    for split, counts in splits.items():
        missing = [name for name, number in counts.per_class.items() if number == 0]
        if missing:
            found.append(f"No image of {', '.join(missing)} in {split}: too few groups, or a fraction of 0.")
    return found


def about_given_splits(given: Mapping[str, str] | None, ids: Set[str]) -> list[str]:
    """Rows of a table of splits that name no usable image."""
    lost = sorted(set(given or ()) - ids)
    if not lost:
        return []
    return [f"{len(lost)} rows of --split_csv name no usable image, such as {_printable(lost[0])}."]


def about_groups(
    named: GroupedImages, names: Sequence[str], groups: NDArray[np.int64], labels: NDArray[np.int64]
) -> list[str]:
    """Signs that no rule fits, or that one took something else for a slide.

    `groups` is the number of each record's group among `names`, `labels` its diagnosis.
    """
    found = []
    if named.rule == NO_RULE:
        found.append(
            "No slide or patient is known for these images: tiles of one slide may lie in several splits, and test "
            "results may be too good. Name them with --group_by."
        )
    elif named.unmatched:
        found.append(f"The rule {named.rule} does not fit every image: {named.unmatched} of them stand alone.")
    sizes = np.bincount(groups, minlength=len(names))
    largest = int(sizes.argmax())
    large = max(LARGE_GROUP, LARGER_THAN_MEAN / len(names)) * len(groups)
    if sizes[largest] > large or len(names) == 1 < len(groups):
        share = f"{sizes[largest] / len(groups):.0%}"
        found.append(f"Group {names[largest]} holds {share} of all images: is it really one slide? See --group_by.")
    pairs = np.unique(np.stack([groups, labels]), axis=1)
    shared = int((np.bincount(pairs[0], minlength=len(names)) > 1).sum())
    if shared > len(names) / 2:
        found.append(
            f"{shared} of {len(names)} groups have images of several diagnoses. If numbers start again in each folder, "
            "these are different slides: give their true names with --group_by=csv:FILE."
        )
    return found


def about_near_duplicates(table: Table, pairs: Sequence[tuple[int, int]]) -> list[str]:
    """Images that look alike and carry different diagnoses: one of the two is wrong, or the diagnosis doesn't show."""
    differing = [pair for pair in pairs if table.diagnosis(pair[0]) != table.diagnosis(pair[1])]
    if not differing:
        return []
    left, right = (table.ids[row] for row in differing[0])
    number = "One pair" if len(differing) == 1 else f"{len(differing)} pairs"
    what = f"{number} of images look alike and carry different diagnoses, such as {left} and {right}"
    return [f"{what}: check their labels."]


def about_images(
    table: Table, rows: NDArray[np.int64], labels: NDArray[np.int64], classes: Sequence[str], *, image_size: int
) -> list[str]:
    """Images of which little is left to see, and properties other than the picture that tell the diagnosis."""
    kinds = [table.kinds[number] for number in table.kind[rows].tolist()]
    blank = table.contrast[rows] < BLANK_CONTRAST
    deep = np.asarray([mode.endswith(DEEP) for _, mode in kinds], dtype=bool)
    several = np.asarray([form.endswith(SEVERAL_PAGES) for form, _ in kinds], dtype=bool)
    small = np.minimum(table.width[rows], table.height[rows]) < SMALL * image_size
    remarks = {
        BLANK: blank & ~deep,
        BLANK_DEEP: blank & deep,
        "of several pages or frames: only the first is used.": several,
        f"less than half the stored size of {image_size} pixels: enlarging shows nothing new. See --image_size.": small,
    }
    found = [f"{_images(table, rows[having])} {remark}" for remark, having in remarks.items() if having.any()]
    sizes = zip(table.width[rows].tolist(), table.height[rows].tolist(), strict=True)
    properties = {
        "file format": [form for form, _ in kinds],
        "colour mode": [mode for _, mode in kinds],
        "size in pixels": [f"{width} × {height}" for width, height in sizes],
    }
    for what, values in properties.items():
        found += _telling(what, values, labels, classes)
    return found


def _telling(what: str, values: Sequence[str], labels: NDArray[np.int64], classes: Sequence[str]) -> list[str]:
    """A sentence on values that are common in one diagnosis and rare in the others, if there are any."""
    totals = np.bincount(labels, minlength=len(classes))
    counts: dict[str, Counter[int]] = {}
    for value, label in zip(values, labels.tolist(), strict=True):
        counts.setdefault(value, Counter())[label] += 1
    telling = []
    for value, per_class in counts.items():
        having = np.array([per_class[label] for label in range(len(classes))])
        inside = having / np.maximum(1, totals)
        outside = (having.sum() - having) / np.maximum(1, totals.sum() - totals)
        for label in np.flatnonzero((inside - outside >= TELLING) & (having >= TELLING_LEAST)).tolist():
            shares = f"{value} for {inside[label]:.0%} of {classes[label]}, {outside[label]:.0%} of the others"
            telling.append((outside[label] - inside[label], shares))
    if not telling:
        return []
    shown = [shares for _, shares in sorted(telling)[:SHOWN]] + ["…"] * (len(telling) > SHOWN)
    away = f"The {what} gives a diagnosis away: {'; '.join(shown)}."
    return [f"{away} A model may learn that instead of the disease: bring all images into one form first."]


def _images(table: Table, rows: NDArray[np.int64]) -> str:
    """How a sentence about some images begins."""
    example = table.ids[int(rows[0])]
    return f"One image ({example}) is" if len(rows) == 1 else f"{len(rows)} images (such as {example}) are"


def _printable(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()
