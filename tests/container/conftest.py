"""The image, built by `make image` in a real engine, and a way to run it as locked down as a pod is.

BASE names the base image to build from; without it, a stand-in is made of Debian packages (make_base_image.sh).
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine import LOCKED_DOWN, Engine, NoEngineError, running_engine

ROOT = Path(__file__).parents[2]
STAND_IN = "cytotrain-base:test"
IMAGE = "cytotrain:test"
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine that answers."""
    try:
        with running_engine() as engine:
            yield engine
    except NoEngineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def base_image(engine: Engine) -> str:
    """The image to build from."""
    if named := os.environ.get("BASE"):
        return named
    if engine.docker("image", "inspect", STAND_IN).returncode != 0:
        script = Path(__file__).with_name("make_base_image.sh")
        subprocess.run([script, STAND_IN], env=engine.environment(), check=True, timeout=900)
    return STAND_IN


@pytest.fixture(scope="session")
def image(engine: Engine, base_image: str) -> str:
    """The image that `make image` makes of the Dockerfile as it is."""
    name, _, tag = IMAGE.partition(":")
    args = ["--network=host", *(f"--build-arg={proxy}" for proxy in PROXIES if proxy in os.environ)]
    command = ["make", "image", f"BASE={base_image}", f"IMAGE={name}", f"TAG={tag}", f"DOCKER_ARGS={' '.join(args)}"]
    done = subprocess.run(
        command, cwd=ROOT, env=engine.environment(), capture_output=True, text=True, check=False, timeout=1800
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return IMAGE


@pytest.fixture(scope="session")
def run(engine: Engine, image: str) -> Run:
    """`run("trainer", "--help", data=folder)`: a container to its end; `options` are docker's own."""

    def run_container(
        *args: str, data: Path | None = None, options: tuple[str, ...] = (), timeout_s: float = 600
    ) -> subprocess.CompletedProcess[str]:
        mount = (f"--volume={data}:/data",) if data else ()
        return engine.docker("run", "--rm", *LOCKED_DOWN, *mount, *options, image, *args, timeout_s=timeout_s)

    return run_container
