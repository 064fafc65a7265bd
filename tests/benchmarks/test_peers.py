"""What benchmarks say of others: nobody is left out in silence, and everybody is asked for the same."""

import ast
import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.benchmarks.__main__ import GROUPS
from tests.benchmarks.peers import Figure, Way, round_robin, told
from tests.conftest import ROOT, image_bytes

BESIDE = Path(__file__).parent
PEERS = sorted(BESIDE.glob("peer_*.py"))
OURS = {"data_pipeline", "trainer", "tests", "tensorflow", "keras"}


def _way(code: str, *, peer: bool = False) -> Way:
    return Way(Path(sys.executable), ["-c", code], peer=peer)


def _printing(speed: float) -> str:
    return f"print({json.dumps({'images_per_s': speed, 'cpu_ms': 1.0})!r})"


def test_a_missing_environment_is_told_with_its_remedy_and_the_others_are_measured(tmp_path: Path) -> None:
    missing = Way(tmp_path / "env" / "bin" / "python", ["peer_dali.py"], peer=True)
    figures, why = round_robin({"ours": _way(_printing(7.0)), "DALI": missing}, turns=2)
    assert figures == {"ours": [Figure(7.0, 1.0)] * 2}
    assert told(why).strip() == "Not compared with DALI: there is no env. To fix it: make peers."


def test_a_peer_that_fails_is_told_by_its_last_line_and_ours_ends_the_group() -> None:
    broken = "raise ImportError('no module named dali')"
    figures, why = round_robin({"DALI": _way(broken, peer=True), "ours": _way(_printing(7.0))}, turns=1)
    assert list(figures) == ["ours"]
    assert why == {"DALI": "it ended with code 1: ImportError: no module named dali"}
    with pytest.raises(subprocess.CalledProcessError):
        round_robin({"ours": _way(broken)}, turns=1)


def test_ways_take_turns(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ways = {name: _way(f"open({str(log)!r}, 'a').write('{name}'); {_printing(1.0)}") for name in "ab"}
    round_robin(ways, turns=3)
    assert log.read_text() == "ababab"


@pytest.mark.parametrize("path", PEERS, ids=lambda path: path.stem)
def test_a_peer_imports_nothing_of_ours(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    assert OURS.isdisjoint(name.partition(".")[0] for name in names)


def test_peers_are_locked_apart_from_everything_else() -> None:
    def locked(name: str) -> set[str]:
        lines = (ROOT / "requirements" / name).read_text().splitlines()
        return {line.partition("==")[0] for line in lines if "==" in line and not line.startswith(" ")}

    peers = {"torch", "albumentations", "simplejpeg", "opencv-python-headless", "nvidia-dali-cuda130"}
    assert peers <= locked("peers.txt")
    assert "tensorflow" not in locked("peers.txt")
    for other in ("runtime.txt", "gpu.txt", "test.txt", "bench.txt"):
        assert peers.isdisjoint(locked(other)), other


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_is_a_program(group: str) -> None:
    spec = importlib.util.find_spec(f"tests.benchmarks.{group}")
    assert spec
    assert spec.origin
    assert 'if __name__ == "__main__":\n' in Path(spec.origin).read_text()


def test_networks_of_different_sizes_are_not_compared() -> None:
    pytest.importorskip("tabulate", reason="needs what make bench installs")
    from tests.benchmarks.step import OURS as OUR_STEP
    from tests.benchmarks.step import PYTORCH, rows

    figures = {OUR_STEP: [Figure(20.0, 50.0, parameters=29_783_365)], PYTORCH: [Figure(10.0, 100.0, parameters=5)]}
    with pytest.raises(ValueError, match="same number of parameters"):
        rows("float32", figures)
    same = figures | {PYTORCH: [Figure(10.0, 100.0, parameters=29_783_365)]}
    assert [row.cells()[3] for row in rows("float32", same)] == ["2.00", "0.50"]


def test_bare_decoding_decodes_every_image_it_counts(two_devices: None, tmp_path: Path) -> None:
    from tests.benchmarks.feeding import BATCHES, WARM_UP, Task, decoding

    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(image_bytes(number, size=16, form="JPEG"))
    task = Task(tmp_path, tmp_path, size_px=16, batch=32)
    assert sum(decoding(task)) == (WARM_UP + BATCHES) * 32
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "JPEG")
    (tmp_path / "0.jpg").write_bytes(out.getvalue())  # half as high: would count less if it is decoded
    assert sum(decoding(task)) < (WARM_UP + BATCHES) * 32
