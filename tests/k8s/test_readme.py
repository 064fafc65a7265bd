"""k8s/README.md names what is there, and its figures are those that are computed."""

import re
import shutil
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pod_rules
import pytest
import sizing
import yaml
from manifests import FOLDERS, K8S, OVERLAYS, files, job_specs, render

TEXT = (K8S / "README.md").read_text(encoding="utf-8")
# Indented by four, as Markdown has it; lists of this file never are.
COMMANDS = "\n".join(line[4:] for line in TEXT.splitlines() if line.startswith("    "))


def test_every_folder_that_is_applied_is_there() -> None:
    applied = re.findall(r"kubectl (?:apply|delete) -k k8s/(\S+?)[`\s,.]", TEXT)
    assert applied
    assert set(applied) - {"overlays/…"} <= set(FOLDERS)


def test_every_overlay_is_in_the_table() -> None:
    (table,) = re.findall(r"\| what it does \|.*?\n\n", TEXT, flags=re.DOTALL)
    rows = re.findall(r"^\| `([\w-]+)` \|", table, flags=re.MULTILINE)
    assert set(rows) == OVERLAYS


def test_an_overlay_of_ones_own_is_made_as_it_says(kubectl: str, tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    own = tmp_path / "k8s" / "overlays" / "ours"
    own.mkdir()
    (kustomization,) = re.findall(r"    # k8s/overlays/ours/kustomization.yaml\n((?:    .*\n)+)", TEXT)
    (own / "kustomization.yaml").write_text(textwrap.dedent(kustomization), encoding="utf-8")
    (own / "train.flags").write_text("--epochs=60\n", encoding="utf-8")
    done = subprocess.run([kubectl, "kustomize", str(own)], capture_output=True, text=True, check=True)
    manifests = list(yaml.safe_load_all(done.stdout))
    assert files(manifests)["train.flags"] == "--epochs=60\n"
    assert pod_rules.violations(manifests) == []


def test_every_file_it_sends_readers_to_is_there() -> None:
    for path in re.findall(r"`((?:base|components|flags|tests)/[\w./-]+)`", TEXT):
        assert (K8S / path).exists() or (K8S.parent / path).exists(), path


def test_commands_are_ones_that_a_shell_can_read() -> None:
    lines = [line for line in COMMANDS.splitlines() if not line.startswith("#")]
    commands = "\n".join(
        line for line in lines if re.match(r"(docker|kind|kubectl|gcloud|sed|PROJECT=|IMAGE=| )", line)
    )
    assert commands.count("\n") > 40
    done = subprocess.run(["bash", "-n"], input=commands, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_words_to_be_replaced_are_there_to_be_replaced() -> None:
    for word, replaced in (("your-bucket", "flags/*.flags"), ("your-project", "service-account.yaml")):
        assert f"s#{word}#" in TEXT
        assert all(word in path.read_text(encoding="utf-8") for path in (K8S / "overlays" / "gke").glob(replaced))
    assert "newName: cytotrain" in (K8S / "components" / "image" / "kustomization.yaml").read_text(encoding="utf-8")


def test_nodes_in_the_cloud_are_kept_for_pods_that_bear_their_taint(kubectl: str) -> None:
    pools = re.findall(r"node-pools create (\w+) (.*?--max-nodes)", COMMANDS, flags=re.DOTALL)
    jobs = job_specs(render(kubectl, "overlays/gke"))
    assert [name for name, _ in pools] == ["convert", "gpu"]
    for (_, options), name in zip(pools, ("convert", "train"), strict=True):
        (taint,) = re.findall(r"--node-taints=(\S+)", options)
        tolerated = [
            f"{one['key']}={one['value']}:{one['effect']}"
            for one in jobs[name]["template"]["spec"]["tolerations"]
            if one["operator"] == "Equal"
        ]
        assert taint in tolerated


@pytest.mark.parametrize("folder", sorted(OVERLAYS - {"gke"}))
def test_cleaning_up_without_the_data_leaves_the_volume_alone(kubectl: str, folder: str) -> None:
    (label, value) = re.findall(r"kubectl delete -k \S+ -l '(\S+)!=(\S+)'", COMMANDS)[0]
    kept = [
        manifest["kind"]
        for manifest in render(kubectl, f"overlays/{folder}")
        if manifest["metadata"]["labels"].get(label) == value
    ]
    assert kept == ["PersistentVolumeClaim"]


@pytest.mark.parametrize("table", [sizing.one_gpu, sizing.many_gpus, sizing.many_images])
def test_figures_are_the_computed_ones(table: Callable[[], str]) -> None:
    assert table() in TEXT


def test_what_is_said_of_sizes_beside_the_tables_is_computed_too() -> None:
    assert f"{sizing.INPUT_S * 1e3:.2f} ms of CPU an image" in TEXT
    assert f"{8 / sizing.INPUT_S:,.0f}" == "6,300"
    assert "6,300 images/s" in TEXT
    assert f"{3 * 2 * sizing.MACS / 1e9:.1f} GFLOP an image" in TEXT
    assert f"{sizing.PARAMETERS / 1e6:.1f} million gradients" in TEXT
    assert f"{sizing.PARAMETERS * 4 / 1e6:.0f} MB out of" in TEXT
    shards = [-(-int(sizing.IMAGES * share) // sizing.RECORDS_PER_SHARD) for share in (0.595, 0.255)]
    assert f"{sum(shards):,} of them" in TEXT
    assert pytest.approx(5, abs=0.4) == 4 * 1.073 / (sizing.PLAN_GB * 1e6)  # GiB, a million images
    assert "about 5 million images" in TEXT
    assert f"{sizing.PLAN_GB * 1e6:.1f} GB a million images" in TEXT
