"""In Google's cloud: nothing that lasts on a node, no key in a pod, and no way out but to storage."""

import ipaddress

import pytest
from manifests import Manifest, flags_in, job_specs, main_container, of_kind, pod_templates, render
from pod_rules import amount

SPOT_GRACE_S = 15


def test_in_the_cloud_everything_that_lasts_is_in_the_bucket(kubectl: str) -> None:
    manifests = render(kubectl, "overlays/gke")
    assert not of_kind(manifests, "PersistentVolumeClaim")
    places = {
        flags_in(manifests, file)[flag]
        for file, flag in (("both.flags", "tfrecords"), ("convert.flags", "images"), ("train.flags", "runs"))
    }
    assert places == {f"gs://your-bucket/{name}" for name in ("images", "tfrecords", "runs")}
    for name, job in job_specs(manifests).items():
        volumes = {volume["name"]: volume for volume in job["template"]["spec"]["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in main_container(manifests, name)["volumeMounts"]}
        scratch = flags_in(manifests, f"{name}.flags")["scratch"]
        assert mounts[scratch] == "scratch"
        limit = volumes["scratch"]["emptyDir"]["sizeLimit"]
        assert main_container(manifests, name)["resources"]["requests"]["ephemeral-storage"] == limit
    budget = flags_in(manifests, "train.flags")["scratch_budget"].removesuffix("B")
    assert amount(budget) < amount(limit)


def test_in_the_cloud_a_stopped_pod_uploads_no_longer_than_it_has(kubectl: str) -> None:
    stop_s = int(flags_in(render(kubectl, "overlays/gke"), "train.flags")["stop_timeout"].removesuffix("s"))
    assert 2 <= SPOT_GRACE_S - stop_s <= 5  # to end by itself


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
        assert pod["spec"]["terminationGracePeriodSeconds"] == SPOT_GRACE_S
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
