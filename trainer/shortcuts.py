"""Whether the images give the diagnosis away without showing it: what small classifiers reach that see no cells. Pure.

    probes = probe(answers_on_test(dataset_folder, manifest, seed=0), manifest.classes)   # "shortcuts" of metrics.json
    text = warning("border", probes["border"])                                            # empty if there is none

One probe sees the mean colour of an image and nothing else, the other the pixels along its border. A scale bar that is
on the images of one diagnosis alone, or a scanner that was used for one alone, shows in them, and a network learns that
first: J. R. Zech et al., "Variable generalization performance of a deep learning model to detect pneumonia in chest
radiographs", PLOS Medicine 15 (2018); R. Geirhos et al., "Shortcut learning in deep neural networks", Nature Machine
Intelligence 2 (2020). A high probe is a reason to look, not a proof: a stain may differ because the disease does, and
where tissue fills the image its border is tissue too.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trainer.bootstrap import group_numbers
from trainer.classical import ROW, Answer
from trainer.metrics import Predictions, wilson_interval
from trainer.scores import scores_with_intervals

PROBES = ("mean_colour", "border")
# The part of the way from guessing to perfection that a probe must go to be called high. Means of eight group splits:
# cells of cervix 0.26 and 0.21 (mean colour and border), blood cells 0.24 and 0.14, lung tissue 0.64 and 0.84.
HIGH_SKILL = 0.4
# So much more often must a diagnosis be said of its own images than of others to be called given away by itself, and on
# so many groups: of two, luck would do it for one in seven probes of seven diagnoses.
GIVEN_AWAY = 0.7
FEWEST_GROUPS_OF_CLASS = 3

_SEEN = {
    "mean_colour": "The mean colour of an image",
    "border": "The border of an image, without anything it shows further in,",
}
_HONEST = {
    "mean_colour": "That is honest if the disease itself takes up another stain or leaves more of the slide empty.",
    "border": "That is honest where tissue fills the image to its border; of single cells it isn't.",
}
_TO_LOOK_AT = {
    "mean_colour": (
        "whether every diagnosis comes from several laboratories, days and scanners, and whether slides of one "
        "diagnosis differ in stain or light from all others"
    ),
    "border": (
        "scale bars, captions, frames, pen marks and empty background that only some diagnoses have, and crops that "
        "were cut or enlarged in another way"
    ),
}


def probe(answers: Mapping[str, Answer], classes: Sequence[str], *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """The scores of both probes, ready for JSON, from `answers_on_test`; see `scored`."""
    return {name: scored(answers[name], classes, seed=seed) for name in PROBES}


def scored(answer: Answer, classes: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """The scores of one probe, whether they are `high`, and which diagnoses are `given_away` by themselves.

    `interval` is that of the balanced accuracy, `chance` what guessing has of that. A probe is high if it surely beats
    guessing (by the resampled interval, and by Wilson's over the groups) and goes `HIGH_SKILL` of the way to
    perfection, or if a diagnosis is given away. Fewer than two groups can't show anything: never high.
    """
    scores = scores_with_intervals(answer.predictions, classes, seed=seed, with_areas=False)
    chance = 1 / len(np.unique(answer.predictions.labels))
    interval = scores["intervals"]["balanced_accuracy"]
    balanced = scores["balanced_accuracy"]
    lowest = min(interval[0], wilson_interval(balanced, scores["groups"])[0]) if interval else 0.0
    far = chance < 1 and lowest > chance and (balanced - chance) / (1 - chance) >= HIGH_SKILL
    given_away = _given_away(answer.predictions, classes) if interval else []
    return {name: scores[name] for name in ROW} | {
        "interval": interval,
        "high": bool(far or given_away),
        "chance": chance,
        "given_away": given_away,
        "model": answer.model,
        "trained_on": answer.trained_on,
    }


def warning(name: str, probe: Mapping[str, Any]) -> str:
    """What a report says of a high probe: what was seen, why it may be honest, and what to look at. Empty if low."""
    if not probe["high"]:
        return ""
    interval = probe["interval"]
    between = f" (95 % interval {interval[0]:.0%} to {interval[1]:.0%})" if interval else ""
    reached = f"a balanced accuracy of {probe['balanced_accuracy']:.0%}{between}; guessing has {probe['chance']:.0%}"
    named = probe.get("given_away") or []
    which = f" It is most telling of {_listed(named)}." if named else ""
    return (
        f"{_SEEN[name]} is enough for {reached}.{which} {_HONEST[name]} Otherwise the network may have learnt it "
        f"instead of cells, and will fail on images from elsewhere. Look at: {_TO_LOOK_AT[name]}."
    )


def _given_away(predictions: Predictions, classes: Sequence[str]) -> list[str]:
    """The diagnoses said of nearly all of their own images and of hardly any other, beyond what so few could show.

    A rate is taken over images, and its uncertainty is that of as many independent trials as there are groups.
    """
    numbers, _ = group_numbers(predictions.groups)
    found = []
    for index, name in enumerate(classes):
        own, said = predictions.labels == index, predictions.answers == index
        groups, others = len(np.unique(numbers[own])), len(np.unique(numbers[~own]))
        if groups < FEWEST_GROUPS_OF_CLASS or not others:
            continue
        right, wrong = float(said[own].mean()), float(said[~own].mean())
        surely = wilson_interval(right, groups)[0] > wilson_interval(wrong, others)[1]
        if surely and right - wrong >= GIVEN_AWAY:
            found.append(name)
    return found


def _listed(names: Sequence[str]) -> str:
    quoted = [f"“{name}”" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
