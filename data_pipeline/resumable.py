"""A large file to Cloud Storage in pieces: what has arrived isn't sent again after a failure.

    resource = send(session, start, path, url="gs://lab/x")     # session is an authorised requests session

The protocol is the service's own for resumable uploads: an address for the upload, pieces sent to it in order, and,
after whatever went wrong, the question how much of it is there.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from google.api_core import exceptions as api

from data_pipeline.retrying import TruncatedError, retrying

LEAST_BYTES = 8 << 20  # smaller files go in one request
PIECE_BYTES = 16 << 20  # a multiple of 256 KiB, as the service asks
INCOMPLETE = 308
TIMEOUT_S = (10.0, 120.0)
TRIES = 3
_RECEIVED = re.compile(r"bytes=0-(\d+)")


class _UploadLostError(Exception):
    """The service won't end the upload: it doesn't know it any more, or what has arrived is damaged."""


def send(session: Any, start: Callable[[], str], path: Path, *, url: str) -> dict[str, Any]:
    """Upload a file; the object's resource as the service describes it.

    `start` begins an upload and gives its address. Each piece is tried again by itself, as `retrying` does. Raises
    `google.api_core.exceptions.PreconditionFailed` if the object isn't the one that was to be replaced, and
    `TruncatedError` if several uploads came to nothing.
    """
    for _ in range(TRIES):
        try:
            return _Upload(session, retrying(start, url=url), path).run(url)
        except _UploadLostError:
            continue
    raise TruncatedError(f"{TRIES} uploads to {url} were lost or arrived damaged")


class _Upload:
    """One upload under way: `offset` bytes have arrived, if that is `sure`."""

    def __init__(self, session: Any, address: str, path: Path) -> None:
        self._session, self._address, self._path = session, address, path
        self._size = path.stat().st_size
        self._offset, self._sure = 0, True

    def run(self, url: str) -> dict[str, Any]:
        with self._path.open("rb") as file:
            while True:
                resource = retrying(lambda: self._advance(file), url=url)
                if resource is not None:
                    return resource

    def _advance(self, file: BinaryIO) -> dict[str, Any] | None:
        """Send the next piece. The object's resource if it was the last one."""
        if not self._sure:
            resource = self._told(b"", f"bytes */{self._size}")
            if resource is not None:
                return resource
        self._sure = False
        file.seek(self._offset)
        piece = file.read(PIECE_BYTES)
        if len(piece) != min(PIECE_BYTES, self._size - self._offset):
            raise OSError(f"{self._path} has changed while it was uploaded")
        last = self._offset + len(piece) - 1
        return self._told(piece, f"bytes {self._offset}-{last}/{self._size}")

    def _told(self, body: bytes, content_range: str) -> dict[str, Any] | None:
        """What the service says to a request: the resource, or how much it has."""
        response = self._session.put(
            self._address,
            data=body,
            headers={"Content-Range": content_range, "Content-Length": str(len(body))},
            timeout=TIMEOUT_S,
            allow_redirects=False,
        )
        if response.status_code in (404, 410) or (response.status_code == 400 and "crc32c" in response.text.lower()):
            raise _UploadLostError
        if response.status_code in (200, 201):
            resource: dict[str, Any] = response.json()
            return resource
        if response.status_code != INCOMPLETE:
            raise api.from_http_response(response)  # type: ignore[no-untyped-call]
        match = _RECEIVED.fullmatch(response.headers.get("Range", ""))
        self._offset, self._sure = int(match[1]) + 1 if match else 0, True
        if self._offset >= self._size:
            self._sure = False
            raise TruncatedError(f"all of {self._path} was sent, and the service waits for more")
        return None
