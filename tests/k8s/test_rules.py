"""Each rule finds what it is for: manifests that keep all of them, broken in one way, don't."""

import copy
from collections.abc import Callable
from typing import Any

import custom_rules
import job_rules
import network_rules
import pod_rules
import pod_security
import pytest
import yaml
from manifests import K8S, LONE_FILES, Manifest, job_specs, of_kind, pod_templates, render

Break = Callable[[Any], object]

POD_SECURITY: dict[str, Break] = {
    "escalates": lambda pod: pod["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
    "keeps_capabilities": lambda pod: pod["containers"][0]["securityContext"].pop("capabilities"),
    "adds_a_capability": lambda pod: pod["containers"][0]["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
    "may_be_root": lambda pod: pod["securityContext"].pop("runAsNonRoot"),
    "is_root": lambda pod: pod["containers"][0]["securityContext"].update(runAsUser=0),
    "has_no_seccomp_profile": lambda pod: pod["securityContext"].pop("seccompProfile"),
    "is_privileged": lambda pod: pod["containers"][0]["securityContext"].update(privileged=True),
    "is_on_the_host_network": lambda pod: pod.update(hostNetwork=True),
    "mounts_the_host": lambda pod: pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    "starts_an_unguarded_container": lambda pod: pod.update(initContainers=[{"name": "bare"}]),
}


def _rule(job: Manifest, number: int) -> Manifest:
    return job["podFailurePolicy"]["rules"][number]


JOBS: dict[str, tuple[Break, str]] = {
    "pods_restart": (lambda job: job["template"]["spec"].update(restartPolicy="OnFailure"), "restartPolicy: Never"),
    "pods_run_for_ever": (lambda job: job["template"]["spec"].update(restartPolicy="Always"), "Never or OnFailure"),
    "two_pods_at_once": (lambda job: job.pop("podReplacementPolicy"), "podReplacementPolicy"),
    "codes_out_of_order": (lambda job: _rule(job, 1)["onExitCodes"].update(values=[143, 75]), "aren't in order"),
    "success_is_a_failure": (lambda job: _rule(job, 0)["onExitCodes"].update(values=[0, 2]), "0 is no failure"),
    "a_code_beyond_255": (lambda job: _rule(job, 1)["onExitCodes"].update(values=[75, 143, 256]), "no process ends"),
    "an_unknown_operator": (lambda job: _rule(job, 0)["onExitCodes"].update(operator="Is"), "no such operator"),
    "an_unknown_action": (lambda job: _rule(job, 0).update(action="Fail"), "no such action"),
    "an_unknown_container": (lambda job: _rule(job, 0)["onExitCodes"].update(containerName="x"), "no container x"),
    "a_status_that_is_no_word": (
        lambda job: _rule(job, 2).update(onPodConditions=[{"type": "DisruptionTarget", "status": True}]),
        "not a word",
    ),
    "a_rule_of_both_kinds": (lambda job: _rule(job, 2).update(onExitCodes=_rule(job, 1)["onExitCodes"]), "either"),
    "fails_an_index": (lambda job: _rule(job, 0).update(action="FailIndex"), "needs backoffLimitPerIndex"),
    "limits_an_index": (lambda job: job.update(backoffLimitPerIndex=3), "needs completionMode"),
    "counts_failed_indexes": (lambda job: job.update(maxFailedIndexes=1), "needs backoffLimitPerIndex"),
    "wants_an_index": (
        lambda job: job["template"]["spec"]["containers"][0]["args"].append("$(JOB_COMPLETION_INDEX)"),
        "needs completionMode",
    ),
    "is_indexed_without_end": (lambda job: job.update(completionMode="Indexed"), "needs completions"),
    "an_unknown_mode": (lambda job: job.update(completionMode="indexed"), "completionMode is indexed"),
    "idle_pods": (lambda job: job.update(parallelism=2), "more pods at once"),
    "goes_on_for_ever": (lambda job: job.pop("activeDeadlineSeconds"), "without limit"),
    "never_retries": (lambda job: job.pop("backoffLimit"), "a few times"),
    "has_no_time_to_save": (lambda job: job["template"]["spec"].update(terminationGracePeriodSeconds=5), "checkpoint"),
    "retries_a_wrong_request": (lambda job: job["podFailurePolicy"]["rules"].pop(0), "exit codes are taken for"),
    "counts_a_stop": (lambda job: job["podFailurePolicy"]["rules"].pop(1), "exit codes are taken for"),
    "counts_an_eviction": (lambda job: job["podFailurePolicy"]["rules"].pop(2), "counts as a fault"),
    "looks_at_the_request_last": (lambda job: job["podFailurePolicy"]["rules"].reverse(), "retried if its node"),
}


def _train(manifests: list[Manifest]) -> Manifest:
    return pod_templates(manifests)["train"]["spec"]


def _main(manifests: list[Manifest]) -> Manifest:
    return _train(manifests)["containers"][0]


def _one(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    return next(one for one in of_kind(manifests, kind) if one["metadata"]["name"].endswith(name))


PODS: dict[str, tuple[Break, str]] = {
    "mounts_what_is_not_there": (lambda all_: _train(all_)["volumes"].pop(), "has no volume"),
    "has_an_idle_volume": (lambda all_: _train(all_)["volumes"].append({"name": "idle"}), "isn't mounted"),
    "mounts_two_at_one_place": (lambda all_: _main(all_)["volumeMounts"][0].update(mountPath="/tmp"), "at one place"),
    "fills_the_node": (
        lambda all_: next(one for one in _train(all_)["volumes"] if one["name"] == "tmp").update(emptyDir={}),
        "may fill the node",
    ),
    "names_no_config_map": (lambda all_: all_.remove(_one(all_, "ConfigMap")), "there is no ConfigMap"),
    "names_no_claim": (lambda all_: all_.remove(_one(all_, "PersistentVolumeClaim")), "PersistentVolumeClaim"),
    "names_no_account": (lambda all_: _train(all_).update(serviceAccountName="x"), "there is no ServiceAccount x"),
    "reads_no_file": (lambda all_: _one(all_, "ConfigMap")["data"].pop("train.flags"), "isn't in the ConfigMap"),
    "asks_for_no_memory": (lambda all_: _main(all_)["resources"]["requests"].pop("memory"), "what it needs"),
    "is_held_back": (lambda all_: _main(all_)["resources"]["limits"].update(cpu=4), "no idle core"),
    "asks_in_words": (lambda all_: _main(all_)["resources"]["requests"].update(memory="8 GB"), "is no quantity"),
    "asks_for_a_gpu_and_takes_none": (
        lambda all_: _main(all_)["resources"]["requests"].update({"nvidia.com/gpu": 1}),
        "can't be asked for",
    ),
    "keeps_files_in_ram": (
        lambda all_: next(one for one in _train(all_)["volumes"] if one["name"] == "shm")["emptyDir"].update(
            medium="RAM"
        ),
        "medium is 'RAM'",
    ),
    "wants_an_unknown_access": (
        lambda all_: _one(all_, "PersistentVolumeClaim")["spec"].update(accessModes=["ReadWriteAll"]),
        "accessModes",
    ),
}

NETWORK: dict[str, tuple[Break, str]] = {
    "a_service_of_nobody": (lambda all_: _one(all_, "Service")["spec"]["selector"].update(x="y"), "no pod has"),
    "a_service_that_waits": (
        lambda all_: _one(all_, "Service")["spec"].pop("publishNotReadyAddresses"),
        "once they are ready",
    ),
    "another_subdomain": (lambda all_: _train(all_).update(subdomain="workers"), "subdomain is another"),
    "a_closed_port": (lambda all_: _main(all_).pop("ports"), "no container opens"),
    "another_port": (lambda all_: _main(all_)["ports"][0].update(containerPort=2223), "changes no port"),
    "a_name_with_a_dot": (lambda all_: _one(all_, "Service")["metadata"].update(name="cyto.train"), "no name"),
    "a_long_name": (
        lambda all_: _one(all_, "Job", "train")["metadata"].update(name="cytotrain-" + "t" * 45),
        "characters",
    ),
    "a_policy_for_nobody": (
        lambda all_: _one(all_, "NetworkPolicy", "workers")["spec"].update(podSelector={"matchLabels": {"x": "y"}}),
        "no pod has its labels",
    ),
    "a_policy_for_everybody": (
        lambda all_: _one(all_, "NetworkPolicy", "workers")["spec"].update(egress=[{}]),
        "to everybody",
    ),
    "a_peer_that_is_not_there": (
        lambda all_: _one(all_, "NetworkPolicy", "workers")["spec"]["ingress"][0].update(
            {"from": [{"podSelector": {"matchLabels": {"x": "y"}}}]}
        ),
        "labels of a peer",
    ),
    "a_direction_that_is_not_named": (
        lambda all_: _one(all_, "NetworkPolicy", "workers")["spec"].update(policyTypes=["Ingress"]),
        "isn't one of its policyTypes",
    ),
    "no_isolation": (lambda all_: all_.remove(_one(all_, "NetworkPolicy", "isolated")), "reached from everywhere"),
    "an_exception_elsewhere": (
        lambda all_: _one(all_, "NetworkPolicy", "dns")["spec"]["egress"][0]["to"][1]["ipBlock"].update(
            {"except": ["10.0.0.0/8"]}
        ),
        "isn't in",
    ),
}


def _jobset(all_: list[Manifest]) -> Manifest:
    return _one(all_, "JobSet")["spec"]


JOBSET: dict[str, tuple[Break, str]] = {
    "a_misspelt_field": (lambda all_: _jobset(all_)["failurePolicy"].update(maxRestart=3), "no field"),
    "an_unknown_action": (lambda all_: _jobset(all_)["failurePolicy"]["rules"][0].update(action="Fail"), "is 'Fail'"),
    "an_unknown_reason": (
        lambda all_: _jobset(all_)["failurePolicy"]["rules"][0].update(onJobFailureReasons=["ExitCode"]),
        "is 'ExitCode'",
    ),
    "a_number_in_words": (lambda all_: _jobset(all_)["failurePolicy"].update(maxRestarts="3"), "is '3'"),
    "a_name_with_a_dash": (
        lambda all_: _jobset(all_)["failurePolicy"]["rules"][0].update(name="wrong-request"),
        "rules are named",
    ),
    "an_unknown_status": (
        lambda all_: _jobset(all_)["replicatedJobs"][1]["dependsOn"][0].update(status="Completed"),
        "is 'Completed'",
    ),
    "a_dependence_on_what_comes_later": (lambda all_: _jobset(all_)["replicatedJobs"].reverse(), "isn't before it"),
    "a_part_that_goes_first": (
        lambda all_: _jobset(all_)["replicatedJobs"][0]["template"]["spec"].update(ttlSecondsAfterFinished=1),
        "made anew",
    ),
    "no_template": (lambda all_: _jobset(all_)["replicatedJobs"][0].pop("template"), "template is missing"),
    "an_old_version": (lambda all_: _one(all_, "JobSet").update(apiVersion="jobset.x-k8s.io/v1alpha1"), "apiVersion"),
}
KUEUE: dict[str, tuple[Break, str]] = {
    "no_queue": (lambda all_: all_.remove(_one(all_, "LocalQueue")), "isn't there"),
    "a_suspension_of_its_own": (
        lambda all_: _one(all_, "Job", "train")["spec"].update(suspend=True),
        "stopped when it is applied again",
    ),
    "no_cluster_queue": (lambda all_: _one(all_, "LocalQueue")["spec"].pop("clusterQueue"), "is missing"),
    "an_old_version": (lambda all_: _one(all_, "LocalQueue").update(apiVersion="kueue.x-k8s.io/v1beta1"), "apiVersion"),
}
CLUSTER_QUEUE: dict[str, tuple[Break, str]] = {
    "no_flavor": (lambda all_: all_.remove(_one(all_, "ResourceFlavor")), "no flavor"),
    "a_resource_too_few": (
        lambda all_: _one(all_, "ClusterQueue")["spec"]["resourceGroups"][0]["flavors"][0]["resources"].pop(),
        "that are covered",
    ),
}


@pytest.mark.parametrize("how", POD_SECURITY)
def test_a_pod_is_refused_that(base: list[Manifest], how: str) -> None:
    spec = copy.deepcopy(pod_templates(base)["convert"]["spec"])
    POD_SECURITY[how](spec)
    assert pod_security.violations(spec)


@pytest.mark.parametrize("how", JOBS)
def test_a_job_is_refused_that_has(base: list[Manifest], how: str) -> None:
    job = copy.deepcopy(job_specs(base)["convert"])
    change, said = JOBS[how]
    change(job)
    assert said in "\n".join(job_rules.violations(job))


@pytest.mark.parametrize("how", PODS)
def test_wiring_is_refused_that(base: list[Manifest], how: str) -> None:
    _refused(copy.deepcopy(base), PODS[how], pod_rules.violations)


@pytest.mark.parametrize("how", NETWORK)
def test_a_network_is_refused_that_has(kubectl: str, how: str) -> None:
    _refused(copy.deepcopy(render(kubectl, "overlays/multi-worker")), NETWORK[how], network_rules.violations)


@pytest.mark.parametrize("how", JOBSET)
def test_a_jobset_is_refused_that_has(kubectl: str, how: str) -> None:
    _refused(copy.deepcopy(render(kubectl, "overlays/jobset")), JOBSET[how], custom_rules.violations)


@pytest.mark.parametrize("how", KUEUE)
def test_a_queue_is_refused_that_has(kubectl: str, how: str) -> None:
    _refused(copy.deepcopy(render(kubectl, "overlays/kueue")), KUEUE[how], custom_rules.violations)


@pytest.mark.parametrize("how", CLUSTER_QUEUE)
def test_a_cluster_queue_is_refused_that_has(how: str) -> None:
    manifests = list(yaml.safe_load_all((K8S / LONE_FILES[0]).read_text(encoding="utf-8")))
    _refused(manifests, CLUSTER_QUEUE[how], custom_rules.violations)


def _refused(
    manifests: list[Manifest], broken: tuple[Break, str], violations: Callable[[list[Manifest]], list[str]]
) -> None:
    change, said = broken
    assert violations(manifests) == []
    change(manifests)
    assert said in "\n".join(violations(manifests))
