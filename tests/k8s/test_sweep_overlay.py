"""A search for settings as an Indexed Job: each index is a trial, and together they end in a table."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
from manifests import ENTRYPOINT, K8S, Manifest, files, flags_in, job_specs, main_container, render, write_files

from data_pipeline.cli import EXIT_DONE
from tests.conftest import make_images

ROOT = K8S.parent
OVERLAY = "overlays/sweep"
SMALLER = {"--image_size=256": "--image_size=32", "--epochs=30": "--epochs=1", "--trials=20": "--trials=2"}


def test_each_index_is_a_trial_and_each_trial_has_an_index(kubectl: str) -> None:
    manifests = render(kubectl, OVERLAY)
    job = job_specs(manifests)["train"]
    assert (job["completionMode"], job["completions"]) == ("Indexed", int(flags_in(manifests, "sweep.flags")["trials"]))
    assert 1 < job["parallelism"] <= job["completions"]
    program, *args = main_container(manifests)["args"]
    assert (program, args[-1]) == ("trainer.sweep", "--trial=$(JOB_COMPLETION_INDEX)")
    assert job_specs(manifests)["convert"].get("completionMode") is None


def test_a_trial_that_cannot_be_trained_keeps_no_other_from_being_trained(kubectl: str) -> None:
    job = job_specs(render(kubectl, OVERLAY))["train"]
    assert job["backoffLimitPerIndex"] > 0
    assert "maxFailedIndexes" not in job
    assert job["podFailurePolicy"]["rules"][0]["action"] == "FailIndex"


def test_trials_may_lie_on_any_node(kubectl: str) -> None:
    manifests = render(kubectl, OVERLAY)
    assert "affinity" not in job_specs(manifests)["train"]["template"]["spec"]


@pytest.mark.long
def test_from_images_to_a_table_by_the_commands_of_the_pods(kubectl: str, tmp_path: Path) -> None:
    manifests = render(kubectl, OVERLAY)
    write_files(manifests, tmp_path)
    assert all(any(flag in text for text in files(manifests).values()) for flag in SMALLER)
    for name, text in files(manifests).items():
        for before, after in {"=/data": f"={tmp_path}", **SMALLER}.items():
            text = text.replace(before, after)
        (tmp_path / name).write_text(text, encoding="utf-8")
    make_images(tmp_path / "images" / "cervix", slides=24)
    _run(main_container(manifests, "convert"), tmp_path)
    table = tmp_path / "table"
    for index in (1, 0):
        done = _run(main_container(manifests), tmp_path, f"--output={table}", "--model=seed_pooled", index=index)
        assert table.exists() == (index == 0), done.stderr
    assert done.stdout.splitlines()[-1] == f"Sweep: {table}/sweep.html"
    with (table / "sweep.csv").open(newline="") as file:
        assert [(row["trial"], row["state"]) for row in csv.DictReader(file)] == [("0", "done"), ("1", "done")]


def _run(container: Manifest, folder: Path, *more: str, index: int = 0) -> "subprocess.CompletedProcess[str]":
    words = [*container.get("command", ENTRYPOINT), *container["args"], *more]
    words = [
        word.replace("/etc/cytotrain", str(folder)).replace("$(JOB_COMPLETION_INDEX)", str(index)) for word in words
    ]
    done = subprocess.run(
        [sys.executable, *words[1:]],
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
        cwd=ROOT,
        env=os.environ | {"JOB_COMPLETION_INDEX": str(index)},
    )
    assert done.returncode == EXIT_DONE, done.stderr
    return done
