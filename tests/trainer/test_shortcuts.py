"""Probes on sets of images with and without a planted shortcut."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_pipeline.images import as_png
from data_pipeline.schema import Record
from trainer.classical import Table, answers_of, table_of
from trainer.shortcuts import PROBES, probe, warning

CLASSES = ("cyst", "lipoma", "warthin")
SIZE, TILES = 64, 3
Plant = Callable[[NDArray[np.uint8], int], None]


def nothing(pixels: NDArray[np.uint8], label: int) -> None:
    """The same distribution of images for all diagnoses."""


def scale_bar(pixels: NDArray[np.uint8], label: int) -> None:
    if label == 1:
        pixels[-3:-1, -20:-4] = 255


def background(pixels: NDArray[np.uint8], label: int) -> None:
    np.add(pixels[..., 0], 30 * label, out=pixels[..., 0])


def images(plant: Plant, seed: int, groups: int) -> Table:
    """`TILES` tiles of each of `groups` slides a diagnosis; slides differ in stain and light, diagnoses by `plant`."""
    random = np.random.default_rng(seed)
    records = []
    for slide in range(groups * len(CLASSES)):
        label, stain = slide % len(CLASSES), random.uniform(90, 150, 3)
        for tile in range(TILES):
            pixels = np.clip(stain + random.normal(0, 15, (SIZE, SIZE, 3)), 0, 190).astype(np.uint8)
            plant(pixels, label)
            name = f"{seed}-{slide}"
            records.append(Record(as_png(pixels), label, f"{name}_{tile}", name, SIZE, SIZE))
    return table_of(records, PROBES)


def probes(plant: Plant, seed: int) -> dict[str, dict[str, Any]]:
    train, held, test = (images(plant, 10 * seed + part, groups) for part, groups in enumerate((12, 5, 8)))
    return probe(answers_of(train, held, [test], classes=len(CLASSES), seed=seed), CLASSES)


def test_a_scale_bar_on_one_diagnosis_is_found_in_the_border() -> None:
    found = probes(scale_bar, 1)
    assert found["border"]["high"]
    assert found["border"]["given_away"] == ["lipoma"]
    text = warning("border", found["border"])
    assert "“lipoma”" in text
    assert "scale bars" in text
    assert f"{found['border']['balanced_accuracy']:.0%}" in text


def test_a_coloured_background_is_found_by_the_mean_colour() -> None:
    found = probes(background, 2)["mean_colour"]
    assert found["high"]
    assert found["interval"][0] > found["chance"] == pytest.approx(1 / 3)
    assert "stain" in warning("mean_colour", found)


def test_images_without_a_shortcut_score_chance_and_raise_no_alarm() -> None:
    seen = [probes(nothing, seed) for seed in range(4)]
    for name in PROBES:
        assert not any(found[name]["high"] for found in seen)
        assert abs(np.mean([found[name]["balanced_accuracy"] for found in seen]) - 1 / 3) < 0.1
        assert {warning(name, found[name]) for found in seen} == {""}
