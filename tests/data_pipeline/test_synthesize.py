import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_pipeline.cli import RequestError
from data_pipeline.synthesize import SynthesisConfig, SynthesisSummary, synthesize
from data_pipeline.synthetic.cytology import DIAGNOSES, render_tile
from data_pipeline.synthetic.staining import slide_look

SMALL: dict[str, Any] = {"slides": 3, "tiles": 2, "image_size": 32}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SynthesisSummary:
    return synthesize(SynthesisConfig(output=tmp_path_factory.mktemp("images"), **SMALL))


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def run(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "data_pipeline.synthesize", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_one_and_two_processes_write_the_same_bytes(made: SynthesisSummary, tmp_path: Path) -> None:
    again = synthesize(SynthesisConfig(output=tmp_path, workers=2, **SMALL))
    assert contents(again.folder) == contents(made.folder)
    assert again.planted == made.planted


def test_another_seed_draws_other_pictures(made: SynthesisSummary, tmp_path: Path) -> None:
    other = synthesize(SynthesisConfig(output=tmp_path, seed=1, clean=True, **SMALL))
    assert not set(contents(made.folder).values()) & set(contents(other.folder).values())


def test_every_diagnosis_slide_and_tile_is_there_once_and_no_slide_has_two_diagnoses(tmp_path: Path) -> None:
    summary = synthesize(SynthesisConfig(output=tmp_path, clean=True, **SMALL))
    names = [path.split("/") for path in contents(summary.folder)]
    slides = {diagnosis: {name.split("_")[0] for d, name in names if d == diagnosis} for diagnosis in DIAGNOSES}
    assert {name for d, name in names} == {f"SG-{s:04d}_{t:03d}.png" for s in range(1, 16) for t in (1, 2)}
    assert len(names) == summary.images == summary.files == 30
    assert [len(ids) for ids in slides.values()] == [3] * 5
    assert len(set().union(*slides.values())) == summary.slides == 15


def test_the_summary_is_what_lies_on_the_disk(made: SynthesisSummary) -> None:
    files = contents(made.folder)
    planted = {fault.path for fault in made.planted}
    good = set(files) - planted
    assert len(files) == made.files
    assert len(good) == made.images == 30
    assert len({files[path] for path in good}) == made.images
    for path in good:
        with Image.open(made.folder / path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (32, 32))
            image.load()
    record = json.loads((made.folder.parent / "salivary_gland.synthesis.json").read_text())
    assert record["counts"] == {"images": 30, "slides": 15, "files": 40}
    assert [fault["path"] for fault in record["planted"]] == [fault.path for fault in made.planted]


def test_planted_corrupt_files_are_what_they_claim(made: SynthesisSummary) -> None:
    paths = {kind: [made.folder / path for path in found] for kind, found in made.planted_paths().items()}
    (truncated,), (text,), (empty,), (hidden,) = (paths[kind] for kind in ("truncated", "text", "empty", "hidden"))
    with Image.open(truncated) as image, pytest.raises(OSError, match="truncated"):
        image.load()
    assert text.suffix == ".png"
    assert text.read_text().startswith("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UnidentifiedImageError):
        Image.open(text)
    assert empty.stat().st_size == 0
    assert hidden.name == ".DS_Store"


def test_planted_copies_are_what_they_claim(made: SynthesisSummary) -> None:
    files = contents(made.folder)
    copies = [fault for fault in made.planted if fault.kind == "duplicate"]
    assert len(copies) == 3
    for copy in copies:
        assert files[copy.path] == files[copy.copy_of]
        assert Path(copy.path).parent == Path(copy.copy_of).parent
    assert copies[-1].path.split("_0")[0] != copies[-1].copy_of.split("_0")[0]
    (bitmap,) = (fault for fault in made.planted if fault.kind == "reencoded")
    with Image.open(made.folder / bitmap.path) as copy_, Image.open(made.folder / bitmap.copy_of) as original:
        assert copy_.format == "BMP"
        assert np.array_equal(np.asarray(copy_), np.asarray(original))
    assert files[bitmap.path] != files[bitmap.copy_of]


def test_the_label_conflict_is_one_image_under_two_diagnoses(made: SynthesisSummary) -> None:
    files = contents(made.folder)
    one, two = made.planted_paths()["label_conflict"]
    assert files[one] == files[two]
    assert Path(one).parent != Path(two).parent
    assert list(files.values()).count(files[one]) == 2


@pytest.mark.parametrize("seed", range(5))
def test_the_smallest_folder_has_room_for_every_fault(seed: int, tmp_path: Path) -> None:
    summary = synthesize(SynthesisConfig(output=tmp_path, slides=1, tiles=1, image_size=16, seed=seed))
    assert len(contents(summary.folder)) == summary.files == 15


def test_a_tile_depends_on_every_argument_and_on_nothing_else() -> None:
    arguments: dict[str, Any] = {"seed": 1, "diagnosis": "warthin_tumor", "slide": 4, "tile": 2, "size": 48}
    tile = render_tile(**arguments)
    assert tile.dtype == np.uint8
    assert tile.shape == (48, 48, 3)
    render_tile(**arguments | {"tile": 9})
    assert np.array_equal(tile, render_tile(**arguments))
    for other in ({"seed": 2}, {"diagnosis": "pleomorphic_adenoma"}, {"slide": 5}, {"tile": 3}):
        assert not np.array_equal(tile, render_tile(**arguments | other))


def test_stain_and_light_belong_to_the_slide() -> None:
    assert np.array_equal(slide_look(seed=3, slide=5).stain, slide_look(seed=3, slide=5).stain)
    assert not np.array_equal(slide_look(seed=3, slide=5).stain, slide_look(seed=3, slide=6).stain)
    means = np.array(
        [
            [render_tile(seed=0, diagnosis=DIAGNOSES[s % 5], slide=s, tile=t, size=32).mean((0, 1)) for t in range(6)]
            for s in range(20)
        ]
    )  # [slide, tile, 3]
    hue = means / means.sum(2, keepdims=True)
    assert hue.mean(1).std(0).mean() > 2 * hue.std(1).mean()


def test_mean_colour_does_not_give_the_diagnosis_away() -> None:
    slides = np.arange(70)
    colours, labels, groups = [], [], []
    for slide in slides:
        for tile in range(3):
            pixels = render_tile(seed=0, diagnosis=DIAGNOSES[slide % 5], slide=int(slide), tile=tile, size=32)
            colours.append(pixels.mean((0, 1)))
            labels.append(slide % 5)
            groups.append(slide)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=0)
    assert cross_val_score(model, np.array(colours), labels, groups=groups, cv=folds).mean() < 0.40


def test_made_again_nothing_is_written(made: SynthesisSummary, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in made.folder.parent.rglob("*")}
    assert synthesize(SynthesisConfig(output=made.folder.parent, **SMALL)) == made
    assert {path: path.stat().st_mtime_ns for path in made.folder.parent.rglob("*")} == before
    assert "nothing to do" in capsys.readouterr().err


def test_a_folder_of_someone_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "salivary_gland" / "real.png"
    mine.parent.mkdir()
    mine.write_bytes(b"precious")
    with pytest.raises(RequestError, match="wasn't made by this program"):
        synthesize(SynthesisConfig(output=tmp_path, **SMALL))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]


