"""The model card of a run: `MODEL_CARD.md`, in the Hugging Face form, made from what the report is made from.

    path = write_model_card(Path("runs/cervix/1f3a"), inputs)

Its metadata say what the Hub can search for; its licence is `other`, since that of this code isn't that of the images.
"""

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from data_pipeline import page
from data_pipeline.manifest import SPLITS
from data_pipeline.storage import write_atomic
from trainer.front_matter import front_matter
from trainer.report_inputs import ReportInputs
from trainer.scoreboard import PROBES, interval_of
from trainer.shortcuts import warning
from trainer.verdict import high_shortcuts, judge

FILE_NAME = "MODEL_CARD.md"
# Score, its name for people, whether it is a rate, and how the Hub calls it.
SCORES = (
    ("accuracy", "Accuracy", True, "accuracy"),
    ("balanced_accuracy", "Balanced accuracy", True, "balanced_accuracy"),
    ("macro_f1", "Macro F1", True, "f1"),
    ("roc_auc", "ROC AUC, macro", False, "roc_auc"),
    ("average_precision", "Average precision, macro", False, "average_precision"),
    ("cohen_kappa", "Cohen's kappa", False, "cohen_kappa"),
    ("quadratic_kappa", "Quadratic kappa", False, "quadratic_kappa"),
    ("log_loss", "Log loss", False, "log_loss"),
    ("brier", "Brier score", False, "brier_score"),
    ("ece", "Expected calibration error", True, "expected_calibration_error"),
)


def write_model_card(folder: Path, inputs: ReportInputs) -> Path:
    """Write `MODEL_CARD.md` into `folder`, whole or not at all, and return its path. `OSError` if the disk refuses."""
    path = folder / FILE_NAME
    write_atomic(path, render_model_card(inputs).encode())
    return path


def render_model_card(inputs: ReportInputs) -> str:
    """The text of `MODEL_CARD.md`; equal inputs give equal text. Names can't be taken for Markdown or YAML."""
    manifest, test = inputs.manifest, inputs.test
    groups_known = manifest.grouping.rule != page.NO_GROUPS
    splits = [manifest.splits.get(split) for split in SPLITS]
    by_group = test.get("by_group")
    context: dict[str, Any] = {
        "front_matter": front_matter(metadata(inputs)),
        "title": f"{inputs.organ} classifier, run {inputs.run}",
        "organ": inputs.organ,
        "classes": manifest.classes,
        "image_size": inputs.settings.get("image_size") or manifest.image_size,
        "verdict": judge(test, inputs.baselines, groups_known=groups_known),
        "warnings": list(_warnings(inputs)),
        "manifest": manifest,
        "groups_known": groups_known,
        "counts": page.class_counts(manifest),
        "images": [split.records if split else 0 for split in splits],
        "groups": [split.groups if split else 0 for split in splits],
        "test": test,
        "looked_for": "intervals" in test,
        "by_group": by_group,
        "scores": [(name, _cells(test, by_group, key, rate)) for key, name, rate, _ in SCORES if key in test],
        "per_class": [(name, _class_cells(test, name)) for name in manifest.classes],
        "baselines": [(_baseline_name(key, row), _baseline_cells(row)) for key, row in _baselines(inputs)],
        "difference": _difference(inputs.baselines.get("classical")),
        "confidence": _confidence(inputs),
        "limits": list(_limits(inputs)),
        "epochs": f"{len(inputs.history)} epochs",
        "train_seconds": f"{inputs.train_seconds:.0f} s",
        "best_epoch": inputs.best_epoch,
        "monitor": inputs.monitor,
        "parameters": f"{inputs.parameters:,}",
        "command": inputs.command,
        "environment": sorted((name, _plain(value)) for name, value in inputs.environment.items()),
    }
    text = _environment().get_template(FILE_NAME).render(context)
    # A file name may hold bytes that are no text.
    return re.sub(r"\n{3,}", "\n\n", text).encode("utf-8", errors="backslashreplace").decode() + "\n"


def metadata(inputs: ReportInputs) -> dict[str, Any]:
    """What the Hub reads, in its form: https://huggingface.co/docs/hub/model-cards#model-card-metadata."""
    found = [(key, name, kind) for key, name, _, kind in SCORES if inputs.test.get(key) is not None]
    result = {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {
            "name": inputs.organ,
            "type": "imagefolder",
            "split": "test",
            "args": {"fingerprint": inputs.manifest.fingerprint},
        },
        "metrics": [{"type": kind, "value": float(inputs.test[key]), "name": name} for key, name, kind in found],
    }
    return {
        "license": "other",
        "license_name": "depends-on-the-training-images",
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "keras", "tensorflow", "microscopy", "cytology", "cytotrain"],
        "metrics": [kind for _, _, kind in found],
        "model-index": [{"name": f"{inputs.organ}-{inputs.run}", "results": [result]}],
    }


