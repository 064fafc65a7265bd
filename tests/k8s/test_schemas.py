"""Every manifest is one that the Kubernetes versions we name accept: no unknown field, no wrong type."""

import copy
import json

import kubernetes_validate
import pytest
from custom_rules import FIELDS
from kubernetes_validate.utils import all_versions
from manifests import FOLDERS, Manifest, job_specs, of_kind, render

OLDEST = "1.29"  # podReplacementPolicy and backoffLimitPerIndex are on by default from here
VERSIONS = [
    f"{major}.{minor}"
    for major, minor in sorted({tuple(map(int, version.split(".")[:2])) for version in all_versions()})
    if (major, minor) >= (1, 29)
]


def _plain(manifests: list[Manifest]) -> list[Manifest]:
    """All manifests of Kubernetes' own kinds; a JobSet's Jobs as Jobs."""
    own = [manifest for manifest in manifests if manifest["kind"] not in FIELDS]
    for jobset in of_kind(manifests, "JobSet"):
        for name, spec in job_specs([jobset]).items():
            own.append({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec})
    return own


@pytest.fixture(scope="module")
def different(kubectl: str) -> list[Manifest]:
    """What all folders together create, each manifest once."""
    all_ = [manifest for folder in FOLDERS for manifest in _plain(render(kubectl, folder))]
    return [json.loads(text) for text in sorted({json.dumps(manifest, sort_keys=True) for manifest in all_})]


def test_there_are_schemas_from_the_oldest_version_we_name() -> None:
    assert VERSIONS[0] == OLDEST
    assert len(VERSIONS) >= 9


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_follow_the_strict_schema_of_kubernetes(version: str, different: list[Manifest]) -> None:
    for manifest in different:
        assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_all_kinds_are_looked_at(kubectl: str, different: list[Manifest]) -> None:
    ours = {manifest["kind"] for folder in FOLDERS for manifest in render(kubectl, folder)}
    assert {manifest["kind"] for manifest in different} | FIELDS.keys() >= ours
    assert len([manifest for manifest in different if manifest["kind"] == "Job"]) >= 2 * (len(FOLDERS) - 3)


@pytest.mark.parametrize("where", ["base", "overlays/jobset"])
def test_a_misspelt_field_does_not_pass(kubectl: str, where: str) -> None:
    (job, *_) = [copy.deepcopy(one) for one in _plain(render(kubectl, where)) if one["kind"] == "Job"]
    job["spec"]["backofLimit"] = job["spec"].pop("backoffLimit")
    with pytest.raises(kubernetes_validate.ValidationError, match="backofLimit"):
        kubernetes_validate.validate(job, VERSIONS[-1], strict=True)