def test_a_folder_of_other_settings_or_with_changed_files_is_refused(tmp_path: Path) -> None:
    config = SynthesisConfig(output=tmp_path, slides=1, tiles=1, image_size=16)
    folder = synthesize(config).folder
    with pytest.raises(RequestError, match="--tiles was 1 and is 2"):
        synthesize(replace(config, tiles=2))
    next(folder.rglob("*.png")).unlink()
    with pytest.raises(RequestError, match="1 files are missing"):
        synthesize(config)


def test_what_an_interrupted_run_left_is_no_obstacle(made: SynthesisSummary, tmp_path: Path) -> None:
    left = tmp_path / ".salivary_gland.partial" / "warthin_tumor"
    left.mkdir(parents=True)
    (left / "half.png").write_bytes(b"half")
    again = synthesize(SynthesisConfig(output=tmp_path, **SMALL))
    assert contents(again.folder) == contents(made.folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["salivary_gland", "salivary_gland.synthesis.json"]


@pytest.mark.parametrize("wrong", [{"slides": 0}, {"tiles": 0}, {"image_size": 8}, {"seed": -1}, {"organ": "../x"}])
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=f"Invalid value for `--{next(iter(wrong))}`"):
        synthesize(replace(SynthesisConfig(output=tmp_path), **wrong))
    assert not list(tmp_path.iterdir())


def test_the_program_ends_with_one_line_that_says_where_the_images_are(tmp_path: Path) -> None:
    flags = (f"--output={tmp_path}", "--organ=lung", "--slides=1", "--tiles=2", "--image_size=16", "--clean")
    done = run(*flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Images: {tmp_path / 'lung'} (10 images of 5 slides")
    assert done.stdout.count("\n") == 1
    assert len(list(tmp_path.glob("lung/*/L-000?_00?.png"))) == 10
    refused = run(*flags, "--seed=7")
    assert refused.returncode == 2
    assert "--seed was 0 and is 7" in refused.stderr
