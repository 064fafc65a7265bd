"""What JobSet and Kueue demand of their own kinds, for which no schema is at hand: fields, types, words, references.

    violations(manifests)       # ["JobSet cytotrain: no field maxRestart", …], empty if all is well

Fields: https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2/ (0.10.1 and newer), and
https://kueue.sigs.k8s.io/docs/reference/kueue.v1beta2/ (0.15 and newer). Only those used here are known; one that is
added has to be looked up there and written down in `FIELDS`.
"""

import re
from collections.abc import Iterator
from typing import Any

from manifests import Manifest, of_kind
from pod_rules import amount

Spec = dict[str, Any]
Shape = Any

MAP = {"*": str}
METADATA = {"name": str, "labels": MAP, "annotations": MAP}
# A dict names fields, a list of one shape is a list of that, a tuple lists words, `object` is checked elsewhere.
JOBSET = {
    "apiVersion": ("jobset.x-k8s.io/v1alpha2",),
    "kind": ("JobSet",),
    "metadata": METADATA,
    "spec": {
        "ttlSecondsAfterFinished": int,
        "suspend": bool,
        "failurePolicy": {
            "maxRestarts": int,
            "rules": [
                {
                    "name": str,
                    "action": ("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"),
                    "onJobFailureReasons": [
                        (
                            "BackoffLimitExceeded",
                            "DeadlineExceeded",
                            "FailedIndexes",
                            "MaxFailedIndexesExceeded",
                            "PodFailurePolicy",
                        )
                    ],
                    "onJobFailureMessagePatterns": [str],
                    "targetReplicatedJobs": [str],
                }
            ],
        },
        "replicatedJobs": [
            {
                "name": str,
                "replicas": int,
                "dependsOn": [{"name": str, "status": ("Ready", "Complete")}],
                "template": {"metadata": METADATA, "spec": object},
            }
        ],
    },
}
LOCAL_QUEUE = {
    "apiVersion": ("kueue.x-k8s.io/v1beta2",),
    "kind": ("LocalQueue",),
    "metadata": METADATA,
    "spec": {"clusterQueue": str},
}
RESOURCE_FLAVOR = {
    "apiVersion": ("kueue.x-k8s.io/v1beta2",),
    "kind": ("ResourceFlavor",),
    "metadata": METADATA,
    "spec": {"nodeLabels": MAP},
}
CLUSTER_QUEUE = {
    "apiVersion": ("kueue.x-k8s.io/v1beta2",),
    "kind": ("ClusterQueue",),
    "metadata": METADATA,
    "spec": {
        "namespaceSelector": {"matchLabels": MAP},
        "resourceGroups": [
            {
                "coveredResources": [str],
                "flavors": [{"name": str, "resources": [{"name": str, "nominalQuota": object}]}],
            }
        ],
    },
}
FIELDS = {
    "JobSet": JOBSET,
    "LocalQueue": LOCAL_QUEUE,
    "ResourceFlavor": RESOURCE_FLAVOR,
    "ClusterQueue": CLUSTER_QUEUE,
}
REQUIRED = {"name", "action", "status", "template", "replicatedJobs", "clusterQueue", "nominalQuota", "resourceGroups"}
RULE_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def violations(manifests: list[Manifest]) -> list[str]:
    """What is wrong with the kinds in `FIELDS`."""
    found = []
    for manifest in manifests:
        if manifest["kind"] in FIELDS:
            problems = list(_shape(manifest, FIELDS[manifest["kind"]], ""))
            problems += [] if problems else list(_meaning(manifest, manifests))
            found += [f"{manifest['kind']} {manifest['metadata']['name']}: {text}" for text in problems]
    return [*found, *_queued(manifests)]


def _shape(value: Any, shape: Shape, where: str) -> Iterator[str]:
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            yield f"{where} isn't an object"
            return
        for key in (REQUIRED & shape.keys()) - value.keys():
            yield f"{where}.{key} is missing"
        for key, item in value.items():
            known = shape.get(key, shape.get("*"))
            if known is None:
                yield f"no field {where}.{key}"
            else:
                yield from _shape(item, known, f"{where}.{key}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{where} isn't a list"
            return
        for item in value:
            yield from _shape(item, shape[0], f"{where}[]")
    elif isinstance(shape, tuple):
        if value not in shape:
            yield f"{where} is {value!r}"
    elif not isinstance(value, shape) or (shape is int and (isinstance(value, bool) or value < 0)):
        yield f"{where} is {value!r}"


def _meaning(manifest: Manifest, manifests: list[Manifest]) -> Iterator[str]:
    if manifest["kind"] == "JobSet":
        yield from _jobset(manifest["spec"])
    if manifest["kind"] == "ClusterQueue":
        flavors = {flavor["metadata"]["name"] for flavor in of_kind(manifests, "ResourceFlavor")}
        for group in manifest["spec"]["resourceGroups"]:
            for flavor in group["flavors"]:
                if flavor["name"] not in flavors:
                    yield f"there is no flavor {flavor['name']}"
                if [resource["name"] for resource in flavor["resources"]] != group["coveredResources"]:
                    yield f"{flavor['name']} hasn't the resources that are covered, in their order"
                for resource in flavor["resources"]:
                    amount(resource["nominalQuota"])


def _jobset(spec: Spec) -> Iterator[str]:
    before: list[str] = []
    for job in spec["replicatedJobs"]:
        for needed in job.get("dependsOn", []):
            if needed["name"] not in before:
                yield f"{job['name']} depends on {needed['name']}, which isn't before it"
        if "ttlSecondsAfterFinished" in job["template"]["spec"]:
            yield f"{job['name']} is cleared away, and then made anew"
        before.append(job["name"])
    if len(set(before)) < len(before):
        yield "two Jobs of one name"
    rules = spec.get("failurePolicy", {}).get("rules", [])
    names = [rule["name"] for rule in rules]
    if len(set(names)) < len(names) or not all(map(RULE_NAME.fullmatch, names)):
        yield f"rules are named {names}"
    for rule in rules:
        if unknown := set(rule.get("targetReplicatedJobs", [])) - set(before):
            yield f"a rule is for {unknown}"


def _queued(manifests: list[Manifest]) -> Iterator[str]:
    queues = {queue["metadata"]["name"] for queue in of_kind(manifests, "LocalQueue")}
    for job in [*of_kind(manifests, "Job"), *of_kind(manifests, "JobSet")]:
        queue = job["metadata"].get("labels", {}).get(QUEUE_LABEL)
        if queue is not None and queue not in queues:
            yield f"{job['metadata']['name']} is for the queue {queue}, which isn't there"
        if "suspend" in job["spec"]:  # with a queue, Kueue sets and clears it
            yield f"{job['metadata']['name']} is stopped when it is applied again, or waits for no queue"
