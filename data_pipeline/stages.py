"""The four stages of a conversion, alone or as one of several workers that share a folder.

    manifest = convert(conversion)      # None if sealing is left to another stage or worker

Workers don't talk to each other. What one has finished lies in the shared work folder under a name that says what it
is made of, and whoever needs it looks there: chunks of the inspection, the plan, receipts of shards. Worker 0 makes the
plan once all chunks are there, and the seal once all shards are; if nothing comes for long, it makes what is missing.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from data_pipeline.cli import FaultError, RequestError, say
from data_pipeline.conversion import Conversion
from data_pipeline.existing import find_existing
from data_pipeline.images import identity
from data_pipeline.inspect_stage import ChunkTask, combine_sha256, inspect
from data_pipeline.manifest import FILE_NAME, Manifest
from data_pipeline.parallel import keeping_workers
from data_pipeline.plan import Plan, make_plan
from data_pipeline.plan_folder import PlanSummary, ShardEntry, load_plan, load_refusal, write_plan, write_refusal
from data_pipeline.seal import put_back, restore_after_crash, seal
from data_pipeline.spool import ChunkLostError, read_image
from data_pipeline.storage import exclusive, remove_unfinished, shared
from data_pipeline.table import load_table
from data_pipeline.write import INSPECT_FOLDER, WrittenShard, find_written, write_shards

POLL_S, TELL_S = 0.5, 30.0
NO_MANIFEST = (0, 0)
Result = TypeVar("Result")


def convert(conversion: Conversion, *, before_seal: Callable[[], None] = lambda: None) -> Manifest | None:
    """Run the stages that were asked for, or find that all is done.

    The dataset's manifest, or None if sealing it is left to another stage or worker. `before_seal` has to end other
    threads: sealing imports TFDS, which replaces Python's `__import__` meanwhile, and theirs would fail. Raises
    `RequestError` where a person has to decide.
    """
    with _locked(conversion), keeping_workers():
        if conversion.share.leads:
            restore_after_crash(conversion.target)
            put_back(conversion.work)
        if conversion.share.of == 1:
            remove_unfinished(conversion.work)
        before = _manifest_stamp(conversion)
        done = find_existing(conversion)
        if done is None:
            say(f"{conversion.organ}: {len(conversion.files)} files in {conversion.source.description}")
            try:
                done = _run(conversion, _Wait(conversion, before), before_seal)
            except (_SealedElsewhere, FileNotFoundError):
                if _manifest_stamp(conversion) in (NO_MANIFEST, before):
                    raise
                return Manifest.load(conversion.target)  # worker 0 has sealed it, and the work folder has gone
        if done and conversion.share.leads:
            shutil.rmtree(conversion.work, ignore_errors=True)
        return done


def _run(conversion: Conversion, wait: "_Wait", before_seal: Callable[[], None]) -> Manifest | None:
    stages, leads = conversion.stages, conversion.share.leads
    written: dict[str, WrittenShard] = {}
    if "inspect" in stages:
        _inspect(conversion, conversion.share.take(conversion.chunks))
    if "plan" in stages and leads:
        wait.until(
            lambda: _chunks_missing(conversion),
            "chunks of files aren't inspected yet",
            stage="inspect",
            take_over=lambda: _inspect(conversion, conversion.chunks),
        )
        _plan(conversion)
    if "write" in stages or ("seal" in stages and leads):
        wait.until(lambda: _plan_missing(conversion), "plan for these files and flags isn't there yet", stage="plan")
        summary = load_plan(conversion.work, key=conversion.key)
        if summary is None:
            raise FaultError(f"Another command replaced the plan of {conversion.organ}. To fix it: run this one again.")
        if "write" in stages:
            written = _write(conversion, conversion.share.take(summary.shards))
        if "seal" in stages and leads:
            missing = lambda: len(summary.shards) - len(_collect(conversion, summary, written))  # noqa: E731
            wait.until(
                missing,
                "shards aren't written yet",
                stage="write",
                take_over=lambda: _write(conversion, summary.shards),
            )
            before_seal()
            return seal(
                summary,
                _collect(conversion, summary, written if conversion.share.of == 1 else {}),
                work=conversion.work,
                target=conversion.target,
                settings=conversion.settings,
                workers=conversion.workers,
            )
    return None


def _plan(conversion: Conversion) -> None:
    plan = _repairing(conversion, lambda: _planned(conversion))
    say(f"   group  {plan.grouping.rule}: {plan.grouping.description}")
    for name, group in plan.grouping.examples.items():
        say(f"          {name} → {group}")
    if plan.near:
        found = plan.near_duplicates
        say(f"    link  {found.images} images look like another one, in {found.pairs} pairs (see the card)")


def _planned(conversion: Conversion) -> Plan:
    """Make the plan and write it down, or why there can't be one: others may be waiting for it."""
    folder = conversion.work / INSPECT_FOLDER
    table = load_table(folder, [chunk.name for chunk in conversion.chunks])
    _, encoding, quality = conversion.settings.stored_as

    def identify(row: int) -> bytes:
        stored = read_image(folder, table.image(row))
        return identity(stored, kept=bool(table.kept[row]), encoding=encoding, quality=quality)

    try:
        plan = make_plan(
            table,
            organ=conversion.organ,
            settings=conversion.settings,
            rule=conversion.rule,
            identify=identify,
            given=conversion.given,
            diagnoses=conversion.source.diagnoses(),
        )
    except RequestError as error:
        write_refusal(conversion.work, str(error), key=conversion.key)
        raise
    inputs = combine_sha256(table.named_digests())
    write_plan(conversion.work, plan, table, key=conversion.key, inputs_sha256=inputs)
    return plan


