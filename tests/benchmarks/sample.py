"""The images that training is fed with in benchmarks, as a dataset of ours and as the same bytes in files.

sample = make_sample(Path("…"), image_size=256)
sample.reader()  # the training split
sample.files     # holds NUMBER/NUMBER.jpg, the records of that split; folders are labels

They are real images where there are any. Drawn ones are smoother and decoded in two thirds of the time, so that
whatever comes after decoding seems to cost more.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.conversion import Conversion
from data_pipeline.grouping import parse_rule
from data_pipeline.manifest import Manifest
from data_pipeline.settings import Settings
from data_pipeline.sources import open_sources
from data_pipeline.stages import convert
from tests.benchmarks.smears import ORGAN, draw_jpegs
from tests.conftest import REAL_IMAGES
from trainer.records import RecordReader

ORGANS = ("blood_cells", "cervix", "lung")


@dataclass(frozen=True, slots=True)
class Sample:
    """Images of one organ; `about` says what they are, as a reader of the results wants to know it."""

    dataset: Path
    files: Path
    about: str

    def reader(self) -> RecordReader:
        return RecordReader(self.dataset, Manifest.load(self.dataset), "train")


def make_sample(folder: Path, *, image_size: int) -> Sample:
    """Converted as a user converts them, into `folder`."""
    images, origin = _images(folder, image_size)
    source = open_sources(str(images), [ORGAN])[ORGAN]
    converted = Conversion(ORGAN, source, folder, Settings(image_size=image_size), parse_rule("auto"))
    convert(converted)
    reader = RecordReader(converted.target, Manifest.load(converted.target), "train")
    files, total = folder / "files", 0
    for number, record in enumerate(reader.records(np.arange(len(reader)))):
        path = files / f"{record.label:02d}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(record.image)
        total += len(record.image)
    about = f"{len(reader):,} {origin} of {image_size} × {image_size} pixels, {total / len(reader) / 1000:.0f} kB each"
    return Sample(converted.target, files, about)


def _images(folder: Path, image_size: int) -> tuple[Path, str]:
    """A folder that holds `ORGAN`, with a diagnosis for each of every organ, and what is in it."""
    if not (REAL_IMAGES / "provenance.csv").exists():
        return draw_jpegs(folder, slides=10, tiles=20, image_size=image_size), "drawn smears"
    for organ in ORGANS:
        for diagnosis in (path for path in sorted((REAL_IMAGES / organ).iterdir()) if path.is_dir()):
            shutil.copytree(diagnosis, folder / "images" / ORGAN / f"{organ} {diagnosis.name}")
    return folder / "images", f"real images ({', '.join(ORGANS)})"
