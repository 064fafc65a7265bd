"""Check a dataset against its seal, and for leaks between its splits.

Usage: python -m data_pipeline.verify DIR [DIR ...]

DIR is a dataset (tfrecords/cervix) or a folder of datasets (tfrecords), or either in a bucket (gs://lab/tfrecords),
which is fetched to the folder --scratch first. Every file is hashed again, every record read
and its image decoded, records are counted again by split and class, and no slide, patient, image or near duplicate of
one may lie in two splits. Ends with 0 if nothing is wrong, else with 2 and a list of what is wrong.
"""

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import flags

from data_pipeline import cli
from data_pipeline.audit import ShardAudit, audit_file, audit_shards
from data_pipeline.manifest import FILE_NAME, DatasetError, Manifest, read_near_pairs
from data_pipeline.near import near_duplicates
from data_pipeline.parallel import available_cpus
from data_pipeline.scratch import scratch_for
from data_pipeline.storage import exclusive, in_bucket

MAX_PRINTED = 50
FETCHED = "verified"
# Which images are compared is partly chance, and what is stored differs a little from what was inspected. So only what
# is nearly one picture is a leak; in the real sets, none of the pairs that only a second search finds reaches 0.95.
NEAR_CERTAIN, NEAR_MARGIN = 0.97, 1.0
# What is stored smaller or worse than this shows other look-alikes than what was inspected.
NEAR_LEAST_PX, NEAR_LEAST_QUALITY = 32, 50


def verify(folder: Path, *, workers: int) -> list[str]:
    """Everything that is wrong with the dataset in `folder`; empty if nothing is. Raises `DatasetError`."""
    manifest = Manifest.load(folder)
    problems = [problem for seal in manifest.files if (problem := audit_file(folder, seal))]
    problems += _strangers(folder, manifest)
    audits = list(
        audit_shards(
            folder, manifest.shards, image_size=manifest.image_size, decode=True, workers=workers, title="verify"
        )
    )
    problems += [problem for audit in audits for problem in audit.problems]
    problems += [*_miscounts(manifest, audits), *_leaks(audits)]
    problems += _linked_apart(folder, audits)
    faithful = manifest.image_size >= NEAR_LEAST_PX and manifest.settings.get("jpeg_quality", 0) >= NEAR_LEAST_QUALITY
    if manifest.near_duplicates.threshold and faithful:
        problems += _near_leaks(audits)
    return problems


def find_datasets(folder: Path) -> list[Path]:
    """`folder` itself if it is a dataset, else all folders in it: one without a manifest is one that lost it."""
    if (folder / FILE_NAME).exists():
        return [folder]
    found = sorted(path for path in folder.glob("*/") if not path.name.startswith("."))
    return found or [folder]  # loading it says what is missing and how to make it


def _strangers(folder: Path, manifest: Manifest) -> Iterator[str]:
    known = {FILE_NAME} | {file.path for file in manifest.files}
    known |= {name for shard in manifest.shards for name in (shard.path, shard.offsets.path)}
    for path in sorted(folder.iterdir()):
        if path.name not in known:
            yield f"{path.name}: is no part of the dataset"


def _miscounts(manifest: Manifest, audits: Sequence[ShardAudit]) -> Iterator[str]:
    for split, expected in manifest.splits.items():
        records = [record for audit in audits if audit.shard.split == split for record in audit.records]
        found = Counter(record.label for record in records)
        for label, name in enumerate(manifest.classes):
            if found[label] != expected.per_class[name]:
                yield f"{split}: {found[label]} records of {name}, {expected.per_class[name]} were sealed"
    written = sum(split.records for split in manifest.splits.values())
    counts = manifest.counts
    if written != counts.written or counts.inputs != counts.written + counts.duplicates + counts.quarantined:
        yield f"the counts don't add up: {counts}, and {written} records in the splits"


def _leaks(audits: Sequence[ShardAudit]) -> Iterator[str]:
    splits_of: dict[tuple[str, str], set[str]] = defaultdict(set)
    ids: Counter[str] = Counter()
    names: dict[tuple[str, str], list[str]] = defaultdict(list)
    for audit in audits:
        for record in audit.records:
            ids[record.id] += 1
            for key in (("group", record.group), ("image", record.picture)):
                splits_of[key].add(audit.shard.split)
                names[key].append(record.id)
    yield from (f"record {name} is there {number} times" for name, number in ids.items() if number > 1)
    for (kind, value), splits in splits_of.items():
        if len(splits) > 1:
            shown = ", ".join(names[kind, value][:3])
            yield f"leak: {kind} {value} lies in {' and '.join(sorted(splits))} ({shown})"


