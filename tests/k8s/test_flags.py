"""The flags that pods are given mean something to the programs that get them, down to the last flag."""

import functools
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from manifests import ENTRYPOINT, FOLDERS, K8S, Manifest, containers, files, job_specs, render

from data_pipeline import cli

ROOT = K8S.parent
MOUNT = "/etc/cytotrain"
WITH_JOBS = [folder for folder in FOLDERS if folder != "loader"]
INDEX = "JOB_COMPLETION_INDEX"
MEANT_TO_BE_REPEATED = "--search"


def _parse(container: Manifest, there: dict[str, str], *, index: int = 0) -> "subprocess.CompletedProcess[str]":
    """Run a container's program, on its arguments and the files that are there, until they are parsed.

    The index is put in as Kubernetes does it.
    """
    words = [*container.get("command", ENTRYPOINT), *container["args"]]
    words = [word.replace(f"$({INDEX})", str(index)) for word in words]
    read = {word.partition(f"{MOUNT}/")[2] for word in words}
    return _run(tuple(words), tuple(sorted((name, text) for name, text in there.items() if name in read)), index)


@functools.cache  # most overlays leave most programs as they are
def _run(words: tuple[str, ...], there: tuple[tuple[str, str], ...], index: int) -> "subprocess.CompletedProcess[str]":
    with tempfile.TemporaryDirectory() as folder:
        for name, text in there:
            Path(folder, name).write_text(text, encoding="utf-8")
        return subprocess.run(
            [sys.executable, *(word.replace(MOUNT, folder) for word in words[1:]), "--only_check_args"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), INDEX: str(index)},
        )


@pytest.mark.parametrize("folder", WITH_JOBS)
@pytest.mark.parametrize("name", ["convert", "train"])
def test_every_program_accepts_every_flag_it_is_given(kubectl: str, folder: str, name: str) -> None:
    manifests = render(kubectl, folder)
    job = job_specs(manifests)[name]
    for container in containers(job["template"]["spec"]):
        for index in range(job.get("completions", 1) if INDEX in str(container["args"]) else 1):
            done = _parse(container, files(manifests), index=index)
            assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["convert", "train"])
@pytest.mark.parametrize("line", ["--organn=lung", "--image_size=large"])
def test_a_wrong_line_is_refused_with_the_code_that_stops_retries(base: list[Manifest], name: str, line: str) -> None:
    there = files(base)
    there["both.flags"] += f"{line}\n"
    (container,) = job_specs(base)[name]["template"]["spec"]["containers"]
    assert _parse(container, there).returncode == cli.EXIT_REQUEST


@pytest.mark.parametrize("folder", WITH_JOBS)
@pytest.mark.parametrize("name", ["convert", "train"])
def test_no_program_is_given_a_flag_twice(kubectl: str, folder: str, name: str) -> None:
    manifests = render(kubectl, folder)
    (container,) = job_specs(manifests)[name]["template"]["spec"]["containers"]
    read = [word.rpartition("/")[2] for word in container["args"] if word.startswith("--flagfile=")]
    lines = [line for file in read for line in files(manifests).get(file, "").splitlines() if line.startswith("--")]
    names = [line.partition("=")[0] for line in lines if not line.startswith(f"{MEANT_TO_BE_REPEATED}=")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("folder", WITH_JOBS)
def test_flag_files_reach_the_pods_as_they_are_written(kubectl: str, folder: str) -> None:
    for name, text in files(render(kubectl, folder)).items():
        sources = list((K8S / folder).rglob(name)) or list(K8S.rglob(name))
        if sources or not name.startswith("organ-"):  # those are lines of the kustomization
            assert text in [path.read_text(encoding="utf-8") for path in sources], name


@pytest.mark.parametrize("folder", WITH_JOBS)
def test_every_folder_a_flag_names_is_on_a_volume_of_that_pod(kubectl: str, folder: str) -> None:
    manifests = render(kubectl, folder)
    for name, job in job_specs(manifests).items():
        for container in containers(job["template"]["spec"]):
            mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
            read = [word.rpartition("/")[2] for word in container["args"] if word.startswith("--flagfile=")]
            lines = [line for file in read for line in files(manifests).get(file, "").splitlines()]
            paths = [line.partition("=")[2] for line in lines if line.startswith("--") and "=/" in line]
            assert all(any(path.startswith(f"{mount}/") or path == mount for mount in mounts) for path in paths), name


@pytest.mark.parametrize("name", ["convert", "train"])
def test_a_job_of_the_base_states_no_flag_but_the_files(name: str) -> None:
    job = yaml.safe_load((K8S / "base" / f"{name}.yaml").read_text(encoding="utf-8"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert [arg for arg in container["args"][1:] if not arg.startswith("--flagfile=")] == []
