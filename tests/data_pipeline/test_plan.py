"""The plan: whatever the images are, nothing that belongs together lies in two splits, and nothing is lost."""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st

from data_pipeline import cli
from data_pipeline.given_splits import parse_split_table
from data_pipeline.grouping import parse_rule
from data_pipeline.manifest import SPLITS, Manifest, read_quarantine
from data_pipeline.near_moments import fingerprints
from data_pipeline.plan import Plan, make_plan
from data_pipeline.settings import Settings
from data_pipeline.spool import InspectionRow
from data_pipeline.table import Table, table_of
from data_pipeline.verify import verify
from tests.data_pipeline.conversion import convert, read_all

DIAGNOSES = ("a", "b", "c")


@cache
def texture(seed: int) -> np.ndarray:
    """A smooth random picture, `[64, 64] uint8`, like no other."""
    rng = np.random.default_rng(seed)
    spectrum = rng.normal(size=(64, 64)) * np.exp(-np.hypot(*np.mgrid[0:64, 0:64] / 8.0))
    field = np.fft.irfft2(spectrum[:, :33] * np.exp(2j * np.pi * rng.random((64, 33))), s=(64, 64))
    return np.clip(128 + 50 * field / field.std(), 0, 255).astype(np.uint8)


def row(name: str, identity: int, reason: str = "") -> InspectionRow:
    if reason:
        return InspectionRow(name, "", reason)
    return InspectionRow(
        name,
        hashlib.sha256(name.encode()).hexdigest(),
        likeness=f"{identity:032x}",
        kept=True,
        width=48,
        height=48,
        format="PNG",
        mode="RGB",
        contrast=40.0,
        bytes=100,
        crc32c=7,
    )


def plan_for(table: Table, rule: str = "auto", **flags: object) -> Plan:
    options = Settings(image_size=48, **flags)  # type: ignore[arg-type]
    identify = lambda number: table.likeness[number].tobytes()  # noqa: E731
    return make_plan(table, organ="gland", settings=options, rule=parse_rule(rule), identify=identify)


def split_of_rows(plan: Plan) -> dict[int, str]:
    return {int(r): shard.split for shard in plan.shards for r in shard.rows}


# (diagnosis, slide, which picture, how it is turned, readable)
files = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 40), st.integers(0, 7), st.integers(0, 9).map(bool)),
    min_size=12,
    max_size=60,
)


@settings(max_examples=25, deadline=None)
@given(files, st.integers(0, 5))
def test_no_group_no_picture_and_no_linked_pair_lies_in_two_splits(
    given_files: list[tuple[int, int, int, int, bool]], seed: int
) -> None:
    rows, thumbnails = [], []
    for number, (diagnosis, slide, picture, turn, readable) in enumerate(given_files):
        name = f"{DIAGNOSES[diagnosis]}/S{diagnosis}{slide}_{number:03d}.png"
        rows.append(row(name, picture * 8 + turn, "" if readable else "empty file"))
        turned = np.rot90(texture(picture), turn % 4)
        thumbnails.append(turned[:, ::-1] if turn >= 4 else turned)
    table = table_of(rows, fingerprints(np.stack(thumbnails)))
    assume(len({table.diagnosis(r) for r in table.usable()}) == 3)
    try:
        plan = plan_for(table, r"regex:/(S\d+)_", seed=seed)
    except cli.RequestError:
        reject()  # nothing but conflicts is left of a diagnosis
    counts = plan.counts
    assert counts.inputs == len(rows) == counts.written + counts.duplicates + counts.quarantined
    split_of = split_of_rows(plan)
    assert sorted(split_of) == plan.records.rows.tolist()
    assert len(split_of) == counts.written == sum(len(shard.rows) for shard in plan.shards)
    for pair in plan.near:
        assert split_of[pair.left] == split_of[pair.right]
    seen: dict[object, str] = {}
    for number, split in split_of.items():
        name = table.ids[number]
        for key in (name.split("/")[1].split("_")[0], table.likeness[number].tobytes()):
            assert seen.setdefault(key, split) == split
    left = {one.path for one in plan.left_out}
    assert left | {table.ids[number] for number in split_of} == set(table.ids)
    assert not left & {table.ids[number] for number in split_of}


