"""Ways that are programs of their own, ours and those of peers, one after another: each turn is a new process.

    ways = {"ours": Way(Path(sys.executable), ["-m", …]), "DALI": peer("peer_dali.py", …)}
    figures, missing = round_robin(ways, turns=5)
    figures["DALI"][0].images_per_s

Peers are installed by `make peers` into an environment that nothing else uses; $CYTOTRAIN_PEERS names another one.
Their programs import nothing of this project. A program ends with a line of JSON that holds a `Figure`; of several
settings it tries itself which is the fastest.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import ROOT

PEERS = Path(os.environ.get("CYTOTRAIN_PEERS", ROOT / ".venv-peers"))
# Neither TensorFlow's notices nor a look for a newer version belong into a measurement.
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "NO_ALBUMENTATIONS_UPDATE": "1"}
# Large blocks stay with the process, in huge pages, instead of going back to the system after each step.
KEEPS_MEMORY = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.top_pad=67108864"
    ":glibc.malloc.trim_threshold=17179869184"
}


class MissingPeer(Exception):
    """A peer can't be measured here; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Way:
    """A program that measures itself, and how it is started. Without a `peer` it has to work."""

    python: Path
    arguments: Sequence[str]
    peer: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Figure:
    """What a way has reached in a turn, with which settings, and with how many weights if it is a network."""

    images_per_s: float
    cpu_ms: float
    settings: str = ""
    parameters: int = 0


def peer(script: str, *arguments: object, environment: Mapping[str, str] | None = None) -> Way:
    """The program `script` beside this file, in the peers' environment."""
    path = Path(__file__).with_name(script)
    return Way(PEERS / "bin" / "python", [str(path), *map(str, arguments)], peer=True, environment=environment or {})


def measure(way: Way) -> Figure:
    """One turn. Raises `MissingPeer`, or `CalledProcessError` if a way that isn't a peer fails."""
    if way.peer and not way.python.exists():
        raise MissingPeer(f"there is no {way.python.parent.parent.name}. To fix it: make peers.")
    command = [str(way.python), *way.arguments]
    environment = os.environ | QUIET | dict(way.environment)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode == 0 and lines:
        return Figure(**json.loads(lines[-1]))
    if not way.peer:
        print(done.stderr, file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    raise MissingPeer(f"it ended with code {done.returncode}: {last}")


def round_robin(ways: Mapping[str, Way], *, turns: int) -> tuple[dict[str, list[Figure]], dict[str, str]]:
    """Each way's figures, all ways taking turns, and why those that are missing are."""
    figures: dict[str, list[Figure]] = {name: [] for name in ways}
    missing: dict[str, str] = {}
    for turn in range(turns):
        for name, way in ways.items():
            if name in missing:
                continue
            try:
                figure = measure(way)
            except MissingPeer as error:
                missing[name] = str(error)
                continue
            figures[name].append(figure)
            print(f"{turn} {name}: {figure}", file=sys.stderr, flush=True)
    return {name: found for name, found in figures.items() if name not in missing}, missing


def told(missing: Mapping[str, str]) -> str:
    """A paragraph about the rows that aren't there."""
    return "".join(f"\n\nNot compared with {name}: {reason}" for name, reason in missing.items())
