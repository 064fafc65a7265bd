"""What the overlays of one node, of several GPUs, of a shared conversion and of all organs are for."""

import copy
import subprocess
import sys
from pathlib import Path

from manifests import (
    K8S,
    Manifest,
    containers,
    files,
    flags_in,
    job_specs,
    main_container,
    of_kind,
    render,
    write_files,
)
from network_rules import matches
from pod_rules import GPU, amount
from trainer_view import seen_by_trainer

from data_pipeline.cli import EXIT_DONE, EXIT_REQUEST
from trainer.config import TrainConfig

ORGANS = ["cervix", "lung", "blood_cells"]


def test_a_laptop_has_room_for_both_pods_and_its_cluster(kubectl: str) -> None:
    manifests = render(kubectl, "overlays/local")
    requests = [main_container(manifests, name)["resources"]["requests"] for name in ("convert", "train")]
    assert sum(amount(request["cpu"]) for request in requests) <= 1  # of two; the cluster's own pods take one
    assert sum(amount(request["memory"]) for request in requests) <= amount("4Gi")
    (claim,) = of_kind(manifests, "PersistentVolumeClaim")
    assert "storageClassName" not in claim["spec"]  # the default one
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]


def test_all_pods_are_drawn_to_one_node_by_a_label_they_carry_themselves(base: list[Manifest]) -> None:
    for job in job_specs(base).values():
        (term,) = job["template"]["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        for other in job_specs(base).values():
            assert matches(term["labelSelector"], other["template"]["metadata"]["labels"])


def test_several_gpus_of_one_node_are_all_taken(kubectl: str) -> None:
    manifests = render(kubectl, "overlays/gpu")
    assert main_container(manifests)["resources"]["limits"][GPU] > 1
    assert "distribution" not in flags_in(manifests, "train.flags")
    assert TrainConfig.distribution == "auto"  # which is MirroredStrategy over all of them


def test_every_part_of_a_conversion_has_a_number_and_knows_how_many_there_are(kubectl: str) -> None:
    manifests = render(kubectl, "overlays/convert-parallel")
    spec = job_specs(manifests)["convert"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == 4
    assert f"--num_workers={spec['completions']}" in main_container(manifests, "convert")["args"]


def test_a_shared_conversion_differs_from_the_base_in_nothing_else(kubectl: str, base: list[Manifest]) -> None:
    ours = _without(render(kubectl, "overlays/convert-parallel"), "spec.completionMode", "spec.completions")
    ours = _without(ours, "spec.parallelism")
    theirs = _without(base, "spec.template.spec.affinity")
    assert main_container(ours, "convert")["args"].pop() == "--num_workers=4"
    of_kind(theirs, "PersistentVolumeClaim")[0]["spec"]["accessModes"] = ["ReadWriteMany"]
    assert ours == theirs


def test_conversion_takes_its_number_from_the_job(kubectl: str, tmp_path: Path) -> None:
    """A pod numbered beyond the workers is refused, so the number is read."""
    manifests = render(kubectl, "overlays/convert-parallel")
    write_files(manifests, tmp_path)
    (tmp_path / "images" / "cervix" / "normal").mkdir(parents=True)
    (tmp_path / "images" / "cervix" / "normal" / "a.png").touch()
    args = [arg.replace("/etc/cytotrain", str(tmp_path)) for arg in main_container(manifests, "convert")["args"]]
    args += [f"--images={tmp_path / 'images'}", f"--tfrecords={tmp_path / 'tf'}", "--stage=inspect"]
    for index, code in (("3", EXIT_DONE), ("4", EXIT_REQUEST)):
        done = subprocess.run(
            [sys.executable, "-m", *args],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=K8S.parent,
            env={"JOB_COMPLETION_INDEX": index, "PATH": "/usr/bin:/bin"},
        )
        assert done.returncode == code, done.stderr
        assert ("worker 3 of 4" in done.stdout) == (code == EXIT_DONE)


def _without(manifests: list[Manifest], *paths: str) -> list[Manifest]:
    """A copy without what overlays are free to change: the fields at these paths of every Job."""
    copied = copy.deepcopy(manifests)
    for job in of_kind(copied, "Job"):
        for path in paths:
            *parents, last = path.split(".")
            at = job
            for key in parents:
                at = at[int(key)] if isinstance(at, list) else at.get(key, {})
            at.pop(last, None)
    return copied


def test_each_index_is_an_organ_and_each_organ_has_an_index(kubectl: str, tmp_path: Path) -> None:
    manifests = render(kubectl, "overlays/all-organs")
    listed = {name: text.strip() for name, text in files(manifests).items() if name.startswith("organ-")}
    assert listed == {f"organ-{index}.flags": f"--organ={organ}" for index, organ in enumerate(ORGANS)}
    for job in job_specs(manifests).values():
        assert (job["completionMode"], job["completions"]) == ("Indexed", len(ORGANS))
        for container in containers(job["template"]["spec"]):
            assert container["args"][-1] == "--flagfile=/etc/cytotrain/organ-$(JOB_COMPLETION_INDEX).flags"
    for index, organ in enumerate(ORGANS):
        # A pod that trains one of several organs isn't taken for one of several workers.
        assert seen_by_trainer(manifests, tmp_path, index) == {"organ": organ, "workers": None}


def test_an_organ_that_cannot_be_done_keeps_no_other_from_being_done(kubectl: str) -> None:
    for job in job_specs(render(kubectl, "overlays/all-organs")).values():
        assert job["backoffLimitPerIndex"] > 0
        assert "backoffLimit" not in job
        assert "maxFailedIndexes" not in job
        assert job["podFailurePolicy"]["rules"][0]["action"] == "FailIndex"
