"""Where the workers are, from tables of flags and environments."""

import json
from types import SimpleNamespace

import pytest

from data_pipeline.cli import RequestError
from trainer.addresses import Workers, find_workers, split_address

TWO = json.dumps({"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}})
JOB_SET = {"JOBSET_NAME": "set", "REPLICATED_JOB_NAME": "train", "JOB_INDEX": "2", "JOB_COMPLETION_INDEX": "1"}
SET_WORKERS = Workers(("set-train-2-0.set:2222", "set-train-2-1.set:2222"), 1)


def find(environment: dict[str, str], hostname: str = "here", **flags: object) -> Workers | None:
    plain = {"distribution": "auto", "num_workers": 0, "worker": -1, "worker_service": "", "worker_port": 2222}
    return find_workers(SimpleNamespace(**plain | flags), environment, hostname=hostname)


@pytest.mark.parametrize(
    ("environment", "flags", "found"),
    [
        ({}, {}, None),
        ({"TF_CONFIG": ""}, {}, None),
        ({"TF_CONFIG": TWO}, {}, Workers(("a:1", "b:2"), 1)),
        ({"TF_CONFIG": TWO}, {"num_workers": 2, "worker": 1}, Workers(("a:1", "b:2"), 1)),
        ({"TF_CONFIG": TWO}, {"distribution": "mirrored"}, None),
        ({"JOB_COMPLETION_INDEX": "3"}, {}, None),
        ({"JOB_COMPLETION_INDEX": "0"}, {"num_workers": 1}, None),
        (
            {"HOSTNAME": "train-1", "JOB_COMPLETION_INDEX": "1"},
            {"num_workers": 2, "worker_service": "peers", "worker_port": 99},
            Workers(("train-0.peers:99", "train-1.peers:99"), 1),
        ),
        (
            {"HOSTNAME": "a-1-0.peers.space.svc", "JOB_COMPLETION_INDEX": "7"},
            {"num_workers": 2, "worker": 0, "worker_service": "peers"},
            Workers(("a-1-0.peers:2222", "a-1-1.peers:2222"), 0),
        ),
        (JOB_SET, {"num_workers": 2}, SET_WORKERS),
        (
            {"JOBSET_NAME": "set", "HOSTNAME": "set-train-2-1", "JOB_COMPLETION_INDEX": "1"},
            {"num_workers": 2},
            SET_WORKERS,
        ),
        (JOB_SET, {"num_workers": 1, "distribution": "single"}, None),
    ],
)
def test_workers_are_found(environment: dict[str, str], flags: dict[str, object], found: Workers | None) -> None:
    assert find(environment, **flags) == found


def test_the_host_name_is_asked_where_the_environment_has_none() -> None:
    found = find({}, hostname="job-1", num_workers=2, worker=1, worker_service="s")
    assert found == Workers(("job-0.s:2222", "job-1.s:2222"), 1)


def test_a_subdomain_of_its_own_goes_before_that_of_the_job_set() -> None:
    found = find(JOB_SET, num_workers=2, worker_service="other")
    assert found is not None
    assert found.addresses[0] == "set-train-2-0.other:2222"


@pytest.mark.parametrize(
    ("environment", "flags", "says"),
    [
        ({"TF_CONFIG": "{"}, {}, "TF_CONFIG"),
        ({"TF_CONFIG": "[]"}, {}, "TF_CONFIG"),
        ({"TF_CONFIG": TWO.replace("1}", "2}")}, {}, "0 to 1"),
        ({"TF_CONFIG": TWO.replace("1}", '"1"}')}, {}, "0 to 1"),
        ({"TF_CONFIG": TWO.replace('"b:2"', '"b"')}, {}, "host:port"),
        ({"TF_CONFIG": TWO.replace('"b:2"', "3")}, {}, "host:port"),
        ({"TF_CONFIG": TWO.replace('"b:2"', '"a:1"')}, {}, "another address"),
        ({"TF_CONFIG": TWO.replace('"worker": [', '"ps": [')}, {}, "ps"),
        ({"TF_CONFIG": TWO}, {"num_workers": 3}, "--num_workers"),
        ({"TF_CONFIG": TWO}, {"worker": 0}, "--worker`"),
        ({}, {"distribution": "multiworker"}, "TF_CONFIG"),
        ({}, {"distribution": "multiworker", "num_workers": 1}, "--num_workers"),
        ({}, {"distribution": "mirrored", "num_workers": 2}, "--num_workers"),
        ({}, {"num_workers": 2}, "JOB_COMPLETION_INDEX"),
        ({}, {"num_workers": 2, "worker": 2}, "0 to 1"),
        ({"JOB_COMPLETION_INDEX": "2"}, {"num_workers": 2}, "0 to 1"),
        ({"JOB_COMPLETION_INDEX": "x"}, {"num_workers": 2}, "JOB_COMPLETION_INDEX"),
        ({"JOB_COMPLETION_INDEX": "1", "HOSTNAME": "a-1"}, {"num_workers": 2}, "--worker_service"),
        ({"JOB_COMPLETION_INDEX": "1", "HOSTNAME": "node"}, {"num_workers": 2, "worker_service": "s"}, "HOSTNAME"),
        ({"JOB_COMPLETION_INDEX": "1", "HOSTNAME": "-1"}, {"num_workers": 2, "worker_service": "s"}, "HOSTNAME"),
    ],
)
def test_what_is_wrong_is_refused_with_the_remedy(
    environment: dict[str, str], flags: dict[str, object], says: str
) -> None:
    with pytest.raises(RequestError, match=r"(?s)Expected.*Received.*To fix it") as refused:
        find(environment, **flags)
    assert says in str(refused.value)


def test_addresses_are_split() -> None:
    assert split_address("a.b:1") == ("a.b", 1)
    assert split_address("[::1]:65535") == ("::1", 65535)
    for wrong in ("a", ":1", "a:", "a:x", "a:0", "a:65536"):
        with pytest.raises(ValueError, match=wrong):
            split_address(wrong)
