"""Sets of tensorflow-datasets, real ones on the disk that tensorflow-datasets itself wrote."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline import cli
from data_pipeline.sources import SourceFile, open_sources
from data_pipeline.tfds_source import diagnosis_names, file_name
from tests.conftest import image_bytes
from tests.data_pipeline.test_sources import read_all

pytestmark = pytest.mark.usefixtures("two_devices")
LABELS = ["01_TUMOR", "fat/adipose", ".normal"]


def write_set(data_dir: Path, name: str, *, features: dict[str, Any], splits: dict[str, list[dict[str, Any]]]) -> None:
    """A set on the disk, made as any user of tensorflow-datasets may."""
    import tensorflow_datasets as tfds

    tfds.dataset_builders.store_as_tfds_dataset(
        name,
        "1.2.3",
        tfds.features.FeaturesDict(features),
        {k: list(enumerate(v)) for k, v in splits.items()},
        data_dir=data_dir,
    )


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path / "tfds"


def image_features(**more: Any) -> dict[str, Any]:
    import tensorflow_datasets as tfds

    return {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=LABELS), **more}


def test_every_example_of_every_split_comes_as_it_is_stored(tmp_path: Path, data_dir: Path) -> None:
    images = {}
    for number in range(40):
        images[number] = tmp_path / f"{number}.{'jpg' if number % 2 else 'png'}"
        images[number].write_bytes(image_bytes(number, form="JPEG" if number % 2 else "PNG"))
    examples = [{"image": str(path), "label": number % 3} for number, path in images.items()]
    write_set(data_dir, "tiny", features=image_features(), splits={"train": examples[:30], "test": examples[30:]})
    (source,) = open_sources("tfds:tiny", ["skin"]).values()
    assert source.sequential
    assert source.description == "tfds:tiny"
    files = source.files()
    assert files == source.files()
    assert len({file.id for file in files}) == 40
    assert source.diagnoses() == ["01_TUMOR", "fat_adipose", "_.normal"]
    assert {file.diagnosis for file in files} == set(source.diagnoses())
    assert {Path(file.id).suffix for file in files} == {".png", ".jpg"}
    contents = {id: found.data for id, found in read_all(source).items()}
    assert sorted(map(bytes, contents.values())) == sorted(path.read_bytes() for path in images.values())
    label_of = {path.read_bytes(): source.diagnoses()[number % 3] for number, path in images.items()}
    assert all(label_of[contents[file.id]] == file.diagnosis for file in files)
    assert [found.data for found in source.read(files[5::7])] == [contents[file.id] for file in files[5::7]]


def test_examples_bear_the_names_the_set_gives_them(tmp_path: Path, data_dir: Path) -> None:
    import tensorflow_datasets as tfds

    (tmp_path / "x.png").write_bytes(image_bytes(1))
    names = ["S1_2.tif", "../a/b.png", "S1_2.tif", "S1_2.tif", "", ".hidden", "no suffix"]
    examples = [{"image": str(tmp_path / "x.png"), "label": 0, "filename": name} for name in names]
    features = image_features(filename=tfds.features.Text(), big=tfds.features.Tensor(shape=(2,), dtype=np.float32))
    examples = [example | {"big": [0.0, 1.0]} for example in examples]
    write_set(data_dir, "named", features=features, splits={"test": examples[:2], "train": examples[2:]})
    files = open_sources("tfds:named", ["all"])["named"].files()
    ids = sorted(file.id.removeprefix("01_TUMOR/") for file in files)
    assert len(set(ids)) == 7
    assert [id for id in ids if id.startswith("S1_2")][-1] == "S1_2.tif"
    assert {"_.._a_b.png", "_.hidden", "no suffix.png"} <= set(ids)
    assert all(file.id.count("/") == 1 for file in files)


def test_a_set_of_another_version_or_other_files_has_another_stamp(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.png").write_bytes(image_bytes(1))
    stamps = []
    for number in range(2):
        folder = tmp_path / f"tfds{number}"
        monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
        examples = [{"image": str(tmp_path / "x.png"), "label": label} for label in range(number + 2)]
        write_set(folder, "tiny", features=image_features(), splits={"train": examples})
        source = open_sources("tfds:tiny:1.2.3", ["all"])["tiny"]
        stamps.append(source.stamp(source.files()[0]))
        assert stamps[-1] == source.stamp(source.files()[0])
    assert stamps[0] != stamps[1]


def test_an_unlabelled_example_is_an_input_of_no_diagnosis(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "x.png").write_bytes(image_bytes(1))
    examples = [{"image": str(tmp_path / "x.png"), "label": label} for label in (-1, 1)]
    write_set(data_dir, "partly", features=image_features(), splits={"test": examples})
    files = open_sources("tfds:partly", ["all"])["partly"].files()
    assert sorted(file.diagnosis for file in files) == ["", "fat_adipose"]


def test_a_damaged_set_is_refused_with_the_remedy(tmp_path: Path, data_dir: Path) -> None:
    (tmp_path / "x.png").write_bytes(image_bytes(1))
    examples = [{"image": str(tmp_path / "x.png"), "label": 0}] * 3
    write_set(data_dir, "broken", features=image_features(), splits={"train": examples})
    (shard,) = data_dir.rglob("*.tfrecord*")
    data = bytearray(shard.read_bytes())
    data[-20] ^= 1
    shard.write_bytes(data)
    with pytest.raises(cli.RequestError, match=r"is damaged.*To fix it: delete the folder"):
        open_sources("tfds:broken", ["all"])["broken"].files()


@pytest.mark.parametrize("kind", ["text", "unlabelled", "float"])
def test_a_set_that_isnt_labelled_images_is_refused_with_its_features(data_dir: Path, kind: str) -> None:
    import tensorflow_datasets as tfds

    pixels = np.zeros((4, 4, 1), np.float32 if kind == "float" else np.uint8)
    features: dict[str, Any]
    if kind == "text":
        features, example = {"text": tfds.features.Text()}, {"text": "x"}
    else:
        label = tfds.features.Text() if kind == "unlabelled" else tfds.features.ClassLabel(names=["0", "1"])
        image = tfds.features.Image(shape=(4, 4, 1), dtype=pixels.dtype.type)
        features, example = {"image": image, "label": label}, {"image": pixels, "label": "1"}
    write_set(data_dir, "other", features=features, splits={"train": [example]})
    with pytest.raises(cli.RequestError, match=r"--images.*image.*label.*Received: 'tfds:other with .*To fix it"):
        open_sources("tfds:other", ["all"])


@pytest.mark.parametrize("name", ["", "nosuchset", "colorectal_histolgy", "mnist:99.0.0", "mnist/none", "../x", "a b"])
@pytest.mark.usefixtures("data_dir")
def test_a_set_that_doesnt_exist_is_refused(name: str) -> None:
    with pytest.raises(cli.RequestError, match=r"--images.*tfds:NAME.*To fix it") as caught:
        open_sources(f"tfds:{name}", ["all"])
    assert "histolgy" not in name or "did you mean colorectal_histology" in str(caught.value)


@pytest.mark.usefixtures("data_dir")
def test_a_set_is_one_organ() -> None:
    with pytest.raises(cli.RequestError, match=r"--organ.*one name.*To fix it"):
        open_sources("tfds:mnist", ["a", "b"])


def test_a_set_that_cant_be_stored_says_where(data_dir: Path) -> None:
    data_dir.parent.mkdir(exist_ok=True)
    data_dir.write_text("a file where the folder should be")
    with pytest.raises(cli.FaultError, match=f"Can't download tfds:colorectal_histology to {data_dir}.*To fix it"):
        open_sources("tfds:colorectal_histology", ["all"])


@given(st.lists(st.text(alphabet="a./\\~\0 _"), max_size=6))
def test_diagnoses_keep_their_number_and_are_no_system_names(labels: list[str]) -> None:
    names = diagnosis_names(labels)
    assert len(set(names)) == len(labels)
    for name in names:
        assert not set("/\\\0") & set(name)
        assert SourceFile.of(f"{name}/x").diagnosis == name
        assert not name.startswith(".")


@given(st.text(), st.binary())
def test_a_file_name_is_one_part_with_a_suffix(given: str, data: bytes) -> None:
    name = file_name(given, "train", 7, data)
    assert name == os.path.basename(name)  # noqa: PTH119
    assert name.strip(".")
    assert "." in name
