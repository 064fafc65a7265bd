"""What the image is, before it is given any work."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from engine import Engine

pytestmark = [pytest.mark.container, pytest.mark.timeout(2700)]

Run = Callable[..., CompletedProcess[str]]

IMPORTS = """
import importlib, pkgutil
for package in ("data_pipeline", "trainer"):
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}."):
        importlib.import_module(module.name)
print("all imported")
"""
STALE = """
import pathlib, sysconfig
roots = [pathlib.Path("/opt/project"), pathlib.Path(sysconfig.get_path("purelib"))]
files = [file for root in roots for file in root.rglob("*.py")]
print(len(files), sum(not list(file.parent.glob(f"__pycache__/{file.stem}.cpython-*.pyc")) for file in files))
"""


def test_every_module_finds_what_it_imports(run: Run) -> None:
    done = run("-c", IMPORTS, options=("--entrypoint=python",))
    assert "all imported" in done.stdout, done.stderr


def test_no_arguments_print_help(run: Run) -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    assert "Usage: python -m data_pipeline" in done.stdout
    assert "--organ" in done.stdout


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


def test_there_is_no_compiler_and_no_installer_beside_the_programs(run: Run) -> None:
    code = (
        "import importlib.util, shutil; print(importlib.util.find_spec('pip'), shutil.which('gcc'), shutil.which('cc'))"
    )
    assert run("-c", code, options=("--entrypoint=python",)).stdout.split() == ["None"] * 3


def test_all_bytecode_is_compiled_already(run: Run) -> None:
    files, stale = map(int, run("-c", STALE, options=("--entrypoint=python",)).stdout.split())
    assert files > 1000
    assert stale == 0


def test_a_folder_of_data_is_never_imported_as_code(run: Run, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "data_pipeline").mkdir()
    (tmp_path / "data_pipeline" / "__main__.py").write_text("print('SHADOWED')", encoding="utf-8")
    done = run(data=tmp_path)
    assert "SHADOWED" not in done.stdout
    assert "Usage: python -m data_pipeline" in done.stdout


def test_python_is_the_first_process_so_that_signals_reach_it(engine: Engine, image: str) -> None:
    (config,) = json.loads(engine.docker("image", "inspect", image).stdout)
    assert config["Config"]["Entrypoint"] == ["python", "-m"]
    assert config["Config"]["User"] == "65532:65532"


def test_labels_say_what_it_is(engine: Engine, image: str, base_image: str) -> None:
    (config,) = json.loads(engine.docker("image", "inspect", image).stdout)
    labels = config["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "cytotrain"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.base.name"] == base_image
