"""A run whose place is in a bucket: what is there, and how a process comes to go on from it.

    run = RemoteRun("gs://lab/runs/cervix/r", folder)       # `folder` stands for it on this machine
    run.has(RESULTS), run.config
    run.fetch(steps_needed, alone=True)                     # now `folder` is as the run was left

What lies in the bucket looks like a run on a disk. `checkpoints/last.json` is written after all files of the checkpoint
that it names, and only in place of the one that its writer knew: so a second process is found out, and what the pointer
names is whole. That is checked all the same, and the checkpoint before it used if it isn't.

The bucket is what counts, not what an earlier process has left in `folder`. But for one case: nobody has published
anything since that process did, and it had got further. Then a process that trains alone goes on from there.
"""

import json
import shutil
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data_pipeline.bucket import Blob, BucketFolder
from data_pipeline.cli import say
from data_pipeline.storage import exclusive, write_atomic
from data_pipeline.transfer import download
from trainer.published import LAST, Name, names_in, parse_name, parse_pointer, read_pointer, write_pointer
from trainer.run_folder import CHECKPOINTS, CONFIG_NAME, LOCK, TENSORBOARD, busy
from trainer.sealed_state import STATE, DamagedError, read_whole

POINTER = f"{CHECKPOINTS}/{LAST}"
NOTE = ".remote.json"


@dataclass(frozen=True, slots=True)
class Known:
    """What this machine knows of the bucket: the generation of the pointer, 0 if there is none, and checkpoints.

    Of `complete` ones every file is there; names that are `taken` have at least one, and are not given again.
    """

    generation: int
    complete: tuple[str, ...] = ()
    taken: tuple[str, ...] = ()


