"""The folder of this machine that holds what is fetched from buckets: who uses what, and what has to go for room.

    scratch = Scratch.of("/scratch", "100GB")           # --scratch, --scratch_budget
    scratch.reserve({Dataset("1f3a…", "cervix"): 12_000_000_000})   # raises RequestError if it can't fit
    scratch.dataset("1f3a…")                            # where it goes
    scratch.runs("gs://lab/runs", worker=0)             # what stands for that folder here

Datasets are kept for the next run, within the budget and what the disk has: those that were used least recently make
room for others, but never one that a process uses. What a process uses it holds by a lock that goes with it. Runs stay
only until all of them is in the bucket.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from absl import flags

from data_pipeline.cli import RequestError, invalid_flag, say
from data_pipeline.storage import BUCKET_SCHEME, SCRATCH_NAME, scratch_root, write_atomic
from trainer.sizes import as_text, parse_bytes

DEFAULT_BUDGET = "100GB"
LOCK, IN_USE, RESERVED = ".lock", ".in_use", ".reserved"
PROBE_BYTES = 1 << 20  # what the disk must take at the least
SHORT = 16  # letters of a fingerprint that name its folder
_held: list[BinaryIO] = []  # locks on what this process uses, for as long as it lives


def define_scratch_flags() -> None:
    """Declare `--scratch` and `--scratch_budget`."""
    flags.DEFINE_string(
        "scratch",
        "",
        f"Folder of this machine for what is fetched from buckets; by default {SCRATCH_NAME} in $TMPDIR or /tmp.",
    )
    flags.DEFINE_string(
        "scratch_budget", DEFAULT_BUDGET, "How much of it datasets may take, such as 500MB, 100GB or 2TB."
    )


@dataclass(frozen=True, slots=True)
class Dataset:
    """Something to make room for."""

    fingerprint: str
    organ: str


@dataclass(frozen=True)
class Scratch:
    """Where it is and how much datasets may take of it."""

    root: Path
    budget_bytes: int

    @classmethod
    def of(cls, folder: str, budget: str) -> Self:
        """From the flags. Raises `RequestError`."""
        return cls(scratch_root(folder), parse_bytes("scratch_budget", budget))

    def dataset(self, fingerprint: str) -> Path:
        """The folder for the dataset of this fingerprint; its organ is a folder in it, as it is in the bucket."""
        return self.root / "datasets" / fingerprint[:SHORT]

    def runs(self, address: str, *, worker: int) -> Path:
        """What stands for the folder of runs at `address`. Each worker has its own: they may share a machine."""
        short = hashlib.sha256(address.removeprefix(BUCKET_SCHEME).strip("/").encode()).hexdigest()[:SHORT]
        return self.root / ("runs" if worker == 0 else f"runs-{worker}") / short

    def open(self) -> None:
        """Make the folder. Raises `RequestError` if it can't be used, or is somebody else's."""
        fix = "name a folder of this user's own on a disk with room, for example --scratch=$HOME/scratch"
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            owner = self.root.stat().st_uid
            with tempfile.TemporaryFile(dir=self.root) as file:
                file.write(bytes(PROBE_BYTES))
        except OSError as error:
            expected, fix = "a folder that this user may write to", f"{fix} ({error.strerror})"
            raise invalid_flag("scratch", expected=expected, received=str(self.root), fix=fix) from error
        if owner not in (os.geteuid(), 0) and self.root.parent == Path(tempfile.gettempdir()):
            raise invalid_flag("scratch", expected="no folder of another user", received=str(self.root), fix=fix)

    def reserve(self, wanted: Mapping[Dataset, int]) -> None:
        """Make room for datasets of these sizes in bytes, all together, and hold them until this process ends.

        Raises `RequestError` naming the sizes if there can't be room.
        """
        self.open()
        with waiting_for(self.root / LOCK):
            sizes = {one: max(size, _reserved(self.dataset(one.fingerprint))) for one, size in wanted.items()}
            self._check_budget(sizes)
            self._make_room(sizes)
            for one, size in sizes.items():
                folder = self.dataset(one.fingerprint)
                folder.mkdir(parents=True, exist_ok=True)
                write_atomic(folder / RESERVED, str(size).encode(), flush=False)
                _hold(folder)

    def _check_budget(self, sizes: Mapping[Dataset, int]) -> None:
        total = sum(sizes.values())
        if total > self.budget_bytes:
            raise invalid_flag(
                "scratch_budget",
                expected=f"at least {as_text(total)}: {_listed(sizes)}",
                received=as_text(self.budget_bytes),
                fix="give a larger one, or fewer organs at a time",
            )

    def _make_room(self, sizes: Mapping[Dataset, int]) -> None:
        """Remove datasets, those used least recently first, until these fit budget and disk."""
        ours = [self.dataset(one.fingerprint) for one in sizes]
        there = (path for path in (self.root / "datasets").glob("*") if path.is_dir() and path not in ours)
        others = sorted(there, key=_last_used)
        while True:
            room = self.budget_bytes - sum(map(_reserved, others)) - sum(sizes.values())
            to_come = sum(max(size - _present(self.dataset(one.fingerprint)), 0) for one, size in sizes.items())
            free = shutil.disk_usage(self.root).free - to_come
            if room >= 0 and free >= 0:
                return
            victim = next((path for path in others if _evict(path)), None)
            if victim is None:
                raise _no_room(self.root, sizes, others, room=room, free=free, budget=self.budget_bytes)
            others.remove(victim)


@contextmanager
def waiting_for(path: Path, *, what: str = "") -> Iterator[None]:
    """Hold the lock file, after waiting for whoever has it; `what` is said if that isn't at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if what:
                say(what)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _hold(folder: Path) -> None:
    file = (folder / IN_USE).open("ab")
    fcntl.flock(file, fcntl.LOCK_SH)
    os.utime(folder / IN_USE)
    _held.append(file)


def _evict(folder: Path) -> bool:
    """Remove a dataset unless a process uses it. Whoever wants to use it waits for the lock that the caller has."""
    with suppress(OSError), (folder / IN_USE).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        say(f"Removing {folder}, {as_text(_reserved(folder))}, to make room: it was used least recently.")
        shutil.rmtree(folder)
        return True
    return False


def _last_used(folder: Path) -> float:
    with suppress(OSError):
        return (folder / IN_USE).stat().st_mtime
    return 0.0


def _reserved(folder: Path) -> int:
    """What a dataset will take when it is all there."""
    with suppress(OSError, ValueError):
        return int((folder / RESERVED).read_text())
    return 0


def _present(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _no_room(
    root: Path, sizes: Mapping[Dataset, int], used: Sequence[Path], *, room: int, free: int, budget: int
) -> RequestError:
    what = f"{_listed(sizes)} can't be fetched to {root}"
    if free < 0:
        fix = "free some space there, or name another disk with --scratch"
        return RequestError(f"{what}: its disk lacks {as_text(-free)}. To fix it: {fix}.")
    taken = as_text(sum(map(_reserved, used)))
    fix = "wait for these processes, give a larger --scratch_budget, or another --scratch"
    return RequestError(
        f"{what}: of the {as_text(budget)} of --scratch_budget, {taken} are in use by other processes, and "
        f"{as_text(-room)} are lacking. To fix it: {fix}."
    )


def _listed(sizes: Mapping[Dataset, int]) -> str:
    return ", ".join(f"{one.organ} with {as_text(size)}" for one, size in sizes.items())


def of_flags(values: Any) -> Scratch:
    """The scratch of a command line that has `define_scratch_flags`."""
    return Scratch.of(values.scratch, values.scratch_budget)
