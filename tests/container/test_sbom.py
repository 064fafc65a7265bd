"""The bill of materials: it lists what the lock installs, is valid, and doesn't change unless the packages do."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from requirements.sbom import read_lock

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "requirements" / "sbom.py"
ONE, OTHER = "1" * 64, "2" * 64
LOCK = f"""\
example-one==1.5 \\
    --hash=sha256:{ONE} \\
    --hash=sha256:{OTHER}
other==2.0 ; python_version >= '3' \\
    --hash=sha256:{OTHER}
elsewhere==3.0 ; sys_platform == 'win32' \\
    --hash=sha256:{OTHER}
"""


@pytest.fixture(scope="module")
def bill(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """That of the CPU image, made from the environment the tests run in."""
    output = tmp_path_factory.mktemp("sbom") / "sbom.json"
    done = _make(ROOT / "requirements" / "runtime.txt", Path(sys.prefix), output)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return found


def test_it_lists_what_the_lock_installs_and_nothing_else(bill: dict[str, Any]) -> None:
    lock = {item.name: item for item in read_lock(ROOT / "requirements" / "runtime.txt")}
    assert {"tensorflow", "google-cloud-storage"} < set(lock)
    assert {item["purl"] for item in bill["components"]} == {f"pkg:pypi/{i.name}@{i.version}" for i in lock.values()}
    for item in bill["components"]:
        assert item["licenses"], item["name"]
        (files,) = [it for it in item["externalReferences"] if it.get("hashes")]
        name = item["purl"].removeprefix("pkg:pypi/").partition("@")[0]
        assert {it["content"] for it in files["hashes"]} == set(lock[name].sha256), name


def test_what_needs_what_is_told_from_the_project_on(bill: dict[str, Any]) -> None:
    graph = {item["ref"]: item.get("dependsOn", []) for item in bill["dependencies"]}
    reached, waiting = set(), [bill["metadata"]["component"]["bom-ref"]]
    while waiting:
        ref = waiting.pop()
        waiting += [] if ref in reached else graph[ref]
        reached.add(ref)
    assert bill["metadata"]["component"]["name"] == "cytotrain"
    refs = {item["bom-ref"] for item in bill["components"]}
    assert refs - reached <= {item["bom-ref"] for item in bill["components"] if item["name"] in ("wheel", "setuptools")}


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment with three packages in it; the lock above has two of them for this machine."""
    folder = tmp_path / "environment"
    venv.create(folder)
    (packages,) = folder.glob("lib/python3.*/site-packages")
    for name, version, licence in (("Example_One", "1.5", "MIT"), ("other", "2.0", ""), ("beside", "1.0", "MIT")):
        info = packages / f"{name.lower()}-{version}.dist-info"
        (info / "licenses").mkdir(parents=True)
        lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", "License-File: COPYING"]
        lines += [f"License-Expression: {licence}"] if licence else []
        (info / "METADATA").write_text("\n".join([*lines, "", ""]), encoding="utf-8")
        (info / "licenses" / "COPYING").write_text(f"The terms of {name}", encoding="utf-8")
    (tmp_path / "lock.txt").write_text(LOCK, encoding="utf-8")
    return folder


def test_the_same_packages_give_the_same_valid_bytes(environment: Path, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        done = _make(tmp_path / "lock.txt", environment, tmp_path / seed, seed=seed)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    text = (tmp_path / "1").read_text(encoding="utf-8")
    assert not JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    components = json.loads(text)["components"]
    assert [item["name"] for item in components] == ["Example_One", "other"]
    (licence,) = components[1]["licenses"]
    assert licence["license"]["text"]["content"] == "The terms of other"


def test_an_environment_that_is_not_the_locks_is_refused(environment: Path, tmp_path: Path) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text(LOCK.replace("example-one==1.5", "example-one==1.6") + "more==4.0\n", encoding="utf-8")
    done = _make(lock, environment, tmp_path / "sbom.json")
    assert done.returncode == 2
    assert "example-one is 1.5, not 1.6, more is missing, not 4.0" in done.stderr
    assert not (tmp_path / "sbom.json").exists()


def test_it_is_made_with_the_python_of_the_image(environment: Path, tmp_path: Path) -> None:
    done = _make(tmp_path / "lock.txt", environment, tmp_path / "sbom.json", base="python:3.9-slim")
    assert done.returncode == 2
    assert "PYTHON=python3.9" in done.stderr


def _make(
    lock: Path, environment: Path, output: Path, *, base: str = "", seed: str = "0"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), f"--lock={lock}", f"--environment={environment}", f"--output={output}"]
    return subprocess.run(
        [*command, f"--base={base}"],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
