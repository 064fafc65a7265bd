"""Heat maps: they light the place that an answer was made from, whether features are averaged or flattened."""

from io import BytesIO
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from trainer.gradcam import features_of, heat_maps, overlay, place
from trainer.models import LOGITS, build_model

SIZE = 32
pytestmark = pytest.mark.usefixtures("two_devices")


def network(*layers: Any, classes: int = 2) -> keras.Model:
    head = keras.layers.Dense(classes, name=LOGITS), keras.layers.Softmax()
    return keras.Sequential([keras.layers.Input([SIZE, SIZE, 3]), *layers, *head])


def looks_at_one_corner() -> keras.Model:
    """Flattened features of which only those of the upper right quarter have a weight, for class 1."""
    model = network(keras.layers.Conv2D(1, 1), keras.layers.MaxPooling2D(4), keras.layers.Flatten())
    model.layers[0].set_weights([np.full((1, 1, 3, 1), 1 / 3, np.float32), np.zeros(1, np.float32)])
    weights = np.zeros((8, 8, 2), np.float32)
    weights[:4, 4:, 1] = 1
    model.get_layer(LOGITS).set_weights([weights.reshape(64, 2), np.array([0.1, 0], np.float32)])
    return model


def sees_red() -> keras.Model:
    """Averaged features: class 1 is what is red."""
    model = network(keras.layers.Conv2D(2, 1, activation="relu"), keras.layers.GlobalAveragePooling2D())
    kernel = np.array([[1, 0], [-1, 1], [-1, 0]], np.float32).reshape(1, 1, 3, 2)
    model.layers[0].set_weights([kernel, np.zeros(2, np.float32)])
    model.get_layer(LOGITS).set_weights([np.array([[0, 1], [0.1, 0]], np.float32), np.zeros(2, np.float32)])
    return model


def images(n: int = 3) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).uniform(0.2, 1, (n, SIZE, SIZE, 3)).astype(np.float32)


def share_in(heat_map: Any, rows: slice, columns: slice) -> float:
    return float(heat_map[rows, columns].sum() / heat_map.sum())


def test_only_the_corner_that_the_answer_depends_on_is_lit() -> None:
    maps = heat_maps(looks_at_one_corner(), images())
    for heat_map in maps:
        assert share_in(heat_map, slice(0, 16), slice(16, 32)) > 0.85
        assert heat_map[20:, :].max() == 0
        assert place(heat_map) == "at the upper right"


def test_what_is_red_is_lit_where_it_is() -> None:
    grey = np.full((2, SIZE, SIZE, 3), 0.5, np.float32)
    grey[0, 24:, :8] = (1, 0, 0)
    grey[1, 12:20, 12:20] = (1, 0, 0)
    maps = heat_maps(sees_red(), grey, answers=np.array([1, 1]))
    assert share_in(maps[0], slice(24, 32), slice(0, 8)) == pytest.approx(1)
    assert [place(heat_map) for heat_map in maps] == ["at the lower left", "in the middle"]


def test_where_features_are_averaged_the_map_is_that_of_the_paper() -> None:
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    model = build_model("seed_pooled", image_size=SIZE * 2, classes=3)
    # Weights that aren't negative, so that there is something that speaks for the answer.
    kernel, bias = model.get_layer(LOGITS).get_weights()
    model.get_layer(LOGITS).set_weights([np.abs(kernel), bias])
    pictures = np.random.default_rng(1).uniform(0, 1, (2, SIZE * 2, SIZE * 2, 3)).astype(np.float32)
    both = keras.Model(model.inputs[0], [features_of(model), model.get_layer(LOGITS).output])
    with tf.GradientTape() as tape:
        features, logits = both(pictures)
        score = tf.reduce_max(logits, axis=1)
    weights = tf.reduce_mean(tape.gradient(score, features), axis=(1, 2), keepdims=True)
    papers = tf.image.resize(tf.nn.relu(tf.reduce_sum(weights * features, -1, keepdims=True)), [64, 64]).numpy()[..., 0]
    assert papers.any(axis=(1, 2)).all()
    papers /= papers.max(axis=(1, 2), keepdims=True)
    assert heat_maps(model, pictures) == pytest.approx(papers, abs=1e-5)


@pytest.mark.parametrize("name", ["seed", "seed_pooled"])
def test_every_network_has_maps_in_the_range_they_promise(name: str) -> None:
    model = build_model(name, image_size=SIZE, classes=4)
    maps = heat_maps(model, images(5), batch_size=2)
    assert maps.shape == (5, SIZE, SIZE)
    assert maps.dtype == np.float32
    assert maps.min() >= 0
    assert all(heat_map.max() in (0, pytest.approx(1)) for heat_map in maps)


def test_batches_change_nothing() -> None:
    model = looks_at_one_corner()
    answers = np.array([1, 1, 0])
    whole = heat_maps(model, images(), answers=answers)
    assert heat_maps(model, images(), answers=answers, batch_size=2) == pytest.approx(whole, abs=1e-6)
    assert heat_maps(model, images(0)).shape == (0, SIZE, SIZE)


def test_an_answer_that_nothing_speaks_for_has_an_empty_map() -> None:
    (heat_map,) = heat_maps(sees_red(), np.full((1, SIZE, SIZE, 3), 0.5, np.float32), answers=np.array([1]))
    assert not heat_map.any()
    assert place(heat_map) == "nowhere"


def test_convolutions_that_see_no_places_are_not_looked_at() -> None:
    inputs = keras.layers.Input([SIZE, SIZE, 3])
    features = keras.layers.Conv2D(4, 3, name="seen")(inputs)
    gate = keras.layers.Conv2D(4, 1)(keras.layers.GlobalAveragePooling2D(keepdims=True)(features))
    vector = keras.layers.Flatten()(gate)
    model = keras.Model(inputs, keras.layers.Dense(2, name=LOGITS)(vector))
    assert features_of(model) is model.get_layer("seen").output


def test_a_network_without_a_convolution_is_refused() -> None:
    with pytest.raises(ValueError, match="network with a convolution"):
        heat_maps(network(keras.layers.Flatten()), images(1))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_an_overlay_is_grey_where_it_is_cold_and_yellow_where_it_is_hot(image_format: str) -> None:
    heat_map = np.zeros((SIZE, SIZE), np.float32)
    heat_map[:16] = 1
    image = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    data = overlay(image, heat_map, image_format=image_format)
    assert data == overlay(image, heat_map, image_format=image_format)
    picture = Image.open(BytesIO(data))
    assert (picture.format, picture.size) == (image_format, (SIZE, SIZE))
    hot, cold = (np.asarray(picture.convert("RGB"))[row, 16].astype(int) for row in (4, 28))
    assert hot[0] > hot[2] + 80
    assert np.ptp(cold) < 30
