"""The flag files mean something to the programs that are given them, down to the last flag."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_pipeline import cli

Manifest = dict[str, Any]

ROOT = Path(__file__).parents[2]
BASE = ROOT / "k8s" / "base"
JOBS = ("convert", "train")


@pytest.fixture
def folder(tmp_path: Path, flag_files: dict[str, str]) -> Path:
    """A folder with what the pods find in /etc/cytotrain."""
    for name, text in flag_files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def _parse(job: Manifest, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a Job's program on its arguments up to the point where they are parsed."""
    (container,) = job["template"]["spec"]["containers"]
    args = [arg.replace("/etc/cytotrain", str(folder)) for arg in container["args"]]
    command = [sys.executable, "-m", *args, "--only_check_args"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=ROOT)


@pytest.mark.parametrize("name", JOBS)
def test_the_program_accepts_every_flag_it_is_given(jobs: dict[str, Manifest], folder: Path, name: str) -> None:
    done = _parse(jobs[name], folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("line", ["--organn=lung", "--image_size=large"])
def test_a_wrong_line_is_refused_with_the_code_that_stops_retries(
    jobs: dict[str, Manifest], folder: Path, name: str, line: str
) -> None:
    with (folder / "both.flags").open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    assert _parse(jobs[name], folder).returncode == cli.EXIT_REQUEST


def test_no_flag_is_set_twice(flag_files: dict[str, str]) -> None:
    lines = [line for text in flag_files.values() for line in text.splitlines() if line.startswith("--")]
    names = [line.partition("=")[0] for line in lines]
    assert len(names) == len(set(names))


def test_the_files_reach_the_pods_as_they_are_written(flag_files: dict[str, str]) -> None:
    for name in ("both.flags", "convert.flags", "train.flags"):
        assert flag_files[name] == (BASE / "flags" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", JOBS)
def test_a_job_states_no_flag_but_the_files(name: str) -> None:
    job = yaml.safe_load((BASE / f"{name}.yaml").read_text(encoding="utf-8"))
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert [arg for arg in container["args"][1:] if not arg.startswith("--flagfile=")] == []
