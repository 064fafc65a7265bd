"""Which images belong to one slide, smear or patient: the unit that must never lie in two splits. Pure.

    grouping = group_images(ids, parse_rule("auto"))
    grouping.groups["carcinoma/149147848-149147864-003.jpg"]  # → "149147848"

`auto` tries the naming schemes of known collections, most specific first, then a sub-folder per slide, then
`<slide>_<number>`. A scheme counts only if it fits the names as a whole, so that a class prefix such as `BA_101381` is
never taken for a patient. Images that no rule ties together are groups of their own.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.cli import invalid_flag

NO_RULE = "none"
# A naming scheme is believed if it fits this share of the names.
SPECIFIC_SHARE = 0.5
GENERAL_SHARE = 0.9
EXAMPLES = 4


@dataclass(frozen=True, slots=True)
class NameRule:
    """A naming scheme: `pattern` is searched in the id and its group `group` is the slide's or patient's name."""

    name: str
    description: str
    pattern: re.Pattern[str]
    share: float = SPECIFIC_SHARE


@dataclass(frozen=True, slots=True)
class Rule:
    """`--group_by` as understood: a kind and, for `regex` and `csv`, what they need."""

    text: str
    kind: str
    pattern: re.Pattern[str] | None = None
    table: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class GroupedImages:
    """The outcome: id → group, the rule that gave it, and how many ids it did not fit."""

    groups: dict[str, str]
    rule: str
    description: str
    unmatched: int


SCHEMES = (
    NameRule(
        "tcga", "TCGA barcode: the patient is project-site-participant",
        re.compile(r"(?P<group>TCGA-[0-9A-Z]{2}-[0-9A-Z]{4})(?![0-9A-Z])", re.IGNORECASE),
    ),
    NameRule(
        "breakhis", "BreakHis name: the patient is the slide number between year and magnification",
        re.compile(r"(?:^|/)(?P<group>[A-Z]+_[BM]_[A-Z]+-\d+-[0-9A-Z]+)-\d+-\d+\.", re.IGNORECASE),
    ),
    NameRule(
        "slide-file", "tile of a whole-slide file: the slide's file name comes first",
        re.compile(r"(?:^|/)(?P<group>[^/]+?)\.(?:svs|ndpi|mrxs|bif|scn|vms)\b[^/]+$", re.IGNORECASE),
    ),
    NameRule(
        "smear", "Herlev name: smear-cell-number, the smear is the first number",
        re.compile(r"(?<!\d)(?P<group>\d{6,})-\d{6,}-\d+\.[^./]+$"),
    ),
    NameRule(
        "keyword", "a name that says slide, patient, case or smear before its number",
        re.compile(r"(?P<group>(?:slide|patient|case|smear)[ _-]?[0-9A-Za-z]+)(?=[ _./-])", re.IGNORECASE),
    ),
    NameRule(
        "folder", "a folder for each slide or patient below the diagnosis",
        re.compile(r"^[^/]+/(?P<group>.+)/[^/]+$"),
        GENERAL_SHARE,
    ),
    NameRule(
        "numbered", "name ending in a number: what stands before it is the slide or patient",
        re.compile(r"(?:^|/)(?P<group>[^/]*\d[^/]*?)[ _-]+\(?\d{1,6}\)?\.[^./]+$"),
        GENERAL_SHARE,
    ),
)  # fmt: skip


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
    """Group `images`, given as (id, diagnosis) pairs."""
    diagnoses = dict(images)
    ids = list(diagnoses)
    if rule.kind == "csv" and rule.table is not None:
        return _grouped({name: rule.table.get(name, "") for name in ids}, rule.text, "given by a table")
    if rule.kind == "regex" and rule.pattern is not None:
        return _grouped(_apply(rule.pattern, ids), rule.text, "given by a regular expression")
    wanted = [scheme for scheme in SCHEMES if rule.kind in ("auto", scheme.name)]
    for scheme in wanted:
        found = _apply(scheme.pattern, ids)
        if rule.kind == "folder" or _is_believable(found, diagnoses, scheme.share):
            return _grouped(found, scheme.name, scheme.description)
    return _grouped(dict.fromkeys(ids, ""), NO_RULE, "no slide or patient is known: each image stands alone")


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


def _apply(pattern: re.Pattern[str], ids: Sequence[str]) -> dict[str, str]:
    key = "group" if "group" in pattern.groupindex else 1
    matches = {name: pattern.search(name) for name in ids}
    return {name: (match[key] or "") if match else "" for name, match in matches.items()}


def _grouped(found: dict[str, str], rule: str, description: str) -> GroupedImages:
    groups = {name: group or name for name, group in found.items()}
    return GroupedImages(groups, rule, description, sum(not group for group in found.values()))


def _is_believable(found: Mapping[str, str], diagnoses: Mapping[str, str], share: float) -> bool:
    """Does a scheme tie images together, and into more than a few piles for each diagnosis?"""
    matched = {name: group for name, group in found.items() if group}
    if not matched or len(matched) < share * len(found):
        return False
    sizes = Counter(matched.values())
    per_diagnosis = Counter(diagnosis for _, diagnosis in {(g, diagnoses[name]) for name, g in matched.items()})
    sorted_counts = sorted(per_diagnosis.get(diagnosis, 0) for diagnosis in set(diagnoses.values()))
    return max(sizes.values()) > 1 and sorted_counts[len(sorted_counts) // 2] >= 3


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
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"path", "group"} <= set(reader.fieldnames or ()):
                columns = ", ".join(reader.fieldnames or ()) or "(none)"
                fix = f"name the columns path and group; found {columns}"
                raise invalid_flag("group_by", expected=expected, received=text, fix=fix)
            return {row["path"].replace("\\", "/"): row["group"] or "" for row in reader}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise invalid_flag("group_by", expected=expected, received=text, fix=f"check the file: {error}") from None
