"""The curves of a split as the report takes them: plain lists, ready for JSON. Pure arithmetic.

curves = report_curves(test, classes, uncalibrated=before_temperature)      # `curves` of `ReportInputs`
"""

from collections.abc import Sequence
from typing import Any

from trainer.abstention import risk_coverage
from trainer.calibration import Bin
from trainer.curves import one_vs_rest_curves, reliability
from trainer.metrics import Predictions


def report_curves(
    predictions: Predictions, classes: Sequence[str], *, uncalibrated: Predictions | None = None
) -> dict[str, Any]:
    """`roc`, `pr`, `reliability` (and `reliability_uncalibrated`) and `risk_coverage`, with its `area`.

    A diagnosis that the split can't tell anything about has None in place of its curve.
    """
    found = one_vs_rest_curves(predictions, classes)
    kept = risk_coverage(predictions)
    curves: dict[str, Any] = {
        "roc": {
            name: one and {"fpr": list(one.roc.x), "tpr": list(one.roc.y), "auc": one.roc.area}
            for name, one in found.items()
        },
        "pr": {
            name: one
            and {
                "recall": list(one.precision_recall.x),
                "precision": list(one.precision_recall.y),
                "ap": one.precision_recall.area,
            }
            for name, one in found.items()
        },
        "reliability": [_row(one) for one in reliability(predictions)],
        "risk_coverage": {"coverage": list(kept.coverage), "risk": list(kept.risk), "area": kept.area},
    }
    if uncalibrated is not None:
        curves["reliability_uncalibrated"] = [_row(one) for one in reliability(uncalibrated)]
    return curves


def _row(one: Bin) -> dict[str, float | None]:
    return {
        "low": one.low,
        "high": one.high,
        "n": one.count,
        "confidence": one.confidence,
        "accuracy": one.accuracy,
    }
