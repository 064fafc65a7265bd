"""Splits that a person gives with `--split_csv`, and whether they leak. Pure.

    given = parse_split_table("splits.csv")           # id → split
    splits = splits_of_groups(ids, groups, given)     # group → split, or an error that names the leak

Given splits are audited like our own: a slide, a patient or a picture that lies in two of them is refused, not mended,
since only the person who made them can say which half is wrong.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_pipeline.cli import RequestError, invalid_flag
from data_pipeline.csv_table import read_table
from data_pipeline.manifest import SPLITS

NOT_NAMED = "not named in the table of --split_csv"
_WORDS = {"val": "validation", "valid": "validation", "training": "train", "testing": "test"}
LEAKS_SHOWN = 5


def parse_split_table(value: str) -> dict[str, str] | None:
    """Path → split from the file that `--split_csv` names; None without one. Raises `RequestError`."""
    if not value:
        return None
    table = read_table("split_csv", value, Path(value), column="split")
    splits = {}
    for path, word in table.items():
        split = _WORDS.get(word.strip().lower(), word.strip().lower())
        if split not in SPLITS:
            fix = f"{path!r} is in split {word!r}: write train, validation or test"
            raise invalid_flag("split_csv", expected="train, validation or test", received=word, fix=fix)
        splits[path] = split
    if not {"train", "test"} <= set(splits.values()):
        fix = "name at least the images of train and of test"
        raise invalid_flag("split_csv", expected="images of train and test", received=value, fix=fix)
    return splits


def splits_of_groups(ids: Sequence[str], groups: Sequence[str], given: Mapping[str, str]) -> dict[str, str]:
    """The split of each group. Raises `RequestError` if one lies in several.

    `ids` and `groups` tell of all usable images, those that are copies of another one included.
    """
    members: dict[str, dict[str, str]] = defaultdict(dict)  # group → split → an id of it
    for name, group in zip(ids, groups, strict=True):
        members[group].setdefault(given[name], name)
    leaks = [found for _, found in sorted(members.items()) if len(found) > 1]
    if leaks:
        raise RequestError(
            f"The splits of --split_csv leak: {len(leaks)} groups of images (of one slide or patient, copies, or near "
            f"duplicates) lie in two splits, for example {'; '.join(map(_shown, leaks[:LEAKS_SHOWN]))}. To fix it: "
            "give the images of a group one split, or leave some out of the table. If the grouping is wrong, see "
            "--group_by and --near_duplicates."
        )
    return {group: next(iter(found)) for group, found in members.items()}


def nothing_given(given: Mapping[str, str], ids: Sequence[str]) -> RequestError:
    """The error for a table that leaves train or test without an image."""
    shown = next(iter(sorted(set(given) - set(ids))), next(iter(given), ""))
    fix = f"write paths as the images are named, DIAGNOSIS/FILE, such as {ids[0]!r}; the table has {shown!r}"
    return invalid_flag("split_csv", expected="usable images of train and of test", received="none of one", fix=fix)


def _shown(found: Mapping[str, str]) -> str:
    return " and ".join(f"{name} ({split})" for split, name in sorted(found.items()))
