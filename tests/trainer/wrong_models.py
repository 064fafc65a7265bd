"""Evaluations and predictions that are wrong: rows for `test_bad_requests.py`."""

import shutil

from tests.faults.disks import mounted
from tests.trainer.wrong_requests import Make, Place, Row, flip_bit, manifest_text, without


def _ask(*arguments: str) -> Make:
    """A prediction; `{model}`, `{image}` and `{folder}` stand for what is there."""

    def make(place: Place) -> list[str]:
        image = place.image()
        return [text.format(model=place.model, image=image, folder=place.folder) for text in arguments]

    return make


def _read_only_output(place: Place) -> list[str]:
    disk = place.stack.enter_context(mounted(place.runs))
    disk.remount("ro")
    return [f"--model={place.model}", f"--output={place.runs / 'out.csv'}", str(place.image())]


def _full_output(place: Place) -> list[str]:
    place.stack.enter_context(mounted(place.runs)).fill(spare_pages=0)
    return [f"--model={place.model}", f"--output={place.runs / 'out.csv'}", str(place.image())]


PREDICT = (
    Row("no model named", _ask("{image}"), ("--model",)),
    Row("model empty", _ask("--model=", "{image}"), ("`--model`",)),
    Row("model at no address", _ask("--model=gs://B/model", "{image}"), ("`--model`", "gs://my-bucket/model")),
    Row("model missing", _ask("--model=/proc/nowhere", "{image}"), ("`--model`", "a finished run")),
    Row("model is a file", _ask("--model={image}", "{image}"), ("`--model`", "a finished run")),
    Row("model of too long a name", _ask("--model=/" + "x" * 5000, "{image}"), ("`--model`",)),
    Row("a folder without a model", _ask("--model={folder}", "{image}"), ("`--model`", "a finished run")),
    Row("no image named", _ask("--model={model}"), ("No image",)),
    Row("image missing", _ask("--model={model}", "{folder}/none.png"), ("none.png", "No such file")),
    Row("image of too long a name", _ask("--model={model}", "x" * 5000), ("too long",)),
    Row("a folder without images", _ask("--model={model}", "/proc/sys/vm"), ("No image",)),
    Row("output is a folder", _ask("--model={model}", "--output={folder}", "{image}"), ("`--output`", "a folder has")),
    Row(
        "output nowhere",
        _ask("--model={model}", "--output=/proc/nowhere/o.csv", "{image}"),
        ("`--output`", "No such file"),
    ),
    Row(
        "output below a file", _ask("--model={model}", "--output={image}/o.csv", "{image}"), ("`--output`", "Not a dir")
    ),
    Row(
        "output over an image", _ask("--model={model}", "--output={image}", "{image}"), ("`--output`", "one of the im")
    ),
    Row("output of too long a name", _ask("--model={model}", "--output=" + "x" * 300, "{image}"), ("too long",)),
    Row("output on a read-only disk", _read_only_output, ("`--output`", "Read-only")),
    Row("output on a full disk", _full_output, ("`--output`", "No space left")),
    Row("unknown flag", _ask("--modell={model}", "{image}"), ("modell",)),
)


def _bit_in_test(place: Place) -> None:
    flip_bit(place.dataset / place.manifest.shards_of("test")[0].path, 0.5)


EVALUATE = (
    Row("model missing", lambda place: ["--model=/proc/nowhere"], ("`--model`", "a finished run")),
    Row("dataset missing", lambda place: ["--organ=liver"], ("No sealed dataset", "liver")),
    Row("organ empty", lambda place: ["--organ="], ("To fix it",)),
    Row("tfrecords empty", lambda place: ["--tfrecords="], ("`--tfrecords`",)),
    Row("tfrecords missing", lambda place: ["--tfrecords=/proc/nowhere"], ("No sealed dataset", "/proc/nowhere")),
    Row("unknown split", lambda place: ["--split=tests"], ("split", "validation")),
    Row("no test records", without("test"), ("no test records", "--split")),
    Row("one bit flipped", _bit_in_test, ("gland-test.tfrecord-00000", ", record ")),
    Row("manifest cut", manifest_text(lambda text: text[:300]), ("manifest.json is damaged",)),
    Row("stray", lambda place: ["stray"], ("'stray'",)),
)


def _damaged_model(name: str) -> Make:
    def make(place: Place) -> None:
        copy = place.folder / "model"
        shutil.copytree(place.model, copy)
        (path,) = copy.glob(name)
        path.write_bytes(path.read_bytes()[:100])
        place.model = copy

    return make


def _model_of_others(place: Place) -> None:
    import tensorflow as tf

    place.model = place.folder / "model"
    tf.saved_model.save(tf.Module(), str(place.model))


MODELS = (
    Row("graph cut", _damaged_model("saved_model.pb"), ("`--model`", "damaged")),
    Row("index of the weights cut", _damaged_model("variables/variables.index"), ("`--model`", "damaged")),
    Row("weights cut", _damaged_model("variables/variables.data*"), ("`--model`", "damaged")),
    Row("made by others", _model_of_others, ("`--model`", "exported by python -m trainer")),
)
