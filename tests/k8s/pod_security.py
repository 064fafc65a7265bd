"""Pod Security Standard `restricted` for one pod spec, since a Job that breaks it is accepted and its pods are refused.

    violations(spec)  # ["container train: capabilities.drop lacks ALL", …], empty if the pod is admitted

Rules: https://kubernetes.io/docs/concepts/security/pod-security-standards/ (baseline ones included), Linux only.
"""

from collections.abc import Iterator
from typing import Any

from manifests import containers

Spec = dict[str, Any]

VOLUME_TYPES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
SECCOMP_TYPES = {"RuntimeDefault", "Localhost"}


def violations(spec: Spec) -> list[str]:
    """Why `restricted` refuses this pod."""
    found = list(_pod_violations(spec))
    for container in containers(spec):
        found += [f"container {container['name']}: {text}" for text in _container_violations(spec, container)]
    return found


def _pod_violations(spec: Spec) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"{key} is set"
    for volume in spec.get("volumes", []):
        if types := set(volume) - {"name"} - VOLUME_TYPES:
            yield f"volume {volume['name']} is a {', '.join(sorted(types))}"
    if spec.get("securityContext", {}).get("sysctls"):
        yield "sysctls are set"


def _container_violations(spec: Spec, container: Spec) -> Iterator[str]:
    pod, own = spec.get("securityContext", {}), container.get("securityContext", {})
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation isn't false"
    if own.get("procMount", "Default") != "Default":
        yield "procMount is set"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "a hostPort is set"
    if "ALL" not in own.get("capabilities", {}).get("drop", []):
        yield "capabilities.drop lacks ALL"
    if set(own.get("capabilities", {}).get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities are added"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot isn't true"
    if own.get("runAsUser", pod.get("runAsUser")) == 0:
        yield "runAsUser is 0"
    if own.get("seccompProfile", pod.get("seccompProfile", {})).get("type") not in SECCOMP_TYPES:
        yield "seccompProfile isn't RuntimeDefault or Localhost"
