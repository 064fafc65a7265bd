"""Groups from names, tables and folders."""

import csv
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.cli import RequestError
from data_pipeline.grouping import group_images, link, parse_rule


def grouped(names: list[str], rule: str = "auto") -> tuple[str, dict[str, str]]:
    found = group_images(names, [name.split("/")[0] for name in names], parse_rule(rule))
    return found.rule, dict(zip(names, found.groups, strict=True))


CASES = [
    ("TCGA-A{slide:01X}-12AB-01Z-00-DX1_{tile}.png", "tcga", (1, 2), "TCGA-A1-12AB"),
    ("SOB_M_DC-14-{slide}-40-00{tile}.png", "breakhis", (0, 0), "14-0"),
    ("IB000{slide}.svs [{tile}] (85).png", "slide-file", (7, 2), "IB0007"),
    ("{slide:09d}-149143378-00{tile}.jpg", "smear", (6, 1), "000000006"),
    ("rotated_0_{slide:09d}-149143378-00{tile}.jpg", "smear", (1, 1), "000000001"),
    ("patient{slide}_img{tile}.tif", "patient", (1, 2), "patient1"),
    ("case_{slide}_slide_2_tile_{tile}.png", "patient", (3, 0), "case_3"),
    ("slide_0_patient_{slide}_{tile}.png", "patient", (3, 0), "patient_3"),
    ("slide{slide}_{tile}.png", "slide", (3, 0), "slide3"),
    ("C{slide}P1thinF_IMG_20150619_114756a_cell_{tile}.png", "malaria", (3, 0), "C3P1"),
    ("1000{tile}_CRC-Prim-HE-0{slide}_009.tif_Row_301_Col_151.tif", "kather", (3, 0), "CRC-Prim-HE-03"),
    ("UID_{slide}_4{tile}_5_all.bmp", "c-nmc", (3, 0), "UID_3"),
    ("BloodImage_0000{slide}_jpg.rf.{tile}123456789abcdef.jpg", "exported", (3, 0), "BloodImage_00003"),
    ("fold1/{slide}/t{tile}.png", "folder", (2, 0), "2"),
    ("{slide}/t{tile}.png", "folder", (2, 0), "2"),
    ("{slide}/40X/t{tile}.png", "folder", (2, 0), "2"),
    ("SG-{slide:04d}_00{tile}.png", "numbered", (6, 1), "SG-0006"),
    ("P{slide}_{tile}.png", "numbered", (3, 1), "P3"),
    ("P{slide}.{tile}.png", "numbered", (3, 1), "P3"),
    ("S{slide}_{tile}024_2048.png", "numbered", (3, 1), "S3"),
    ("S{slide}_x{tile}_y7.png", "numbered", (3, 1), "S3"),
    ("P{slide}_40x_00{tile}.png", "numbered", (3, 1), "P3"),
    ("P{slide}_L_00{tile}.png", "numbered", (3, 1), "P3"),
    ("S{slide}_{tile}_rot90.png", "numbered", (3, 1), "S3"),
    ("S{slide}_{tile}_hflip.png", "numbered", (3, 1), "S3"),
    ("S{slide}_{tile}_jpg.rf.0123456789abcdef.jpg", "numbered", (3, 1), "S3"),
    ("102{slide}_idx5_x1351_y{tile}_class0.png", "numbered", (3, 1), "1023"),
    ("2023-05-1{slide}_000{tile}.png", "counted", (3, 1), "2023-05-13"),
    ("lungaca{slide}{tile}.jpeg", "none", (0, 0), None),
    ("BA_{slide}{tile}.jpg", "none", (0, 0), None),
    ("train/x{slide}{tile}.jpg", "none", (0, 0), None),
    ("showcase{slide}{tile}.jpg", "none", (0, 0), None),
    ("augmented/x{slide}{tile}.jpg", "none", (0, 0), None),
    ("aug_0_{slide}{tile}.jpg", "none", (0, 0), None),
]


@pytest.mark.parametrize(("pattern", "rule", "chosen", "group"), CASES)
def test_known_naming_schemes_are_found(pattern: str, rule: str, chosen: tuple[int, int], group: str | None) -> None:
    """Two diagnoses of five slides each, numbered through, three tiles a slide."""
    found, groups = grouped([f"d{s // 5}/" + pattern.format(slide=s, tile=t) for s in range(10) for t in range(3)])
    assert found == rule
    name = f"d{chosen[0] // 5}/" + pattern.format(slide=chosen[0], tile=chosen[1])
    assert groups[name] == (group or name)
    if rule != "none":
        assert len(set(groups.values())) == 10


