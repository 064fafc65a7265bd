"""What a person is told when Cloud Storage can't or won't, and the exit code a scheduler is told it by."""

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from data_pipeline import cli
from tests.bucket_faults import matching
from tests.bucket_server import FaultyBucket
from tests.conftest import ROOT, make_images, run_module
from tests.trainer.workers import free_addresses

LATE_BY = 3
SHORT = {"CYTOTRAIN_STORAGE_PATIENCE_S": "1"}


def ends(arguments: list[str], code: int, *says: str, **env: str) -> None:
    done = run_module("data_pipeline", "--organ=gland", *arguments, **env)
    assert done.returncode == code, done.stderr
    for part in says:
        assert part in done.stderr
    assert "To fix it" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("fault", "code", "says"),
    [
        ("401", cli.EXIT_REQUEST, "who asks for gs://lab/images"),
        ("403", cli.EXIT_REQUEST, "roles/storage.objectViewer on gs://lab"),
        ("404", cli.EXIT_REQUEST, "There is no bucket gs://lab"),
        ("429", cli.EXIT_FAULT, "have the quota of the project or the bucket raised"),
        ("503", cli.EXIT_FAULT, "could not be reached for 1 s"),
        ("reset before", cli.EXIT_FAULT, "look at the network"),
    ],
)
def test_what_the_service_says_is_told_with_its_remedy(
    faulty_bucket: FaultyBucket, tmp_path: Path, fault: str, code: int, says: str
) -> None:
    faulty_bucket.front.rule = lambda seen: fault
    ends(["--images=gs://lab/images", f"--tfrecords={tmp_path}"], code, says, **SHORT)


def test_a_place_that_may_be_read_and_not_written_is_named(faulty_bucket: FaultyBucket, tmp_path: Path) -> None:
    make_images(tmp_path / "images" / "gland")
    faulty_bucket.front.rule = matching("POST", "/upload/", "403", times=99)
    arguments = [f"--images={tmp_path / 'images'}", "--tfrecords=gs://lab/tf", f"--scratch={tmp_path / 'scratch'}"]
    ends(arguments, cli.EXIT_REQUEST, "Not permitted: gs://lab/tf/", "roles/storage.objectUser", **SHORT)


def test_a_network_that_is_away_is_a_fault_and_worth_a_retry(tmp_path: Path) -> None:
    (nobody,) = free_addresses(1)
    arguments = ["--images=gs://lab/images", f"--tfrecords={tmp_path}"]
    ends(arguments, cli.EXIT_FAULT, "gs://lab/images", STORAGE_EMULATOR_HOST=f"http://{nobody}", **SHORT)


def test_no_credentials_are_a_wrong_request(tmp_path: Path) -> None:
    env = {"STORAGE_EMULATOR_HOST": "", "GOOGLE_APPLICATION_CREDENTIALS": "", "NO_GCE_CHECK": "true"}
    env |= {"HOME": str(tmp_path), "CLOUDSDK_CONFIG": str(tmp_path), **SHORT}
    arguments = ["--images=gs://lab/images", f"--tfrecords={tmp_path}"]
    ends(arguments, cli.EXIT_REQUEST, "doesn't know who asks", "gcloud auth application-default login", **env)
    ends(arguments, cli.EXIT_FAULT, "Nobody has said for 1 s who asks", KUBERNETES_SERVICE_HOST="10.0.0.1", **env)
    ends(
        arguments,
        cli.EXIT_REQUEST,
        "gcloud auth application-default login",
        **env | {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "missing.json")},
    )


class _Metadata(http.server.BaseHTTPRequestHandler):
    """Says who a pod is, but not in its first moments."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        busy = self.asked <= LATE_BY
        body = b"not yet" if busy else b'{"access_token": "a", "expires_in": 3600, "token_type": "Bearer"}'
        if "token" not in self.path:
            body = b'{"default": {"email": "e@x", "scopes": [], "aliases": []}, "email": "e@x", "scopes": []}'
        self.send_response(404 if busy else 200)
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def metadata_server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Metadata)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


LATE = """
import google.auth.transport.requests
from google.auth import compute_engine
from data_pipeline import retrying

retrying.FIRST_PAUSE_S = 0.01
credentials, request = compute_engine.Credentials(), google.auth.transport.requests.Request()
retrying.retrying(lambda: credentials.refresh(request), url="gs://lab")
print(credentials.token)
"""


def test_an_identity_that_comes_late_is_waited_for() -> None:
    """As on GKE in the first seconds of a pod."""
    with metadata_server() as address:
        done = subprocess.run(
            [sys.executable, "-c", LATE],
            cwd=ROOT,
            env=os.environ | {"GCE_METADATA_HOST": address},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.stdout, done.returncode) == ("a\n", 0), done.stderr
    assert _Metadata.asked > LATE_BY
