"""Each warning of the card appears when it should, and only then."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline import doubts
from data_pipeline.grouping import NO_RULE, GroupedImages
from data_pipeline.images import SEVERAL_PAGES, prepare
from data_pipeline.manifest import SplitCounts
from data_pipeline.spool import InspectionRow
from data_pipeline.table import table_of

CLASSES = ("benign", "malignant")


def row(number: int, diagnosis: str = "benign", **columns: object) -> InspectionRow:
    usual = {"width": 300, "height": 200, "format": "JPEG", "mode": "RGB", "contrast": 30.0}
    return InspectionRow(f"{diagnosis}/{number:03d}", **usual | columns)  # type: ignore[arg-type]


def warnings(*rows: InspectionRow, image_size: int = 128) -> list[str]:
    table = table_of(rows)
    labels = np.asarray([CLASSES.index(table.diagnosis(number)) for number in range(len(rows))])
    return doubts.about_images(table, np.arange(len(rows)), labels, CLASSES, image_size=image_size)


def mixed(**columns: object) -> list[InspectionRow]:
    """Six benign images, that have these properties, and six malignant ones."""
    return [row(number, **columns) for number in range(6)] + [row(number, "malignant") for number in range(6)]


def test_images_like_each_other_give_no_warning() -> None:
    assert warnings(*mixed()) == []
    assert (
        warnings(*(row(number, name, contrast=6.0, width=64, height=64) for number in range(9) for name in CLASSES))
        == []
    )


def test_blank_images_are_named() -> None:
    one = warnings(*mixed(), row(7, contrast=2.0))
    assert one == ["One image (benign/007) is nearly blank: does the picture show the diagnosis?"]
    three = warnings(*mixed(), *(row(number, contrast=5.9) for number in (7, 8, 9)))
    assert three == ["3 images (such as benign/007) are nearly blank: does the picture show the diagnosis?"]
    assert warnings(*mixed(), row(7, contrast=8.3)) == []


@pytest.mark.parametrize("mode", ["I;16", "RGB;16"])
def test_blank_images_of_16_bits_may_have_been_12(mode: str) -> None:
    found = warnings(*mixed(), row(7, contrast=1.0, mode=mode))
    assert len(found) == 1
    assert "12 or 14 bits" in found[0]
    assert warnings(*mixed(), row(7, mode=mode)) == []


def test_pages_that_are_not_used_are_told() -> None:
    found = warnings(*mixed(), row(7, format="TIFF" + SEVERAL_PAGES))
    assert found == ["One image (benign/007) is of several pages or frames: only the first is used."]


def test_images_far_below_the_stored_size_are_told() -> None:
    assert "less than half the stored size of 512 pixels" in warnings(*mixed(), image_size=512)[0]
    assert warnings(*mixed(), image_size=400) == []
    assert "One image" in warnings(*mixed(), row(7, width=300, height=63))[0]


@pytest.mark.parametrize(
    ("what", "columns", "value"),
    [
        ("file format", {"format": "BMP"}, "BMP"),
        ("colour mode", {"mode": "L"}, "L"),
        ("size in pixels", {"width": 640}, "640 × 200"),
    ],
)
def test_a_property_that_gives_a_diagnosis_away_is_told_once(what: str, columns: dict[str, object], value: str) -> None:
    found = warnings(*mixed(**columns))
    assert len(found) == 1
    assert f"The {what} gives a diagnosis away: " in found[0]
    assert f"{value} for 100% of benign, 0% of the others" in found[0]
    assert "100% of malignant" in found[0]


def test_a_property_that_is_common_everywhere_or_rare_is_not() -> None:
    both = [row(number, name, mode=("L", "RGB")[number % 2]) for number in range(12) for name in CLASSES]
    assert warnings(*both) == []
    few = [row(number, mode="L") for number in range(3)] + [row(number, "malignant") for number in range(9)]
    assert not any("colour mode gives" in warning and "L for" in warning for warning in warnings(*few))
    sizes = [row(number, name, width=200 + number) for number in range(50) for name in CLASSES]
    assert warnings(*sizes) == []


def test_labels_of_images_that_look_alike_are_doubted_only_if_they_differ() -> None:
    table = table_of(mixed())
    assert doubts.about_near_duplicates(table, [(0, 1), (7, 8)]) == []
    assert "One pair of images" in doubts.about_near_duplicates(table, [(0, 6)])[0]
    found = doubts.about_near_duplicates(table, [(0, 1), (0, 6), (1, 7)])
    assert (
        "2 pairs of images look alike and carry different diagnoses, such as benign/000 and malignant/000" in found[0]
    )


def group_warnings(sizes: list[int], rule: str = "auto", unmatched: int = 0, *, mix: bool = False) -> list[str]:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.arange(len(groups)) % 2 if mix else groups % 2
    named = GroupedImages([], rule, "", unmatched)
    return doubts.about_groups(named, [f"S{number}" for number in range(len(sizes))], groups, labels)


def test_groups_are_doubted_if_no_rule_fits() -> None:
    assert group_warnings([4] * 20) == []
    assert "--group_by" in group_warnings([1] * 20, NO_RULE)[0]
    assert "3 of them stand alone" in group_warnings([4] * 20, unmatched=3)[0]


def test_a_group_is_doubted_if_it_holds_far_more_than_others() -> None:
    assert "Group S0 holds 20% of all images" in group_warnings([20] + [4] * 20)[0]
    assert "Group S0 holds 100% of all images" in group_warnings([20])[0]
    for sizes in ([10] * 5, [30, 20, 10], [1], [14] + [4] * 25):
        assert group_warnings(sizes) == []


def test_slides_of_several_diagnoses_are_doubted_if_most_are() -> None:
    assert "20 of 20 groups have images of several diagnoses" in group_warnings([4] * 20, mix=True)[0]


def test_missing_classes_and_idle_folders_are_told() -> None:
    counts = SplitCounts(records=4, groups=2, shards=1, per_class={"benign": 4, "malignant": 0})
    found = doubts.about_splits({"test": counts}, {"masks"})
    assert found[0].startswith("No usable image of masks")
    assert found[1].startswith("No image of malignant in test")
    whole = SplitCounts(records=4, groups=2, shards=1, per_class={"benign": 2, "malignant": 2})
    assert doubts.about_splits({"test": whole}, []) == []


def test_no_real_cell_is_called_blank_and_every_blank_crop_is(real_images: Path) -> None:
    def contrasts(files: list[Path]) -> list[float]:
        return [float(prepare(file.read_bytes(), size_px=128).thumbnail.std()) for file in files]

    organs = [sorted(folder.glob("*/*"))[::7] for folder in real_images.iterdir() if folder.is_dir()]
    assert min(contrast for files in organs for contrast in contrasts(files)) > doubts.BLANK_CONTRAST
    blank = sorted((real_images.parent / "mess" / "empty_background_labelled_as_cell").glob("*.png"))
    assert max(contrasts(blank), default=0) < doubts.BLANK_CONTRAST