def _cells(test: Mapping[str, Any], by_group: Mapping[str, Any] | None, key: str, rate: bool) -> list[str]:
    columns = [test, by_group] if by_group else [test]
    return [text for scores in columns for text in _with_interval(scores.get(key), interval_of(scores, key), rate)]


def _class_cells(test: Mapping[str, Any], name: str) -> list[str]:
    row, known = test["per_class"][name], test.get("intervals") or {}
    rates = [_with_interval(row[key], (known.get(key) or {}).get(name), True) for key in ("recall", "precision")]
    return [text for pair in rates for text in pair] + [str(row["support"])]


def _with_interval(value: float | None, interval: Any, rate: bool) -> tuple[str, str]:
    if value is None:
        return "–", "–"
    if not interval:
        return _number(value, rate), "too few groups"
    return _number(value, rate), f"{_number(interval[0], rate)} to {_number(interval[1], rate)}"


def _number(value: float, rate: bool) -> str:
    return f"{100 * value:.1f}%" if rate else f"{value:.3f}"


def _baselines(inputs: ReportInputs) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, row) for name, row in sorted(inputs.baselines.items()) if row]


def _baseline_name(key: str, row: Mapping[str, Any]) -> str:
    detail = f"always “{row['answer']}”" if "answer" in row else row.get("model", "")
    return f"{key}: {detail}" if detail else key


def _baseline_cells(row: Mapping[str, Any]) -> list[str]:
    return [_number(row[key], True) for key in ("accuracy", "balanced_accuracy", "macro_f1")]


def _difference(classical: Mapping[str, Any] | None) -> str:
    if not classical:
        return ""
    found = classical["difference"]["balanced_accuracy"]
    interval = found["interval"]
    known = f"95% interval {100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}" if interval else "too few groups"
    points = f"{100 * found['value']:+.1f} points ({known})"
    return f"Difference in balanced accuracy to the classical baseline, paired: {points}."


def _confidence(inputs: ReportInputs) -> str:
    said = []
    if inputs.temperature is not None:
        said.append(f"Probabilities are calibrated with a temperature of {inputs.temperature:.2f}.")
    if inputs.abstention:
        target = f"{100 * inputs.abstention['target_error']:g}%"
        threshold, test = inputs.abstention["threshold"], inputs.abstention["test"]
        if threshold is None:
            said.append(f"No confidence can be shown to keep errors at {target} or below: have every answer looked at.")
        else:
            error = "none" if test["error"] is None else f"{100 * test['error']:.1f}%"
            said.append(
                f"To keep errors at {target} of the answers, those below a confidence of {100 * threshold:.1f}% should "
                f"be left to a person. On the test split it then answers {100 * test['coverage']:.1f}% of the images, "
                f"with errors in {error}."
            )
    return " ".join(said) or "Nothing is known of how well its confidence fits its accuracy."


def _warnings(inputs: ReportInputs) -> Iterator[str]:
    for name in high_shortcuts(inputs.shortcuts):
        yield warning(name, (inputs.shortcuts or {})[name])


def _limits(inputs: ReportInputs) -> Iterator[str]:
    if inputs.shortcuts:
        scores = (
            f"{PROBES[name][0].lower()} {_number(probe['balanced_accuracy'], True)}"
            for name, probe in sorted(inputs.shortcuts.items())
        )
        yield f"Shortcut probes, balanced accuracy: {', '.join(scores)}."
    yield from map(_text, inputs.manifest.warnings)


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _text(value: object) -> str:
    """Text that Markdown shows as it is: no markup, no cell border, no line of its own."""
    flat = " ".join(str(value).split())
    return re.sub(r"([\\`*_\[\]<>|~&$]|^[-+#=]|(?<=^\d)[.)])", r"\\\1", flat)


def _code(value: object) -> str:
    """Code within a line, fenced by more backticks than it holds; the bar would end a table's cell."""
    flat = " ".join(str(value).split()).replace("|", "\\|") or "–"
    fence = "`" * (1 + max(map(len, re.findall("`+", flat)), default=0))
    return f"{fence} {flat} {fence}" if "`" in flat else f"`{flat}`"


def _block(value: str) -> str:
    """Lines of code, fenced by more backticks than they hold."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", value)), default=0))
    return f"{fence}bash\n{value}\n{fence}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("trainer"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"text": _text, "code": _code, "block": _block}
    return environment
