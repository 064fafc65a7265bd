"""Every pod of k8s/ is admitted where Pod Security `restricted` is enforced, and goes a little further."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from pod_security import Spec, containers, violations

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"

BREAKS: dict[str, Callable[[Spec], object]] = {
    "escalates": lambda spec: spec["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
    "keeps_capabilities": lambda spec: spec["containers"][0]["securityContext"].pop("capabilities"),
    "adds_a_capability": lambda spec: spec["containers"][0]["securityContext"]["capabilities"].update(
        add=["SYS_ADMIN"]
    ),
    "may_be_root": lambda spec: spec["securityContext"].pop("runAsNonRoot"),
    "is_root": lambda spec: spec["containers"][0]["securityContext"].update(runAsUser=0),
    "has_no_seccomp_profile": lambda spec: spec["securityContext"].pop("seccompProfile"),
    "is_privileged": lambda spec: spec["containers"][0]["securityContext"].update(privileged=True),
    "is_on_the_host_network": lambda spec: spec.update(hostNetwork=True),
    "mounts_the_host": lambda spec: spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    "starts_an_unguarded_container": lambda spec: spec.update(initContainers=[{"name": "bare"}]),
}


def test_every_pod_is_admitted_under_restricted(pods: dict[str, Spec]) -> None:
    assert {name: violations(pod["spec"]) for name, pod in pods.items()} == {name: [] for name in pods}


@pytest.mark.parametrize("how", BREAKS)
def test_a_pod_is_refused_that(pods: dict[str, Spec], how: str) -> None:
    spec = copy.deepcopy(pods["cytotrain-convert"]["spec"])
    BREAKS[how](spec)
    assert violations(spec)


def test_no_root_file_system_is_writable_and_no_pod_holds_a_token(pods: dict[str, Spec]) -> None:
    for pod in pods.values():
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in containers(pod["spec"]):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_pods_run_as_the_images_user_and_the_volume_is_that_groups(pods: dict[str, Spec]) -> None:
    (user,) = [line.split()[1] for line in DOCKERFILE.read_text().splitlines() if line.startswith("USER ")]
    uid, gid = map(int, user.split(":"))
    for pod in pods.values():
        context = pod["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (uid, gid, gid)
