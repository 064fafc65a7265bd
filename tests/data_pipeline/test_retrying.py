"""How long a call to Cloud Storage is tried again, what is worth it, and what a message must not give away."""

import time
from typing import Any

import pytest
import requests
from google.api_core import exceptions as api

from data_pipeline.cli import FaultError, RequestError
from data_pipeline.retrying import PATIENCE_VARIABLE, retrying


class Service:
    """Answers with these errors, in order, and then as it should."""

    def __init__(self, *errors: Exception, each_s: float = 0.0) -> None:
        self.left, self.each_s, self.asked = list(errors), each_s, 0

    def __call__(self) -> str:
        self.asked += 1
        time.sleep(self.each_s)
        if self.left:
            raise self.left.pop(0)
        return "done"


def refused(**how: Any) -> Exception:
    return api.Forbidden("GET https://x: no", **how)  # type: ignore[no-untyped-call]


def test_a_call_that_took_long_to_fail_is_tried_again() -> None:
    """Patience begins with the first failure: a large object may take longer than that to arrive damaged."""
    service = Service(requests.ConnectionError("reset"), each_s=0.3)
    assert retrying(service, url="gs://lab/large", patience_s=0.2) == "done"


def test_what_fails_for_good_is_given_up_in_time() -> None:
    service = Service(*[requests.ConnectionError("reset")] * 100)
    with pytest.raises(FaultError, match=r"gs://lab/x could not be reached for \d+ s: reset.*To fix it: "):
        retrying(service, url="gs://lab/x", patience_s=0.2)
    assert 1 < service.asked < 100


@pytest.mark.parametrize("reason", ["rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded"])
def test_a_quota_is_no_matter_of_permission(reason: str) -> None:
    """The service says some with 403, which else no retry mends."""
    busy = refused(errors=[{"reason": reason}])
    assert retrying(Service(busy), url="gs://lab/x") == "done"
    with pytest.raises(FaultError, match="have the quota of the project or the bucket raised"):
        retrying(Service(*[busy] * 100), url="gs://lab/x", patience_s=0.0)
    service = Service(refused(errors=[{"reason": "forbidden"}]))
    with pytest.raises(RequestError, match="Not permitted"):
        retrying(service, url="gs://lab/x")
    assert service.asked == 1


def test_the_address_of_an_upload_which_lets_anybody_write_there_is_not_told() -> None:
    address = "https://storage.googleapis.com/upload/storage/v1/b/lab/o?uploadType=resumable&upload_id=AB-c_1:x&y=1"
    for error in (
        api.ServiceUnavailable(f"PUT {address}: busy"),  # type: ignore[no-untyped-call]
        requests.ConnectionError(f"Max retries exceeded with url: {address} (Caused by …)"),
    ):
        with pytest.raises(FaultError) as told:
            retrying(Service(*[error] * 100), url="gs://lab/x", patience_s=0.0)
        assert "AB-c_1" not in str(told.value)
        assert "uploadType=resumable" in str(told.value)


@pytest.mark.parametrize("value", ["", "5m", "nan", "-1"])
def test_a_patience_that_is_no_number_is_told(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv(PATIENCE_VARIABLE, value)
    with pytest.raises(RequestError, match=f"{PATIENCE_VARIABLE}.*To fix it: "):
        retrying(Service(), url="gs://lab/x")
