"""Which group is tested in which fold, and which of the others validate there: whole groups, stratified. Pure.

    splits = split_into_folds(counts, names, folds=5, validation_fraction=0.15, seed=0)    # [folds, groups]
    splits[0] == SPLITS.index("test")                                                        # who is tested in fold 1

Each group is tested in exactly one fold. In each fold, part of the other groups is set aside for validation, and each
fold draws that part anew, so that no few groups decide for all folds when training stops.

Beside the diagnoses the number of all images counts as one more thing to be cut evenly: a fold gets groups even where
every diagnosis has too few to be in each fold.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_pipeline.cli import RequestError, invalid_flag
from data_pipeline.manifest import SPLITS
from data_pipeline.splits import Fractions, cut_into_parts, split_groups


def split_into_folds(
    counts: NDArray[np.int64], names: Sequence[str], *, folds: int, validation_fraction: float, seed: int
) -> NDArray[np.int64]:
    """The split of each group in each fold, as an index into `SPLITS`: `[folds, groups]`.

    `counts` is `[groups, classes]`: how many images of each class a group has. `names` are unique. Depends on the names
    and counts alone, not on their order. Raises `RequestError` if there are too few groups.
    """
    if len(names) < folds:
        fix = f"give --folds={len(names)} or less" if len(names) > 1 else "convert images of more slides or patients"
        expected = f"at most the number of groups to be cut, {len(names)}"
        raise invalid_flag("folds", expected=expected, received=folds, fix=fix)
    with_total = np.concatenate([counts, counts.sum(axis=1, keepdims=True)], axis=1)
    tested_in = cut_into_parts(with_total, names, parts=folds, seed=seed)
    fractions = Fractions(test=0, validation=validation_fraction)
    assigned = [
        split_groups(
            with_total,
            [f"fold {number} {name}" for name in names],
            fractions=fractions,
            seed=seed,
            test=tested_in == number,
        )
        for number in range(folds)
    ]
    splits = np.stack(assigned)
    _refuse_empty(splits, counts)
    return splits


def _refuse_empty(splits: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
    """Raises `RequestError` if a fold has no image of some split: nothing could be trained on it."""
    for number, assignment in enumerate(splits):
        held = [int(counts[assignment == split].sum()) for split in range(len(SPLITS))]
        if not all(held):
            lacks = " and ".join(name for name, images in zip(SPLITS, held, strict=True) if not images)
            raise RequestError(
                f"Fold {number + 1} of {len(splits)} would have no {lacks} images: {len(counts)} groups are too few. "
                "To fix it: give fewer --folds or a larger --validation_fraction, or convert images of more groups."
            )
