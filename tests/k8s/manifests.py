"""What k8s/ creates, as `kubectl apply -k` would send it, and where in it the Jobs and pods are.

manifests = render(kubectl, "overlays/gpu")     # kept, so that each folder is rendered once
job_specs(manifests)["train"]["backoffLimit"]
pod_templates(manifests)["train"]["spec"]["containers"]
"""

import functools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

K8S = Path(__file__).parents[2] / "k8s"
PREFIX = "cytotrain-"
# What a container without a `command` runs.
ENTRYPOINT: list[str] = json.loads(
    re.findall(r"^ENTRYPOINT (.+)$", (K8S.parent / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)[0]
)
# Everything that can be applied: a new overlay is tested by being there.
FOLDERS = sorted(
    str(path.parent.relative_to(K8S))
    for path in K8S.rglob("kustomization.yaml")
    if yaml.safe_load(path.read_text(encoding="utf-8"))["kind"] == "Kustomization"
)
OVERLAYS = {"local", "gpu", "multi-worker", "convert-parallel", "all-organs", "sweep", "gke", "jobset", "kueue"}
# What no kustomization names and whoever runs the cluster applies.
LONE_FILES = ("overlays/kueue/cluster-queue.yaml",)


@functools.cache
def render(kubectl: str, folder: str) -> list[Manifest]:
    """Everything that `kubectl apply -k k8s/folder` creates. Not to be changed: it is kept."""
    done = subprocess.run([kubectl, "kustomize", str(K8S / folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"kustomize warns: {done.stderr}"
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """All of one kind."""
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def short_name(manifest: Manifest) -> str:
    """`train` of `cytotrain-train`."""
    return str(manifest["metadata"]["name"]).removeprefix(PREFIX)


def job_specs(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The spec of every Job, by the last word of its name, those of a JobSet included."""
    jobs = {short_name(manifest): manifest["spec"] for manifest in of_kind(manifests, "Job")}
    for jobset in of_kind(manifests, "JobSet"):
        jobs |= {job["name"]: job["template"]["spec"] for job in jobset["spec"]["replicatedJobs"]}
    return jobs


def job_names(manifests: list[Manifest]) -> dict[str, str]:
    """What each of `job_specs` is called in the cluster, as its pods' names begin."""
    names = {short_name(manifest): manifest["metadata"]["name"] for manifest in of_kind(manifests, "Job")}
    for jobset in of_kind(manifests, "JobSet"):
        for job in jobset["spec"]["replicatedJobs"]:
            names[job["name"]] = f"{jobset['metadata']['name']}-{job['name']}-0"
    return names


def pod_templates(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Every pod or pod template, each with `metadata` and `spec`, by the last word of its name or its Job's."""
    pods = {short_name(manifest): manifest for manifest in of_kind(manifests, "Pod")}
    return pods | {name: job["template"] for name, job in job_specs(manifests).items()}


def containers(spec: Manifest) -> list[Manifest]:
    """Every container of a pod, those that run first included."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def files(manifests: list[Manifest]) -> dict[str, str]:
    """What the pods find in /etc/cytotrain, by file name."""
    (config,) = of_kind(manifests, "ConfigMap")
    return dict(config["data"])


def main_container(manifests: list[Manifest], job: str = "train") -> Manifest:
    """The one container of a Job that does its work."""
    (container,) = job_specs(manifests)[job]["template"]["spec"]["containers"]
    return dict(container)


def flags_in(manifests: list[Manifest], name: str) -> dict[str, str]:
    """The flags of a file in /etc/cytotrain, without their dashes."""
    lines = [line for line in files(manifests)[name].splitlines() if line.startswith("--")]
    return {key.removeprefix("--"): value for key, _, value in (line.partition("=") for line in lines)}


def write_files(manifests: list[Manifest], folder: Path) -> None:
    """Put what the pods find in /etc/cytotrain into a folder."""
    for name, text in files(manifests).items():
        (folder / name).write_text(text, encoding="utf-8")
