"""What is exported: calibrated answers, seen upright, from the very computation that was tested before."""

import io
import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, ImageOps

from data_pipeline.cli import FaultError
from data_pipeline.manifest import Manifest
from tests.conftest import image_bytes
from tests.trainer.exported import CLASSES, telling_model
from trainer.exif import orientation, upright
from trainer.export import Served, check_export, export, load_served, served_in_memory
from trainer.input_pipeline import decode_stored
from trainer.records import RecordReader
from trainer.served_images import decode_served
from trainer.serving_layout import link_version

SIZE = 32
IMAGES = tuple(image_bytes(seed, colour=(70 * (seed % 4), 40 * (seed % 6), 120), size=40) for seed in range(24))


def exported(folder: Path, *, temperature: float = 1.0, views: int = 1, threshold: float | None = None) -> Served:
    export(
        telling_model(SIZE),
        classes=CLASSES,
        image_size=SIZE,
        folder=folder / "model",
        temperature=temperature,
        views=views,
        threshold=threshold,
        serving=folder / "serving",
    )
    return load_served(folder)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of temperature 1, and the layout of TensorFlow Serving."""
    folder = tmp_path_factory.mktemp("exported")
    exported(folder)
    return folder


# ── The answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("views", [1, 8])
def test_probabilities_are_calibrated_and_the_answers_stay(tmp_path: Path, views: int) -> None:
    served = exported(tmp_path, temperature=2.5, views=views, threshold=0.5)
    assert (served.classes, served.image_size, served.views) == (CLASSES, SIZE, views)
    assert (served.temperature, served.threshold) == (2.5, 0.5)
    before = served_in_memory(telling_model(SIZE), classes=CLASSES, image_size=SIZE, views=views)
    check_export(before, served, IMAGES)
    # By hand: each of the eight views of the pixels through the network itself.
    pixels = np.stack([decode_served(tf.constant(data), image_size=SIZE)[0].numpy() for data in IMAGES]) / 255
    seen = [np.rot90(side, turn, axes=(1, 2)) for side in (pixels, pixels[:, :, ::-1]) for turn in range(4)][:views]
    model = telling_model(SIZE)
    mean = np.mean([np.asarray(model(view.astype(np.float32))) for view in seen], axis=0)
    np.testing.assert_allclose(before.probabilities(IMAGES), mean, atol=1e-5)
    found = served.probabilities(IMAGES)
    np.testing.assert_allclose(found, softmax(np.log(mean) / 2.5), atol=1e-5)
    assert (found.argmax(axis=1) == mean.argmax(axis=1)).all()
    answers = served.signatures["serving_default"](images=tf.constant(IMAGES))
    accepted = answers["accepted"].numpy()
    assert (accepted == (found.max(axis=1) >= 0.5)).all()
    assert set(accepted) == {True, False}
    if views == 8:  # a picture that is turned or mirrored is another view of the same
        turned = io.BytesIO()
        Image.open(io.BytesIO(IMAGES[0])).resize((SIZE, SIZE)).save(turned, "PNG")
        ImageOps.mirror(Image.open(turned)).transpose(Image.Transpose.ROTATE_90).save(out := io.BytesIO(), "PNG")
        both = served.probabilities([turned.getvalue(), out.getvalue()])
        np.testing.assert_allclose(both[0], both[1], atol=1e-5)


def test_a_batch_may_be_empty_and_without_a_threshold_nothing_is_accepted(shared: Path) -> None:
    served = load_served(shared)
    assert served.threshold is None
    assert served.probabilities([]).shape == (0, len(CLASSES))
    answers = served.signatures["serving_default"](images=tf.constant(IMAGES[:1]))
    assert set(answers) == {"class", "confidence", "logits", "probabilities"}


def test_an_export_that_says_something_else_is_a_fault(shared: Path) -> None:
    served = load_served(shared)
    before = served_in_memory(telling_model(SIZE, seed=1), classes=CLASSES, image_size=SIZE)
    with pytest.raises(FaultError, match="other probabilities than the one that was trained: they differ by up to 0"):
        check_export(before, served, IMAGES)
    same = served_in_memory(telling_model(SIZE), classes=CLASSES, image_size=SIZE)
    check_export(same, served, IMAGES)
    with pytest.raises(FaultError):
        check_export(replace(same, classes=CLASSES[::-1]), served, IMAGES)


def test_records_are_seen_as_evaluation_sees_them_bit_for_bit(dataset: tuple[Path, Manifest]) -> None:
    folder, manifest = dataset
    records = RecordReader(folder, manifest, "test").records(np.arange(8))
    for size in (manifest.image_size, 24, 50):
        for record in records:
            ours, _ = decode_served(tf.constant(record.image), image_size=size)
            theirs = decode_stored(record.image, stored_size=manifest.image_size, image_size=size)
            assert (ours.numpy() == theirs.numpy()).all()


# ── Upright ──────────────────────────────────────────────────────────────────────────────────────────────────────────

PICTURE = Image.fromarray(np.random.default_rng(3).integers(0, 255, (24, 40, 3), np.uint8)).resize((120, 72))
PLAIN = io.BytesIO()
PICTURE.save(PLAIN, "JPEG", quality=95, subsampling=0)
JFIF_END = 20


def segment(kind: int, body: bytes) -> bytes:
    return bytes([0xFF, kind]) + struct.pack(">H", len(body) + 2) + body


def exif(value: int, order: str, *, before: int = 0, gap: int = 0) -> bytes:
    """An EXIF segment with entries `before` the orientation, and a `gap` of so many bytes before its directory."""
    entries = [struct.pack(order + "HHIHH", 0x0100 + i, 3, 1, 7, 0) for i in range(before)]
    entries.append(struct.pack(order + "HHIHH", 0x0112, 3, 1, value, 0))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + gap) + bytes(gap)
    count = struct.pack(order + "H", len(entries))
    return segment(0xE1, b"Exif\0\0" + head + count + b"".join(entries) + bytes(4))


def with_segments(*segments: bytes, jfif: bool = True) -> bytes:
    data = PLAIN.getvalue()
    return data[: JFIF_END if jfif else 2] + b"".join(segments) + data[JFIF_END:]


@pytest.mark.parametrize("order", ["<", ">"], ids=["little endian", "big endian"])
@pytest.mark.parametrize("value", range(10))
def test_a_jpeg_is_turned_as_its_exif_data_says(value: int, order: str) -> None:
    files = (
        with_segments(exif(value, order)),
        with_segments(exif(value, order), jfif=False),
        with_segments(segment(0xFE, b"a comment"), segment(0xE1, b"http://ns.adobe.com/xap/"), exif(value, order)),
        with_segments(segment(0xE2, bytes(60_000)), exif(value, order, before=3, gap=14)),
    )
    for data in files:
        turn = orientation(tf.constant(data))
        seen = upright(tf.io.decode_image(data), turn).numpy()
        noted = Image.open(io.BytesIO(data)).getexif().get(0x0112, 1)  # as Pillow reads it
        expected = _turned(Image.fromarray(tf.io.decode_image(data).numpy()), noted)
        assert (seen == np.asarray(expected)).all()


def _turned(picture: Image.Image, value: int) -> Image.Image:
    """As Pillow turns a picture of that orientation, of the pixels that TensorFlow decoded."""
    out, note = io.BytesIO(), Image.Exif()
    note[0x0112] = value
    picture.save(out, "PNG", exif=note)
    return ImageOps.exif_transpose(Image.open(out))


def test_a_note_that_is_damaged_or_not_there_turns_nothing() -> None:
    whole = with_segments(exif(6, "<"), jfif=False)
    start = whole.index(b"II*\0")
    files = [
        PLAIN.getvalue(),
        whole[: start + 4] + b"\xff" * 4 + whole[start + 8 :],  # the directory is far behind the file
        whole[: start + 4] + b"\xff\xff\xff\x7f" + whole[start + 8 :],
        whole[: start + 8] + b"\xff\xff" + bytes(12) + whole[start + 22 :],  # more entries than there is file
        with_segments(segment(0xE1, b"Exif\0\0"), jfif=False),
        whole[: start + 12],
        b"\xff\xd8\xff" + bytes(80),
        b"\xff\xd8\xff\xe1\xff\xff" + b"x" * 80,
        image_bytes(1),
        b"",
    ]
    assert [int(orientation(tf.constant(data))) for data in files] == [1] * len(files)


def test_the_served_model_alone_sees_a_turned_jpeg_upright(shared: Path) -> None:
    served = load_served(shared)
    data = with_segments(exif(6, ">"))
    out = io.BytesIO()
    _turned(Image.fromarray(tf.io.decode_image(data).numpy()), 6).save(out, "PNG")
    seen = served.probabilities([data, out.getvalue(), PLAIN.getvalue()])
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-6)
    assert np.abs(seen[0] - seen[2]).max() > 1e-5


# ── The folder that TensorFlow Serving takes ─────────────────────────────────────────────────────────────────────────


def test_the_layout_is_that_of_tensorflow_serving_and_takes_no_space_of_its_own(shared: Path) -> None:
    served = load_served(shared)
    serving = shared / "serving"
    # Its rule: the versions are the sub-folders whose names are numbers, the largest is served.
    versions = [path for path in serving.iterdir() if path.is_dir() and path.name.isdecimal()]
    assert [path.name for path in versions] == ["1"]
    assert sorted(serving.iterdir()) == versions
    (version,) = versions
    for name in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
        assert (version / name).samefile(shared / "model" / name)
    assert (version / "assets").is_dir()
    loaded = tf.saved_model.load(str(version), tags=["serve"]).signatures["serving_default"]
    assert {name: spec.dtype for name, spec in loaded.structured_input_signature[1].items()} == {"images": tf.string}
    assert loaded.structured_input_signature[1]["images"].shape.as_list() == [None]
    found = loaded(images=tf.constant(IMAGES))["probabilities"]
    np.testing.assert_allclose(found, served.probabilities(IMAGES), atol=1e-6)
    assert json.dumps(found.numpy().tolist())  # as its REST interface answers


def test_a_layout_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"new")
    (tmp_path / "serving" / "1").mkdir(parents=True)
    (tmp_path / "serving" / "1" / "saved_model.pb").write_bytes(b"old")
    (tmp_path / ".serving.tmp").mkdir()
    (tmp_path / ".serving.tmp" / "half").touch()
    link_version(tmp_path / "model", tmp_path / "serving")
    assert (tmp_path / "serving" / "1" / "saved_model.pb").read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "serving"]
