"""The very commands of the pods of overlays/gke, from images in a bucket to a report in it, on a small scale."""

import os
import subprocess
import sys
from pathlib import Path

from manifests import ENTRYPOINT, K8S, Manifest, files, job_specs, render

from data_pipeline.cli import EXIT_DONE, EXIT_REQUEST
from data_pipeline.transfer import upload
from tests.bucket_server import BUCKET, BucketServer
from tests.conftest import make_images

ROOT = K8S.parent
SMALLER = {"--image_size=256": "--image_size=32", "--epochs=30": "--epochs=1", "--batch_size=128": "--batch_size=32"}


def _flag_files(manifests: list[Manifest], folder: Path) -> None:
    """What the pods find in /etc/cytotrain, for this bucket and this machine."""
    assert all(any(flag in text for text in files(manifests).values()) for flag in SMALLER)
    for name, text in files(manifests).items():
        for before, after in {"your-bucket": BUCKET, "=/scratch": f"={folder}/scratch", **SMALLER}.items():
            text = text.replace(before, after)
        (folder / name).write_text(text, encoding="utf-8")


def _run(container: Manifest, folder: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    words = [*container.get("command", ENTRYPOINT), *container["args"]]
    return subprocess.run(
        [sys.executable, *(word.replace("/etc/cytotrain", str(folder)) for word in words[1:]), *more],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_from_images_in_a_bucket_to_a_report_in_it(kubectl: str, bucket_server: BucketServer, tmp_path: Path) -> None:
    images = make_images(tmp_path / "images" / "cervix", slides=24)
    upload(bucket_server.folder("images/cervix"), {str(p.relative_to(images)): p for p in images.rglob("*.png")})
    manifests = render(kubectl, "overlays/gke")
    _flag_files(manifests, tmp_path)
    (convert,) = job_specs(manifests)["convert"]["template"]["spec"]["containers"]
    (train,) = job_specs(manifests)["train"]["template"]["spec"]["containers"]
    (wait,) = job_specs(manifests)["train"]["template"]["spec"]["initContainers"]

    assert _run(wait, tmp_path, "--limit_s=0").returncode == EXIT_REQUEST
    for container in (convert, wait, train):
        done = _run(container, tmp_path)
        assert done.returncode == EXIT_DONE, done.stderr
    report = done.stdout.strip().removeprefix(f"Report: gs://{BUCKET}/")
    assert report.startswith("runs/cervix/")
    assert b"<html" in bucket_server.folder().read(report)[:500]
