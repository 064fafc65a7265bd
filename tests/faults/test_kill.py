"""SIGKILL at any moment: the same command, given again, ends as if nothing had happened."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from data_pipeline.conversion import STAGES
from data_pipeline.manifest import Manifest
from tests.conftest import make_images
from tests.data_pipeline.conversion import contents
from tests.faults.program import conversion, finish, start

# How many kills each stage gets at least, 30 together, and up to which part of its time each of them comes.
KILLS = {"inspect": 11, "plan": 6, "write": 7, "seal": 6}
LATEST = {"inspect": 0.1, "plan": 0.9, "write": 0.2, "seal": 0.7}
SIZES = (24, 40)  # of the datasets that replace each other
Stamp = tuple[int, int]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,500 images: 24 chunks of the inspection, 18 shards."""
    images = tmp_path_factory.mktemp("many") / "images"
    make_images(images / "gland", slides=100, tiles=5, size=100)
    return images


class Watch:
    """What the work folder says about the run under way, beside what was there when it began."""

    def __init__(self, images: Path, tfrecords: Path) -> None:
        self._work = tfrecords / ".gland.partial"
        self._target = tfrecords / "gland"
        self._chunks = len(conversion(images, tfrecords).chunks)
        self._old_plan = stamp(self._work / "plan" / "plan.json")
        self._old_chunks = self._count("inspect", ".chunk")

    def stage(self) -> str:
        """The stage under way; `sealed` once the dataset is in its place."""
        if self._target.exists():
            return "sealed"
        if self._count("inspect", ".chunk") < self._chunks:
            return "inspect"
        if stamp(self._work / "plan" / "plan.json") in (None, self._old_plan):
            return "plan"
        return "write" if self.unwritten() else "seal"

    def reachable(self, stage: str) -> bool:
        """Whether a run that goes on from here has something to do in `stage`."""
        if stage == "inspect":
            return self._count("inspect", ".chunk") < self._chunks
        return stage != "write" or not self._old_plan or self.unwritten() > 0

    def advanced(self) -> bool:
        """Whether this run has made a chunk of its own."""
        return self._count("inspect", ".chunk") > self._old_chunks

    def finished(self) -> dict[Path, Stamp]:
        """All that is whole and for good: chunks, and shards that have their receipt."""
        paths = [self._work / "inspect" / name for name in names(self._work / "inspect") if name.endswith(".chunk")]
        for name in names(self._work / "receipts"):
            shard = self._work / "dataset" / name.removesuffix(".json")
            paths += [shard, shard.with_name(f"{shard.name}.offsets")]
        return {path: found for path in paths if (found := stamp(lying(path)))}

    def unwritten(self) -> int:
        planned = json.loads((self._work / "plan" / "plan.json").read_text())["shards"]
        return len(planned) - self._count("receipts", ".json")

    def _count(self, folder: str, suffix: str) -> int:
        return sum(name.endswith(suffix) for name in names(self._work / folder))


def names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - a glob stumbles over folders that come and go
    except FileNotFoundError:
        return []


def stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_ino


def measured(process: "subprocess.Popen[str]", watch: Watch, says: Path) -> dict[str, float]:
    """How many seconds each stage takes on this machine, from a run that nobody disturbs."""
    seconds = dict.fromkeys([*STAGES, "sealed"], 0.0)
    last = time.monotonic()
    while process.poll() is None:
        time.sleep(0.002)
        now = time.monotonic()
        seconds[watch.stage()] += (now - last) * ("files in" in says.read_text())
        last = now
    finish(process, 0)
    return seconds


def kill_in(stage: str, watch: Watch, process: "subprocess.Popen[str]", says: Path, pause_s: float) -> str:
    """Kill the process and all its workers `pause_s` after `stage` began; the stage they were in by then.

    Empty if they have come to an end before.
    """
    order = [*STAGES, "sealed"]
    while process.poll() is None:
        under_way = "files in" in says.read_text() and (stage != "inspect" or watch.advanced())
        if under_way and order.index(watch.stage()) >= order.index(stage):
            break
        time.sleep(0.002)  # the program needs the processor more than we
    time.sleep(pause_s)
    if process.poll() is not None:
        return ""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return watch.stage()


