"""See what training will see: a picture with some images as they are stored, and as each epoch changes them.

Usage: python -m trainer.preview --tfrecords=DIR --organ=ORGAN [--output=preview.png] [flags of augmentation]

Give it the flags of augmentation that python -m trainer will get, and the same --seed: row by row it shows the very
pixels of that run. Diagnoses take turns, so that each is seen.

Examples:
  python -m trainer.preview --tfrecords=tfrecords --organ=cervix
  python -m trainer.preview --tfrecords=tfrecords --organ=cervix --recipe=strong
  python -m trainer.preview --tfrecords=tfrecords --organ=cervix --quarter_turns --stain=0.05 --blur=1.5 --cutmix=1
"""

import os
import textwrap
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from numpy.typing import NDArray

from data_pipeline import cli
from data_pipeline.manifest import Manifest
from data_pipeline.schema import Record
from data_pipeline.storage import local_path, write_atomic
from trainer import augment_config
from trainer.augment_config import (
    Augmentation,
    AugmentFlags,
    Mixing,
    augmentation_of,
    check_augment_flags,
    define_augment_flags,
    mixing_of,
)
from trainer.config import MAX_SEED, check_image_size
from trainer.model_names import OWN_MODELS
from trainer.preflight import chosen_organs
from trainer.recipe_files import apply_recipe, define_recipe_flag
from trainer.records import RecordReader

CELL_INCHES, LABEL_INCHES = 1.5, 1.3
DPI = 110
LABEL_WIDTH = 22
MAX_ROWS, MAX_EPOCHS = 64, 24
READ_AT_ONCE = 64

Pixels = NDArray[np.float32]


def preview(
    reader: RecordReader,
    records: NDArray[np.int64],
    *,
    how: Augmentation,
    mixing: Mixing,
    seed: int,
    image_size: int,
    epochs: int,
) -> list[Pixels]:
    """The images as stored, then as each of the first `epochs` epochs sees them: `[records, size, size, 3]` each."""
    from trainer.augment import draw, make_augment
    from trainer.mixing import draw_mix, mixed

    augment = make_augment(how, on_host=True)

    def changed(epoch: int, indices: NDArray[np.int64]) -> Any:
        packed = draw(how, seed=seed, epoch=epoch, indices=indices).packed(image_size)
        return augment(_decoded(reader, indices, image_size), packed)

    versions = [_decoded(reader, records, image_size) / np.float32(255)]
    for epoch in range(epochs):
        images = changed(epoch, records)
        if mixing.on:
            mix = draw_mix(mixing, seed=seed, epoch=epoch, indices=records, records=len(reader), size_px=image_size)
            images = mixed(images, changed(epoch, mix.partners), mix.packed())
        versions.append(np.asarray(images))
    return versions


def choose(reader: RecordReader, count: int, *, seed: int) -> NDArray[np.int64]:
    """Up to `count` records, diagnoses in turn, so that each of them is there."""
    from trainer.order import epoch_order

    by_label: dict[int, list[int]] = {}
    for start in range(0, len(reader), READ_AT_ONCE):  # labels alone are kept, however many records there are
        numbers = epoch_order(len(reader), seed, 0)[start : start + READ_AT_ONCE]
        for number, record in zip(numbers.tolist(), reader.records(numbers), strict=True):
            by_label.setdefault(record.label, []).append(number)
        if len(by_label) > 1 and min(map(len, by_label.values())) * len(by_label) >= count:
            break
    turns = [numbers[turn] for turn in range(count) for _, numbers in sorted(by_label.items()) if turn < len(numbers)]
    return np.array(turns[:count], dtype=np.int64)


def draw_grid(versions: Sequence[Pixels], records: Sequence[Record], classes: Sequence[str]) -> bytes:
    """A PNG with a row for each record and a column for each version, the first being as it is stored."""
    from io import BytesIO

    from matplotlib.figure import Figure

    rows, columns = len(records), len(versions)
    figure = Figure(figsize=(LABEL_INCHES + CELL_INCHES * columns, CELL_INCHES * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for row, record in enumerate(records):
        for column, images in enumerate(versions):
            cell = axes[row][column]
            cell.imshow(np.clip(images[row], 0, 1), interpolation="nearest")
            cell.set(xticks=[], yticks=[])
            for spine in cell.spines.values():
                spine.set_visible(False)
            if row == 0:
                cell.set_title("as stored" if column == 0 else f"epoch {column}", fontsize=8)
        name = textwrap.shorten(Path(record.id).name, LABEL_WIDTH, placeholder="…")
        label = f"{textwrap.fill(classes[record.label], LABEL_WIDTH)}\n{name}"
        axes[row][0].set_ylabel(label, fontsize=7, rotation=0, ha="right", va="center")
    out = BytesIO()
    figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()


def main(argv: Sequence[str]) -> None:
    """Draw the preview of the command line."""
    values = flags.FLAGS
    apply_recipe(values, only=("image_size", *(field.name for field in fields(AugmentFlags))))
    if argv[1:]:
        raise cli.RequestError(f"Unexpected argument {argv[1]!r}. To fix it: flags begin with --, see --help.")
    check_augment_flags(values)
    output = local_path("output", values.output)
    tfrecords = local_path("tfrecords", values.tfrecords)
    (organ, *others) = chosen_organs([values.organ], tfrecords)
    if others:
        fix = "show one of them after another"
        raise cli.invalid_flag("organ", expected="one organ", received=values.organ, fix=fix)
    manifest = Manifest.load(tfrecords / organ)
    image_size = values.image_size or manifest.image_size
    check_image_size(image_size, OWN_MODELS[0])
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    reader = RecordReader(tfrecords / organ, manifest, "train")
    chosen = choose(reader, values.images, seed=values.seed)
    versions = preview(
        reader,
        chosen,
        how=augmentation_of(values),
        mixing=mixing_of(values),
        seed=values.seed,
        image_size=image_size,
        epochs=values.epochs,
    )
    write_atomic(output, draw_grid(versions, reader.records(chosen), manifest.classes))
    print(f"Preview: {output}", flush=True)


def _decoded(reader: RecordReader, indices: NDArray[np.int64], image_size: int) -> Pixels:
    """`[n, image_size, image_size, 3]` in [0, 255], as the pipeline decodes them."""
    from trainer.input_pipeline import decode_stored

    decoded = [
        decode_stored(record.image, stored_size=reader.image_size, image_size=image_size)
        for record in reader.records(indices)
    ]
    return np.stack([np.asarray(pixels) for pixels in decoded])


def _define_flags() -> None:
    flags.DEFINE_string("tfrecords", None, "Folder of datasets, as written by python -m data_pipeline.")
    flags.DEFINE_string("organ", None, "The dataset to show, one of --tfrecords.")
    flags.DEFINE_string("output", "preview.png", "The picture to write.")
    flags.DEFINE_integer("images", 8, "How many images, a row each.", lower_bound=1, upper_bound=MAX_ROWS)
    flags.DEFINE_integer("epochs", 6, "How many versions of each.", lower_bound=1, upper_bound=MAX_EPOCHS)
    flags.DEFINE_integer("image_size", 0, "Width and height in pixels; 0: as stored.", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "Of the run to show.", lower_bound=0, upper_bound=MAX_SEED)
    define_recipe_flag()
    define_augment_flags()
    flags.mark_flags_as_required(["tfrecords", "organ"])


if __name__ == "__main__":
    _define_flags()
    flags.adopt_module_key_flags(augment_config)  # for --help
    cli.run(main)
