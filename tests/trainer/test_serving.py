"""The exported model: the same answers from evaluation, prediction and serving."""

import csv
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_pipeline import cli
from data_pipeline.manifest import Manifest
from tests.conftest import run_module
from tests.trainer.test_run import metrics_of
from trainer.export import load_served
from trainer.records import RecordReader
from trainer.served_images import decode_served


def test_predict_evaluate_and_the_test_agree_on_the_same_images(
    finished_run: Path, tfrecords: Path, tmp_path: Path
) -> None:
    manifest = Manifest.load(tfrecords / "gland")
    reader = RecordReader(tfrecords / "gland", manifest, "test")
    records = reader.records(np.arange(len(reader)))
    for number, record in enumerate(records):
        (tmp_path / f"{number:03d}.jpg").write_bytes(record.image)
    out = tmp_path / "out.csv"
    done = run_module("trainer.predict", f"--model={finished_run / 'model'}", f"--output={out}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"Predictions: {out} ({len(records)} files)"
    with out.open() as file:
        rows = list(csv.DictReader(file))
    matrix = np.zeros((3, 3), int)
    for row, record in zip(rows, records, strict=True):
        matrix[record.label, manifest.classes.index(row["class"])] += 1
        assert float(row["confidence"]) == max(float(row[f"probability_{name}"]) for name in manifest.classes)
    test = metrics_of(finished_run)["test"]
    assert matrix.tolist() == test["confusion_matrix"]
    log_loss = -np.mean(
        [np.log(float(row[f"probability_{manifest.classes[r.label]}"])) for row, r in zip(rows, records, strict=True)]
    )
    assert log_loss == pytest.approx(test["log_loss"], abs=1e-5)
    done = run_module("trainer.evaluate", f"--model={finished_run}", f"--tfrecords={tfrecords}", "--organ=gland")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["test"] == test


def test_the_saved_model_serves_any_format_and_size_without_this_package(
    finished_run: Path, images: Path, tmp_path: Path
) -> None:
    """In a fresh process that can import TensorFlow alone, and to the same numbers."""
    program = """
import json, sys, tensorflow as tf
serve = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
answer = serve(images=tf.constant([open(path, "rb").read() for path in sys.argv[2:]]))
assert not any(name.split(".")[0] in ("trainer", "data_pipeline") for name in sys.modules)
names = [name.decode() for name in answer["class"].numpy()]
print(json.dumps([names, answer["confidence"].numpy().tolist(), answer["probabilities"].numpy().tolist()]))
"""
    picture = Image.open(next((images / "gland" / "red").iterdir())).convert("RGB")
    paths = []
    for number, (size, form) in enumerate(
        (((48, 48), "PNG"), ((48, 48), "BMP"), ((31, 77), "PNG"), ((300, 200), "JPEG"), ((48, 48), "GIF"))
    ):
        paths.append(tmp_path / f"{number}.{form.lower()}")
        picture.resize(size, Image.Resampling.BILINEAR).save(paths[-1], form)
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(finished_run / "model"), *map(str, paths)],
        cwd=images, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names, confidences, probabilities = json.loads(done.stdout)
    assert names == ["red"] * 5
    here = load_served(finished_run).probabilities([path.read_bytes() for path in paths])
    np.testing.assert_allclose(probabilities, here, atol=1e-5)
    np.testing.assert_allclose(confidences, here.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(probabilities[0], probabilities[1], atol=1e-6)


def test_the_fourth_byte_of_a_bmp_is_no_transparency() -> None:
    pixels = np.full((32, 32, 4), 100, np.uint8)
    pixels[..., 3] = 0
    header = struct.pack("<2sIHHI", b"BM", 54 + pixels.nbytes, 0, 0, 54)
    header += struct.pack("<IiiHHIIiiII", 40, 32, 32, 1, 32, 0, pixels.nbytes, 0, 0, 0, 0)
    seen, last = decode_served(tf.constant(header + pixels.tobytes()), image_size=32)
    assert (seen.numpy() == 100).all()
    assert last.numpy().tolist() == [100] * 3


def test_prediction_sees_an_image_as_conversion_does(finished_run: Path, tmp_path: Path) -> None:
    """Turned by EXIF, transparent, TIFF, 16 bits: each equals the picture a person sees, saved as a plain PNG."""
    top = Image.fromarray(np.repeat(np.linspace(0, 255, 48)[:, None, None], 48, 1).repeat(3, 2).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    top.rotate(90).save(tmp_path / "exif.jpg", quality=100, subsampling=0, exif=exif)
    layer = top.convert("RGBA")
    layer.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 48).astype(np.uint8), (48, 1))))
    layer.save(tmp_path / "alpha.png")
    seen = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    top.save(tmp_path / "tiff.tif")
    Image.fromarray(np.asarray(top)[..., 0].astype(np.uint16) * 257).save(tmp_path / "deep.png")
    top.save(tmp_path / "plain.png")
    seen.save(tmp_path / "white.png")
    out = tmp_path / "out.csv"
    done = run_module("trainer.predict", f"--model={finished_run}", f"--output={out}", tmp_path)
    assert done.returncode == 0, done.stderr
    with out.open() as file:
        rows = {Path(row["path"]).name: float(row["probability_red"]) for row in csv.DictReader(file)}
    for name in ("tiff.tif", "deep.png"):
        assert rows[name] == rows["plain.png"]
    assert rows["exif.jpg"] == pytest.approx(rows["plain.png"], abs=0.01)
    assert rows["alpha.png"] == pytest.approx(rows["white.png"], abs=1e-4)
    served = load_served(finished_run)  # and by the served model alone, which other clients use
    alone = served.probabilities([(tmp_path / name).read_bytes() for name in ("alpha.png", "white.png")])
    assert alone[0] == pytest.approx(alone[1], abs=1e-2)


def test_a_bad_file_is_a_row_with_its_error(finished_run: Path, images: Path, tmp_path: Path) -> None:
    good = images / "gland" / "blue" / "S000_0.png"
    bad = tmp_path / "bad.png"
    bad.write_bytes(good.read_bytes()[:100])
    done = run_module("trainer.predict", f"--model={finished_run}", good, bad)
    assert done.returncode == cli.EXIT_FAULT
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("blue")
    assert "damaged" in lines[1]
    assert "1 of 2 files" in done.stderr
