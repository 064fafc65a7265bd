"""The folder that TensorFlow Serving takes: one sub-folder for each version, called by a number.

    link_version(run / "model", run / "serving")
    docker run --volume "$PWD/RUN/serving:/models/cervix" --env MODEL_NAME=cervix tensorflow/serving

The files of version 1 are hard links to those of the model: nothing is on the disk twice, and the folder is whole
by itself wherever it is mounted or copied to. On a disk that has no hard links, they are copies.
"""

import shutil
from pathlib import Path

from data_pipeline.storage import link_or_copy

VERSION = 1


def link_version(model: Path, serving: Path, *, version: int = VERSION) -> Path:
    """Put the SavedModel in `model` below `serving`, whole or not at all, in place of what is there; its folder."""
    target = serving / str(version)
    aside = serving.with_name(f".{serving.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(model, aside, copy_function=link_or_copy)
    serving.mkdir(exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    aside.rename(target)
    return target
