"""What networks cost: operations are exact, rates are of what training does, wrong requests are told at once."""

import json
from collections.abc import Iterator

import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from data_pipeline.cli import EXIT_DONE, EXIT_FAULT
from tests.conftest import run_module
from tests.trainer.witness import NOT_IMPORTED, Witness, assert_refused
from trainer.model_costs import flops_of
from trainer.model_names import OWN_MODELS
from trainer.models import build_model, logits_of

MULTIPLY = {"Conv2D", "DepthwiseConv2dNative", "MatMul"}
QUICK = ("--image_size=32", "--batch_size=2", "--seconds=0.1", "--classes=3")


def test_operations_of_the_seed_cnn_are_those_counted_by_hand() -> None:
    # 64 pixels → 62 → 31 → 29 → 14 → 14 → 7 → 6 → 3, with channels 32, 64, 128 and 256.
    by_hand = (
        2 * 62 * 62 * 32 * (3 * 3 * 3)
        + 2 * 29 * 29 * 64 * (3 * 3 * 32)
        + 2 * 14 * 14 * 128 * (1 * 1 * 64)
        + 2 * 6 * 6 * 256 * (2 * 2 * 128)
    )
    hidden = 2 * (512 * 256 + 256 * 5)
    assert flops_of(build_model("seed", image_size=64, classes=5)) == by_hand + 2 * (3 * 3 * 256) * 512 + hidden
    assert flops_of(build_model("seed_pooled", image_size=64, classes=5)) == by_hand + 2 * 256 * 512 + hidden


SIMILAR = ("residual_large", "residual_wide", "residual_team", "residual_batch_team")


@pytest.mark.parametrize("name", [name for name in OWN_MODELS if name not in SIMILAR] + ["MobileNetV2", "VGG16"])
def test_operations_are_those_that_tensorflow_counts_in_the_graph(name: str) -> None:
    model = build_model(name, image_size=40, classes=3)
    assert flops_of(model) == in_the_graph(model)


def test_a_team_of_four_does_four_times_the_work_of_one() -> None:
    team, one = (flops_of(build_model(name, image_size=40, classes=3)) for name in ("residual_team", "residual"))
    assert team == 4 * one


def test_convolutions_apart_from_their_channels_are_counted_too() -> None:
    inputs = keras.Input([20, 20, 6])
    apart = keras.layers.SeparableConv2D(10, 3, strides=2, depth_multiplier=2, padding="same")(inputs)
    model = keras.Model(inputs, keras.Sequential([keras.layers.DepthwiseConv2D(5, depth_multiplier=3)])(apart))
    assert flops_of(model) == in_the_graph(model) == 2 * (100 * (9 * 12 + 12 * 10) + 36 * 25 * 30)


def test_a_layer_that_multiplies_in_a_way_of_its_own_is_named() -> None:
    inputs = keras.Input([8, 8, 6])
    model = keras.Model(inputs, keras.layers.Conv2DTranspose(4, 2, name="grown")(inputs))
    assert flops_of(keras.Model(inputs, keras.layers.LayerNormalization()(inputs))) == 0
    strange = keras.Model(inputs, keras.layers.EinsumDense("bhwc,cd->bhwd", [8, 8, 5], name="summed")(inputs))
    for network, named in ((model, "grown"), (strange, "summed")):
        with pytest.raises(ValueError, match=named):
            flops_of(network)


def in_the_graph(model: keras.Model) -> int:
    """What TensorFlow itself says of the operations that multiply, one image forward."""
    network = logits_of(model) if any(layer.name == "logits" for layer in model.layers) else model
    spec = tf.TensorSpec([1, *model.inputs[0].shape[1:]])
    graph = tf.function(lambda image: network(image, training=False)).get_concrete_function(spec).graph
    nodes = [operation.node_def for operation in graph.get_operations() if operation.type in MULTIPLY]
    return sum(int(ops.get_stats_for_node_def(graph, node, "flops").value) for node in nodes)


@pytest.fixture(scope="module")
def witness() -> Iterator[Witness]:
    with Witness("trainer.model_table") as running:
        yield running


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), ("Usage: python -m trainer.models", "Missing: --model")),
        (("--model=",), ("`--model`", "seed_pooled")),
        (("--model=mobilenetv2",), ("`--model`", "did you mean MobileNetV2?")),
        (("--model=seed,nothing",), ("`--model`", "'nothing'", "--model=all")),
        (("--model=all", "stray"), ("'stray'",)),
        (("--model=all", "--image_size=31"), ("image_size", "32")),
        (("--model=seed,InceptionV3", "--image_size=74"), ("`--image_size`", "75 or more for InceptionV3")),
        (("--model=seed", "--classes=1"), ("classes",)),
        (("--model=seed", "--batch_size=0"), ("batch_size",)),
        (("--model=seed", "--precision=float8"), ("precision", "bfloat16")),
        (("--model=seed", "--seconds=nan"), ("`--seconds`", "a number")),
        (("--model=seed", "--seconds=601"), ("seconds",)),
    ],
    ids=str,
)
def test_a_wrong_request_is_refused_before_tensorflow_is_imported(
    witness: Witness, flags: tuple[str, ...], says: tuple[str, ...]
) -> None:
    assert_refused(witness.run("trainer.models", *flags), *says)


def test_help_tells_what_is_measured(witness: Witness) -> None:
    outcome = witness.run("trainer.models", "--help")
    assert (outcome.code, outcome.tensorflow) == (EXIT_DONE, NOT_IMPORTED)
    for words in ("FLOPs are two for each", "--[no]json", "residual_large", "MobileNetV2"):
        assert words in outcome.output


def test_a_table_has_a_line_for_each_network() -> None:
    done = run_module("trainer.models", "--model=seed_pooled,convnext,seed_pooled", *QUICK, "--precision=bfloat16")
    assert done.returncode == EXIT_DONE, done.stderr
    facts, heading, *rows = done.stdout.splitlines()
    assert facts.startswith("32 px, 3 classes, batch 2, bfloat16, CPU, ")
    assert heading.split() == ["parameters", "FLOPs", "an", "image", "images/s", "forward", "images/s", "training"]
    assert [row.split()[0] for row in rows] == ["seed_pooled", "convnext"]
    model = build_model("convnext", image_size=32, classes=3)
    assert rows[1].split()[1:3] == [f"{model.count_params():,}", f"{flops_of(model):,}"]
    assert len({len(line) for line in (heading, *rows)}) == 1


@pytest.mark.long
def test_json_has_every_slice_of_time() -> None:
    done = run_module("trainer.models", "--model=MobileNet", "--json", *QUICK)
    assert done.returncode == EXIT_DONE, done.stderr
    found = json.loads(done.stdout)
    assert (found["facts"]["precision"], found["facts"]["batch_size"]) == ("float32", 2)
    costs = found["models"]["MobileNet"]
    assert (costs["parameters"], type(costs["flops"])) == (3_231_939, int)
    for rate in (costs["forward"], costs["training"]):
        assert min(rate["slices_images_per_s"]) > 0
        assert rate["images_per_s"] in rate["slices_images_per_s"] or len(rate["slices_images_per_s"]) % 2 == 0


def test_what_no_memory_can_hold_is_told() -> None:
    done = run_module("trainer.models", "--model=seed_pooled", "--image_size=8192", "--batch_size=1048576")
    assert done.returncode == EXIT_FAULT
    assert "seed_pooled takes more memory than there is. To fix it: give a smaller --batch_size" in done.stderr
    assert "Traceback" not in done.stderr
