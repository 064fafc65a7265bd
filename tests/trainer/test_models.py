"""The seed CNN is the notebooks' CNN, layer for layer; every network of our own answers for an image by itself."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.model_names import OWN_MODELS
from trainer.models import build_model, for_xla, logits_of

IMAGE = np.random.default_rng(0).random((1, 32, 32, 3), dtype=np.float32)
SEED_LAYERS = [
    ("Conv2D", 32, (3, 3)), ("MaxPooling2D", None, (2, 2)),
    ("Conv2D", 64, (3, 3)), ("MaxPooling2D", None, (2, 2)),
    ("Conv2D", 128, (1, 1)), ("MaxPooling2D", None, (2, 2)),
    ("Conv2D", 256, (2, 2)), ("MaxPooling2D", None, (2, 2)),
    ("Flatten", None, None), ("Dense", 512, None), ("Dense", 256, None), ("Dense", 5, None), ("Softmax", None, None),
]  # fmt: skip


def test_the_seed_cnn_has_its_layers_and_29783365_parameters() -> None:
    model = build_model("seed", image_size=256, classes=5)
    layers = [
        (
            type(layer).__name__,
            getattr(layer, "filters", getattr(layer, "units", None)),
            getattr(layer, "kernel_size", getattr(layer, "pool_size", None)),
        )
        for layer in model.layers
    ]
    assert layers == SEED_LAYERS
    assert model.count_params() == 29_783_365
    activations = [layer.activation.__name__ for layer in model.layers if hasattr(layer, "activation")]
    assert activations == ["relu"] * 6 + ["linear"]  # and the softmax layer
    assert {layer.padding for layer in model.layers if hasattr(layer, "padding")} == {"valid"}


@pytest.mark.parametrize("name", OWN_MODELS)
def test_probabilities_are_float32_and_sum_to_one_in_any_precision(name: str) -> None:
    for precision in ("float32", "bfloat16"):
        model = build_model(name, image_size=32, classes=4, precision=precision)
        images = np.random.default_rng(0).random((3, 32, 32, 3), dtype=np.float32)
        out = model(images)
        assert out.dtype == "float32"
        assert np.allclose(np.sum(out, axis=1), 1, atol=1e-5)
        assert np.allclose(keras.ops.softmax(logits_of(model)(images)), out, atol=1e-6)
        assert {str(w.dtype) for w in model.weights} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"


def test_convnext_has_a_million_parameters_and_sees_each_image_by_itself() -> None:
    model = build_model("convnext", image_size=64, classes=5)
    assert 0.8e6 < model.count_params() < 1.2e6
    images = np.random.default_rng(0).random((4, 64, 64, 3), dtype=np.float32)
    together, alone = (np.asarray(model(given, training=True)) for given in (images, images[:1]))
    assert np.allclose(together[:1], alone, atol=1e-5)


def test_convnext_begins_as_if_its_blocks_added_nothing() -> None:
    model = build_model("convnext", image_size=32, classes=2)
    block = model.get_layer("stage1_block0")
    before, after = (np.asarray(each) for each in keras.Model(model.inputs[0], [block.input[0], block.output])(IMAGE))
    assert 0 < np.abs(after - before).max() < 1e-4 < np.abs(before).max()


def test_convnext_is_made_of_layers_that_keras_knows_by_itself(tmp_path: Path) -> None:
    model = build_model("convnext", image_size=32, classes=2)
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
    model.save(tmp_path / "model.keras")
    assert np.allclose(keras.models.load_model(tmp_path / "model.keras")(IMAGE), model(IMAGE), atol=1e-6)


@pytest.mark.parametrize("size", [7, 8, 9])
@pytest.mark.parametrize(
    ("pool", "strides", "padding"),
    [(2, 2, "valid"), (2, 2, "same"), (3, 2, "valid"), (3, 2, "same"), (3, 1, "same"), ((2, 3), (3, 1), "same")],
)
def test_max_pooling_for_xla_gives_the_same_values_and_gradients(
    size: int, pool: Any, strides: Any, padding: str
) -> None:
    inputs = keras.Input([size, size, 2])
    pooled = keras.layers.MaxPooling2D(pool, strides=strides, padding=padding)(inputs)
    random = np.random.default_rng(0)
    image = tf.constant(random.integers(-2, 1, (2, size, size, 2)).astype(np.float32))  # ties, and nothing above 0
    values, gradients = [], []
    for network in (model := keras.Model(inputs, pooled), for_xla(model)):
        with tf.GradientTape() as tape:
            tape.watch(image)
            values.append(network(image))
            loss = tf.reduce_sum(values[-1] * np.random.default_rng(1).random(values[-1].shape, dtype=np.float32))
        gradients.append(tape.gradient(loss, image))
    assert (values[0] == values[1]).numpy().all()
    assert np.allclose(*gradients, atol=1e-5)
    assert "_Sliced" in type(for_xla(model).layers[1]).__name__
