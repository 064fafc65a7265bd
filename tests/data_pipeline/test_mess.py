"""Traps found in public sets, kept as they were: what conversion makes of each."""

import shutil
from pathlib import Path

import pytest

from data_pipeline.manifest import Manifest, QuarantineRow, read_quarantine
from tests.conftest import COLOURS, REAL_IMAGES, make_images
from tests.data_pipeline.conversion import convert, read_all

MESS = REAL_IMAGES.parent / "mess"
pytestmark = pytest.mark.skipif(not MESS.is_dir(), reason=f"no files at {MESS}")
BLUE, GREEN, RED = COLOURS


class Converted:
    """What became of an organ."""

    def __init__(self, folder: Path) -> None:
        self.manifest = Manifest.load(folder)
        self.left_out: dict[str, QuarantineRow] = {row.path: row for row in read_quarantine(folder)}
        self.written = {
            record.id for split in self.manifest.splits for record in read_all(folder, self.manifest, split)
        }

    def warned(self, *words: str) -> bool:
        return any(all(word in warning for word in words) for warning in self.manifest.warnings)


@pytest.fixture
def organ(tmp_path: Path) -> Path:
    """Three diagnoses of whole images, into which a test puts its trap."""
    return make_images(tmp_path / "images" / "gland")


def converted(organ: Path) -> Converted:
    tfrecords = organ.parents[1] / "tfrecords"
    convert(organ.parent, tfrecords)
    found = Converted(tfrecords / "gland")
    counts = found.manifest.counts
    files = {path.relative_to(organ).as_posix() for path in organ.rglob("*.*")}
    assert found.written | found.left_out.keys() == files
    assert counts.inputs == len(files) == counts.written + counts.duplicates + counts.quarantined
    return found


def put(trap: Path, organ: Path, diagnosis: str) -> list[str]:
    """Lay the files of a trap among the images of a diagnosis; their ids."""
    (organ / diagnosis).mkdir(exist_ok=True)
    files = sorted(trap.iterdir())
    for file in files:
        shutil.copy(file, organ / diagnosis)
    return [f"{diagnosis}/{file.name}" for file in files]


def test_an_image_under_two_diagnoses_is_left_out_of_both(organ: Path) -> None:
    ids = [id for folder in sorted((MESS / "cross_class_dup").iterdir()) for id in put(folder, organ, folder.name)]
    found = converted(organ)
    assert len(ids) == 2
    for id in ids:
        assert found.left_out[id].outcome == "quarantined"
        assert found.left_out[id].reason.endswith("eosinophil and neutrophil")
    assert found.manifest.classes == tuple(sorted(COLOURS))
    assert found.warned("No usable image of eosinophil")
    assert found.warned("No usable image of neutrophil")


def test_pairs_that_contradict_each_other_are_left_out_whole(organ: Path) -> None:
    trap = MESS / "oral_label_conflict"
    ids = put(trap / "Normal", organ, "Normal") + put(trap / "OSCC", organ, "OSCC")
    found = converted(organ)
    assert len(ids) == 10
    assert all("label conflict" in found.left_out[id].reason for id in ids)
    assert not found.written & set(ids)


def test_grey_images_of_one_diagnosis_are_used_and_told(organ: Path) -> None:
    for file in (organ / BLUE).iterdir():
        file.unlink()
    ids = put(MESS / "grayscale_L", organ, BLUE)
    found = converted(organ)
    assert found.written >= set(ids)
    assert not found.left_out
    assert found.warned("The colour mode gives a diagnosis away", f"L for 100% of {BLUE}, 0% of the others")


def test_grey_images_in_every_diagnosis_are_no_reason_to_warn(organ: Path) -> None:
    for diagnosis, file in zip((BLUE, BLUE, GREEN, RED), sorted((MESS / "grayscale_L").iterdir()), strict=True):
        shutil.copy(file, organ / diagnosis)
    assert not converted(organ).warned("colour mode")


def test_git_lfs_pointers_are_left_out_with_the_remedy(organ: Path) -> None:
    ids = put(MESS / "lfs_pointer", organ, RED)
    found = converted(organ)
    assert all("git lfs pull" in found.left_out[id].reason for id in ids)
    assert len(found.left_out) == len(ids) == 8


def test_masks_beside_images_are_left_out(organ: Path) -> None:
    ids = put(MESS / "masks_next_to_images", organ, GREEN)
    found = converted(organ)
    assert all(found.left_out[id].reason.startswith("a mask or drawing, not a photograph") for id in ids)
    assert len(found.left_out) == len(ids) == 3


def test_empty_crops_with_a_diagnosis_are_used_and_told(organ: Path) -> None:
    ids = put(MESS / "empty_background_labelled_as_cell", organ, GREEN)
    found = converted(organ)
    assert found.written >= set(ids)
    assert found.warned("8 images (such as green/28-05-2024__LSIL__1661.png) are nearly blank")
    assert not found.left_out
