"""Conversion from archives and single organ folders: the bytes are those of the folder they were made of."""

import shutil
import tarfile
from pathlib import Path

import pytest

from data_pipeline import cli
from data_pipeline.manifest import Manifest, read_quarantine
from data_pipeline.verify import verify
from tests.conftest import image_bytes
from tests.data_pipeline.conversion import contents, convert


@pytest.fixture
def folder(images: Path) -> Path:
    """Images of one organ, with some trouble among them."""
    organ = images / "gland"
    (organ / "red" / "broken.png").write_bytes(b"broken")
    (organ / "red" / "slide.svs").write_bytes(b"II*\0")
    (organ / "red" / "Ünïcode 漢字.png").write_bytes(image_bytes(5))
    shutil.copy(organ / "red" / "S200_0.png", organ / "red" / "S200_copy.png")
    return images


def pack(images: Path, path: Path, form: str) -> Path:
    """`images` as an archive, its files in an order of its own."""
    if form == "zip":
        return Path(shutil.make_archive(str(path), "zip", images))
    target = path.with_name(f"{path.name}.{form}")
    with tarfile.open(target, "w:" + form.partition(".")[2]) as archive:
        for file in sorted(images.rglob("*"), key=lambda file: file.name[::-1]):
            archive.add(file, arcname=file.relative_to(images), recursive=False)
    return target


@pytest.mark.parametrize(("form", "workers"), [("zip", 2), ("tar", 1), ("tar.gz", 2), ("tar.xz", 1)])
def test_an_archive_gives_the_bytes_of_the_folder_in_it(folder: Path, tmp_path: Path, form: str, workers: int) -> None:
    archive = pack(folder, tmp_path / "packed", form)
    convert(archive, tmp_path / "tf", f"--workers={workers}")
    assert "nothing to do" in convert(folder, tmp_path / "tf")  # which hashes every file and every shard
    assert Manifest.load(tmp_path / "tf" / "gland").counts.inputs == 76


def test_the_bytes_do_not_depend_on_where_the_images_were(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "organs")
    convert(pack(folder, tmp_path / "packed", "tar.gz"), tmp_path / "archive")
    convert(folder / "gland", tmp_path / "organ")
    expected = contents(tmp_path / "organs" / "gland")
    assert contents(tmp_path / "archive" / "gland") == expected
    assert contents(tmp_path / "organ" / "gland") == expected


@pytest.mark.usefixtures("two_devices")
def test_a_set_of_tensorflow_datasets_is_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow_datasets as tfds

    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["benign", "malignant"])}
    )
    examples = []
    for number in range(60):
        path = tmp_path / f"{number}.png"
        path.write_bytes(image_bytes(number, colour=(200, 60 + 120 * (number % 2), 90)))
        examples.append((number, {"image": str(path), "label": number % 2}))
    tfds.dataset_builders.store_as_tfds_dataset(
        "tiny", "1.0.0", features, {"train": examples[:40], "test": examples[40:]}, data_dir=tmp_path / "tfds"
    )
    convert("tfds:tiny", tmp_path / "tf")
    manifest = Manifest.load(tmp_path / "tf" / "gland")
    assert manifest.classes == ("benign", "malignant")
    assert (manifest.counts.inputs, manifest.counts.written) == (60, 60)
    assert verify(tmp_path / "tf" / "gland", workers=1) == []
    assert "nothing to do" in convert("tfds:tiny", tmp_path / "tf")


def test_a_whole_slide_file_is_left_out_with_advice(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "tf")
    reasons = {row.path: row.reason for row in read_quarantine(tmp_path / "tf" / "gland")}
    assert "OpenSlide" in reasons["red/slide.svs"]
    assert Manifest.load(tmp_path / "tf" / "gland").counts.quarantined == 2


def test_workers_share_a_compressed_archive_too(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "alone")
    archive = pack(folder, tmp_path / "packed", "tar.gz")
    for worker in (1, 0):
        flags = ["--stage=inspect", "--num_workers=2", f"--worker={worker}"]
        convert(archive, tmp_path / "tf", *flags)
    convert(archive, tmp_path / "tf")
    assert contents(tmp_path / "tf" / "gland") == contents(tmp_path / "alone" / "gland")


def test_a_damaged_archive_is_refused_whole(folder: Path, tmp_path: Path) -> None:
    archive = pack(folder, tmp_path / "packed", "tar.gz")
    archive.write_bytes(archive.read_bytes()[:-2000])
    message = convert(archive, tmp_path / "tf", code=cli.EXIT_REQUEST)
    assert "To fix it" in message
    assert not (tmp_path / "tf" / "gland").exists()
