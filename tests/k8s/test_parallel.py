"""The conversion that several nodes share: k8s/base with a few changes and no others."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

from pod_security import violations

Manifest = dict[str, Any]

ROOT = Path(__file__).parents[2]


def _named(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {manifest["metadata"]["name"].rpartition("cytotrain-")[2]: copy.deepcopy(manifest) for manifest in manifests}


def _convert_args(parallel: list[Manifest]) -> list[str]:
    (container,) = _named(parallel)["convert"]["spec"]["template"]["spec"]["containers"]
    return list(container["args"])


def test_every_pod_has_a_number_and_knows_how_many_there_are(parallel: list[Manifest]) -> None:
    spec = _named(parallel)["convert"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == 4
    assert f"--num_workers={spec['completions']}" in _convert_args(parallel)


def test_pods_may_lie_on_several_nodes_and_share_the_volume(parallel: list[Manifest]) -> None:
    named = _named(parallel)
    assert named["data"]["spec"]["accessModes"] == ["ReadWriteMany"]
    for name in ("convert", "train"):
        assert "affinity" not in named[name]["spec"]["template"]["spec"]
        assert violations(named[name]["spec"]["template"]["spec"]) == []


def test_nothing_else_differs_from_the_base(base: list[Manifest], parallel: list[Manifest]) -> None:
    ours, theirs = _named(parallel), _named(base)
    for name in ("convert", "train"):
        theirs[name]["spec"]["template"]["spec"].pop("affinity")
    for key in ("completionMode", "completions", "parallelism"):
        ours["convert"]["spec"].pop(key)
    (container,) = ours["convert"]["spec"]["template"]["spec"]["containers"]
    assert container["args"].pop() == "--num_workers=4"
    theirs["data"]["spec"]["accessModes"] = ["ReadWriteMany"]
    assert ours == theirs


def test_the_program_takes_its_number_from_the_job(
    parallel: list[Manifest], flag_files: dict[str, str], tmp_path: Path
) -> None:
    """A pod numbered beyond the workers is refused, so the number is read."""
    for name, text in flag_files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "images" / "cervix" / "normal").mkdir(parents=True)
    (tmp_path / "images" / "cervix" / "normal" / "a.png").touch()
    args = [arg.replace("/etc/cytotrain", str(tmp_path)) for arg in _convert_args(parallel)]
    args += [f"--images={tmp_path / 'images'}", f"--tfrecords={tmp_path / 'tf'}", "--stage=inspect"]
    for index, code in (("3", 0), ("4", 2)):
        done = subprocess.run(
            [sys.executable, "-m", *args],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=ROOT,
            env={"JOB_COMPLETION_INDEX": index, "PATH": "/usr/bin:/bin"},
        )
        assert done.returncode == code, done.stderr
        assert ("worker 3 of 4" in done.stdout) == (code == 0)