@pytest.mark.parametrize("turn", range(8))
def test_a_turned_copy_is_linked_to_its_original(turn: int) -> None:
    """And not when that is switched off; and a pair of two diagnoses is worth a warning."""
    rows = [row(f"{DIAGNOSES[i % 3]}/x{i * i * 7919 % 10007}.png", i) for i in range(60)]
    pictures = [texture(i) for i in range(60)]
    copy = np.rot90(pictures[0], turn % 4)
    rows.append(row("b/zz.png", 999))
    pictures.append(copy[:, ::-1] if turn >= 4 else copy)
    table = table_of(rows, fingerprints(np.stack(pictures)))
    plan = plan_for(table)
    assert [(table.ids[p.left], table.ids[p.right]) for p in plan.near] == [("a/x0.png", "b/zz.png")]
    assert plan.near_duplicates.pairs == 1
    assert plan.near_duplicates.images == 2
    assert plan.grouping.groups == 60
    assert any("look alike and carry different diagnoses" in warning for warning in plan.warnings)
    ignored = plan_for(table, near_duplicates="ignore")
    assert ignored.near == ()
    assert ignored.grouping.groups == 61


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.sampled_from(DIAGNOSES))
def test_an_added_file_moves_few_groups_and_only_of_its_own_diagnosis(seed: int, diagnosis: str) -> None:
    rows = [
        row(f"{d}/S{ord(d)}{g:02d}_{t}.png", 1000 * ord(d) + 10 * g + t)
        for d in DIAGNOSES
        for g in range(40)
        for t in range(3)
    ]
    before = plan_for(table_of(rows), near_duplicates="ignore", seed=seed)
    more = [*rows, row(f"{diagnosis}/S999_0.png", 77)]
    after = plan_for(table_of(more), near_duplicates="ignore", seed=seed)
    old, new = groups_by_split(before, table_of(rows)), groups_by_split(after, table_of(more))
    moved = [group for group in old if old[group] != new[group]]
    assert len(moved) <= 4
    assert all(group.startswith(f"S{ord(diagnosis)}") for group in moved)


def groups_by_split(plan: Plan, table: Table) -> dict[str, str]:
    return {table.ids[r].split("/")[1].split("_")[0]: split for r, split in split_of_rows(plan).items()}


def test_records_lie_in_the_order_of_a_hash_whatever_the_order_of_the_files() -> None:
    rows = [row(f"{d}/{i}.png", ord(d) * 1000 + i) for d in "ab" for i in range(300)]
    one, other = plan_for(table_of(rows)), plan_for(table_of(rows[::-1]))
    for left, right in zip(one.shards, other.shards, strict=True):
        assert left.path == right.path
        assert left.rows.tolist() == right.rows.tolist()
    labels = one.records.labels[one.records.at(one.shards[0].rows)]
    assert 0.3 < labels.mean() < 0.7


