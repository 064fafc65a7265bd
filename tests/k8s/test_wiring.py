"""What names something else in k8s/ names something that is there."""

from typing import Any

from pod_security import containers

import data_pipeline

Manifest = dict[str, Any]


def test_every_mount_has_its_volume_and_every_volume_is_mounted(pods: dict[str, Manifest]) -> None:
    for pod in pods.values():
        mounted = {mount["name"] for container in containers(pod["spec"]) for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_every_claim_and_config_map_exists(pods: dict[str, Manifest], base: list[Manifest]) -> None:
    there = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in base}
    for pod in pods.values():
        for volume in pod["spec"]["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                assert ("PersistentVolumeClaim", claim["claimName"]) in there
            if config := volume.get("configMap"):
                assert ("ConfigMap", config["name"]) in there


def test_every_file_that_a_container_is_told_to_read_is_in_the_config_map(
    pods: dict[str, Manifest], flag_files: dict[str, str]
) -> None:
    folder = "/etc/cytotrain/"
    for name in ("cytotrain-convert", "cytotrain-train"):
        for container in containers(pods[name]["spec"]):
            words = [*container.get("command", []), *container["args"]]
            files = [word.partition(folder)[2] for word in words if folder in word]
            assert files
            assert set(files) <= set(flag_files)
            assert folder.rstrip("/") in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_every_folder_a_flag_names_is_on_the_volume(pods: dict[str, Manifest], flag_files: dict[str, str]) -> None:
    lines = [line for text in flag_files.values() for line in text.splitlines() if line.startswith("--")]
    folders = {value for _, _, value in (line.partition("=") for line in lines) if value.startswith("/")}
    assert folders == {"/data/images", "/data/tfrecords", "/data/runs"}
    for pod in pods.values():
        for container in containers(pod["spec"]):
            assert {"name": "data", "mountPath": "/data"}.items() <= container["volumeMounts"][0].items()


def test_writable_places_outside_the_volume_are_bounded(pods: dict[str, Manifest]) -> None:
    for name in ("cytotrain-convert", "cytotrain-train"):
        volumes = {volume["name"]: volume for volume in pods[name]["spec"]["volumes"]}
        assert volumes["shm"]["emptyDir"]["medium"] == "Memory"
        assert all("sizeLimit" in volumes[name]["emptyDir"] for name in ("shm", "tmp"))
        main = pods[name]["spec"]["containers"][0]
        assert {"/tmp", "/dev/shm"} <= {mount["mountPath"] for mount in main["volumeMounts"]}


def test_every_container_says_what_it_needs_and_may_take(pods: dict[str, Manifest]) -> None:
    for pod in pods.values():
        for container in containers(pod["spec"]):
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            # Memory that was not requested is the first to be evicted.
            assert container["resources"]["limits"] == {"memory": container["resources"]["requests"]["memory"]}


def test_conversion_starts_as_many_workers_as_it_asks_cpus_for(
    jobs: dict[str, Manifest], flag_files: dict[str, str]
) -> None:
    cpus = jobs["convert"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"]
    assert f"--workers={cpus}" in flag_files["convert.flags"].splitlines()


def test_all_pods_are_drawn_to_one_node_by_a_label_they_carry_themselves(jobs: dict[str, Manifest]) -> None:
    for job in jobs.values():
        (term,) = job["template"]["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        wanted = term["labelSelector"]["matchLabels"]
        for other in jobs.values():
            assert wanted.items() <= other["template"]["metadata"]["labels"].items()


def test_every_pod_runs_the_one_image_at_this_version(pods: dict[str, Manifest]) -> None:
    images = {container["image"] for pod in pods.values() for container in containers(pod["spec"])}
    assert images == {f"cytotrain:{data_pipeline.__version__}"}