def test_thirty_kills_in_all_stages_cost_no_byte_and_no_finished_shard(many: Path, tmp_path: Path) -> None:
    says = tmp_path / "says"
    seconds = measured(start(many, tmp_path / "whole", says=says), Watch(many, tmp_path / "whole"), says)
    whole = contents(tmp_path / "whole" / "gland")
    rng, hits, finished = random.Random(30), Counter[str](), dict[Path, Stamp]()
    rounds = (tmp_path / f"cut{number}" for number in range(10))
    tfrecords = next(rounds)
    while wanted := [stage for stage in STAGES if hits[stage] < KILLS[stage]]:
        watch = Watch(many, tfrecords)
        if not watch.reachable(wanted[0]) or (tfrecords / "gland").exists():
            check_end(many, tfrecords, whole, finished)
            tfrecords, finished = next(rounds), {}
            continue
        process = start(many, tfrecords, f"--workers={rng.choice([1, 2])}", says=says)
        pause_s = rng.uniform(0, LATEST[wanted[0]] * seconds[wanted[0]])
        hits[kill_in(wanted[0], watch, process, says, pause_s)] += 1
        for path, before in finished.items() if not (tfrecords / "gland").exists() else ():
            assert stamp(lying(path)) == before, f"{path.name} was made again"
        finished = watch.finished() or finished
    check_end(many, tfrecords, whole, finished)
    print(hits, len(list(tmp_path.glob("cut*"))), "rounds", seconds)
    assert sum(hits[stage] for stage in STAGES) >= 30


def lying(path: Path) -> Path:
    """Where a shard is now: while they are sealed, all are set aside."""
    aside = path.parent.with_name("sealing") / path.name
    return aside if path.parent.name == "dataset" and aside.exists() else path


def check_end(images: Path, tfrecords: Path, whole: dict[str, str], finished: dict[Path, Stamp]) -> None:
    """Run to the end: the bytes of an uninterrupted run, shards finished before are those files, nothing else left."""
    finish(start(images, tfrecords), 0)
    assert contents(tfrecords / "gland") == whole
    for path, before in finished.items():
        if path.parent.name == "dataset":
            assert stamp(tfrecords / "gland" / path.name) == before, f"{path.name} was written again"
    assert {path.name for path in tfrecords.iterdir()} == {"gland", ".gland.lock"}


def test_kills_while_a_dataset_is_replaced_leave_the_old_one_or_the_new_one_whole(images: Path, tmp_path: Path) -> None:
    """Aimed at the seal, where the one becomes the other."""
    tfrecords, rng = tmp_path / "tf", random.Random(6)
    whole = {}
    for size in SIZES:
        finish(start(images, tmp_path / str(size), f"--image_size={size}"), 0)
        whole[size] = contents(tmp_path / str(size) / "gland")
    shutil.copytree(tmp_path / str(SIZES[0]), tfrecords)
    there = SIZES[0]
    for workers in (1, 2) * 3:
        flags = [f"--image_size={sum(SIZES) - there}", f"--workers={workers}", "--overwrite"]
        process = start(images, tfrecords, *flags, says=tmp_path / "says")
        sealing = tfrecords / ".gland.partial" / "sealing" / "near_duplicates.csv"
        while process.poll() is None and not sealing.exists():
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.8))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found = next(path for name in ("gland", ".gland.replaced") if (path := tfrecords / name).exists())
        there = Manifest.load(found).image_size
        assert contents(found) == whole[there]
    finish(start(images, tfrecords, f"--image_size={SIZES[0]}", "--overwrite"), 0)
    assert contents(tfrecords / "gland") == whole[SIZES[0]]
    assert {path.name for path in tfrecords.iterdir()} == {"gland", ".gland.lock"}