@pytest.mark.parametrize(
    "pattern", ["slide{slide}_{tile}.png", "TCGA-AA-000{slide}-01_{tile}.png", "B{slide}.svs_{tile}.png"]
)
def test_an_unmistakable_scheme_needs_no_number_of_slides(pattern: str) -> None:
    names = [f"d{d}/" + pattern.format(slide=2 * d + s, tile=t) for d in (0, 1) for s in (0, 1) for t in (0, 1)]
    found, groups = grouped(names)
    assert found != "none"
    assert len(set(groups.values())) == 4


def test_a_scheme_of_one_diagnosis_alone_is_used_for_it() -> None:
    numbered = [f"a/P{s}_{t}.png" for s in range(5) for t in range(3)]
    found, groups = grouped([*numbered, *(f"b/scan{i}.png" for i in range(40))])
    assert found == "numbered"
    assert groups["a/P2_1.png"] == "P2"
    assert groups["b/scan7.png"] == "b/scan7.png"


def test_a_scheme_of_one_small_diagnosis_takes_nothing_from_the_others() -> None:
    slides = [f"{d}/slide{d}{s}_{t}.png" for d in "ab" for s in range(10) for t in range(3)]
    found, groups = grouped([*slides, "c/case1_0.png", "c/case1_1.png"])
    assert found == "patient + slide"
    assert groups["a/slidea3_1.png"] == groups["a/slidea3_2.png"] == "slidea3"
    assert groups["c/case1_0.png"] == "case1"


def test_a_number_in_the_diagnosis_itself_is_no_patient() -> None:
    assert grouped([f"case {d}/{i}.png" for d in (1, 2) for i in range(9)])[0] == "none"


def test_magnification_folders_are_no_slides() -> None:
    names = [f"d{d}/{m}X/scan{i}.png" for d in (0, 1) for m in (40, 100, 200, 400) for i in range(5)]
    assert grouped(names)[0] == "none"


def test_a_prefix_that_only_names_the_class_is_no_patient() -> None:
    names = [f"d{d}/class{d}_{i}.png" for d in range(3) for i in range(20)]
    assert grouped(names)[0] == "none"


def test_names_that_the_rule_does_not_fit_stand_alone() -> None:
    _, groups = grouped([*(f"d0/P{s}_{t}.png" for s in range(10) for t in range(3)), "d0/odd.png"])
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


@pytest.mark.parametrize("rule", ["regex:(ZZZ)", "folder", "csv"])
def test_a_rule_that_was_asked_for_and_fits_nothing_is_an_error(tmp_path: Path, rule: str) -> None:
    (tmp_path / "t.csv").write_text("path,group\norgan/a/1.png,p1\n")
    with pytest.raises(RequestError, match="--group_by"):
        grouped(["a/1.png"], f"csv:{tmp_path / 't.csv'}" if rule == "csv" else rule)


@pytest.mark.parametrize("text", ["group,path\np1\n", "path,group\na/1.png,p1\na/1.png,p2\n", "file,slide\na,b\n"])
def test_a_table_that_is_unclear_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(RequestError, match="--group_by"):
        grouped(["a/1.png"], f"csv:{tmp_path / 't.csv'}")


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=20),
)
def test_linking_joins_exactly_what_is_connected(groups: list[int], pairs: list[tuple[int, int]]) -> None:
    named = [f"g{group}" for group in groups]
    wanted = [(a % len(groups), b % len(groups)) for a, b in pairs]
    linked = link(named, wanted)
    # By brute force: colour the graph of groups and pairs until nothing changes.
    colour = list(named)
    places = range(len(named))
    changed = True
    while changed:
        changed = False
        edges = wanted + [(a, b) for a in places for b in places if named[a] == named[b]]
        for a, b in edges:
            low = min(colour[a], colour[b])
            changed |= colour[a] != low or colour[b] != low
            colour[a] = colour[b] = low
    assert linked == colour


def test_the_automatic_rule_finds_the_true_smears_of_cervix(real_images: Path) -> None:
    with (real_images / "provenance.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["organ"] == "cervix"]
    truth, found = defaultdict(set), defaultdict(set)
    names = [row["path"].removeprefix("cervix/") for row in rows]
    groups = group_images(names, [row["diagnosis"] for row in rows], parse_rule("auto")).groups
    for row, group in zip(rows, groups, strict=True):
        truth[row["group"]].add(row["path"])
        found[group].add(row["path"])
    assert len(found) == 323
    assert sorted(map(sorted, truth.values())) == sorted(map(sorted, found.values()))
