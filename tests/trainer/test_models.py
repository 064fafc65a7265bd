"""The seed CNN is the notebooks' CNN, layer for layer."""

import keras
import numpy as np
import pytest

from trainer.model_names import OWN_MODELS
from trainer.models import build_model, logits_of

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
