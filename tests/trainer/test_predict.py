"""Prediction: rows in order, whatever the files are called and whatever is wrong with them, and verdicts on groups."""

import csv
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data_pipeline.images import ImageRefusedError, decode
from tests.conftest import image_bytes, make_images
from tests.trainer.exported import CLASSES, THRESHOLD, asked, photograph, saved, telling_model
from trainer.export import Served, export, load_served
from trainer.images_named import find_images
from trainer.images_seen import as_seen
from trainer.predict import predict, predict_to
from trainer.predict_stream import Prediction

SIZE = 32
TOLERANCE = 1e-5  # between batches of other sizes
ODD_NAMES = ('comma, and "quotes".png', "new\nline.png", "Zellabstrich β.png", os.fsdecode(b"caf\xe9.png"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """A model that recommends to abstain below THRESHOLD."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(telling_model(SIZE), classes=CLASSES, image_size=SIZE, folder=folder, temperature=1.5, threshold=THRESHOLD)
    return load_served(folder)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def said(rows: Iterable[Prediction]) -> NDArray[np.float32]:
    """`[n, classes]` of rows without an error."""
    return np.array([row.probabilities for row in rows], dtype=np.float32)


def write_images(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(exist_ok=True)
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(seed, colour=(60 * (seed % 4), 120, 200 - 50 * (seed % 5))))


# ── Rows ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rows_are_in_order_and_what_the_model_says_however_they_are_batched(served: Served, tmp_path: Path) -> None:
    write_images(tmp_path / "new", [f"{number:03d}.png" for number in range(45)])
    paths = sorted((tmp_path / "new").iterdir())
    alone = np.concatenate([served.probabilities([path.read_bytes()]) for path in paths])
    assert len(set(alone.argmax(axis=1))) > 1
    for batch_size in (1, 7, 64):
        rows = list(predict(served, paths, batch_size=batch_size))
        assert [row.path for row in rows] == [str(path) for path in paths]
        np.testing.assert_allclose(said(rows), alone, atol=TOLERANCE)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_any_name_comes_back_as_it_was(served: Served, tmp_path: Path, form: str) -> None:
    write_images(tmp_path / "new", ODD_NAMES)
    out = tmp_path / f"out.{form}"
    assert predict_to(asked(f"--output={out}", tmp_path / "new"), served) == 0
    expected = sorted(str(tmp_path / "new" / name) for name in ODD_NAMES)
    if form == "csv":
        found = [row["path"] for row in rows_of(out)]
        expected = [name.encode(errors="backslashreplace").decode() for name in expected]
    else:
        found = [json.loads(line)["path"] for line in out.read_text().splitlines()]
    assert found == expected


def test_a_table_has_one_line_for_an_image_whatever_it_is_called(
    served: Served, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    write_images(tmp_path / "new", ODD_NAMES)
    predict_to(asked("--group_by=none", tmp_path / "new"), served)
    assert len(capfdbinary.readouterr().out.decode().splitlines()) == len(ODD_NAMES)


def test_a_file_named_twice_is_predicted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "new", ["a.png", "deep/b.png"])
    monkeypatch.chdir(tmp_path)
    named = find_images(["new/deep/b.png", "new", str(tmp_path / "new" / "a.png")])
    assert list(map(str, named.images)) == ["new/deep/b.png", "new/a.png"]
    assert named.ids == ("deep/b.png", "new/a.png")
    assert named.again == 2


def test_the_most_probable_are_named_and_the_unsure_are_marked(served: Served, tmp_path: Path) -> None:
    write_images(tmp_path / "new", [f"{number}.png" for number in range(20)])
    (tmp_path / "new" / "x.png").write_bytes(b"no image")
    out = tmp_path / "out.csv"
    assert predict_to(asked(f"--output={out}", "--top_k=9", tmp_path / "new"), served) == 1
    *rows, broken = rows_of(out)
    marked = []
    for row in rows:
        shares = {name: float(row[f"probability_{name}"]) for name in CLASSES}
        order = sorted(CLASSES, key=lambda name: -shares[name])
        assert [row["class"], row["class_2"], row["class_3"]] == order
        assert [row["confidence"], row["confidence_2"]] == [row[f"probability_{name}"] for name in order[:2]]
        assert row["abstained"] == str(float(row["confidence"]) < THRESHOLD).lower()
        marked.append(row["abstained"])
    assert set(marked) == {"true", "false"}
    assert broken["error"] == "not an image in any known format"
    assert not any(broken[name] for name in broken if name not in ("path", "error"))
    predict_to(asked(f"--output={out}", "--threshold=none", tmp_path / "new"), served)
    assert "abstained" not in rows_of(out)[0]
    predict_to(asked(f"--output={out}", "--threshold=1", "--format=jsonl", "--top_k=2", tmp_path / "new"), served)
    *found, broken_too = map(json.loads, out.read_text().splitlines())
    assert all(row["abstained"] for row in found)
    assert [[one["class"] for one in row["top"]] for row in found] == [[r["class"], r["class_2"]] for r in rows]
    assert (broken_too["class"], broken_too["top"], broken_too["error"]) == (None, [], broken["error"])


# ── Groups ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_verdict_on_a_slide_is_the_mean_over_its_images(served: Served, tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", slides=4, tiles=3, size=SIZE)
    (images / "red" / "S200_0.png").write_bytes(b"no image")
    for tile in range(3):
        (images / "red" / f"S201_{tile}.png").write_bytes(b"no image")
    out, groups = tmp_path / "out.csv", tmp_path / "groups.csv"
    where = [f"--output={out}", f"--group_output={groups}", *(images / name for name in ("blue", "green", "red"))]
    assert predict_to(asked(*where), served) == 4
    rows, verdicts = rows_of(out), rows_of(groups)
    assert [row["group"] for row in verdicts] == sorted({Path(row["path"]).name[:4] for row in rows})
    for verdict in verdicts:
        members = [row for row in rows if row["group"] == verdict["group"]]
        assert all(Path(row["path"]).name.startswith(verdict["group"]) for row in members)
        good = [row for row in members if row["class"]]
        assert (int(verdict["images"]), int(verdict["failed"])) == (3, 3 - len(good))
        for name in CLASSES if good else ():
            mean = np.mean([float(row[f"probability_{name}"]) for row in good])
            assert float(verdict[f"probability_{name}"]) == pytest.approx(mean, abs=2e-6)
    assert next(row["class"] for row in verdicts if row["group"] == "S201") == ""


def test_verdicts_are_shown_where_rows_are_not(
    served: Served, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "new", [f"{slide}/{tile}.png" for slide in "abc" for tile in "12"])
    predict_to(asked("--group_by=folder", tmp_path / "new"), served)
    assert [line.split()[0] for line in capfd.readouterr().out.splitlines()[-3:]] == ["a", "b", "c"]
    predict_to(asked("--group_by=folder", "--format=jsonl", tmp_path / "new"), served)
    streams = capfd.readouterr()
    assert [json.loads(line)["group"] for line in streams.out.splitlines()] == list("aabbcc")
    assert [line.split()[0] for line in streams.err.splitlines()[-3:]] == ["a", "b", "c"]
    predict_to(asked(f"--group_output={tmp_path / 'g.jsonl'}", "--format=jsonl", tmp_path / "new"), served)
    streams = capfd.readouterr()
    assert [json.loads(line)["group"] for line in streams.out.splitlines()] == list("aabbcc")
    assert f"Verdicts: {tmp_path / 'g.jsonl'} (3 groups)" in streams.err
    assert [json.loads(line)["group"] for line in (tmp_path / "g.jsonl").read_text().splitlines()] == list("abc")


# ── What is wrong with files ─────────────────────────────────────────────────────────────────────────────────────────


def lacking(data: bytes) -> bytes:
    """A JPEG with data missing from its middle on, but with its end."""
    return data[: len(data) * 2 // 3] + b"\xff\xd9"


def test_what_a_quick_look_passes_is_what_a_thorough_one_passes(served: Served, tmp_path: Path) -> None:
    """Each damaged or unusual file gets the row it gets if every file is decoded first."""
    whole = photograph()
    png = image_bytes(3)
    shown = Image.open(io.BytesIO(png))
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "whole": whole,
        "cut": whole[: len(whole) // 2],
        "lacking": lacking(whole),
        "lacking progressive": lacking(photograph(progressive=True)),
        "progressive": photograph(progressive=True),
        "data behind its end": whole + b"more",
        "turned": photograph(exif=exif),
        "cmyk": saved(Image.open(io.BytesIO(whole)).convert("CMYK"), "JPEG"),
        "png": png,
        "png cut": png[:-30],
        "png with a wrong checksum": png[:200] + bytes([png[200] ^ 1]) + png[201:],
        "png turned": saved(shown, "PNG", exif=exif),
        "png of 16 bits": saved(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16), "PNG"),
        "png with alpha": saved(shown.convert("RGBA"), "PNG"),
        "webp": saved(shown, "WEBP"),
        "empty": b"",
        "text": b"no image",
    }
    paths = []
    for name, data in files.items():
        paths.append(tmp_path / name)
        paths[-1].write_bytes(data)
    rows, refused = list(predict(served, paths)), dict[str, str]()
    for row, (name, data) in zip(rows, files.items(), strict=True):
        try:
            seen = as_seen(data, thoroughly=True)
        except ImageRefusedError as error:
            refused[name] = str(error)
        else:
            np.testing.assert_allclose(said([row]), served.probabilities([seen]), atol=TOLERANCE, err_msg=name)
    assert {name: row.error for name, row in zip(files, rows, strict=True) if row.error} == refused
    assert set(refused) == {
        "cut", "lacking", "lacking progressive", "png cut", "png with a wrong checksum", "empty", "text"
    }  # fmt: skip


def test_what_tensorflow_refuses_and_conversion_takes_is_predicted_by_its_pixels(served: Served) -> None:
    class Picky:
        """Refuses JPEGs, as TensorFlow does some that Pillow takes."""

        def __init__(self) -> None:
            self.classes = served.classes

        def checked(self, images: Sequence[bytes]) -> Any:
            return None if any(data[:2] == b"\xff\xd8" for data in images) else served.checked(images)

        def probabilities(self, images: Sequence[bytes]) -> Any:
            return served.probabilities(images)

    class Named:
        def __init__(self, data: bytes) -> None:
            self.read_bytes = lambda: data

    whole = photograph(SIZE)
    rows = list(predict(Picky(), [Named(image_bytes(1, size=SIZE)), Named(whole), Named(b"")]))  # type: ignore[arg-type]
    pixels = saved(Image.fromarray(decode(whole).pixels), "PNG")
    expected = served.probabilities([image_bytes(1, size=SIZE), pixels])
    np.testing.assert_allclose(said(rows[:2]), expected, atol=TOLERANCE)
    assert rows[2].error == "empty file"
