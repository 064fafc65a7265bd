"""Which images belong to one slide, smear or patient: the unit that must never lie in two splits. Pure.

    grouping = group_images([("carcinoma/149147848-149147864-003.jpg", "carcinoma"), ...], parse_rule("auto"))
    grouping.groups["carcinoma/149147848-149147864-003.jpg"]  # → "149147848"

`auto` takes the first scheme of `naming.py` that fits the names of at least one diagnosis as a whole, so that a class
prefix such as `BA_101381` is never taken for a patient. Images that no rule ties together are groups of their own.
"""

import csv
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.cli import RequestError, invalid_flag
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

    @property
    def table_sha256(self) -> str:
        """Changes with the contents of the table; empty without one."""
        if self.table is None:
            return ""
        return hashlib.sha256(json.dumps(sorted(self.table.items())).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class GroupedImages:
    """The outcome: id → group, the rule that gave it, and how many ids it did not fit."""

    groups: dict[str, str]
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
        return Rule(text, kind, table=_read_table(text, Path(rest)))
    fix = "for example --group_by=auto, or --group_by='regex:^[^/]+/(?P<group>[^_]+)_'"
    raise invalid_flag("group_by", expected="auto, folder, none, regex:PATTERN or csv:FILE", received=text, fix=fix)


def group_images(images: Iterable[tuple[str, str]], rule: Rule) -> GroupedImages:
    """Group `images`, given as (id, diagnosis) pairs. Raises `RequestError` if a rule that was asked for fits none."""
    diagnoses = dict(images)
    if rule.kind == "auto":
        for scheme in SCHEMES:
            found = {name: scheme.find(name) for name in diagnoses}
            if _is_believable(found, diagnoses, scheme):
                return _grouped(found, scheme.name, scheme.description)
    elif rule.kind != NO_RULE:
        find, description = _asked_for(rule)
        found = {name: find(name) for name in diagnoses}
        if not any(found.values()):
            raise _fits_nothing(rule, next(iter(diagnoses), "(there is no image)"))
        return _grouped(found, rule.text, description)
    return _grouped(dict.fromkeys(diagnoses, ""), NO_RULE, "no slide or patient is known: each image stands alone")


def examples(groups: Mapping[str, str]) -> dict[str, str]:
    """A few ids with their group, spread over the dataset, for a person to check the rule by."""
    ids = [name for name in sorted(groups) if groups[name] != name] or sorted(groups)
    step = max(1, len(ids) // EXAMPLES)
    return {name: groups[name] for name in ids[::step][:EXAMPLES]}


def link(groups: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """`groups` with the groups of each pair of ids joined; a joined group takes its smallest member's name."""
    parent = {group: group for group in groups.values()}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    for left, right in pairs:
        low, high = sorted((root(groups[left]), root(groups[right])))
        parent[high] = low
    return {name: root(group) for name, group in groups.items()}


def _asked_for(rule: Rule) -> tuple[Callable[[str], str], str]:
    if rule.table is not None:
        table = rule.table
        return lambda name: table.get(name, ""), "given by a table"
    if rule.pattern is not None:
        search = rule.pattern.search
        key = "group" if "group" in rule.pattern.groupindex else 1
        return lambda name: (match[key] or "") if (match := search(name)) else "", "given by a regular expression"
    return lambda name: "/".join(name.split("/")[1:-1]), "the folders below the diagnosis"


def _grouped(found: dict[str, str], rule: str, description: str) -> GroupedImages:
    groups = {name: group or name for name, group in found.items()}
    return GroupedImages(groups, rule, description, sum(not group for group in found.values()))


def _is_believable(found: Mapping[str, str], diagnoses: Mapping[str, str], scheme: Scheme) -> bool:
    """Does a scheme fit a diagnosis as a whole, tie images together, and into more than a few piles?"""
    by_diagnosis: dict[str, list[str]] = defaultdict(list)
    for name, group in found.items():
        by_diagnosis[diagnoses[name]].append(group)
    share = SPECIFIC_SHARE if scheme.specific else GENERAL_SHARE
    fitting = [
        [group for group in groups if group]
        for groups in by_diagnosis.values()
        if sum(map(bool, groups)) >= share * len(groups)
    ]
    ties = any(len(set(groups)) < len(groups) for groups in fitting)
    piles = sorted(len(set(groups)) for groups in fitting)
    return ties and (scheme.specific or piles[len(piles) // 2] >= LEAST_GROUPS)


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


def _read_table(text: str, path: Path) -> dict[str, str]:
    expected = "csv:FILE, a table with the columns path (DIAGNOSIS/FILE) and group"
    table: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            if not {"path", "group"} <= set(columns):
                fix = f"name the columns path and group; found {', '.join(columns) or '(none)'}"
                raise invalid_flag("group_by", expected=expected, received=text, fix=fix)
            for row in reader:
                name, group = (row["path"] or "").replace("\\", "/"), row["group"] or ""
                if table.setdefault(name, group) != group:
                    fix = f"{name!r} is in groups {table[name]!r} and {group!r}: leave one"
                    raise invalid_flag("group_by", expected="one group for a path", received=text, fix=fix)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise invalid_flag("group_by", expected=expected, received=text, fix=f"check the file: {error}") from None
    return table