def split_table(images: Path, path: Path, split_of: dict[str, str]) -> Path:
    """A table that gives the images of each slide the split its number says."""
    lines = ["path,split"]
    for image in sorted(images.rglob("*.png")):
        name = image.relative_to(images / "gland").as_posix()
        lines.append(f"{name},{split_of.get(image.name[:4]) or split_of['rest']}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_given_splits_are_kept(images: Path, tmp_path: Path) -> None:
    wanted = {
        "S000": "test",
        "S100": "test",
        "S200": "test",
        "S001": "val",
        "S101": "val",
        "S201": "val",
        "rest": "train",
    }
    table = split_table(images, tmp_path / "splits.csv", wanted)
    convert(images, tmp_path / "tf", f"--split_csv={table}")
    folder = tmp_path / "tf" / "gland"
    manifest = Manifest.load(folder)
    found = {split: {r.id.split("/")[1][:4] for r in read_all(folder, manifest, split)} for split in SPLITS}
    assert found["test"] == {"S000", "S100", "S200"}
    assert found["validation"] == {"S001", "S101", "S201"}
    assert len(found["train"]) == 18
    assert verify(folder, workers=1) == []


def test_without_given_validation_images_some_of_the_training_images_are_taken(images: Path, tmp_path: Path) -> None:
    table = split_table(images, tmp_path / "s.csv", {"S000": "test", "S100": "test", "S200": "test", "rest": "train"})
    convert(images, tmp_path / "tf", f"--split_csv={table}")
    manifest = Manifest.load(tmp_path / "tf" / "gland")
    assert manifest.splits["test"].groups == 3
    assert manifest.splits["validation"].groups == 6
    table.write_text(table.read_text().replace("S000_0.png,test", "S000_0.png,train"))
    assert "leak" in convert(images, tmp_path / "tf2", f"--split_csv={table}", code=cli.EXIT_REQUEST)


def test_a_leak_of_given_splits_is_refused_and_named(images: Path, tmp_path: Path) -> None:
    wanted = {"S000": "test", "S100": "test", "S200": "test", "rest": "train"}
    organ = images / "gland"
    (organ / "red" / "other.png").write_bytes((organ / "red" / "S200_1.png").read_bytes())
    table = split_table(images, tmp_path / "splits.csv", wanted)
    message = convert(images, tmp_path / "tf", f"--split_csv={table}", code=cli.EXIT_REQUEST)
    assert "leak" in message
    assert "red/S200" in message
    assert "red/other.png (train)" in message
    assert not (tmp_path / "tf" / "gland").exists()


def test_an_image_the_table_does_not_name_is_left_out_and_listed(images: Path, tmp_path: Path) -> None:
    wanted = {"S000": "test", "S100": "test", "S200": "test", "rest": "train"}
    table = split_table(images, tmp_path / "splits.csv", wanted)
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line for line in lines if "S003" not in line) + "\n")
    convert(images, tmp_path / "tf", f"--split_csv={table}")
    rows = read_quarantine(tmp_path / "tf" / "gland")
    assert [row.path for row in rows] == [f"blue/S003_{i}.png" for i in range(3)]
    assert {row.reason for row in rows} == {"not named in the table of --split_csv"}


def test_a_table_whose_paths_name_no_image_is_refused(images: Path, tmp_path: Path) -> None:
    wanted = {"S000": "test", "S100": "test", "S200": "test", "rest": "train"}
    table = split_table(images, tmp_path / "splits.csv", wanted)
    table.write_text(table.read_text().replace(".png,test", ".jpg,test"))
    message = convert(images, tmp_path / "tf", f"--split_csv={table}", code=cli.EXIT_REQUEST)
    assert "blue/S000_0.jpg" in message
    table.write_text(table.read_text().replace(".jpg,test", ".png,test") + "red/none.png,train\n")
    assert "1 rows of --split_csv name no usable image" in convert(images, tmp_path / "tf", f"--split_csv={table}")
    assert "--folds" in convert(
        images, tmp_path / "t2", f"--split_csv={with_validation(table)}", "--folds=3", code=cli.EXIT_REQUEST
    )


def with_validation(table: Path) -> Path:
    table.write_text(table.read_text().replace("S001_0.png,train", "S001_0.png,validation"))
    return table


def test_copies_of_two_diagnoses_tie_their_slides_though_neither_is_written() -> None:
    rows = [
        row(f"{d}/S{ord(d)}{s}_{t}.png", 1000 * ord(d) + 10 * s + t) for d in "ab" for s in range(8) for t in range(3)
    ]
    rows += [row("a/S971_9.png", 5), row("b/S983_9.png", 5)]
    table = table_of(rows)
    plan = plan_for(table, near_duplicates="ignore")
    groups = {table.ids[r]: plan.records.names[g] for r, g in zip(plan.records.rows, plan.records.groups, strict=True)}
    assert plan.counts.quarantined == 2
    assert groups["a/S971_0.png"] == groups["b/S983_0.png"] == "S971"


@pytest.mark.parametrize(
    "text", ["path,split\na/1.png,dev\n", "path,group\na/1.png,test\n", "path,split\na/1.png,train\n"]
)
def test_a_table_of_splits_that_is_unclear_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(cli.RequestError, match="--split_csv"):
        parse_split_table(str(tmp_path / "s.csv"))
