"""What each overlay is for, held against the code that runs in its pods."""

import copy
import ipaddress
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import K8S, Manifest, files, job_names, job_specs, of_kind, pod_templates, render
from network_rules import matches
from pod_rules import GPU, amount

from data_pipeline.cli import EXIT_DONE, EXIT_REQUEST
from trainer.config import TrainConfig

ROOT = K8S.parent
ORGANS = ["cervix", "lung", "blood_cells"]
SHOW = """
import json, os, sys
from absl import flags
from trainer.addresses import find_workers
from trainer.config import config_from_flags, define_flags
define_flags()
flags.FLAGS(sys.argv)
config = config_from_flags(flags.FLAGS, flags.FLAGS.organ[0])
workers = find_workers(config, os.environ, hostname=os.environ["HOSTNAME"])
print(json.dumps({"organ": config.organ, "workers": workers and [workers.index, workers.addresses]}))
"""


def _main(manifests: list[Manifest], name: str = "train") -> Manifest:
    (container,) = job_specs(manifests)[name]["template"]["spec"]["containers"]
    return dict(container)


def _flags(manifests: list[Manifest], name: str) -> dict[str, str]:
    lines = [line for line in files(manifests)[name].splitlines() if line.startswith("--")]
    return {key.removeprefix("--"): value for key, _, value in (line.partition("=") for line in lines)}


