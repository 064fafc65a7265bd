"""Every folder of k8s/ that can be applied keeps all rules, whatever its idea is."""

import shutil
import subprocess
from pathlib import Path

import custom_rules
import job_rules
import network_rules
import pod_rules
import pod_security
import pytest
import yaml
from manifests import FOLDERS, K8S, LONE_FILES, OVERLAYS, Manifest, containers, files, job_specs, of_kind, pod_templates

import data_pipeline
from data_pipeline import cli

DOCKERFILE = K8S.parent / "Dockerfile"
COMPONENT = "app.kubernetes.io/component"
VERSION = data_pipeline.__version__


def test_there_is_an_overlay_for_each_way_to_launch() -> None:
    assert {f"overlays/{name}" for name in OVERLAYS} <= set(FOLDERS)


def test_every_pod_is_admitted_under_restricted(manifests: list[Manifest]) -> None:
    assert {name: pod_security.violations(pod["spec"]) for name, pod in pod_templates(manifests).items()} == {
        name: [] for name in pod_templates(manifests)
    }


def test_no_root_file_system_is_writable_and_no_pod_holds_a_token(manifests: list[Manifest]) -> None:
    for pod in pod_templates(manifests).values():
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in containers(pod["spec"]):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert all(account["automountServiceAccountToken"] is False for account in of_kind(manifests, "ServiceAccount"))


def test_pods_run_as_the_images_user_and_the_volume_is_that_groups(manifests: list[Manifest]) -> None:
    (user,) = [line.split()[1] for line in DOCKERFILE.read_text().splitlines() if line.startswith("USER ")]
    uid, gid = map(int, user.split(":"))
    for pod in pod_templates(manifests).values():
        context = pod["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (uid, gid, gid)


def test_jobs_are_ones_that_the_api_server_takes_and_treat_exit_codes_as_the_code_means_them(
    manifests: list[Manifest], folder: str
) -> None:
    for name, job in job_specs(manifests).items():
        by_set = (folder, name) == ("overlays/jobset", "train")
        assert job_rules.violations(job, restarted_by_set=by_set) == [], name


def test_what_is_named_is_there_and_every_quantity_is_one(manifests: list[Manifest]) -> None:
    assert pod_rules.violations(manifests) == []


def test_services_and_policies_reach_the_pods_they_are_for(manifests: list[Manifest]) -> None:
    assert network_rules.violations(manifests) == []


def test_custom_kinds_are_as_their_controllers_want_them(manifests: list[Manifest]) -> None:
    assert custom_rules.violations(manifests) == []


@pytest.mark.parametrize("name", LONE_FILES)
def test_a_file_that_stands_alone_is_as_its_controller_wants_it(name: str) -> None:
    manifests = list(yaml.safe_load_all((K8S / name).read_text(encoding="utf-8")))
    assert manifests
    assert custom_rules.violations(manifests) == []


def test_every_pod_runs_one_image_at_this_version(manifests: list[Manifest]) -> None:
    for pod in pod_templates(manifests).values():
        gpu = pod_rules.GPU in pod["spec"]["containers"][0]["resources"]["requests"]
        images = {container["image"] for container in containers(pod["spec"])}
        assert images == {f"cytotrain:{VERSION}{'-gpu' if gpu else ''}"}


def test_everything_is_labelled_so_that_it_can_be_found_and_cleared_away(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        assert manifest["metadata"]["labels"]["app.kubernetes.io/part-of"] == "cytotrain"
    for pod in pod_templates(manifests).values():
        assert pod["metadata"]["labels"]["app.kubernetes.io/component"]


def test_labels_single_out_the_volume_and_all_but_training(manifests: list[Manifest]) -> None:
    """What `-l app.kubernetes.io/component=volume` and `…!=train` apply, as README.md says."""
    component = {
        (manifest["kind"], manifest["metadata"]["name"]): manifest["metadata"]["labels"].get(COMPONENT)
        for manifest in manifests
    }
    assert {kind for (kind, _), name in component.items() if name == "volume"} <= {"PersistentVolumeClaim"}
    assert all(name == "volume" for (kind, _), name in component.items() if kind == "PersistentVolumeClaim")
    assert {key for key, name in component.items() if name == "train"} <= {("Job", "cytotrain-train")}
    assert all(component[key] == "train" for key in component if key == ("Job", "cytotrain-train"))


def test_another_registry_reaches_every_pod(kubectl: str, folder: str, tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    image = tmp_path / "k8s" / "components" / "image" / "kustomization.yaml"
    image.write_text(image.read_text(encoding="utf-8").replace("newName: cytotrain", "newName: here.example/lab/c"))
    done = subprocess.run([kubectl, "kustomize", str(tmp_path / "k8s" / folder)], capture_output=True, check=True)
    for pod in pod_templates(list(yaml.safe_load_all(done.stdout))).values():
        for container in containers(pod["spec"]):
            assert container["image"].startswith(f"here.example/lab/c:{VERSION}")


def test_finished_work_is_cleared_away_after_a_while(manifests: list[Manifest]) -> None:
    for kind in ("Job", "JobSet"):
        for manifest in of_kind(manifests, kind):
            assert 86400 <= manifest["spec"]["ttlSecondsAfterFinished"] <= 30 * 86400


def test_training_waits_as_long_as_conversion_may_take_and_has_time_left(manifests: list[Manifest]) -> None:
    jobs = job_specs(manifests)
    if not jobs:
        pytest.skip("no Jobs here")
    assert jobs["convert"]["activeDeadlineSeconds"] < jobs["train"]["activeDeadlineSeconds"] / 2
    for waiter in jobs["train"]["template"]["spec"].get("initContainers", []):
        (limit,) = [arg.removeprefix("--limit_s=") for arg in waiter["args"] if arg.startswith("--limit_s=")]
        assert jobs["convert"]["activeDeadlineSeconds"] <= int(limit) < jobs["train"]["activeDeadlineSeconds"] / 2


def test_conversion_starts_as_many_workers_as_it_asks_cpus_for(manifests: list[Manifest], folder: str) -> None:
    jobs = job_specs(manifests)
    if not jobs or folder == "overlays/local":  # which asks for little, so that both Jobs fit, and takes what is idle
        pytest.skip("no Job that asks for CPUs")
    (container,) = jobs["convert"]["template"]["spec"]["containers"]
    assert f"--workers={container['resources']['requests']['cpu']}" in files(manifests)["convert.flags"].splitlines()


def test_writable_places_are_where_the_programs_write(manifests: list[Manifest]) -> None:
    for name, job in job_specs(manifests).items():
        main = job["template"]["spec"]["containers"][0]
        assert {"/tmp", "/dev/shm"} <= {mount["mountPath"] for mount in main["volumeMounts"]}, name


def test_comments_say_what_each_manifest_is_for() -> None:
    for path in K8S.rglob("*.yaml"):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith("# "), path


def test_exit_codes_are_those_the_rules_know() -> None:
    assert (cli.EXIT_REQUEST, cli.EXIT_PREEMPTED) == (2, 75)
