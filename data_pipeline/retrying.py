"""Calls to Cloud Storage that are tried again while that may help, and errors that say what to do when it can't.

    data = retrying(lambda: ask_the_service(), url="gs://lab/images")

Tried again, after pauses that double and are drawn at random, so that many workers don't come back at once: what a
network or a busy service does (resets, time-outs, 408, 429, 5xx, answers cut short), for `PATIENCE_S` from the first
failure on. Never: what a person has to change first.
"""

import math
import os
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

import requests
import urllib3
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from data_pipeline.cli import FaultError, RequestError

Result = TypeVar("Result")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
PATIENCE_S = 300.0
PATIENCE_VARIABLE = "CYTOTRAIN_STORAGE_PATIENCE_S"
AGAIN = (408, 425, 429, 500, 502, 503, 504)
FORBIDDEN, BUSY = 403, 429
# Limits that are told with 403 as well, by these reasons: asking for permission wouldn't help.
LIMITS = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded"})
# In the first seconds of a pod on GKE nobody may answer who it is: what looks like no credentials at all may pass.
IN_KUBERNETES, IDENTITY_PATIENCE_S = "KUBERNETES_SERVICE_HOST", 60.0
CREDENTIALS = (
    "give this process an identity: `gcloud auth application-default login` on a workstation, "
    "GOOGLE_APPLICATION_CREDENTIALS elsewhere, Workload Identity on GKE"
)
# Whoever has this part of the address of an upload may write there, for a week.
_UPLOAD_ID = re.compile(r"(upload_id=)[^&\s:;,)'\"]+(:[^&\s:;,)'\"]+)*")


class TruncatedError(Exception):
    """Other bytes arrived than were sent, or fewer."""


NETWORK = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
    urllib3.exceptions.HTTPError,
    ConnectionError,
    TimeoutError,
    DataCorruption,
    TruncatedError,
    auth.TransportError,
)


def retrying(call: Callable[[], Result], *, url: str, patience_s: float | None = None) -> Result:
    """What `call` returns.

    Raises `RequestError` for what a person has to change, `FaultError` for what has lasted for `patience_s`.
    """
    limit_s = _patience() if patience_s is None else patience_s
    failed_since, pause_s = math.inf, FIRST_PAUSE_S
    while True:
        try:
            return call()
        except Exception as error:
            if not may_pass(error):
                raise _explained(error, url) from error
            failed_since = min(failed_since, time.monotonic())
            lasted_s = time.monotonic() - failed_since
            if isinstance(error, auth.GoogleAuthError):
                limit_s = min(limit_s, IDENTITY_PATIENCE_S)
            if lasted_s >= limit_s:
                raise _gave_up(error, url, lasted_s) from error
        time.sleep(min(random.uniform(pause_s / 2, pause_s), max(limit_s - lasted_s, 0.0)))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _patience() -> float:
    value = os.environ.get(PATIENCE_VARIABLE, str(PATIENCE_S))
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        fix = f"give a number of seconds, such as {PATIENCE_VARIABLE}={PATIENCE_S:.0f}, or leave it unset"
        raise RequestError(f"{PATIENCE_VARIABLE} is {value!r}, which is no time. To fix it: {fix}.")
    return seconds


def may_pass(error: BaseException) -> bool:
    """Whether the same call may work out a moment later."""
    if isinstance(error, auth.RefreshError):
        return bool(error.retryable) or isinstance(error.__cause__, auth.TransportError)
    if isinstance(error, auth.DefaultCredentialsError):
        return bool(os.environ.get(IN_KUBERNETES)) and not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if isinstance(error, NETWORK):
        return True
    return _status(error) in AGAIN or (_status(error) == 400 and "crc32c" in _said(error).lower())


def _status(error: BaseException) -> int:
    if isinstance(error, InvalidResponse):
        return int(error.response.status_code)
    if not isinstance(error, api.GoogleAPICallError):
        return 0
    reasons = {each.get("reason") for each in error.errors if isinstance(each, dict)}
    return BUSY if error.code == FORBIDDEN and reasons & LIMITS else int(error.code or 0)


def _explained(error: Exception, url: str) -> Exception:
    """The error in words that say what to do; one that isn't the service's is left as it is."""
    bucket = "/".join(url.split("/")[:3])
    if isinstance(error, auth.DefaultCredentialsError | auth.RefreshError):
        return RequestError(f"Cloud Storage doesn't know who asks for {url}: {_said(error)}. To fix it: {CREDENTIALS}.")
    match _status(error):
        case 401:
            return RequestError(f"Cloud Storage doesn't accept who asks for {url}. To fix it: {CREDENTIALS}.")
        case 403:
            fix = (
                f"let that identity read it (roles/storage.objectViewer on {bucket}), and write it where results go "
                "(roles/storage.objectUser)"
            )
            return RequestError(f"Not permitted: {url}: {_said(error)}. To fix it: {fix}.")
        case 404:
            fix = "check its name, or make it (`gcloud storage buckets create`)"
            return RequestError(f"There is no bucket {bucket}, or nobody may know of it. To fix it: {fix}.")
        case 400:
            return RequestError(f"Cloud Storage refuses {url}: {_said(error)}. To fix it: check the address.")
    return error


def _gave_up(error: Exception, url: str, lasted_s: float) -> FaultError:
    if isinstance(error, auth.GoogleAuthError):
        return FaultError(
            f"Nobody has said for {lasted_s:.0f} s who asks for {url}: {_said(error)}. To fix it: {CREDENTIALS}; then "
            "run it again."
        )
    told = f"{url} could not be reached for {lasted_s:.0f} s: {_said(error)}."
    if _status(error) == BUSY:
        fix = "have the quota of the project or the bucket raised, or run fewer processes"
        return FaultError(f"Cloud Storage says it is asked too often. {told} To fix it: {fix}; then run it again.")
    return FaultError(f"{told} To fix it: look at the network and status.cloud.google.com, then run it again.")


def _said(error: BaseException) -> str:
    text = _UPLOAD_ID.sub(r"\1…", str(getattr(error, "message", None) or error))
    return " ".join(text.split())[:300].rstrip(".")
