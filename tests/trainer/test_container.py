"""Which programs the image has, and how each tells what it is for: without an engine, by the module it starts."""

import importlib.util
import re
import subprocess
import sys

import pytest

from data_pipeline import cli
from tests.conftest import ROOT
from trainer.container import PROGRAMS

OWN = [name for name, (module, _) in PROGRAMS.items() if module == name]


def test_every_program_is_there() -> None:
    for module, _ in PROGRAMS.values():
        assert importlib.util.find_spec(module) is not None, module
    assert set(PROGRAMS) - set(OWN) == {"tensorboard"}


def test_no_program_is_left_out() -> None:
    files = [file for package in ("data_pipeline", "trainer") for file in sorted((ROOT / package).glob("*.py"))]
    program = re.compile(r'^if __name__ == "__main__":.*^    cli\.run\((\w+\.)?main\)$', re.MULTILINE | re.DOTALL)
    modules = [file for file in files if program.search(file.read_text(encoding="utf-8"))]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__") for file in modules}
    assert names == set(OWN)


@pytest.mark.parametrize("word", ["", "--help", "help"])
def test_without_a_program_it_tells_which_there_are(word: str) -> None:
    done = _container(*word.split())
    assert done.returncode == cli.EXIT_DONE, done.stderr
    for name in PROGRAMS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize(
    ("word", "remedy"), [("traner", "did you mean trainer?"), ("bash", "--entrypoint"), ("--organ=cervix", "first")]
)
def test_an_unknown_program_is_a_wrong_request(word: str, remedy: str) -> None:
    done = _container(word)
    assert done.returncode == cli.EXIT_REQUEST
    assert f"Received: {word!r}" in done.stderr
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", OWN)
def test_a_program_without_arguments_explains_itself_and_is_never_retried(name: str) -> None:
    done = _container(name)
    assert done.returncode == cli.EXIT_REQUEST
    assert f"Usage: python -m {name} " in done.stderr
    assert done.stderr.rstrip().count("\n") > 5
    assert "Traceback" not in done.stderr


def test_flags_reach_the_program() -> None:
    done = _container("data_pipeline", "--organ=cervix")
    assert (done.returncode, done.stdout) == (cli.EXIT_REQUEST, "")
    assert done.stderr == (
        "Missing: --images, --tfrecords.\nTo fix it: `python -m data_pipeline --help` lists every flag.\n"
    )


def _container(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainer.container", *args]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
