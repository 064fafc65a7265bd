"""Examples for a report, each with where the model looked.

    rows = confident_mistakes(predictions, MISTAKES_SHOWN)
    records = reader.records(np.array(rows, dtype=np.int64))
    examples = explained(model, records, predictions, rows, classes=classes, image_size=256)

The heat map is that of the network's own view of the image as it is; with eight views it explains one of them.
"""

from collections.abc import Sequence

import keras
import numpy as np

from data_pipeline.schema import Record
from trainer.gradcam import heat_maps, overlay, place
from trainer.input_pipeline import to_unit_range
from trainer.metrics import Predictions
from trainer.report_inputs import Example
from trainer.served_images import decode_served


def explained(
    model: keras.Model,
    records: Sequence[Record],
    predictions: Predictions,
    rows: Sequence[int],
    *,
    classes: Sequence[str],
    image_size: int,
) -> tuple[Example, ...]:
    """`records` are those of `rows`, in their order; `model` takes `[n, image_size, image_size, 3]` in [0, 1].

    Raises `ValueError` if a record isn't that of its row, or the network has no convolution.
    """
    for row, record in zip(rows, records, strict=True):
        if record.id != predictions.ids[row]:
            raise ValueError(f"Expected the record of {predictions.ids[row]!r} in row {row}. Received {record.id!r}.")
    if not rows:
        return ()
    images = np.stack([to_unit_range(decode_served(record.image, image_size=image_size)[0]) for record in records])
    # What is explained is the answer that is reported, which is that of a mean of eight views where there are eight.
    maps = heat_maps(model, images, answers=predictions.answers[list(rows)])
    return tuple(
        _example(predictions, row, record, overlay(image, heat_map), place(heat_map), classes)
        for row, record, image, heat_map in zip(rows, records, images, maps, strict=True)
    )


def _example(
    predictions: Predictions, row: int, record: Record, heat_map: bytes, looked_at: str, classes: Sequence[str]
) -> Example:
    probabilities = predictions.probabilities[row]
    first, *others = np.argsort(-probabilities, kind="stable")
    return Example(
        image=record.image,
        id=record.id,
        group=record.group,
        truth=classes[predictions.labels[row]],
        predicted=classes[first],
        confidence=float(probabilities[first]),
        heat_map=heat_map,
        looked_at=looked_at,
        second=classes[others[0]] if others else "",
        second_confidence=float(probabilities[others[0]]) if others else 0.0,
    )
