"""What the image is, before it is given any work."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from engine import LOCKED_DOWN, Engine

from data_pipeline import __version__, cli
from requirements.sbom import canonicalize_name, read_lock
from trainer.container import usage

pytestmark = [pytest.mark.container, pytest.mark.timeout(2700)]

ROOT = Path(__file__).parents[2]
Run = Callable[..., CompletedProcess[str]]
Findings = dict[str, Any]

SIGTERM_EXIT = 143
DATE = "--date=format-local:%Y-%m-%dT%H:%M:%SZ"
MAX_ADDED_BYTES = 2_300_000_000  # to the base; 2.18e9 were seen
IMPORTS = """
import importlib, pkgutil
for package in ("data_pipeline", "trainer"):
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)
print("all imported")
"""


@pytest.fixture(scope="module")
def findings(run: Run) -> Findings:
    """What root sees in it."""
    code = Path(__file__).with_name("findings.py").read_text(encoding="utf-8")
    # Root without capabilities may read no more than others.
    done = run("-c", code, options=("--entrypoint=python", "--user=0:0", "--cap-add=DAC_READ_SEARCH"))
    assert done.returncode == 0, done.stderr
    found: Findings = json.loads(done.stdout)
    return found


def test_every_module_finds_what_it_imports(run: Run) -> None:
    done = run("-c", IMPORTS, options=("--entrypoint=python",))
    assert "all imported" in done.stdout, done.stderr


def test_without_arguments_it_tells_which_programs_there_are(run: Run) -> None:
    done = run()
    assert (done.returncode, done.stdout) == (cli.EXIT_DONE, usage()), done.stderr


def test_a_program_without_arguments_explains_itself(run: Run) -> None:
    done = run("trainer")
    assert done.returncode == cli.EXIT_REQUEST
    assert "Usage: python -m trainer --organ" in done.stderr
    assert "Missing: --organ, --tfrecords, --runs." in done.stderr


def test_sigterm_ends_what_has_nothing_to_save(engine: Engine, image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    command = ("data_pipeline.synthesize", "--output=/data/images", "--slides=10000", "--workers=1")
    done = engine.docker("run", "--detach", *LOCKED_DOWN, f"--volume={tmp_path}:/data", image, *command)
    assert done.returncode == 0, done.stderr
    container = done.stdout.strip()
    try:
        end_s = time.monotonic() + 60
        while not list(tmp_path.rglob("*.png")) and time.monotonic() < end_s:
            time.sleep(0.1)
        engine.docker("stop", "-t", "30", container)
        (inspected,) = json.loads(engine.docker("inspect", container).stdout)
        assert inspected["State"]["ExitCode"] == SIGTERM_EXIT, engine.docker("logs", container).stderr[-2000:]
    finally:
        engine.docker("rm", "--force", container)


def test_a_wrong_flag_ends_with_the_code_that_stops_retries(run: Run) -> None:
    done = run("data_pipeline", "--organn=cervix")
    assert done.returncode == 2
    assert "organn" in done.stderr


def test_it_runs_as_a_number_that_is_not_root(run: Run) -> None:
    done = run("-c", "import os; print(os.getuid(), os.getgid())", options=("--entrypoint=python",))
    assert done.stdout.split() == ["65532", "65532"]


def test_it_runs_as_any_other_number(run: Run) -> None:
    code = "import os, matplotlib.font_manager, keras; print(os.getuid())"
    done = run("-c", code, options=("--entrypoint=python", "--user=12345:0"))
    assert done.stdout.split() == ["12345"], done.stderr


def test_there_is_no_compiler_no_installer_and_no_cache(findings: Findings) -> None:
    assert findings["tools"] == []
    assert findings["cached"] == []


def test_no_file_gives_more_rights_and_none_can_be_written_to(findings: Findings) -> None:
    assert findings["set_id"] == []
    assert findings["writable"] == []


def test_each_source_has_its_bytecode_and_nothing_has_two(findings: Findings) -> None:
    assert findings["sources"] > 1000
    assert findings["uncompiled"] == []
    assert findings["stray_bytecode"] == []


def test_it_has_what_its_bill_of_materials_says(findings: Findings) -> None:
    lock = {item.name: item.version for item in read_lock(ROOT / "requirements" / "runtime.txt")}
    assert {canonicalize_name(name): version for name, version in findings["installed"].items()} == lock
    assert findings["licences"] >= len(lock) * 0.9


def test_it_is_no_larger_than_it_was(engine: Engine, image: str, base_image: str) -> None:
    sizes = [json.loads(engine.docker("image", "inspect", name).stdout)[0]["Size"] for name in (image, base_image)]
    added = sizes[0] - sizes[1]
    assert 1_000_000_000 < added < MAX_ADDED_BYTES, f"{added:,} bytes: docker history {image}"


def test_a_folder_of_data_is_never_imported_as_code(run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "data_pipeline").mkdir()
    (tmp_path / "data_pipeline" / "__main__.py").write_text("print('SHADOWED')", encoding="utf-8")
    done = run("data_pipeline", "--help", data=tmp_path)
    assert "SHADOWED" not in done.stdout
    assert "Usage: python -m data_pipeline" in done.stdout


def test_python_is_the_first_process_so_that_signals_reach_it(engine: Engine, image: str) -> None:
    (config,) = json.loads(engine.docker("image", "inspect", image).stdout)
    assert config["Config"]["Entrypoint"] == ["python", "-m", "trainer.container"]
    assert config["Config"]["User"] == "65532:65532"


def test_labels_say_what_it_is_and_what_it_was_made_of(engine: Engine, image: str, base_image: str) -> None:
    (config,) = json.loads(engine.docker("image", "inspect", image).stdout)
    labels = {name.removeprefix("org.opencontainers.image."): it for name, it in config["Config"]["Labels"].items()}
    assert labels["title"] == "cytotrain"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["base.name"] == base_image
    assert labels["version"] == __version__
    commit = labels["revision"].removesuffix("-dirty")
    assert _git("cat-file", "-t", commit) == "commit" if _git("rev-parse", "HEAD") else commit == "unknown"
    assert labels["created"] == (_git("log", "-1", "--format=%cd", DATE, commit) or "unknown")


def _git(*args: str) -> str:
    done = subprocess.run(
        ["git", *args], cwd=ROOT, env={**os.environ, "TZ": "UTC"}, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
