"""The residual network: no statistics of a batch, features of an even variance, and plain layers when it is served."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax, softmax  # type: ignore[import-untyped]

from trainer.gradcam import features_of
from trainer.losses import Loss
from trainer.model_ends import is_team, parts_of
from trainer.models import logits_of
from trainer.residual import NORMS, StandardizedConv2D, baked, residual, residual_team

SIZE_PX, CLASSES = 64, 5


def images(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).random((count, SIZE_PX, SIZE_PX, 3), dtype=np.float32)


def trained_a_little(norm: str) -> keras.Model:
    """With weights that aren't those it begins with."""
    keras.utils.set_random_seed(0)
    model = residual(SIZE_PX, CLASSES, norm=norm)
    rng = np.random.default_rng(1)
    model.set_weights([w + 0.05 * rng.random(w.shape, dtype=np.float32) for w in model.get_weights()])
    return model


def test_a_team_answers_with_the_mean_of_its_members_log_probabilities() -> None:
    keras.utils.set_random_seed(0)
    team = residual_team(SIZE_PX, CLASSES, members=3)
    maps = next(layer for layer in team.layers if isinstance(layer, keras.layers.Concatenate)).input
    heads = next(layer for layer in team.layers if isinstance(layer, keras.layers.EinsumDense))
    kernels, biases = (np.asarray(value) for value in heads.get_weights())
    features = [np.mean(keras.Model(team.inputs[0], one)(images()), axis=(1, 2)) for one in maps]
    assert not np.allclose(features[0], features[1])
    each = [log_softmax(seen @ kernels[m] + biases[m], axis=1) for m, seen in enumerate(features)]
    assert np.allclose(logits_of(team)(images()), np.mean(each, axis=0), atol=1e-5)
    assert np.allclose(team(images()), softmax(np.mean(each, axis=0), axis=1), atol=1e-5)


def test_each_member_learns_by_its_own_loss_and_by_no_other_members() -> None:
    keras.utils.set_random_seed(0)
    team, batch, loss = residual_team(SIZE_PX, CLASSES, members=2), {"label": tf.constant([3, 1, 0, 1])}, Loss(0.1)
    maps = next(layer for layer in team.layers if isinstance(layer, keras.layers.Concatenate)).input
    heads = next(layer for layer in team.layers if isinstance(layer, keras.layers.EinsumDense))
    network = logits_of(team)
    for number, one in enumerate(maps):
        member = keras.Model(team.inputs[0], one)
        with tf.GradientTape(persistent=True) as tape:
            together = tf.reduce_sum(loss.of(batch, network(images()), of_team=is_team(team)))
            features = tf.reduce_mean(member(images()), axis=[1, 2])
            kernel, bias = (tf.convert_to_tensor(weight)[number] for weight in heads.weights)
            alone = tf.reduce_sum(loss.of(batch, features @ kernel + bias))
        pairs = (tape.gradient(target, member.trainable_variables) for target in (together, alone))
        for ours, own in zip(*pairs, strict=True):
            assert np.allclose(ours, np.asarray(own) / 2, atol=1e-3 * np.abs(own).max() + 1e-6)


def test_a_teams_head_is_its_members_and_what_dropout_leaves_out_is_before_it() -> None:
    for model, seen in ((residual_team(SIZE_PX, CLASSES, members=3), 3 * 128), (residual(SIZE_PX, CLASSES), 128)):
        body, head = parts_of(model)
        assert body.outputs[0].shape == (None, seen)
        assert [weight.path for weight in head.weights] == [weight.path for weight in model.weights[-2:]]
        assert np.allclose(head(body(images())), logits_of(model)(images()), atol=1e-5)


def test_a_teams_heat_map_is_of_what_all_members_see() -> None:
    assert features_of(residual_team(SIZE_PX, CLASSES, members=3)).shape[-1] == 3 * 128


@pytest.mark.parametrize("norm", ["weights", "groups"])
def test_an_answer_depends_on_no_other_image_of_the_batch(norm: str) -> None:
    model = residual(SIZE_PX, CLASSES, norm=norm)
    together = model(images(), training=True)
    alone = [model(images()[i : i + 1], training=True) for i in range(4)]
    assert np.allclose(together, np.concatenate(alone), atol=1e-5)


def test_kernels_have_no_mean_and_one_variance() -> None:
    layers = [layer for layer in trained_a_little("weights").layers if isinstance(layer, StandardizedConv2D)]
    for layer in layers:
        kernel = np.asarray(layer.standardized()) / (layer.gain * layer.factor.numpy())
        assert abs(kernel.mean(axis=(0, 1, 2))).max() < 1e-6
        assert np.allclose((kernel**2).sum(axis=(0, 1, 2)), 1, atol=1e-3)
    assert len(layers) > 10


def test_features_stay_about_as_large_from_block_to_block() -> None:
    keras.utils.set_random_seed(0)
    model = residual(128, CLASSES)
    sums = [layer.output for layer in model.layers if isinstance(layer, keras.layers.Add)]
    noise = np.random.default_rng(0).normal(0.5, 0.25, (4, 128, 128, 3)).astype(np.float32)
    spreads = [float(np.std(values)) for values in keras.Model(model.inputs[0], sums)(noise)]
    assert max(spreads) / min(spreads) < 8
    assert 0.1 < min(spreads) < max(spreads) < 4


@pytest.mark.parametrize("norm", [*NORMS, "team"])
def test_what_is_served_says_the_same(norm: str) -> None:
    model = residual_team(SIZE_PX, CLASSES) if norm == "team" else trained_a_little(norm)
    served = baked(model)
    assert np.allclose(model(images()), served(images()), atol=1e-5)
    assert not any(isinstance(layer, StandardizedConv2D) for layer in served.layers)


def test_what_is_served_loads_without_this_project(tmp_path: Path) -> None:
    model = trained_a_little("weights")
    baked(model).save(tmp_path / "model.keras")
    np.savez(tmp_path / "expected.npz", images=images(), answers=model(images()))
    code = (
        "import keras, numpy, sys\n"
        "found = numpy.load('expected.npz')\n"
        "answers = keras.saving.load_model('model.keras')(found['images'])\n"
        "assert numpy.allclose(answers, found['answers'], atol=1e-5)\n"
        "assert not any(name.startswith('trainer') for name in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_shift_by_a_pixel_changes_little() -> None:
    """Blobs, as cells are; the stem of four by four pixels is what changes at all."""
    model = residual(SIZE_PX, CLASSES)
    features = keras.Model(model.inputs[0], model.get_layer("logits").input)
    place = np.arange(SIZE_PX, dtype=np.float32) - SIZE_PX / 2

    def blob(shift: int) -> np.ndarray:
        distance = (place[:, None] - shift) ** 2 + place[None, :] ** 2
        return np.repeat(np.exp(-distance / 200)[None, :, :, None], 3, axis=3)

    still, moved, other = (np.asarray(features(image)) for image in (blob(0), blob(1), images(1)))
    assert np.linalg.norm(still - moved) < 0.1 * np.linalg.norm(still - other)