def _seen_by_trainer(manifests: list[Manifest], folder: Path, index: int) -> dict[str, Any]:
    """Which organ the pod of this index trains, and with which other workers."""
    for name, text in files(manifests).items():
        (folder / name).write_text(text, encoding="utf-8")
    words = [word.replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in _main(manifests)["args"]]
    args = [word.replace("/etc/cytotrain", str(folder)) for word in words[1:]]
    host = f"{job_names(manifests)['train']}-{index}"
    done = subprocess.run(
        [sys.executable, "-c", SHOW, *args],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOSTNAME": host, "JOB_COMPLETION_INDEX": str(index)},
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def _without(manifests: list[Manifest], *paths: str) -> list[Manifest]:
    """A copy without what overlays are free to change: the fields at these paths of every Job."""
    copied = copy.deepcopy(manifests)
    for job in of_kind(copied, "Job"):
        for path in paths:
            *parents, last = path.split(".")
            at = job
            for key in parents:
                at = at[int(key)] if isinstance(at, list) else at.get(key, {})
            at.pop(last, None)
    return copied


# ── local ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_a_laptop_has_room_for_both_pods_and_its_cluster(kubectl: str) -> None:
    manifests = render(kubectl, "overlays/local")
    requests = [_main(manifests, name)["resources"]["requests"] for name in ("convert", "train")]
    assert sum(amount(request["cpu"]) for request in requests) <= 1  # of two; the cluster's own pods take one
    assert sum(amount(request["memory"]) for request in requests) <= amount("4Gi")
    (claim,) = of_kind(manifests, "PersistentVolumeClaim")
    assert "storageClassName" not in claim["spec"]  # the default one
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_all_pods_are_drawn_to_one_node_by_a_label_they_carry_themselves(base: list[Manifest]) -> None:
    for job in job_specs(base).values():
        (term,) = job["template"]["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        for other in job_specs(base).values():
            assert matches(term["labelSelector"], other["template"]["metadata"]["labels"])


# ── gpu ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
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


def test_several_gpus_of_one_node_are_all_taken(kubectl: str) -> None:
    manifests = render(kubectl, "overlays/gpu")
    assert _main(manifests)["resources"]["limits"][GPU] > 1
    assert "distribution" not in _flags(manifests, "train.flags")
    assert TrainConfig.distribution == "auto"  # which is MirroredStrategy over all of them


# ── multi-worker, jobset, kueue ──────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("folder", ["multi-worker", "jobset", "kueue"])
def test_every_worker_finds_all_others_under_the_names_that_kubernetes_gives_them(
    kubectl: str, folder: str, tmp_path: Path
) -> None:
    manifests = render(kubectl, f"overlays/{folder}")
    job = job_specs(manifests)["train"]
    assert job["completionMode"] == "Indexed"
    count, name = job["completions"], job_names(manifests)["train"]
    assert job["parallelism"] == count  # all at once, or none gets anywhere
    (port,) = _main(manifests)["ports"]
    addresses = [f"{name}-{i}.{job['template']['spec']['subdomain']}:{port['containerPort']}" for i in range(count)]
    for index in range(count):
        assert _seen_by_trainer(manifests, tmp_path, index)["workers"] == [index, addresses]


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
    final = [rule["onJobFailureReasons"] for rule in jobset["spec"]["failurePolicy"]["rules"]]
    assert final == [["PodFailurePolicy"], ["DeadlineExceeded"]]


def test_a_sets_jobs_are_those_of_multi_worker(kubectl: str) -> None:
    ours = copy.deepcopy(job_specs(render(kubectl, "overlays/jobset")))
    theirs = copy.deepcopy(job_specs(render(kubectl, "overlays/multi-worker")))
    for job in theirs.values():
        del job["ttlSecondsAfterFinished"]
    del theirs["train"]["template"]["spec"]["initContainers"]
    theirs["train"]["backoffLimit"] = 0
    assert ours == theirs


def test_in_a_queue_nothing_starts_by_itself_and_the_quota_is_enough(kubectl: str) -> None:
    manifests = render(kubectl, "overlays/kueue")
    assert all(job["suspend"] is True for job in job_specs(manifests).values())
    (queue,) = of_kind(manifests, "LocalQueue")
    example = list(yaml.safe_load_all((K8S / "overlays/kueue/cluster-queue.yaml").read_text(encoding="utf-8")))
    (cluster,) = of_kind(example, "ClusterQueue")
    assert queue["spec"]["clusterQueue"] == cluster["metadata"]["name"]
    (flavor,) = cluster["spec"]["resourceGroups"][0]["flavors"]
    for resource in flavor["resources"]:
        wanted = [
            job["parallelism"] * amount(_main(manifests, name)["resources"]["requests"].get(resource["name"], 0))
            for name, job in job_specs(manifests).items()
            if "parallelism" in job
        ]
        assert sum(wanted) <= amount(resource["nominalQuota"])


# ── convert-parallel ─────────────────────────────────────────────────────────────────────────────────────────────────
def test_every_part_of_a_conversion_has_a_number_and_knows_how_many_there_are(kubectl: str) -> None:
    manifests = render(kubectl, "overlays/convert-parallel")
    spec = job_specs(manifests)["convert"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == 4
    assert f"--num_workers={spec['completions']}" in _main(manifests, "convert")["args"]


def test_a_shared_conversion_differs_from_the_base_in_nothing_else(kubectl: str, base: list[Manifest]) -> None:
    ours = _without(render(kubectl, "overlays/convert-parallel"), "spec.completionMode", "spec.completions")
    ours = _without(ours, "spec.parallelism")
    theirs = _without(base, "spec.template.spec.affinity")
    assert _main(ours, "convert")["args"].pop() == "--num_workers=4"
    of_kind(theirs, "PersistentVolumeClaim")[0]["spec"]["accessModes"] = ["ReadWriteMany"]
    assert ours == theirs


def test_conversion_takes_its_number_from_the_job(kubectl: str, tmp_path: Path) -> None:
    """A pod numbered beyond the workers is refused, so the number is read."""
    manifests = render(kubectl, "overlays/convert-parallel")
    for name, text in files(manifests).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "images" / "cervix" / "normal").mkdir(parents=True)
    (tmp_path / "images" / "cervix" / "normal" / "a.png").touch()
    args = [arg.replace("/etc/cytotrain", str(tmp_path)) for arg in _main(manifests, "convert")["args"]]
    args += [f"--images={tmp_path / 'images'}", f"--tfrecords={tmp_path / 'tf'}", "--stage=inspect"]
    for index, code in (("3", EXIT_DONE), ("4", EXIT_REQUEST)):
        done = subprocess.run(
            [sys.executable, "-m", *args],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=ROOT,
            env={"JOB_COMPLETION_INDEX": index, "PATH": "/usr/bin:/bin"},
        )
        assert done.returncode == code, done.stderr
        assert ("worker 3 of 4" in done.stdout) == (code == EXIT_DONE)


# ── all-organs ───────────────────────────────────────────────────────────────────────────────────────────────────────
def test_each_index_is_an_organ_and_each_organ_has_an_index(kubectl: str, tmp_path: Path) -> None:
    manifests = render(kubectl, "overlays/all-organs")
    listed = {name: text.strip() for name, text in files(manifests).items() if name.startswith("organ-")}
    assert listed == {f"organ-{index}.flags": f"--organ={organ}" for index, organ in enumerate(ORGANS)}
    for job in job_specs(manifests).values():
        assert (job["completionMode"], job["completions"]) == ("Indexed", len(ORGANS))
        for container in [*job["template"]["spec"].get("initContainers", []), *job["template"]["spec"]["containers"]]:
            assert container["args"][-1] == "--flagfile=/etc/cytotrain/organ-$(JOB_COMPLETION_INDEX).flags"
    for index, organ in enumerate(ORGANS):
        # A pod that trains one of several organs isn't taken for one of several workers.
        assert _seen_by_trainer(manifests, tmp_path, index) == {"organ": organ, "workers": None}


def test_an_organ_that_cannot_be_done_keeps_no_other_from_being_done(kubectl: str) -> None:
    for job in job_specs(render(kubectl, "overlays/all-organs")).values():
        assert job["backoffLimitPerIndex"] > 0
        assert "backoffLimit" not in job
        assert "maxFailedIndexes" not in job
        assert job["podFailurePolicy"]["rules"][0]["action"] == "FailIndex"


# ── gke ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_in_the_cloud_everything_that_lasts_is_in_the_bucket(kubectl: str) -> None:
    manifests = render(kubectl, "overlays/gke")
    assert not of_kind(manifests, "PersistentVolumeClaim")
    places = {
        _flags(manifests, file)[flag]
        for file, flag in (("both.flags", "tfrecords"), ("convert.flags", "images"), ("train.flags", "runs"))
    }
    assert places == {f"gs://your-bucket/{name}" for name in ("images", "tfrecords", "runs")}
    for name, job in job_specs(manifests).items():
        volumes = {volume["name"]: volume for volume in job["template"]["spec"]["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in _main(manifests, name)["volumeMounts"]}
        scratch = _flags(manifests, f"{name}.flags")["scratch"]
        assert mounts[scratch] == "scratch"
        limit = volumes["scratch"]["emptyDir"]["sizeLimit"]
        assert _main(manifests, name)["resources"]["requests"]["ephemeral-storage"] == limit
    budget = _flags(manifests, "train.flags")["scratch_budget"].removesuffix("B")
    assert amount(budget) < amount(limit)


def test_in_the_cloud_pods_are_known_by_their_account_and_hold_no_key(kubectl: str) -> None:
    manifests = render(kubectl, "overlays/gke")
    (account,) = of_kind(manifests, "ServiceAccount")
    assert account["metadata"]["annotations"]["iam.gke.io/gcp-service-account"].endswith(".iam.gserviceaccount.com")
    assert not of_kind(manifests, "Secret")
    for pod in pod_templates(manifests).values():
        assert pod["spec"]["serviceAccountName"] == account["metadata"]["name"]


def test_in_the_cloud_pods_lie_on_spot_nodes_and_are_gone_in_time(kubectl: str) -> None:
    for pod in pod_templates(render(kubectl, "overlays/gke")).values():
        assert pod["spec"]["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
        assert any(one["key"] == "cloud.google.com/gke-spot" for one in pod["spec"]["tolerations"])
        assert pod["spec"]["terminationGracePeriodSeconds"] == 15
        assert "affinity" not in pod["spec"]


@pytest.mark.parametrize(
    ("address", "port", "allowed"),
    [
        ("169.254.169.254", 80, True),  # the metadata server
        ("169.254.169.252", 988, True),
        ("169.254.20.10", 53, True),  # names
        ("142.250.1.207", 443, True),  # storage.googleapis.com
        ("199.36.153.8", 443, True),  # private.googleapis.com
        ("142.250.1.207", 80, False),
        ("10.0.0.1", 443, False),  # the cluster's own API
        ("169.254.169.254", 443, False),
        ("169.254.1.1", 80, False),
    ],
)
def test_in_the_cloud_pods_reach_storage_and_nothing_else(
    kubectl: str, address: str, port: int, *, allowed: bool
) -> None:
    rules = [
        rule
        for policy in of_kind(render(kubectl, "overlays/gke"), "NetworkPolicy")
        for rule in policy["spec"].get("egress", [])
    ]
    reached = any(
        port in [one["port"] for one in rule["ports"]] and any(_in_block(address, peer) for peer in rule["to"])
        for rule in rules
    )
    assert reached == allowed


def _in_block(address: str, peer: Manifest) -> bool:
    if "ipBlock" not in peer:
        return False
    there = ipaddress.ip_address(address)
    out = any(there in ipaddress.ip_network(block) for block in peer["ipBlock"].get("except", []))
    return not out and there in ipaddress.ip_network(peer["ipBlock"]["cidr"])
