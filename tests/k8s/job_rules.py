"""What the API server demands of a Job beyond its schema, and what this project demands of every Job.

    violations("train", spec)       # ["podFailurePolicy needs restartPolicy: Never", …], empty if all is well

Rules: https://kubernetes.io/docs/concepts/workloads/controllers/job/ and the API's validation of batch/v1.
"""

from collections.abc import Iterator
from typing import Any

from data_pipeline import cli

Spec = dict[str, Any]

SIGTERM_EXIT = 143
ACTIONS = {"FailJob", "FailIndex", "Ignore", "Count"}
MAX_RULES, MAX_INDEXES = 20, 100_000


def violations(job: Spec, *, restarted_by_set: bool = False) -> list[str]:
    """Why a Job is refused, or isn't as every Job here has to be.

    One that its JobSet restarts as a whole leaves to that what becomes of a pod that was stopped.
    """
    stopped = "FailJob" if restarted_by_set else "Ignore"
    return [*_indexes(job), *_failure_policy(job), *_bounds(job), *_exit_codes(job, stopped=stopped)]


def _indexes(job: Spec) -> Iterator[str]:
    mode = job.get("completionMode", "NonIndexed")
    if mode not in ("Indexed", "NonIndexed"):
        yield f"completionMode is {mode}"
    if mode != "Indexed":
        for key in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if key in job:
                yield f"{key} needs completionMode: Indexed"
        if "JOB_COMPLETION_INDEX" in str(job["template"]["spec"]):
            yield "$(JOB_COMPLETION_INDEX) needs completionMode: Indexed"
    elif not 0 < job.get("completions", 0) <= MAX_INDEXES:
        yield "completionMode: Indexed needs completions"
    if job.get("parallelism", 1) > job.get("completions", 1):
        yield "more pods at once than there is work"
    if "maxFailedIndexes" in job and "backoffLimitPerIndex" not in job:
        yield "maxFailedIndexes needs backoffLimitPerIndex"


def _failure_policy(job: Spec) -> Iterator[str]:
    rules = job.get("podFailurePolicy", {}).get("rules", [])
    pod = job["template"]["spec"]
    if pod.get("restartPolicy") not in ("Never", "OnFailure"):
        yield "restartPolicy of a Job's pods is Never or OnFailure"
    if rules and pod.get("restartPolicy") != "Never":
        yield "podFailurePolicy needs restartPolicy: Never"
    if rules and job.get("podReplacementPolicy") != "Failed":
        yield "podFailurePolicy needs podReplacementPolicy: Failed"
    if len(rules) > MAX_RULES:
        yield "too many rules"
    names = {container["name"] for container in [*pod.get("initContainers", []), *pod["containers"]]}
    for rule in rules:
        if rule["action"] not in ACTIONS:
            yield f"no such action: {rule['action']}"
        if rule["action"] == "FailIndex" and "backoffLimitPerIndex" not in job:
            yield "FailIndex needs backoffLimitPerIndex"
        if len({"onExitCodes", "onPodConditions"} & rule.keys()) != 1:
            yield "a rule has either onExitCodes or onPodConditions"
        yield from _codes_rule(rule.get("onExitCodes"), names)
        for condition in rule.get("onPodConditions", []):
            if condition.get("status") not in ("True", "False", "Unknown"):
                yield f"a condition's status is {condition.get('status')!r}, and not a word"


def _codes_rule(codes: Spec | None, names: set[str]) -> Iterator[str]:
    if codes is None:
        return
    values = codes["values"]
    if codes["operator"] not in ("In", "NotIn"):
        yield f"no such operator: {codes['operator']}"
    if values != sorted(set(values)) or not values:
        yield f"exit codes {values} aren't in order"
    if 0 in values and codes["operator"] == "In":
        yield "exit code 0 is no failure"
    if not all(0 <= value <= 255 for value in values):
        yield f"no process ends with one of {values}"
    if codes.get("containerName", next(iter(names))) not in names:
        yield f"there is no container {codes['containerName']}"


def _bounds(job: Spec) -> Iterator[str]:
    """A Job ends by itself, is cleared away, and retries a fault a few times."""
    limits = [job[key] for key in ("backoffLimit", "backoffLimitPerIndex") if key in job]
    if len(limits) != 1 or not 0 <= limits[0] <= 10:
        yield "faults aren't retried a few times"
    ignores = any(rule["action"] == "Ignore" for rule in job.get("podFailurePolicy", {}).get("rules", []))
    if ignores and not 0 < job.get("activeDeadlineSeconds", 0) <= 7 * 86400:
        yield "ignored failures are without limit unless there is an activeDeadlineSeconds"
    # A spot node gives 15 s; what a drained one gives more is worth having.
    if not 15 <= job["template"]["spec"].get("terminationGracePeriodSeconds", 30) <= 120:
        yield "no time for a checkpoint, or too much"


def _exit_codes(job: Spec, *, stopped: str) -> Iterator[str]:
    """Exit codes mean what they mean in the code."""
    rules = job.get("podFailurePolicy", {}).get("rules", [])
    by_code = {
        code: rule["action"] for rule in reversed(rules) for code in rule.get("onExitCodes", {}).get("values", [])
    }
    # What can't be done for one index can be for others, unless all are needed.
    fail = "FailIndex" if "backoffLimitPerIndex" in job and job.get("maxFailedIndexes") != 0 else "FailJob"
    if by_code != {cli.EXIT_REQUEST: fail, cli.EXIT_PREEMPTED: stopped, SIGTERM_EXIT: stopped}:
        yield f"exit codes are taken for {by_code}"
    disruption = [{"type": "DisruptionTarget", "status": "True"}]
    if [rule["action"] for rule in rules if rule.get("onPodConditions") == disruption] != [stopped]:
        yield "an evicted pod counts as a fault"
    if rules and rules[0]["action"] != fail:
        yield "a wrong request is retried if its node is drained"
