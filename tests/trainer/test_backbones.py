"""Backbones of keras.applications: they see what they saw when they were published, and take the weights of files."""

import functools
import importlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from data_pipeline.cli import RequestError
from trainer.backbones import DEVIATION, MEAN, SCALED, _built, _scaled, load_backbone_weights
from trainer.gradcam import heat_maps
from trainer.model_names import (
    FAMILIES,
    FAMILY_OF,
    MODEL_NAMES,
    OWN_MODELS,
    check_weights_file,
    is_backbone,
    least_px,
    weights_digest,
    weights_url,
)
from trainer.models import LOGITS, MODELS, build_model, for_xla, logits_of

PX, CLASSES = 32, 3
IMAGES = np.random.default_rng(0).random((4, PX, PX, 3), dtype=np.float32)
# Each way to want pixels, with and without a copy of the layers, with batch normalisation and without.
SMALL = ("MobileNetV2", pytest.param("EfficientNetB0", marks=pytest.mark.long), "VGG16")
pytestmark = pytest.mark.usefixtures("two_devices")
SaveAs = Callable[[keras.Model, Path], Any]


def as_published(name: str, **more: Any) -> keras.Model:
    """With weights that aren't those of a fresh network, statistics of batches included."""
    keras.utils.set_random_seed(7)
    network, random = _built(name, input_shape=(PX, PX, 3), **more), np.random.default_rng(1)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([values + 0.3 * random.random(values.shape) for values in layer.get_weights()])
        if isinstance(layer, keras.layers.Normalization) and layer.get_weights():
            layer.set_weights([np.array(MEAN), np.array(DEVIATION), np.array(0)])  # as in the published files
    return network


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    as_published("MobileNetV2").save_weights(path)
    return path


def features_of(name: str, model: keras.Model, images: Any) -> Any:
    return np.asarray(keras.Model(model.inputs[0], model.get_layer(LOGITS).input)(images, training=False))


def test_names_are_those_that_keras_offers_after_our_own() -> None:
    offered = {name for name in dir(keras.applications) if name[0].isupper()}
    assert set(FAMILY_OF) == offered
    assert MODEL_NAMES == (*OWN_MODELS, *FAMILY_OF) == tuple(MODELS)
    assert [is_backbone(name) for name in ("seed", "MobileNetV2", "mobilenetv2")] == [False, True, False]


@pytest.mark.parametrize("name", FAMILY_OF)
def test_images_are_seen_as_the_familys_preprocess_input_has_them(name: str) -> None:
    image = keras.Input([PX, PX, 3])
    seen = np.asarray(keras.Model(image, _scaled(name, image))(IMAGES))
    module = getattr(keras.applications, FAMILY_OF[name].module)
    wanted = module.preprocess_input(255 * IMAGES.copy())
    if np.allclose(wanted, 255 * IMAGES):  # it does nothing: the network has layers that do
        wanted = np.asarray(preprocessing_of(smallest(name))(wanted))
    assert np.allclose(seen, wanted, atol=2e-5 * np.abs(wanted).max())
    assert np.ptp(seen) > 1


@functools.cache
def preprocessing_of(name: str) -> Callable[[Any], Any]:
    """The first layers of the network as Keras makes it."""
    if FAMILY_OF[name].module == "efficientnet":  # as it is made of weights that it has downloaded, see `_is_imagenets`
        return lambda pixels: (pixels / 255 - np.array(MEAN)) / np.array(DEVIATION)
    kinds = keras.layers.Rescaling | keras.layers.Normalization
    first = [layer for layer in _built(name, input_shape=(PX, PX, 3)).layers[1:4] if isinstance(layer, kinds)]
    return keras.Sequential([keras.Input([PX, PX, 3]), *first])  # type: ignore[no-any-return]


def smallest(name: str) -> str:
    """One that is quick to make and wants its pixels in the same way."""
    small = {
        "EfficientNetV2M": "EfficientNetV2S",
        "EfficientNetV2L": "EfficientNetV2S",
        "MobileNetV3Large": "MobileNetV3Small",
    }
    for start, other in (("ConvNeXt", "ConvNeXtTiny"), ("EfficientNetV2B", "EfficientNetV2B0")):
        if name.startswith(start):
            return other
    return small.get(name, name)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.module)
def test_images_that_are_too_small_are_refused_where_keras_refuses_them(family: Any) -> None:
    name, least = family.names()[0], family.least_px
    with pytest.raises(ValueError, match=f"{least}x{least}"):
        _built(name, input_shape=(least - 1, least - 1, 3))
    with pytest.raises(
        ValueError, match=f"{name} takes images of {least} pixels a side or more. Received: {least - 1}"
    ):
        build_model(name, image_size=least - 1, classes=CLASSES)
    assert least_px(name) == least


