"""What the image has installed, as a CycloneDX bill of materials: names, versions, licences, hashes, dependencies.

    python requirements/sbom.py --lock=requirements/runtime.txt --environment=.venv --output=sbom-cpu.cdx.json

The environment may hold more than the lock (.venv has the tests' packages too): what the lock doesn't name is left out.
If it holds less, or another version, nothing is written. Licences are what each package declares, hashes those of the
files that the lock admits. The same packages give the same bytes: no time, no random number.
"""

import argparse
import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SPEC = SchemaVersion.V1_6
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
LONGEST_LICENCE_NAME = 100  # some packages give the whole text in its place

Component = dict[str, Any]


@dataclass(frozen=True)
class Locked:
    """One package of a lock: the version, and the SHA-256 of every file of it that may be installed."""

    name: str
    version: str
    sha256: tuple[str, ...]


def main() -> None:
    """Write the bill, or end with 2 and what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", type=Path, required=True, help="requirements/runtime.txt or requirements/gpu.txt")
    parser.add_argument("--environment", type=Path, required=True, help="virtual environment installed from the lock")
    parser.add_argument("--base", default="", help="the image that the Dockerfile starts from")
    parser.add_argument("--output", type=Path, required=True, help="the bill, in JSON")
    args = parser.parse_args()
    if problem := wrong_python(args.base):
        parser.error(problem)
    lock = {item.name: item for item in read_lock(args.lock)}
    found = describe(args.environment)
    if problem := difference(lock, found["components"]):
        parser.error(f"{args.environment} isn't what {args.lock} says: {problem}. To fix it: install it from the lock.")
    bill = complete(found, lock, licences_of(args.environment))
    bill["metadata"]["component"] = project(args.lock, args.base)
    bill["dependencies"].append({"ref": bill["metadata"]["component"]["bom-ref"], "dependsOn": direct(bill, lock)})
    text = json.dumps(bill, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    if error := JsonStrictValidator(SPEC).validate_str(text):
        raise SystemExit(f"not a valid CycloneDX document: {error}")
    args.output.write_text(text, encoding="utf-8")
    print(f"{len(bill['components'])} packages: {args.output}")


def wrong_python(base: str) -> str:
    """A lock names other versions for other Pythons, so the bill has to be made with that of the image."""
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    match = re.search(r"python:(\d+\.\d+)", base)
    if not match or match[1] == here:
        return ""
    return (
        f"the image has Python {match[1]}, this is {here}. To fix it: make sbom PYTHON=python{match[1]} VENV=.venv-sbom"
    )


def read_lock(path: Path) -> Iterator[Locked]:
    """The packages that the lock has for this machine."""
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        requirement = Requirement(line.partition(" --hash")[0].strip())
        if requirement.marker is None or requirement.marker.evaluate():
            (pin,) = requirement.specifier
            yield Locked(canonicalize_name(requirement.name), pin.version, tuple(HASH.findall(line)))


def describe(environment: Path) -> dict[str, Any]:
    """Everything that is installed there, as cyclonedx-py sees it."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--no-validate"]
    command += ["--spec-version", SPEC.to_version(), "--output-format", "JSON", str(environment)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    bill: dict[str, Any] = json.loads(done.stdout)
    return bill


def difference(lock: dict[str, Locked], components: list[Component]) -> str:
    """What the lock names and the environment lacks, or has in another version; empty if there is nothing."""
    versions: dict[str, str] = {canonicalize_name(item["name"]): item["version"] for item in components}
    return ", ".join(
        f"{item.name} is {versions.get(item.name, 'missing')}, not {item.version}"
        for item in lock.values()
        if versions.get(item.name) != item.version
    )


def licences_of(environment: Path) -> dict[str, Component]:
    """What packages say of their licence in words or in a file: cyclonedx-py takes neither when there is a file."""
    (folder,) = environment.glob("lib/python3.*/site-packages")
    found = {canonicalize_name(item.name): _licence(item) for item in distributions(path=[str(folder)])}
    return {name: licence for name, licence in found.items() if licence}


def _licence(distribution: Distribution) -> Component | None:
    if words := " ".join(distribution.metadata.get_all("License") or []).strip():
        return {"name": words.partition("\n")[0][:LONGEST_LICENCE_NAME]}
    for name in distribution.metadata.get_all("License-File") or []:
        if text := distribution.read_text(f"licenses/{name}") or distribution.read_text(name):
            return {"name": f"{name} of {distribution.name}", "text": {"contentType": "text/plain", "content": text}}
    return None


def complete(bill: dict[str, Any], lock: dict[str, Locked], licences: dict[str, Component]) -> dict[str, Any]:
    """The part of `bill` that the lock names, with what cyclonedx-py doesn't know added."""
    components = [item for item in bill["components"] if canonicalize_name(item["name"]) in lock]
    for item in components:
        name = canonicalize_name(item["name"])
        if not item.get("licenses") and name in licences:
            item["licenses"] = [{"license": {**licences[name], "acknowledgement": "declared"}}]
        item["externalReferences"] = [*item.get("externalReferences", []), _files(lock[name])]
    refs = {item["bom-ref"] for item in components}
    dependencies = [
        {"ref": item["ref"], "dependsOn": [ref for ref in item.get("dependsOn", []) if ref in refs]}
        for item in bill["dependencies"]
        if item["ref"] in refs
    ]
    return {**bill, "components": components, "dependencies": dependencies}


def _files(item: Locked) -> dict[str, Any]:
    return {
        "type": "distribution",
        "comment": "the files that the lock admits",
        "url": f"https://pypi.org/simple/{item.name}/",
        "hashes": [{"alg": "SHA-256", "content": content} for content in item.sha256],
    }


def project(lock: Path, base: str) -> Component:
    """The image's own component: this project."""
    arguments = setup_arguments()
    init = (ROOT / "data_pipeline" / "__init__.py").read_text(encoding="utf-8")
    version = init.split('__version__ = "')[1].split('"')[0]
    properties = {"lock": lock.name, "base": base}
    return {
        "bom-ref": "root-component",
        "type": "application",
        "name": arguments["name"],
        "version": version,
        "description": arguments["description"],
        "purl": f"pkg:pypi/{arguments['name']}@{version}",
        "licenses": [{"license": {"id": arguments["license"], "acknowledgement": "declared"}}],
        "properties": [{"name": f"cytotrain:{name}", "value": value} for name, value in properties.items() if value],
    }


def direct(bill: dict[str, Any], lock: dict[str, Locked]) -> list[str]:
    """References of what setup.py asks for itself."""
    asked = {canonicalize_name(Requirement(line).name) for line in setup_arguments()["install_requires"]}
    return sorted(
        item["bom-ref"] for item in bill["components"] if canonicalize_name(item["name"]) in asked & set(lock)
    )


def setup_arguments() -> dict[str, Any]:
    """Whatever is written out in the call of `setup`."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (call,) = [node.value for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    found = {}
    for word in call.keywords:
        try:
            found[word.arg or ""] = ast.literal_eval(word.value)
        except ValueError:  # computed
            continue
    return found


if __name__ == "__main__":
    main()
