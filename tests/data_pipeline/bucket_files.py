"""Folders on the disk as folders of a bucket, for tests.

fill(server.folder("images"), tmp_path / "images")
"""

import random
from pathlib import Path

from data_pipeline.bucket import BucketFolder
from data_pipeline.transfer import upload
from tests.conftest import image_bytes


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
