"""Other ways to bring a folder of images into shards, with as much looked at as they are asked for.

write_with_tfds(files, Path("…"))
write_with_webdataset(files, Path("…"))
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import webdataset
from PIL import Image

from data_pipeline.images import pixel_hash

SHARD_IMAGES = 1000


class Smears(tfds.core.GeneratorBasedBuilder):
    """Each file is decoded once, as every check begins, and then given to TFDS by its path."""

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, files: Sequence[Path], **arguments: Any) -> None:
        self._files = files
        super().__init__(**arguments)

    def _info(self) -> tfds.core.DatasetInfo:
        names = sorted({path.parent.name for path in self._files})
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=names),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in self._files:
            with Image.open(path) as picture:
                np.asarray(picture.convert("RGB"))
            yield f"{path.parent.name}/{path.name}", {"image": path, "label": path.parent.name}


def write_with_tfds(files: Sequence[Path], folder: Path) -> None:
    """What `tfds build` does for a builder of one's own."""
    tfds.disable_progress_bar()
    Smears(files, data_dir=folder).download_and_prepare()


def write_with_webdataset(files: Sequence[Path], folder: Path) -> None:
    """A loop over `ShardWriter`, with the checks by which conversion knows an image again."""
    labels = {name: number for number, name in enumerate(sorted({path.parent.name for path in files}))}
    with webdataset.ShardWriter(f"{folder}/smears-%06d.tar", maxcount=SHARD_IMAGES, verbose=0) as shards:
        for path in files:
            data = path.read_bytes()
            pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
            about = {"sha256": hashlib.sha256(data).hexdigest(), "pixels": pixel_hash(pixels).hex()}
            key = f"{path.parent.name}/{path.stem}"
            shards.write({"__key__": key, "jpg": data, "cls": labels[path.parent.name], "json": about})