@pytest.mark.parametrize("name", SMALL)
def test_with_a_files_weights_it_computes_what_keras_does_with_them(tmp_path: Path, name: str) -> None:
    published = as_published(name)
    published.save_weights(tmp_path / "w.weights.h5")
    model = build_model(name, image_size=PX, classes=CLASSES)
    head = model.get_layer(LOGITS).get_weights()
    load_backbone_weights(model, tmp_path / "w.weights.h5")
    for layer in published.layers:
        if isinstance(layer, keras.layers.Normalization):  # what Keras does when it has downloaded the weights itself
            layer.set_weights([np.array(MEAN), np.square(DEVIATION), np.array(0)])
            layer.finalize_state()
    seen = getattr(keras.applications, FAMILY_OF[name].module).preprocess_input(255 * IMAGES.copy())
    wanted = np.asarray(published(seen, training=False))
    assert np.abs(wanted).max() > 0.05
    assert np.allclose(features_of(name, model, IMAGES), wanted, atol=1e-5 * np.abs(wanted).max())
    assert all((ours == before).all() for ours, before in zip(model.get_layer(LOGITS).get_weights(), head, strict=True))


@pytest.mark.parametrize("save", [keras.Model.save_weights, keras.Model.save], ids=["weights", "whole, of old"])
def test_files_may_be_of_either_form_and_nothing_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: SaveAs
) -> None:
    published = as_published("MobileNetV2")
    path = tmp_path / ("a.weights.h5" if save is keras.Model.save_weights else "a.h5")
    save(published, path)
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("It reached for the network."))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: pytest.fail("It reached for the network."))
    check_weights_file("MobileNetV2", path)
    model = build_model("MobileNetV2", image_size=PX, classes=CLASSES)
    load_backbone_weights(model, str(path))
    ours, theirs = model.get_weights()[:-2], published.get_weights()
    assert all((one == other).all() for one, other in zip(ours, theirs, strict=True))


def cut(path: Path) -> None:
    as_published("MobileNetV2").save_weights(path)
    path.write_bytes(path.read_bytes()[:100_000])


def of_another(path: Path) -> None:
    as_published("MobileNetV3Small").save_weights(path)


def with_top(path: Path) -> None:
    keras.applications.MobileNetV2(weights=None, classes=5, input_shape=(PX, PX, 3)).save_weights(path)


def whole_with_top(path: Path) -> None:
    keras.applications.MobileNetV2(weights=None, classes=5, input_shape=(PX, PX, 3)).save(path)


def renamed(path: Path) -> None:
    as_published("MobileNetV2").save_weights(path.with_name("w.weights.h5"))
    path.with_name("w.weights.h5").rename(path)


WRONG: tuple[tuple[str, Callable[[Path], Any], str, str], ...] = (
    ("missing", lambda path: None, "w.weights.h5", "no such file"),
    ("a folder", Path.mkdir, "w.h5", "a folder"),
    ("text", lambda path: path.write_text("<html>404</html>"), "w.h5", "no HDF5 file"),
    ("empty", Path.touch, "w.h5", "no HDF5 file"),
    ("cut short", cut, "w.weights.h5", "cut short"),
    ("another backbone", of_another, "w.weights.h5", "don't fit"),
    ("with its top", with_top, "w.weights.h5", "don't fit"),
    ("with its top, of old", whole_with_top, "w.h5", "don't fit"),
    ("of no known name", renamed, "w.bin", "ends with .h5"),
)


