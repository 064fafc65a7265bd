"""The Jobs treat an exit code as the programs mean it, and neither Job can go on for ever."""

from typing import Any

import pytest

from data_pipeline import cli

Manifest = dict[str, Any]

SIGTERM_EXIT = 143
JOBS = ("convert", "train")


def _codes(job: Manifest, action: str) -> list[list[int]]:
    rules = job["podFailurePolicy"]["rules"]
    return [rule["onExitCodes"]["values"] for rule in rules if rule["action"] == action and "onExitCodes" in rule]


def test_there_are_two_jobs(jobs: dict[str, Manifest]) -> None:
    assert tuple(sorted(jobs)) == JOBS


@pytest.mark.parametrize("name", JOBS)
def test_a_wrong_request_fails_the_job_at_once(jobs: dict[str, Manifest], name: str) -> None:
    assert _codes(jobs[name], "FailJob") == [[cli.EXIT_REQUEST]]
    assert jobs[name]["podFailurePolicy"]["rules"][0]["action"] == "FailJob"


@pytest.mark.parametrize("name", JOBS)
def test_a_stopped_pod_is_replaced_without_being_counted(jobs: dict[str, Manifest], name: str) -> None:
    rules = jobs[name]["podFailurePolicy"]["rules"]
    assert _codes(jobs[name], "Ignore") == [[cli.EXIT_PREEMPTED, SIGTERM_EXIT]]
    assert {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]} in rules


@pytest.mark.parametrize("name", JOBS)
def test_a_fault_is_retried_a_few_times(jobs: dict[str, Manifest], name: str) -> None:
    named = {
        code
        for rule in jobs[name]["podFailurePolicy"]["rules"]
        for code in rule.get("onExitCodes", {}).get("values", [])
    }
    assert cli.EXIT_FAULT not in named
    assert 1 <= jobs[name]["backoffLimit"] <= 10


@pytest.mark.parametrize("name", JOBS)
def test_rules_are_ones_the_api_server_accepts(jobs: dict[str, Manifest], name: str) -> None:
    job = jobs[name]
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert job["podReplacementPolicy"] == "Failed"
    for rule in job["podFailurePolicy"]["rules"]:
        assert len({"onExitCodes", "onPodConditions"} & rule.keys()) == 1
        if codes := rule.get("onExitCodes"):
            assert codes["operator"] == "In"
            assert codes["values"] == sorted(set(codes["values"]))
            assert 0 not in codes["values"]


@pytest.mark.parametrize("name", JOBS)
def test_a_job_ends_by_itself_and_is_cleared_away(jobs: dict[str, Manifest], name: str) -> None:
    assert 0 < jobs[name]["activeDeadlineSeconds"] <= 7 * 86400
    assert jobs[name]["ttlSecondsAfterFinished"] > 0
    # A spot node gives 15 s; what a drained one gives more is worth having.
    assert 15 <= jobs[name]["template"]["spec"]["terminationGracePeriodSeconds"] <= 120


def test_training_waits_as_long_as_conversion_may_take_and_has_time_left(jobs: dict[str, Manifest]) -> None:
    (waiter,) = jobs["train"]["template"]["spec"]["initContainers"]
    (limit,) = [arg.removeprefix("--limit_s=") for arg in waiter["args"] if arg.startswith("--limit_s=")]
    assert jobs["convert"]["activeDeadlineSeconds"] <= int(limit) < jobs["train"]["activeDeadlineSeconds"] / 2
