"""Groups from names, tables and folders."""

import csv
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.grouping import group_images, link, parse_rule


def grouped(names: list[str], rule: str = "auto") -> tuple[str, dict[str, str]]:
    found = group_images(((name, name.split("/")[0]) for name in names), parse_rule(rule))
    return found.rule, found.groups


def tiles(pattern: str, diagnoses: int = 2, slides: int = 4, per_slide: int = 3) -> list[str]:
    return [
        f"d{d}/" + pattern.format(slide=100 * d + s, tile=t)
        for d in range(diagnoses)
        for s in range(slides)
        for t in range(per_slide)
    ]


@pytest.mark.parametrize(
    ("pattern", "rule", "name", "group"),
    [
        ("TCGA-A{slide}-12AB-01Z-00-DX1_{tile}.png", None, None, None),
        ("SOB_M_DC-14-{slide}-40-00{tile}.png", "breakhis", "d0/SOB_M_DC-14-0-40-000.png", "SOB_M_DC-14-0"),
        ("IB000{slide}.svs [{tile}] (85).png", "slide-file", "d1/IB000100.svs [2] (85).png", "IB000100"),
        ("{slide:09d}-149143378-00{tile}.jpg", "smear", "d1/000000101-149143378-001.jpg", "000000101"),
        (
            "rotated_0_{slide:09d}-149143378-00{tile}.jpg",
            "smear",
            "d0/rotated_0_000000001-149143378-001.jpg",
            "000000001",
        ),
        ("patient{slide}_img{tile}.tif", "keyword", "d0/patient1_img2.tif", "patient1"),
        ("SG-{slide:04d}-00{tile}.png", "numbered", "d1/SG-0100-001.png", "SG-0100"),
        ("P{slide}_{tile}.png", "numbered", "d0/P3_1.png", "P3"),
        ("{slide}/t{tile}.png", "folder", "d0/2/t0.png", "2"),
        ("lungaca{slide}{tile}.jpeg", "none", "d0/lungaca00.jpeg", "d0/lungaca00.jpeg"),
        ("BA_{slide}{tile}.jpg", "none", "d0/BA_00.jpg", "d0/BA_00.jpg"),
    ],
)
def test_known_naming_schemes_are_found(pattern: str, rule: str | None, name: str, group: str) -> None:
    if rule is None:
        names = [f"d{d}/TCGA-A{s}-1{d}AB-01Z-00-DX1_{t}.png" for d in range(2) for s in range(4) for t in range(3)]
        found, groups = grouped(names)
        assert found == "tcga"
        assert groups["d0/TCGA-A1-10AB-01Z-00-DX1_0.png"] == "TCGA-A1-10AB"
        return
    found, groups = grouped(tiles(pattern))
    assert found == rule
    assert groups[name] == group


def test_a_prefix_that_only_names_the_class_is_no_patient() -> None:
    names = [f"d{d}/class{d}_{i}.png" for d in range(3) for i in range(20)]
    assert grouped(names)[0] == "none"


def test_names_that_the_rule_does_not_fit_stand_alone() -> None:
    _, groups = grouped([*tiles("P{slide}_{tile}.png", slides=10), "d0/odd.png"])
    assert groups["d0/odd.png"] == "d0/odd.png"


def test_regex_table_and_folder_rules(tmp_path: Path) -> None:
    assert grouped(["a/x1y2.png"], "regex:x(?P<group>.)")[1] == {"a/x1y2.png": "1"}
    assert grouped(["a/x1y2.png"], "regex:(y.)")[1] == {"a/x1y2.png": "y2"}
    table = tmp_path / "groups.csv"
    table.write_text("path,group\na/1.png,p1\na/2.png,p1\n")
    assert grouped(["a/1.png", "a/2.png", "a/3.png"], f"csv:{table}")[1] == {
        "a/1.png": "p1",
        "a/2.png": "p1",
        "a/3.png": "a/3.png",
    }
    assert grouped(["a/s1/t.png", "a/t.png"], "folder")[1] == {"a/s1/t.png": "s1", "a/t.png": "a/t.png"}


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=20),
)
def test_linking_joins_exactly_what_is_connected(groups: list[int], pairs: list[tuple[int, int]]) -> None:
    named = {str(i): f"g{group}" for i, group in enumerate(groups)}
    wanted = [(str(a % len(groups)), str(b % len(groups))) for a, b in pairs]
    linked = link(named, wanted)
    # By brute force: colour the graph of groups and pairs until nothing changes.
    colour = dict(named)
    changed = True
    while changed:
        changed = False
        edges = wanted + [(a, b) for a in named for b in named if named[a] == named[b]]
        for a, b in edges:
            low = min(colour[a], colour[b])
            changed |= colour[a] != low or colour[b] != low
            colour[a] = colour[b] = low
    assert linked == colour


def test_the_automatic_rule_finds_the_true_smears_of_cervix(real_images: Path) -> None:
    with (real_images / "provenance.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["organ"] == "cervix"]
    truth, found = defaultdict(set), defaultdict(set)
    groups = group_images(
        ((row["path"].removeprefix("cervix/"), row["diagnosis"]) for row in rows), parse_rule("auto")
    ).groups
    for row in rows:
        truth[row["group"]].add(row["path"])
        found[groups[row["path"].removeprefix("cervix/")]].add(row["path"])
    assert len(found) == 323
    assert sorted(map(sorted, truth.values())) == sorted(map(sorted, found.values()))
