"""What names something else in a pod names something that is there, and quantities are quantities.

violations(manifests)       # ["train: mount tmp has no volume", …], empty if all is well
"""

import re
from collections.abc import Iterator
from typing import Any

from manifests import Manifest, containers, of_kind, pod_templates

Spec = dict[str, Any]

QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
FACTORS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15} | {
    f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTP", start=1)
}
GPU = "nvidia.com/gpu"
ENUMS = {
    "restartPolicy": {"Always", "OnFailure", "Never"},
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "medium": {"", "Memory", "HugePages"},
    "fsGroupChangePolicy": {"OnRootMismatch", "Always"},
    "accessModes": {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"},
    "effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    "protocol": {"TCP", "UDP", "SCTP"},
    "policyTypes": {"Ingress", "Egress"},
    "whenUnsatisfiable": {"DoNotSchedule", "ScheduleAnyway"},
    "clusterIP": {"None"},
}


def amount(quantity: object) -> float:
    """`250m` as 0.25, `2Gi` as 2147483648. Raises `ValueError`."""
    match = QUANTITY.fullmatch(str(quantity))
    if match is None:
        raise ValueError(f"{quantity!r} is no quantity")
    return float(match[1]) * FACTORS[match[2] or ""]


def violations(manifests: list[Manifest]) -> list[str]:
    """What is wrong with the pods of these manifests."""
    found = [f"{key} is {value!r}" for key, value in _wrong_words(manifests)]
    there = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests}
    claims_elsewhere = not any(kind in ("Job", "JobSet") for kind, _ in there)  # the loader uses an overlay's volume
    for name, pod in pod_templates(manifests).items():
        spec = pod["spec"]
        problems = [*_mounts(spec), *_references(spec, there, claims_elsewhere), *_config_files(spec, manifests)]
        for container in containers(spec):
            problems += _resources(container)
        found += [f"{name}: {text}" for text in problems]
    return found


def _wrong_words(value: Any) -> Iterator[tuple[str, Any]]:
    """Values that the schema takes for any text and the API server for one of a few."""
    if isinstance(value, list):
        for item in value:
            yield from _wrong_words(item)
    if isinstance(value, dict):
        for key, item in value.items():
            words = item if isinstance(item, list) else [item]
            if key in ENUMS and isinstance(words[0], str) and not set(words) <= ENUMS[key]:
                yield key, item
            yield from _wrong_words(item)


def _mounts(spec: Spec) -> Iterator[str]:
    volumes = [volume["name"] for volume in spec.get("volumes", [])]
    if len(set(volumes)) < len(volumes):
        yield "two volumes of one name"
    mounted: set[str] = set()
    for container in containers(spec):
        mounts = container.get("volumeMounts", [])
        mounted |= {mount["name"] for mount in mounts}
        if len({mount["mountPath"] for mount in mounts}) < len(mounts):
            yield "two mounts at one place"
    yield from (f"mount {name} has no volume" for name in sorted(mounted - set(volumes)))
    yield from (f"volume {name} isn't mounted" for name in sorted(set(volumes) - mounted))
    for volume in spec.get("volumes", []):
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']} may fill the node"
        if "emptyDir" in volume:
            amount(volume["emptyDir"].get("sizeLimit", 0))


def _references(spec: Spec, there: set[tuple[str, str]], claims_elsewhere: bool) -> Iterator[str]:
    named = []
    for volume in spec.get("volumes", []):
        if "persistentVolumeClaim" in volume and not claims_elsewhere:
            named.append(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
        if "configMap" in volume:
            named.append(("ConfigMap", volume["configMap"]["name"]))
    if "serviceAccountName" in spec:
        named.append(("ServiceAccount", spec["serviceAccountName"]))
    yield from (f"there is no {kind} {name}" for kind, name in named if (kind, name) not in there)


def _config_files(spec: Spec, manifests: list[Manifest]) -> Iterator[str]:
    """Every file that a container is told to read is in the ConfigMap, for each index if there are several."""
    data = {key for config in of_kind(manifests, "ConfigMap") for key in config["data"]}
    folder = "/etc/cytotrain/"
    for container in containers(spec):
        for word in [*container.get("command", []), *container.get("args", [])]:
            if folder not in word:
                continue
            name = word.partition(folder)[2]
            if folder.rstrip("/") not in [mount["mountPath"] for mount in container["volumeMounts"]]:
                yield f"{container['name']} doesn't mount {folder}"
            if name.replace("$(JOB_COMPLETION_INDEX)", "0") not in data:
                yield f"{container['name']} is told to read {name}, which isn't in the ConfigMap"


def _resources(container: Spec) -> Iterator[str]:
    """Every container says what it needs and may take."""
    requests, limits = container["resources"].get("requests", {}), container["resources"].get("limits", {})
    for key, value in [*requests.items(), *limits.items()]:
        try:
            amount(value)
        except ValueError as error:
            yield f"{container['name']}: {key}: {error}"
            return
    if not {"cpu", "memory"} <= set(requests):
        yield f"{container['name']} doesn't say what it needs"
    # Memory that was not requested is the first to be evicted. A CPU limit stalls thread pools, idle cores are free.
    if limits.get("memory") != requests.get("memory") or "cpu" in limits:
        yield f"{container['name']} may take other memory than it asks for, or no idle core"
    if limits.get(GPU) != requests.get(GPU):
        yield f"{container['name']}: a GPU can't be asked for and not taken"
    over = [key for key in limits if key in requests and amount(requests[key]) > amount(limits[key])]
    if over:
        yield f"{container['name']} asks for more {', '.join(over)} than it may take"
