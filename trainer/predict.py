"""Predict the diagnosis of image files with an exported model.

Usage: python -m trainer.predict --model=DIR [--output=FILE.csv] PATH [PATH ...]

A PATH is an image file or a folder of them, of any format that conversion reads, and seen as conversion sees it.
Each of these may be in Cloud Storage: --model=gs://lab/runs/cervix/r --output=gs://lab/out.csv gs://lab/new_images
Without --output a table is printed; with it a CSV file is written: path, class, confidence, a column of probability for
each class, and error. A file that can't be read as an image gets a row with its error, the others go on, and the exit
code is 1.
"""

import csv
import io
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from absl import flags
from numpy.typing import NDArray
from tqdm import tqdm

from data_pipeline import cli
from data_pipeline.images import ImageRefusedError, as_png, decode
from data_pipeline.storage import in_bucket, write_atomic
from trainer.images_named import is_image_name
from trainer.run_folder import model_folder

if TYPE_CHECKING:
    from trainer.export import Served

BATCH = 32
PROBE_BYTES = 1 << 16
READERS = 8  # a bucket answers slowly, and many at once


class Image(Protocol):
    """A file to predict: a `Path`, or an object in a bucket. Its text is its name."""

    def read_bytes(self) -> bytes: ...


class Output(Protocol):
    """Where the table goes."""

    def check(self, images: Sequence[Image]) -> None: ...
    def write(self, data: bytes) -> None: ...


@dataclass(frozen=True)
class Prediction:
    """One file's row: `probabilities` is `[classes]`, or None beside an `error`."""

    path: str
    probabilities: NDArray[np.float32] | None
    error: str = ""


def predict(served: "Served", paths: Sequence[Image]) -> Iterator[Prediction]:
    """A prediction for each of `paths`, in order. A bad file is a row with its error."""
    with ThreadPoolExecutor(READERS) as pool:
        yield from _predicted(served, paths, pool)


def _predicted(served: "Served", paths: Sequence[Image], pool: ThreadPoolExecutor) -> Iterator[Prediction]:
    for start in range(0, len(paths), BATCH):
        batch = paths[start : start + BATCH]
        contents = list(pool.map(read_image, batch))
        good = [data for data in contents if isinstance(data, bytes)]
        results = iter(served.probabilities(good) if good else ())
        for path, data in zip(batch, contents, strict=True):
            if isinstance(data, str):
                yield Prediction(str(path), None, data)
            else:
                yield Prediction(str(path), next(results))


def read_image(path: Image) -> bytes | str:
    """A file as the served model takes it, or what is wrong with it.

    The file itself where TensorFlow sees in it what conversion sees; else (turned by EXIF, TIFF, 16 bits, …) the
    pixels that conversion sees, as PNG.
    """
    try:
        data = path.read_bytes()
        image = decode(data)
        return data if image.plain else as_png(image.pixels)
    except OSError as error:
        return f"can't be read: {error.strerror}"
    except ImageRefusedError as error:
        return str(error)


def find_images(arguments: Sequence[str]) -> list[Image]:
    """The files named, and the image files below the folders named. Raises `RequestError`."""
    found: list[Image] = []
    for argument in arguments:
        if in_bucket(argument):
            from trainer.remote_files import bucket_images

            found += bucket_images(argument)
            continue
        path = Path(argument)
        try:
            path.stat()
        except OSError as error:
            raise cli.RequestError(f"{path} can't be read: {error.strerror}. To fix it: check the path.") from error
        found += sorted(file for file in path.rglob("*") if _is_image(file, path)) if path.is_dir() else [path]
    if not found:
        raise cli.RequestError("No image to predict. To fix it: python -m trainer.predict --model=DIR PATH [PATH ...]")
    return found


@dataclass(frozen=True)
class FileOutput:
    """A file to write."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def check(self, images: Sequence[Image]) -> None:
        """Raises `RequestError` if it is no place for the result; one of the images isn't."""
        check_output(self.path, [image for image in images if isinstance(image, Path)])

    def write(self, data: bytes) -> None:
        write_atomic(self.path, data)


def output_of(value: str) -> Output | None:
    """What `--output` names; None if it names nothing. Raises `RequestError`."""
    if in_bucket(value):
        from trainer.remote_files import BucketOutput

        return BucketOutput.of(value)
    return FileOutput(Path(value)) if value else None


def check_output(path: Path, images: Sequence[Path]) -> None:
    """Raises `RequestError` if `path` is no place for the result; one of the images isn't."""
    fix = "name a file in a folder that exists and that this user may write to"
    reason = ""
    try:
        if path.is_dir():
            reason = "a folder has that name"
        if path.exists() and any(path.samefile(image) for image in images):
            reason = "it is one of the images"
        with tempfile.TemporaryFile(dir=path.absolute().parent) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        raise cli.invalid_flag("output", expected="a file to write", received=str(path), fix=f"{fix} ({reason})")


def _is_image(file: Path, folder: Path) -> bool:
    return is_image_name(file.relative_to(folder)) and file.is_file()


def as_csv(predictions: Sequence[Prediction], classes: Sequence[str]) -> str:
    """All predictions as CSV text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "class", "confidence", *(f"probability_{name}" for name in classes), "error"])
    for row in predictions:
        if row.probabilities is None:
            writer.writerow([row.path, "", "", *("" for _ in classes), row.error])
        else:
            best = int(row.probabilities.argmax())
            shares = [f"{share:.6f}" for share in row.probabilities]
            writer.writerow([row.path, classes[best], shares[best], *shares, ""])
    return text.getvalue()


def as_table(predictions: Sequence[Prediction], classes: Sequence[str]) -> str:
    """All predictions for a person to read."""
    width = max(len(row.path) for row in predictions)
    lines = []
    for row in predictions:
        if row.probabilities is None:
            lines.append(f"{row.path:<{width}}  {row.error}")
        else:
            best = int(row.probabilities.argmax())
            lines.append(f"{row.path:<{width}}  {row.probabilities[best]:6.1%}  {classes[best]}")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> None:
    """Predict the files of the command line."""
    images = find_images(argv[1:])
    output = output_of(flags.FLAGS.output or "")
    if output:
        output.check(images)
    with model_folder(flags.FLAGS.model) as folder:
        from trainer.export import load_served  # only now: it imports TensorFlow, which takes seconds

        served = load_served(folder)
    rows = list(tqdm(predict(served, images), total=len(images), desc="predict", unit="image", leave=False))
    if output:
        output.write(as_csv(rows, served.classes).encode(errors="backslashreplace"))
        print(f"Predictions: {output} ({len(rows)} files)")
    else:
        print(as_table(rows, served.classes))
    failed = sum(row.probabilities is None for row in rows)
    if failed:
        print(f"{failed} of {len(rows)} files could not be predicted.", file=sys.stderr)
        raise SystemExit(cli.EXIT_FAULT)


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "An exported model: RUN/model, or the run's folder; on a disk or at gs://.")
    flags.DEFINE_string("output", None, "CSV file to write, on a disk or at gs://. By default a table is printed.")
    flags.mark_flag_as_required("model")
    cli.run(main)
