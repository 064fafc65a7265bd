"""Every manifest is one that the Kubernetes versions we name accept: no unknown field, no wrong type."""

import copy
from typing import Any

import kubernetes_validate
import pytest
from kubernetes_validate.utils import all_versions

OLDEST = "1.29"  # podReplacementPolicy is on by default from here
VERSIONS = [
    f"{major}.{minor}"
    for major, minor in sorted({tuple(map(int, version.split(".")[:2])) for version in all_versions()})
    if (major, minor) >= (1, 29)
]

Manifest = dict[str, Any]


def test_there_are_schemas_from_the_oldest_version_we_name() -> None:
    assert VERSIONS[0] == OLDEST
    assert len(VERSIONS) >= 9


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_follow_the_strict_schema_of_kubernetes(
    version: str, base: list[Manifest], loader: list[Manifest], parallel: list[Manifest]
) -> None:
    for manifest in [*base, *loader, *parallel]:
        assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_a_misspelt_field_does_not_pass(base: list[Manifest]) -> None:
    (job, *_) = [copy.deepcopy(manifest) for manifest in base if manifest["kind"] == "Job"]
    job["spec"]["backofLimit"] = job["spec"].pop("backoffLimit")
    with pytest.raises(kubernetes_validate.ValidationError, match="backofLimit"):
        kubernetes_validate.validate(job, VERSIONS[-1], strict=True)
