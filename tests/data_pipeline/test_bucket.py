"""Objects of a bucket, read and written through a real emulator."""

from pathlib import Path

import pytest

from data_pipeline.bucket import BucketFolder, ConflictError
from data_pipeline.cli import RequestError
from data_pipeline.transfer import upload
from tests.bucket_server import BucketServer


def test_an_object_is_written_once_if_it_must_be_new(bucket_server: BucketServer) -> None:
    folder = bucket_server.folder("a/b")
    first = folder.write("x/y.json", b"hello", generation=0)
    assert folder.write("x/y.json", b"hello", generation=0) == first
    with pytest.raises(ConflictError, match=r"gs://lab/a/b/x/y\.json was written by somebody else"):
        folder.write("x/y.json", b"other", generation=0)
    assert folder.read("x/y.json") == b"hello"


def test_a_bucket_that_is_not_there_is_named(bucket_server: BucketServer) -> None:
    nowhere = BucketFolder.of("tfrecords", "gs://nowhere/x")
    for ask in (nowhere.files, nowhere.folders, lambda: nowhere.find("y"), lambda: nowhere.write("y", b"")):
        with pytest.raises(RequestError, match="There is no bucket gs://nowhere"):
            ask()


def test_an_upload_replaces_what_was_seen_and_nothing_else(bucket_server: BucketServer, tmp_path: Path) -> None:
    folder, path = bucket_server.folder("a"), tmp_path / "x"
    path.write_bytes(b"ours")
    seen = folder.write("x", b"seen")
    upload(folder, {"x": path}, generations={"x": seen.generation})
    folder.write("x", b"theirs")
    for generation in (0, seen.generation):
        with pytest.raises(ConflictError, match=r"gs://lab/a/x was written by somebody else"):
            upload(folder, {"x": path}, generations={"x": generation})
    assert folder.read("x") == b"theirs"