def _linked_apart(folder: Path, audits: Sequence[ShardAudit]) -> Iterator[str]:
    """Pairs that were linked as near duplicates and lie in two splits all the same."""
    splits = {record.id: audit.shard.split for audit in audits for record in audit.records}
    for left, right in read_near_pairs(folder):
        pair = {splits[name] for name in (left, right) if name in splits}
        if len(pair) > 1:
            yield f"leak: near duplicates {left} and {right} lie in {' and '.join(sorted(pair))}"


def _near_leaks(audits: Sequence[ShardAudit]) -> Iterator[str]:
    """Images of two splits that are nearly the same picture, however turned."""
    prints = np.concatenate([audit.fingerprints for audit in audits])
    names = [record.id for audit in audits for record in audit.records]
    splits = [audit.shard.split for audit in audits for _ in audit.records]
    found = near_duplicates(prints, threshold=NEAR_CERTAIN, margin=NEAR_MARGIN)
    for left, right in zip(found.left.tolist(), found.right.tolist(), strict=True):
        if splits[left] != splits[right]:
            pair = sorted([(splits[left], names[left]), (splits[right], names[right])])
            yield "leak: two images look alike: " + " and ".join(f"{name} ({split})" for split, name in pair)


@dataclass(frozen=True)
class Verdict:
    """What messages call a dataset, what is wrong with it, and, if nothing is, what it holds."""

    shown: str
    problems: Sequence[str]
    holds: str = ""


def judge(name: str, *, workers: int, scratch: str) -> Iterator[Verdict]:
    """A verdict on each dataset that `name` stands for, in a folder or a bucket."""
    if not in_bucket(name):
        yield from (_judge(str(folder), folder, workers) for folder in find_datasets(Path(name)))
        return
    from data_pipeline import bucket_dataset  # not above: worker processes import this module, and start the sooner
    from data_pipeline.bucket import BucketFolder

    for place in bucket_dataset.find_datasets(BucketFolder.of("tfrecords", name)):
        dataset = scratch_for(scratch, place)  # beside it: a conversion that works there wants it for itself
        folder = dataset.with_name(f".{dataset.name}.{FETCHED}")
        folder.mkdir(parents=True, exist_ok=True)
        busy = f"{place} is being verified by another process. To fix it: wait for its end, or name another --scratch."
        with exclusive(folder.with_name(f"{folder.name}.lock"), otherwise=busy):
            try:
                bucket_dataset.fetch(place, folder)
            except DatasetError as error:
                yield Verdict(str(place), [str(error)])
            else:
                yield _judge(str(place), folder, workers)
            shutil.rmtree(folder)


def _judge(shown: str, folder: Path, workers: int) -> Verdict:
    try:
        if problems := verify(folder, workers=workers):
            return Verdict(shown, problems)
        manifest = Manifest.load(folder)
        return Verdict(shown, [], f"{manifest.counts.written} records in {len(manifest.shards)} shards")
    except DatasetError as error:
        return Verdict(shown, [str(error).replace(str(folder), shown)])


def main(argv: Sequence[str]) -> None:
    """Verify each dataset named on the command line."""
    if len(argv) < 2:
        raise cli.RequestError("Name the dataset to verify: python -m data_pipeline.verify tfrecords/ORGAN")
    failures = []
    for name in argv[1:]:
        for verdict in judge(name, workers=flags.FLAGS.workers, scratch=flags.FLAGS.scratch):
            failures += [f"{verdict.shown}: {problem}" for problem in verdict.problems]
            if not verdict.problems:
                print(f"{verdict.shown}: {verdict.holds}, nothing is wrong")
    if failures:
        more = [f"… and {len(failures) - MAX_PRINTED} more"] if len(failures) > MAX_PRINTED else []
        fix = ["To fix it: restore the dataset from a copy, or convert again with --overwrite."]
        raise DatasetError("\n".join(failures[:MAX_PRINTED] + more + fix))


if __name__ == "__main__":
    flags.DEFINE_string(
        "scratch", "", "For gs://…: folder to fetch to; by default `cytotrain` in the one for temporary files."
    )
    flags.DEFINE_integer("workers", available_cpus(), "How many processes read at once.", lower_bound=1)
    cli.run(main)