@pytest.mark.parametrize(("make", "file", "says"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_wrong_file_is_refused_with_the_address_of_the_right_one(
    tmp_path: Path, make: Callable[[Path], Any], file: str, says: str
) -> None:
    make(tmp_path / file)
    model = build_model("MobileNetV2", image_size=PX, classes=CLASSES)
    before = model.get_weights()
    with pytest.raises(RequestError, match="`--weights`") as refused:
        load_backbone_weights(model, tmp_path / file)
    for words in (says, "MobileNetV2 without its top", str(tmp_path / file), weights_url("MobileNetV2")):
        assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert all((one == other).all() for one, other in zip(model.get_weights(), before, strict=True))


def test_weights_that_were_learnt_from_other_pixels_are_refused(tmp_path: Path) -> None:
    _built("EfficientNetB0", input_shape=(PX, PX, 3)).save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(RequestError, match="other means of its pixels than ImageNet's"):
        load_backbone_weights(build_model("EfficientNetB0", image_size=PX, classes=2), tmp_path / "w.weights.h5")


def test_with_weights_that_were_loaded_training_sees_each_image_by_itself(mobilenet: Path) -> None:
    fresh = build_model("MobileNetV2", image_size=PX, classes=CLASSES)
    loaded = build_model("MobileNetV2", image_size=PX, classes=CLASSES)
    load_backbone_weights(loaded, mobilenet)
    together, alone = (np.asarray(logits_of(loaded)(images, training=True)) for images in (IMAGES, IMAGES[:1]))
    assert np.allclose(together[:1], alone, atol=1e-5)
    together, alone = (np.asarray(logits_of(fresh)(images, training=True)) for images in (IMAGES, IMAGES[:1]))
    assert not np.allclose(together[:1], alone, atol=1e-5)
    statistics = [layer for layer in loaded.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(loaded.trainable_variables) == len(fresh.trainable_variables) - 2 * len(statistics)


def test_weights_have_the_same_order_whether_they_are_trained_or_not(mobilenet: Path) -> None:
    trained = build_model("MobileNetV2", image_size=PX, classes=CLASSES, precision="bfloat16")
    load_backbone_weights(trained, mobilenet)
    exported = build_model("MobileNetV2", image_size=PX, classes=CLASSES)
    exported.set_weights(trained.get_weights())
    assert [weight.path for weight in trained.weights] == [weight.path for weight in exported.weights]
    same = build_model("MobileNetV2", image_size=PX, classes=CLASSES)
    load_backbone_weights(same, mobilenet)
    same.get_layer(LOGITS).set_weights(trained.get_layer(LOGITS).get_weights())
    assert (np.asarray(exported(IMAGES)) == np.asarray(same(IMAGES))).all()


@pytest.mark.parametrize("name", SMALL)
def test_nothing_in_training_is_left_to_chance(name: str) -> None:
    model = build_model(name, image_size=PX, classes=CLASSES)
    once, again = (np.asarray(model(IMAGES, training=True)) for _ in range(2))
    assert (once == again).all()
    assert len(model.variables) == len(model.weights)  # no state of a generator


@pytest.mark.parametrize("name", SMALL)
def test_a_backbone_is_saved_has_heat_maps_and_a_form_for_xla(tmp_path: Path, name: str) -> None:
    model = build_model(name, image_size=PX, classes=CLASSES)
    said = np.asarray(model(IMAGES))
    model.save(tmp_path / "model.keras")
    assert np.allclose(np.asarray(keras.models.load_model(tmp_path / "model.keras")(IMAGES)), said, atol=1e-6)
    network = logits_of(model)
    assert np.allclose(np.asarray(for_xla(network)(IMAGES)), np.asarray(network(IMAGES)), atol=1e-6)
    maps = heat_maps(model, IMAGES)
    assert maps.shape == (4, PX, PX)
    assert np.isfinite(maps).all()


@pytest.mark.parametrize("name", SMALL)
def test_pixels_are_scaled_in_float32_whatever_the_precision(name: str) -> None:
    precise, rough = (
        keras.Model(model.inputs[0], model.get_layer(SCALED).output)
        for model in (build_model(name, image_size=PX, classes=2, precision=how) for how in ("float32", "bfloat16"))
    )
    assert (np.asarray(precise(IMAGES)) == np.asarray(rough(IMAGES))).all()


@pytest.mark.parametrize(
    "name", ["ConvNeXtTiny", "EfficientNetB0", "MobileNet", "MobileNetV2", "MobileNetV3Small", "ResNet50V2"]
)
def test_addresses_are_those_that_keras_itself_would_fetch_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(keras.src.backend.config, "_KERAS_DIR", str(tmp_path))
    with pytest.raises(Exception, match="URL fetch failure on") as failed:
        getattr(keras.applications, name)(weights="imagenet", include_top=False)
    assert f"URL fetch failure on {weights_url(name)}:" in str(failed.value)


def test_addresses_are_those_of_kerass_constants() -> None:
    for name, family in FAMILY_OF.items():
        where = "resnet" if family.module == "resnet_v2" else family.module
        module = importlib.import_module(f"keras.src.applications.{where}")
        known = [value for value in vars(module).values() if isinstance(value, str) and value.startswith("https://")]
        address = weights_url(name)
        whole = [value for value in known if value.endswith(".h5")]
        assert address in whole if whole else any(address.rpartition("/")[0] + "/" == value for value in known)
    assert len({weights_url(name) for name in FAMILY_OF}) == len(FAMILY_OF)


def test_a_digest_is_that_of_the_files_content(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"abc")
    assert weights_digest(str(tmp_path / "w.h5")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
