"""Training by several workers, as a Job, a JobSet or in a queue: held against how the trainer finds the others."""

import copy
import re
from pathlib import Path

import custom_rules
import pytest
import yaml
from manifests import K8S, Manifest, job_names, job_specs, main_container, of_kind, pod_templates, render
from network_rules import matches
from pod_rules import GPU, amount
from trainer_view import seen_by_trainer

UNCOUNTED = "RestartJobSetAndIgnoreMaxRestarts"


@pytest.mark.parametrize("folder", ["gpu", "multi-worker", "gke", "jobset", "kueue"])
def test_each_gpu_has_its_share_of_everything(kubectl: str, folder: str) -> None:
    manifests = render(kubectl, f"overlays/{folder}")
    pod = job_specs(manifests)["train"]["template"]["spec"]
    requests = pod["containers"][0]["resources"]["requests"]
    (shm,) = [volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if volume["name"] == "shm"]
    gpus = requests[GPU]
    assert (amount(requests["cpu"]) / gpus, amount(requests["memory"]) / gpus) == (8, amount("16Gi"))
    assert amount(shm) / gpus == amount("2Gi")
    assert any(toleration["key"] == GPU for toleration in pod["tolerations"])


@pytest.mark.parametrize("folder", ["multi-worker", "jobset", "kueue"])
def test_every_worker_finds_all_others_under_the_names_that_kubernetes_gives_them(
    kubectl: str, folder: str, tmp_path: Path
) -> None:
    manifests = render(kubectl, f"overlays/{folder}")
    job = job_specs(manifests)["train"]
    assert job["completionMode"] == "Indexed"
    count, name = job["completions"], job_names(manifests)["train"]
    assert job["parallelism"] == count  # all at once, or none gets anywhere
    (port,) = main_container(manifests)["ports"]
    addresses = [f"{name}-{i}.{job['template']['spec']['subdomain']}:{port['containerPort']}" for i in range(count)]
    for index in range(count):
        assert seen_by_trainer(manifests, tmp_path, index)["workers"] == [index, addresses]


@pytest.mark.parametrize("folder", ["multi-worker", "kueue"])
def test_a_worker_that_is_given_up_is_missed_by_all_and_none_waits_for_the_faults_of_others(
    kubectl: str, folder: str
) -> None:
    job = job_specs(render(kubectl, f"overlays/{folder}"))["train"]
    assert (job["backoffLimitPerIndex"], job["maxFailedIndexes"]) == (3, 0)


