"""What a conversion has inspected is kept in the bucket, also by a bucket that is away for a while."""

import threading
from pathlib import Path

import pytest

from data_pipeline import seal
from data_pipeline.manifest import Manifest
from data_pipeline.mirror import mirrored
from data_pipeline.sources import open_sources
from data_pipeline.spool import SUFFIX
from data_pipeline.write import INSPECT_FOLDER
from tests.bucket_server import FaultyBucket
from tests.conftest import make_images
from tests.data_pipeline.bucket_files import convert_here
from tests.faults.program import conversion
from tests.trainer.workers import until


def test_after_a_bucket_was_away_what_is_inspected_is_kept_there_again(
    faulty_bucket: FaultyBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CYTOTRAIN_STORAGE_PATIENCE_S", "0.1")
    monkeypatch.setattr("data_pipeline.mirror.LOOK_S", 0.05)
    make_images(tmp_path / "images" / "gland")
    source = open_sources(str(tmp_path / "images"), ["gland"])["gland"]
    job, partial = conversion(Path(), tmp_path / "scratch", source=source), faulty_bucket.server.folder("partial")
    here = job.work / INSPECT_FOLDER
    here.mkdir(parents=True)
    said = ""

    def warned() -> bool:
        nonlocal said
        said += capsys.readouterr().err
        return "can't be kept in gs://lab/partial" in said

    with mirrored(job, partial):
        faulty_bucket.front.rule = lambda seen: "503"
        (here / f"one{SUFFIX}").write_bytes(b"1")
        until(warned, 10, "a word on it")
        before = len(faulty_bucket.front.log)
        until(lambda: len(faulty_bucket.front.log) > before + 3, 10, "another try")
        faulty_bucket.front.rule = lambda seen: ""
        until(lambda: len(partial.files()) == 1, 10, "the upload")
    assert partial.files()[0].name == f"{INSPECT_FOLDER}/one{SUFFIX}"
    assert f"{said}{capsys.readouterr().err}".count("can't be kept") == 1  # once, however often it is tried


def test_while_tfds_is_imported_no_other_thread_imports_anything(
    faulty_bucket: FaultyBucket, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It replaces `__import__` by one that knows no relative imports, for all threads, and the network uses some."""
    write, running = seal.write_tfds_metadata, set[str]()

    def watched(folder: Path, manifest: Manifest) -> None:
        running.update(thread.name.partition("_")[0] for thread in threading.enumerate())
        write(folder, manifest)

    monkeypatch.setattr(seal, "write_tfds_metadata", watched)
    convert_here(images, tmp_path / "scratch")
    assert "MainThread" in running
    assert not running & {"mirror", "transfer", "fetch"}