class RemoteRun:
    """A run at `address`, and the folder that stands for it here."""

    def __init__(self, address: str, local: Path) -> None:
        """Raises `RequestError` for what is no address."""
        self.folder = BucketFolder.of("runs", address)
        self.local = local

    def __str__(self) -> str:
        return str(self.folder)

    @cached_property
    def _first_look(self) -> dict[str, Blob]:
        return self._listing()

    def has(self, names: Collection[str]) -> bool:
        """Whether all these files are there."""
        return all(name in self._first_look for name in names)

    @property
    def begun(self) -> bool:
        return CONFIG_NAME in self._first_look or any(name.startswith(CHECKPOINTS) for name in self._first_look)

    @cached_property
    def config(self) -> bytes:
        """Whose run it is; empty if nothing says so."""
        blob = self._first_look.get(CONFIG_NAME)
        return self.folder.read(blob) if blob else b""

    def check_writable(self) -> None:
        """Write something there and take it away again. Raises `RequestError`."""
        name = f".probe-{uuid.uuid4().hex}"
        self.folder.write(name, b"", generation=0)
        self.folder.delete([name])

    def fetch(self, needed: Callable[[dict[str, Any]], Collection[int]], *, alone: bool) -> None:
        """Make the folder here what the run in the bucket is.

        `needed` says of a checkpoint's progress which steps' checkpoints have to be here beside it. Raises
        `RequestError` if a process of this machine works on the run, `ConflictError` if one elsewhere does.
        """
        self.local.mkdir(parents=True, exist_ok=True)
        with exclusive(self.local / LOCK, otherwise=busy(self)):
            there = self._listing()
            taken = _checkpoints(there)
            generation = there[POINTER].generation if POINTER in there else 0
            note = self.known()
            if alone and note and note.generation == generation and self._is_ours(there):
                complete = {name for name in taken if str(name) in note.complete}
            else:
                complete = self._mirror(there, taken, needed)
            self.remember(Known(generation, tuple(map(str, complete)), tuple(map(str, taken))))

    def known(self) -> Known | None:
        """What was remembered last; None if nothing was."""
        with suppress(OSError, ValueError, TypeError):
            values = json.loads((self.local / NOTE).read_text())
            return Known(values["generation"], tuple(values["complete"]), tuple(values["taken"]))
        return None

    def remember(self, known: Known) -> None:
        write_atomic(self.local / NOTE, json.dumps(asdict(known)).encode(), flush=False)

    def _listing(self) -> dict[str, Blob]:
        return {blob.name: blob for blob in self.folder.files()}

    def _is_ours(self, there: dict[str, Blob]) -> bool:
        """Whether the folder here holds a state of the very run that is there."""
        if CONFIG_NAME not in there or read_pointer(self.local / CHECKPOINTS) is None:
            return False
        with suppress(OSError):
            return (self.local / CONFIG_NAME).read_bytes() == self.folder.read(there[CONFIG_NAME])
        return False

    def _mirror(
        self,
        there: dict[str, Blob],
        taken: dict[Name, list[Blob]],
        needed: Callable[[dict[str, Any]], Collection[int]],
    ) -> set[Name]:
        """Fetch what it takes to go on, and remove all else. The checkpoints that are here then."""
        self._clear(keep=taken)
        small = [blob for blob in there.values() if blob.name.split("/")[0] in (CONFIG_NAME, TENSORBOARD)]
        download(self.folder, small, self.local)
        published = self._published(there, taken)
        for newest in published:
            state = self._fetched(newest, taken[newest])
            if state is None:
                continue
            steps = needed(state["progress"])
            others = {name.step: name for name in reversed(published) if name.step in steps and name.step < newest.step}
            here = {newest, *(name for name in others.values() if self._fetched(name, taken[name]) is not None)}
            self._drop_checkpoints(keep=here)
            write_pointer(self.local / CHECKPOINTS, newest)
            return here
        self._drop_checkpoints(keep=())
        return set()

    def _published(self, there: dict[str, Blob], taken: dict[Name, list[Blob]]) -> list[Name]:
        """The checkpoints that may be gone on from, newest first."""
        last = parse_pointer(self.folder.read(there[POINTER])) if POINTER in there else None
        if last and last in taken:
            return sorted((name for name in taken if name <= last), reverse=True)
        if POINTER in there:
            say(f"{self}/{POINTER} doesn't name a checkpoint that is there; the newest whole one is used.")
        ended = (name for name in taken if f"{CHECKPOINTS}/{name}/{STATE}" in there)  # it is written last
        return sorted(ended, reverse=True)

    def _fetched(self, name: Name, blobs: list[Blob]) -> dict[str, Any] | None:
        """Fetch a checkpoint; its state, or None, after saying so, if it isn't whole."""
        download(self.folder, blobs, self.local, title=str(name))
        try:
            return read_whole(self.local / CHECKPOINTS / str(name))
        except DamagedError as damage:
            say(f"Checkpoint {self}/{CHECKPOINTS}/{name} is damaged and is passed over for the one before: {damage}.")
            return None

    def _clear(self, *, keep: Iterable[Name]) -> None:
        """Remove all that is here but the lock and these checkpoints, which needn't be fetched again."""
        for path in list(self.local.iterdir()):
            if path.name not in (LOCK, CHECKPOINTS):
                _remove(path)
        _remove(self.local / POINTER)
        self._drop_checkpoints(keep=keep)

    def _drop_checkpoints(self, *, keep: Iterable[Name]) -> None:
        for name in set(names_in(self.local / CHECKPOINTS)) - set(keep):
            _remove(self.local / CHECKPOINTS / str(name))


def _checkpoints(there: dict[str, Blob]) -> dict[Name, list[Blob]]:
    """Everything there that belongs to a checkpoint, by its name."""
    found: dict[Name, list[Blob]] = defaultdict(list)
    for blob in there.values():
        parts = blob.name.split("/")
        name = parse_name(parts[1]) if len(parts) == 3 and parts[0] == CHECKPOINTS else None
        if name:
            found[name].append(blob)
    return dict(found)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
