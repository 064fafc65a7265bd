"""Which images belong to one slide, smear or patient: the unit that must never lie in two splits. Pure.

    grouping = group_images(["carcinoma/149147848-149147864-003.jpg", ...], ["carcinoma", ...], parse_rule("auto"))
    grouping.groups[0]  # → "149147848"

`auto` takes for each diagnosis the first scheme of `naming.py` that fits its names as a whole, so that a class prefix
such as `BA_101381` is never taken for a patient. Images that no rule ties together are groups of their own.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.cli import RequestError, invalid_flag
from data_pipeline.csv_table import read_table
from data_pipeline.naming import SCHEMES, Scheme

NO_RULE = "none"
# The share of a diagnosis's names a scheme must fit to be believed.
SPECIFIC_SHARE, GENERAL_SHARE = 0.5, 0.9
# A general scheme that makes fewer groups of a diagnosis has found something else than slides.
LEAST_GROUPS = 3
EXAMPLES = 4


@dataclass(frozen=True, slots=True)
class Rule:
    """`--group_by` as understood: a kind and, for `regex` and `csv`, what they need."""

    text: str
    kind: str
    pattern: re.Pattern[str] | None = None
    table: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class GroupedImages:
    """The outcome: the group of each image in turn, the rule that gave it, and how many images it did not fit."""

    groups: list[str]
    rule: str
    description: str
    unmatched: int


def parse_rule(text: str) -> Rule:
    """`--group_by` as a rule. Raises `RequestError` if it isn't one."""
    kind, _, rest = text.partition(":")
    if kind in ("auto", "folder", NO_RULE) and not rest:
        return Rule(text, kind)
    if kind == "regex" and rest:
        return Rule(text, kind, pattern=_compile(text, rest))
    if kind == "csv" and rest:
        return Rule(text, kind, table=read_table("group_by", text, Path(rest), column="group"))
    fix = "for example --group_by=auto, or --group_by='regex:^[^/]+/(?P<group>[^_]+)_'"
    raise invalid_flag("group_by", expected="auto, folder, none, regex:PATTERN or csv:FILE", received=text, fix=fix)


def group_images(names: Sequence[str], diagnoses: Sequence[str], rule: Rule) -> GroupedImages:
    """Group images by their `names` (ids). Raises `RequestError` if a rule that was asked for fits none."""
    if rule.kind == "auto":
        found, schemes = _automatic(names, diagnoses)
        if schemes:
            described = "; ".join(scheme.description for scheme in schemes)
            return _grouped(names, found, " + ".join(scheme.name for scheme in schemes), described)
    elif rule.kind != NO_RULE:
        find, description = _asked_for(rule)
        found = [find(name) for name in names]
        if not any(found):
            raise _fits_nothing(rule, next(iter(names), "(there is no image)"))
        return _grouped(names, found, rule.text, description)
    alone = [""] * len(names)
    return _grouped(names, alone, NO_RULE, "no slide or patient is known: each image stands alone")


def examples(named: Sequence[tuple[str, str]]) -> dict[str, str]:
    """A few of the (id, group) pairs, spread over the dataset, for a person to check the rule by."""
    telling = sorted(pair for pair in named if pair[0] != pair[1]) or sorted(named)
    step = max(1, len(telling) // EXAMPLES)
    return dict(telling[::step][:EXAMPLES])


def link(groups: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[str]:
    """`groups` with those of each pair of positions joined; a joined group takes its smallest member's name."""
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        above = parent.get(group, group)
        while above != group:
            parent[group] = parent.get(above, above)
            group, above = above, parent.get(above, above)
        return group

    for left, right in pairs:
        low, high = sorted((root(groups[left]), root(groups[right])))
        parent[high] = low
    return [root(group) if group in parent else group for group in groups]


def _asked_for(rule: Rule) -> tuple[Callable[[str], str], str]:
    if rule.table is not None:
        table = rule.table
        return lambda name: table.get(name, ""), "given by a table"
    if rule.pattern is not None:
        search = rule.pattern.search
        key = "group" if "group" in rule.pattern.groupindex else 1
        return lambda name: (match[key] or "") if (match := search(name)) else "", "given by a regular expression"
    return lambda name: "/".join(name.split("/")[1:-1]), "the folders below the diagnosis"


def _grouped(names: Sequence[str], found: Sequence[str], rule: str, description: str) -> GroupedImages:
    groups = [group or name for name, group in zip(names, found, strict=True)]
    return GroupedImages(groups, rule, description, sum(not group for group in found))


def _automatic(names: Sequence[str], diagnoses: Sequence[str]) -> tuple[list[str], list[Scheme]]:
    """(the group of each name or nothing, the schemes that gave them).

    A scheme that fits some diagnoses as a whole groups those; for the others the next ones are tried. What is left in
    the end goes by the first scheme, as far as it fits.
    """
    found, schemes = [""] * len(names), []
    left: dict[str, list[int]] = defaultdict(list)
    for place, diagnosis in enumerate(diagnoses):
        left[diagnosis].append(place)
    for scheme in SCHEMES:
        fitting = _fitting(scheme, {diagnosis: [names[place] for place in left[diagnosis]] for diagnosis in left})
        schemes += [scheme] * bool(fitting)
        for diagnosis, groups in fitting.items():
            for place, group in zip(left.pop(diagnosis), groups, strict=True):
                found[place] = group
        if not left:
            break
    if schemes:
        for place in (place for places in left.values() for place in places):
            found[place] = schemes[0].find(names[place])
    return found, schemes


def _fitting(scheme: Scheme, names: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The diagnoses, of those of `names`, that a scheme fits as a whole, and the group of each name of theirs.

    None unless the scheme ties images together, and into more than a few piles.
    """
    found = {diagnosis: groups for diagnosis in names if (groups := _groups(scheme, names[diagnosis]))}
    sizes = [(len(set(groups) - {""}), len(groups) - groups.count("")) for groups in found.values()]
    ties = any(piles < images for piles, images in sizes)
    believable = ties and (scheme.specific or sorted(sizes)[len(sizes) // 2][0] >= LEAST_GROUPS)
    return found if believable else {}


def _groups(scheme: Scheme, names: Sequence[str]) -> list[str]:
    """The group of each name, or nothing as soon as it is clear that too few fit."""
    share = SPECIFIC_SHARE if scheme.specific else GENERAL_SHARE
    most_missing = len(names) - math.ceil(share * len(names))
    groups: list[str] = []
    missing = 0
    for name in names:
        groups.append(scheme.find(name))
        missing += not groups[-1]
        if missing > most_missing:
            return []
    return groups


def _fits_nothing(rule: Rule, example: str) -> RequestError:
    expected = {
        "regex": "a pattern that is found in some DIAGNOSIS/FILE",
        "csv": "a table whose column path names images as DIAGNOSIS/FILE",
        "folder": "images in sub-folders of DIAGNOSIS",
    }[rule.kind]
    fix = f"compare it with the name of an image, such as {example!r}"
    return invalid_flag("group_by", expected=expected, received=rule.text, fix=fix)


def _compile(text: str, pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        fix = f"mend the pattern ({error}), it is searched in DIAGNOSIS/FILE"
        raise invalid_flag("group_by", expected="a regular expression", received=text, fix=fix) from None
    if compiled.groups == 0:
        fix = "put the slide's or patient's part in parentheses: (?P<group>…)"
        raise invalid_flag("group_by", expected="a pattern with a group", received=text, fix=fix)
    return compiled
