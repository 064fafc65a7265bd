"""The conversion as the tests of faults run it: in this process, or as a process that can be killed.

run_here(images, tmp_path / "tf", "inspect", "plan")
process = start(images, tmp_path / "tf", "--workers=2")
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from data_pipeline.conversion import STAGES, Conversion
from data_pipeline.folder_source import FolderSource
from data_pipeline.grouping import parse_rule
from data_pipeline.manifest import Manifest
from data_pipeline.settings import Settings
from data_pipeline.stages import convert
from tests.conftest import ROOT

IMAGE_SIZE = 32


def conversion(images: Path, tfrecords: Path, **changes: Any) -> Conversion:
    """What `start` runs."""
    values = {
        "organ": "gland",
        "source": FolderSource(images / "gland"),
        "tfrecords": tfrecords,
        "settings": Settings(image_size=IMAGE_SIZE),
        "rule": parse_rule("auto"),
    }
    return Conversion(**values | changes)


def run_here(images: Path, tfrecords: Path, *stages: str) -> Manifest | None:
    """Run all stages, or those named one after another, as a run does that ends after them."""
    tfrecords.mkdir(exist_ok=True, parents=True)
    if not stages:
        return convert(conversion(images, tfrecords, stages=STAGES))
    return [convert(conversion(images, tfrecords, stages=(stage,))) for stage in stages][-1]


def command(images: Path, tfrecords: Path, *arguments: str) -> list[str]:
    names = ["--organ=gland", f"--images={images}", f"--tfrecords={tfrecords}"]
    return [sys.executable, "-m", "data_pipeline", *names, f"--image_size={IMAGE_SIZE}", *arguments]


def start(images: Path, tfrecords: Path, *arguments: str, says: Path | None = None) -> "subprocess.Popen[str]":
    """The program, leading a process group of its own. What it says goes to the file `says`, or to a pipe."""
    with says.open("w") if says else open(os.devnull, "w") as file:  # noqa: PTH123
        return subprocess.Popen(
            command(images, tfrecords, *arguments),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=file if says else subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


def finish(process: "subprocess.Popen[str]", code: int) -> str:
    """Wait for its end; its error output."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    return errors or ""