@pytest.mark.parametrize("folder", ["multi-worker", "jobset", "kueue"])
def test_workers_lie_on_nodes_of_their_own_and_share_the_volume(kubectl: str, folder: str) -> None:
    manifests = render(kubectl, f"overlays/{folder}")
    train = job_specs(manifests)["train"]["template"]
    assert list(train["spec"]["affinity"]) == ["podAntiAffinity"]
    (term,) = train["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert matches(term["labelSelector"], train["metadata"]["labels"])
    assert not matches(term["labelSelector"], job_specs(manifests)["convert"]["template"]["metadata"]["labels"])
    (claim,) = of_kind(manifests, "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


@pytest.mark.parametrize("folder", ["multi-worker", "jobset", "kueue"])
def test_workers_reach_each_other_and_names_and_nothing_else(kubectl: str, folder: str) -> None:
    manifests = render(kubectl, f"overlays/{folder}")
    labels = {name: pod["metadata"]["labels"] for name, pod in pod_templates(manifests).items()}
    reached, open_ports = set(), set()
    for policy in of_kind(manifests, "NetworkPolicy"):
        if not matches(policy["spec"]["podSelector"], labels["train"]):
            continue
        for rule in [*policy["spec"].get("egress", []), *policy["spec"].get("ingress", [])]:
            open_ports |= {port["port"] for port in rule.get("ports", [])}
            for peer in rule.get("to", rule.get("from")):
                if set(peer) == {"podSelector"}:
                    reached |= {name for name in labels if matches(peer["podSelector"], labels[name])}
                    assert "ports" not in rule  # NCCL takes ports as it finds them
    assert reached == {"train"}
    assert open_ports == {53}


def test_a_set_converts_first_and_restarts_as_a_whole(kubectl: str) -> None:
    manifests = render(kubectl, "overlays/jobset")
    assert not of_kind(manifests, "Job")
    assert not of_kind(manifests, "Service")  # it brings its own
    (jobset,) = of_kind(manifests, "JobSet")
    convert, train = jobset["spec"]["replicatedJobs"]
    assert train["dependsOn"] == [{"name": convert["name"], "status": "Complete"}]
    assert "initContainers" not in train["template"]["spec"]["template"]["spec"]
    assert train["template"]["spec"]["backoffLimit"] == 0
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] > 0


@pytest.mark.parametrize(
    ("reason", "message", "action"),
    [
        ("PodFailurePolicy", "Container train for pod x failed with exit code 2 matching FailJob rule", "FailJobSet"),
        ("PodFailurePolicy", "Container train for pod x failed with exit code 75 matching FailJob rule", UNCOUNTED),
        ("PodFailurePolicy", "Container train for pod x failed with exit code 143 matching FailJob rule", UNCOUNTED),
        ("PodFailurePolicy", "Pod x has condition DisruptionTarget matching FailJob rule at index 2", UNCOUNTED),
        ("BackoffLimitExceeded", "Job has reached the specified backoff limit", "RestartJobSet"),
        ("DeadlineExceeded", "Job was active longer than specified deadline", "FailJobSet"),
    ],
)
def test_what_a_pod_ends_with_decides_about_the_set(kubectl: str, reason: str, message: str, action: str) -> None:
    """The messages are those that Kubernetes writes into a failed Job's condition."""
    (jobset,) = of_kind(render(kubectl, "overlays/jobset"), "JobSet")
    matching = (
        rule["action"]
        for rule in jobset["spec"]["failurePolicy"]["rules"]
        if reason in rule["onJobFailureReasons"]
        and any(re.search(pattern, message) for pattern in rule.get("onJobFailureMessagePatterns", [""]))
    )
    assert next(matching, "RestartJobSet") == action


def test_a_sets_jobs_are_those_of_multi_worker(kubectl: str) -> None:
    ours = copy.deepcopy(job_specs(render(kubectl, "overlays/jobset")))
    theirs = copy.deepcopy(job_specs(render(kubectl, "overlays/multi-worker")))
    for job in theirs.values():
        del job["ttlSecondsAfterFinished"]
    del theirs["train"]["template"]["spec"]["initContainers"]
    theirs["train"]["backoffLimit"] = 0
    del theirs["train"]["backoffLimitPerIndex"], theirs["train"]["maxFailedIndexes"]
    for rule in theirs["train"]["podFailurePolicy"]["rules"]:
        rule["action"] = "FailJob"
    assert ours == theirs


def test_both_jobs_are_queued(kubectl: str) -> None:
    """Kueue suspends a Job by this label; one without it would start at once."""
    manifests = render(kubectl, "overlays/kueue")
    (queue,) = of_kind(manifests, "LocalQueue")
    labels = [job["metadata"]["labels"] for job in of_kind(manifests, "Job")]
    assert [one[custom_rules.QUEUE_LABEL] for one in labels] == [queue["metadata"]["name"]] * 2


def test_the_quota_is_enough_and_only_pods_that_take_a_gpu_are_bound_to_nodes_with_gpus(kubectl: str) -> None:
    """Nodes with GPUs refuse pods that take none, so conversion would wait there for ever."""
    manifests = render(kubectl, "overlays/kueue")
    (queue,) = of_kind(manifests, "LocalQueue")
    example = list(yaml.safe_load_all((K8S / "overlays/kueue/cluster-queue.yaml").read_text(encoding="utf-8")))
    (cluster,) = of_kind(example, "ClusterQueue")
    assert queue["spec"]["clusterQueue"] == cluster["metadata"]["name"]
    labels = {
        one["metadata"]["name"]: one.get("spec", {}).get("nodeLabels") for one in of_kind(example, "ResourceFlavor")
    }
    assert {name: labels[_flavor(cluster, job)] for name, job in job_specs(manifests).items()} == {
        "convert": None,
        "train": {"nvidia.com/gpu.present": "true"},
    }


def _flavor(cluster: Manifest, job: Manifest) -> str:
    """The one that Kueue takes for a Job while nothing else runs: the first whose quota is enough for all its pods."""
    (container,) = job["template"]["spec"]["containers"]
    wanted = {key: job.get("parallelism", 1) * amount(it) for key, it in container["resources"]["requests"].items()}
    (group,) = cluster["spec"]["resourceGroups"]
    for flavor in group["flavors"]:
        quota = {one["name"]: amount(one["nominalQuota"]) for one in flavor["resources"]}
        if all(count <= quota[key] for key, count in wanted.items()):
            return str(flavor["name"])
    raise AssertionError(f"no flavor has {wanted}")
