"""A Docker engine for the tests: the one that already answers, or else a private one for as long as they run.

    with running_engine() as engine:
        engine.docker("build", …)

A private engine (Debian's docker.io, started as root) touches neither the machine's network nor its other images: it
has no bridge and no firewall rules, so builds use `--network host` and containers none. Its folder goes when it ends.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_S = 60

# `docker run` flags that give a container no more than a pod of k8s/base has.
LOCKED_DOWN = (
    "--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none",
    "--memory=4g", "--pids-limit=512",
)  # fmt: skip


class NoEngineError(Exception):
    """There is no engine, and none can be started here."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Where an engine listens; an empty `host` is the client's default."""

    host: str

    def environment(self) -> dict[str, str]:
        """What a process needs to reach this engine, and to build as an engine without BuildKit would."""
        return {**os.environ, "DOCKER_BUILDKIT": "0", **({"DOCKER_HOST": self.host} if self.host else {})}

    def docker(self, *args: str, timeout_s: float = 600) -> subprocess.CompletedProcess[str]:
        """Run a docker command to its end, whatever that is."""
        return subprocess.run(
            ["docker", *args], env=self.environment(), capture_output=True, text=True, check=False, timeout=timeout_s
        )

    def answers(self) -> bool:
        """Whether the engine is up."""
        return self.docker("version", timeout_s=30).returncode == 0


@contextmanager
def running_engine() -> Iterator[Engine]:
    """The engine to test with. Raises `NoEngineError`."""
    if not shutil.which("docker"):
        raise NoEngineError("no docker client: apt-get install --no-install-recommends docker.io debootstrap")
    engine = Engine(host="")
    if engine.answers():
        yield engine
        return
    if not shutil.which("dockerd") or os.geteuid() != 0:
        raise NoEngineError("no Docker engine answers, and starting one takes root and the package docker.io")
    folder = Path(tempfile.mkdtemp(prefix="engine-"))
    try:
        with _private_engine(folder) as engine:
            yield engine
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _private_engine(folder: Path) -> Iterator[Engine]:
    engine = Engine(host=f"unix://{folder}/socket")
    command = ["dockerd", "--host", engine.host, "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec"]
    command += ["--pidfile", f"{folder}/pid", "--bridge", "none", "--iptables=false", "--ip6tables=false"]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _wait_until_up(engine, process, folder / "log")
            yield engine
        finally:
            process.terminate()
            process.wait(START_S)
            # The one mount that dockerd leaves behind.
            subprocess.run(["umount", f"{folder}/exec/netns/default"], capture_output=True, check=False)


def _wait_until_up(engine: Engine, process: subprocess.Popen[bytes], log: Path) -> None:
    end_s = time.monotonic() + START_S
    while not engine.answers():
        if process.poll() is not None or time.monotonic() > end_s:
            raise NoEngineError(f"dockerd did not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.5)
