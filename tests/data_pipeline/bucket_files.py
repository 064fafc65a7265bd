"""Folders on the disk as folders of a bucket, and datasets in one, for tests.

fill(server.folder("images"), tmp_path / "images")
to_bucket("gs://lab/images", tmp_path / "scratch")                  # as a process
convert_here("gs://lab/images", tmp_path / "scratch", seed=7)       # without the seconds one takes to start
hashes = fetched(server.folder("tf"), tmp_path / "theirs")
"""

import random
import shutil
from pathlib import Path
from typing import Any

from data_pipeline.bucket import BucketFolder
from data_pipeline.bucket_conversion import convert_to_bucket
from data_pipeline.manifest import Manifest
from data_pipeline.settings import Settings
from data_pipeline.sources import open_sources
from data_pipeline.transfer import download, upload
from tests.conftest import image_bytes
from tests.data_pipeline.conversion import contents, convert
from tests.faults.program import IMAGE_SIZE, conversion

TO = "gs://lab/tf"


def to_bucket(images: Path | str, scratch: Path, *arguments: str, code: int = 0) -> str:
    """Run the program; its output."""
    return convert(images, TO, f"--scratch={scratch}", *arguments, code=code)


def convert_here(images: Path | str, scratch: Path, *, overwrite: bool = False, **settings: Any) -> Manifest | None:
    """The same in this process."""
    scratch.mkdir(parents=True, exist_ok=True)
    bucket = BucketFolder.of("tfrecords", TO)
    changes = {
        "source": open_sources(str(images), ["gland"])["gland"],
        "settings": Settings(**{"image_size": IMAGE_SIZE} | settings),
        "overwrite": overwrite,
        "bucket": bucket,
    }
    return convert_to_bucket(conversion(Path(), scratch, **changes), bucket)


def fetched(folder: BucketFolder, target: Path) -> dict[str, str]:
    """The dataset as it lies there, by name and hash."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    download(folder / "gland", (folder / "gland").files(), target)
    return contents(target)


def fill(folder: BucketFolder, files: Path) -> None:
    """Upload everything below `files`; an empty folder becomes an object that is called like it."""
    upload(folder, {path.relative_to(files).as_posix(): path for path in files.rglob("*") if path.is_file()})
    for path in files.rglob("*"):
        if path.is_dir() and not any(path.iterdir()):
            folder.write(path.relative_to(files).as_posix() + "/", b"")


def add_mess(organ: Path) -> None:
    """What real folders hold besides images."""
    first = min(organ.rglob("*.png")).read_bytes()
    for name, data in {
        "red/.DS_Store": b"\0\0\0\1Bud1",
        ".hidden/x.png": first,
        "red/empty.png": b"",
        "stray.png": image_bytes(999_998),
        "red/ü と ✓.png": image_bytes(999_997),
        "red/u\u0308 decomposed.png": image_bytes(999_996),
        "red/#1?x=2&y%20z.png": image_bytes(999_995),
        "red/[a]*.png": image_bytes(999_994),
        "blue/copy of it.png": first,
        "blue/deep/er/still/x.png": image_bytes(999_993),
        "blue/text.jpg": b"not an image",
        "green/slide.mrxs": b"x",
        "green/slide/Data0000.dat": b"x",
        "green/cut.png": first[: len(first) // 2],
        "green/new\nline.png": image_bytes(999_992),
        "green/noise.bin": random.Random(0).randbytes(3000),
    }.items():
        path = organ / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (organ / "nothing of it").mkdir()