def _write(conversion: Conversion, shards: Sequence[ShardEntry]) -> dict[str, WrittenShard]:
    """Write those of `shards` that aren't there."""
    work = partial(write_shards, shards, work=conversion.work, workers=conversion.workers)
    return {one.seal.path: one for one in _repairing(conversion, work)}


def _repairing(conversion: Conversion, work: Callable[[], Result]) -> Result:
    """`work()`. A chunk of the inspection that has got lost is made again, whoever made it; but only once."""
    lost: set[str] = set()
    while True:
        try:
            return work()
        except ChunkLostError as error:
            task = next((chunk for chunk in conversion.chunks if chunk.name == error.name), None)
            if error.name in lost or task is None:
                raise
            lost.add(error.name)
            _inspect(conversion, [task])


def _inspect(conversion: Conversion, chunks: Sequence[ChunkTask]) -> None:
    folder = conversion.work / INSPECT_FOLDER
    inspect(conversion.source, chunks, work=folder, settings=conversion.settings, workers=conversion.workers)


def _chunks_missing(conversion: Conversion) -> int:
    folder = conversion.work / INSPECT_FOLDER
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return sum(chunk.file_name not in there for chunk in conversion.chunks)


def _plan_missing(conversion: Conversion) -> int:
    return int(load_plan(conversion.work, key=conversion.key) is None)


def _collect(conversion: Conversion, summary: PlanSummary, written: dict[str, WrittenShard]) -> list[WrittenShard]:
    """The shards that are there: `written` by us, or found."""
    shards = (written.get(entry.path) or find_written(entry, work=conversion.work) for entry in summary.shards)
    return [shard for shard in shards if shard]


class _SealedElsewhere(Exception):
    """While we waited, worker 0 has sealed the dataset: there is nothing left for us to do."""


class _Wait:
    """Waiting for other workers, or, for a stage by itself, saying what is missing."""

    def __init__(self, conversion: Conversion, manifest_before: tuple[int, int]) -> None:
        self._conversion = conversion
        self._before = manifest_before

    def until(
        self, missing: Callable[[], int], what: str, *, stage: str, take_over: Callable[[], object] | None = None
    ) -> None:
        """Return when `missing()` is 0. Raises `RequestError` if it isn't and waiting is no use.

        If nothing comes for long, the work is taken over: a worker that has no node yet may wait for ours.
        """
        told = progressed = time.monotonic()
        before = 0
        while number := missing():
            if number != before:
                before, progressed = number, time.monotonic()
            if not self._conversion.waits:
                whom = "" if stage == "plan" else ", on every worker"
                raise RequestError(
                    f"{self._conversion.organ}: {number} {what}. To fix it: run --stage={stage} with the same flags "
                    f"first{whom}."
                )
            if _manifest_stamp(self._conversion) not in (NO_MANIFEST, self._before):
                raise _SealedElsewhere
            if refusal := load_refusal(self._conversion.work, key=self._conversion.key):
                raise RequestError(refusal)
            if take_over and time.monotonic() - progressed > self._conversion.patience_s:
                say(f"{number} {what}, and nothing comes: worker 0 makes them itself")
                take_over()
            elif time.monotonic() - told > TELL_S:
                told = time.monotonic()
                say(f"waiting: {number} {what}")
            time.sleep(POLL_S)


def _manifest_stamp(conversion: Conversion) -> tuple[int, int]:
    """Changes when a dataset is sealed, even if it is the same again."""
    try:
        status = (conversion.target / FILE_NAME).stat()
    except OSError:
        return NO_MANIFEST
    return status.st_ino, status.st_mtime_ns


@contextmanager
def _locked(conversion: Conversion) -> Iterator[None]:
    """Alone in the work folder, or with the other workers of the same job and nobody else."""
    share, lock = conversion.share, conversion.tfrecords / f".{conversion.organ}.lock"
    busy = f"{conversion.organ} is being converted by another process. To fix it: wait for its end."
    if share.of == 1:
        with exclusive(lock, otherwise=busy):
            yield
        return
    same = f"Worker {share.number} of {conversion.organ} is running. To fix it: wait for its end, or see --worker."
    with shared(lock, otherwise=busy), exclusive(lock.with_name(f"{lock.name}.{share.number}"), otherwise=same):
        yield
