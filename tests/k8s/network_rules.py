"""Services reach pods on ports they open, names are short enough, and policies open what is needed and nothing else.

violations(manifests)       # ["Service cytotrain: no pod has its labels", …], empty if all is well
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from manifests import Manifest, containers, job_names, job_specs, of_kind, pod_templates

Spec = dict[str, Any]

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# A pod's full name has to stay below 64 characters; namespaces of up to 15 are reckoned with.
LONGEST_NAMESPACE = 15
LONGEST_NAME = 63
OURS = {"app.kubernetes.io/part-of": "cytotrain"}


def violations(manifests: list[Manifest]) -> list[str]:
    """What is wrong with names, Services and policies."""
    pods = pod_templates(manifests)
    labels = {name: pod["metadata"].get("labels", {}) for name, pod in pods.items()}
    found = [f"Service {short}: {text}" for short, text in _services(manifests, pods, labels)]
    found += [f"{name}: {text}" for name, text in _names(manifests)]
    for policy in of_kind(manifests, "NetworkPolicy"):
        found += [f"NetworkPolicy {policy['metadata']['name']}: {text}" for text in _policy(policy["spec"], labels)]
    if any(name != "loader" and not _isolated(of_kind(manifests, "NetworkPolicy"), labels[name]) for name in pods):
        found.append("a pod may be reached from everywhere, or reach everything")
    return found


def matches(selector: Spec, labels: dict[str, str]) -> bool:
    """Whether a label selector of `matchLabels` alone, or a Service's, selects a pod; an empty one selects all."""
    wanted = selector.get("matchLabels", selector)
    return bool(wanted.items() <= labels.items())


def _services(
    manifests: list[Manifest], pods: dict[str, Spec], labels: dict[str, dict[str, str]]
) -> Iterator[tuple[str, str]]:
    for service in of_kind(manifests, "Service"):
        name, spec = service["metadata"]["name"], service["spec"]
        selected = [pods[pod]["spec"] for pod in pods if matches(spec["selector"], labels[pod])]
        if not selected:
            yield name, "no pod has its labels"
        if not spec.get("publishNotReadyAddresses"):
            yield name, "workers are found only once they are ready, for which they wait"
        for pod in selected:
            if pod.get("subdomain") != name:
                yield name, "the pods' subdomain is another"
            ports = {port["name"]: port["containerPort"] for one in containers(pod) for port in one.get("ports", [])}
            for port in spec["ports"]:
                target = port.get("targetPort", port["port"])
                if target not in ports and target not in ports.values():
                    yield name, f"no container opens {target}"
                if spec.get("clusterIP") == "None" and ports.get(target, target) != port["port"]:
                    yield name, "a headless Service changes no port"
    known = {service["metadata"]["name"] for service in of_kind(manifests, "Service")}
    known |= {jobset["metadata"]["name"] for jobset in of_kind(manifests, "JobSet")}
    for name, pod in pods.items():
        if pod["spec"].get("subdomain", next(iter(known), "")) not in known | {""}:
            yield pod["spec"]["subdomain"], f"isn't there, and {name} names it"


def _names(manifests: list[Manifest]) -> Iterator[tuple[str, str]]:
    for manifest in manifests:
        if not LABEL.fullmatch(manifest["metadata"]["name"]):
            yield manifest["metadata"]["name"], "is no name for a host"
    specs = job_specs(manifests)
    for short, job in job_names(manifests).items():
        host = f"{job}-{specs[short].get('completions', 1) - 1}"
        if not LABEL.fullmatch(f"{host}-abcde"):
            yield short, f"{host} is too long a name for a pod"
        subdomain = specs[short]["template"]["spec"].get("subdomain")
        longest = f"{host}.{subdomain}.{'n' * LONGEST_NAMESPACE}.svc.cluster.local"
        if subdomain and len(longest) > LONGEST_NAME:
            yield short, f"{longest} has {len(longest)} characters"


def _policy(spec: Spec, labels: dict[str, dict[str, str]]) -> Iterator[str]:
    if not any(matches(spec["podSelector"], have) for have in labels.values()):
        yield "no pod has its labels"
    for direction, side in (("ingress", "from"), ("egress", "to")):
        if spec.get(direction) and direction.capitalize() not in spec["policyTypes"]:
            yield f"{direction} isn't one of its policyTypes"
        for rule in spec.get(direction, []):
            if not rule.get(side):
                yield f"{direction} of or to everybody"
            for peer in rule.get(side, []):
                yield from _peer(peer, labels)
            if any(not 0 < port["port"] < 65536 for port in rule.get("ports", [])):
                yield "no such port"


def _peer(peer: Spec, labels: dict[str, dict[str, str]]) -> Iterator[str]:
    if "ipBlock" in peer:
        if len(peer) > 1:
            yield "a block of addresses stands alone"
        block = ipaddress.ip_network(peer["ipBlock"]["cidr"])
        for inside in peer["ipBlock"].get("except", []):
            if not ipaddress.ip_network(inside).subnet_of(block):  # type: ignore[arg-type]
                yield f"{inside} isn't in {block}"
    elif "namespaceSelector" not in peer and not any(matches(peer["podSelector"], have) for have in labels.values()):
        yield "no pod has the labels of a peer"


def _isolated(policies: list[Manifest], labels: dict[str, str]) -> bool:
    """Whether some policy selects the pod for both directions: what none allows is then forbidden."""
    chosen = [policy["spec"] for policy in policies if matches(policy["spec"]["podSelector"], labels)]
    return {"Ingress", "Egress"} <= {kind for spec in chosen for kind in spec["policyTypes"]}
