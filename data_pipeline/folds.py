"""Cut a dataset into folds for cross-validation: whole groups, each tested once. Its test split is never opened.

Usage: python -m data_pipeline.folds --organ=ORGAN --tfrecords=DIR --output=DIR [--folds=5]

  --organ      a dataset of --tfrecords, a comma-separated list, or `all`
  --tfrecords  the folder that `python -m data_pipeline` has written datasets to
  --output     gets fold-1-of-5/ORGAN/ to fold-5-of-5/ORGAN/, each a sealed dataset with train, validation and test

Examples:
  python -m data_pipeline.folds --organ=cervix --tfrecords=tfrecords --output=folds
  python -m data_pipeline.folds --organ=all --tfrecords=tfrecords --output=folds --folds=10 --seed=1

The train and validation splits are put together and cut into --folds parts by slide, patient or whatever the dataset's
groups are, each with its share of every diagnosis. Fold 1 tests on the first part; of the others it sets
--validation_fraction aside to know when to stop, and trains on the rest. And so on, so that each image is tested once,
by a model that has seen no other of its group. Records are copied as they are. The folds take about --folds times the
space of the dataset.

Folds are for choosing between settings: the dataset's own test split stays unseen until that is done. What comes next:
  for k in 1 2 3 4 5; do
    python -m trainer --organ=cervix --tfrecords=folds/fold-$k-of-5 --runs=runs/fold-$k
  done
  python -m trainer.compare --folds runs/fold-*/cervix/*

Exit codes: 0 done, 2 the request is wrong, 75 stopped by SIGTERM (run it again), anything else a fault.
"""

from collections.abc import Sequence

from absl import flags

from data_pipeline import cli
from data_pipeline.existing import SHOWN_DIFFERENCES, damage
from data_pipeline.fold_dataset import INHERITED, FoldRequest, fold_name, write_fold
from data_pipeline.fold_split import split_into_folds
from data_pipeline.manifest import DatasetError, Manifest, datasets_in, is_dataset
from data_pipeline.parallel import available_cpus, keeping_workers
from data_pipeline.pool import read_pool
from data_pipeline.seal import restore_after_crash
from data_pipeline.storage import exclusive, local_path, make_folder

DEFAULT_FOLDS, DEFAULT_VALIDATION = 5, 0.15


def define_flags() -> None:
    """Declare this program's flags."""
    flags.DEFINE_list("organ", None, "Dataset to cut: a folder of --tfrecords, a comma-separated list, or `all`.")
    flags.DEFINE_string("tfrecords", None, "Folder that holds the datasets.")
    flags.DEFINE_string("output", None, "Folder that gets a folder of datasets per fold.")
    flags.DEFINE_integer("folds", DEFAULT_FOLDS, "Into how many parts to cut, 2 or more.")
    flags.DEFINE_float(
        "validation_fraction", DEFAULT_VALIDATION, "Share of what a fold doesn't test on that it validates on."
    )
    flags.DEFINE_integer("seed", 0, "Chooses other folds.", lower_bound=0)
    flags.DEFINE_bool("overwrite", False, "Replace folds of another dataset or of other flags once the new are whole.")
    flags.DEFINE_integer("workers", available_cpus(), "How many processes work at once.", lower_bound=1)
    flags.mark_flags_as_required(["organ", "tfrecords", "output"])


def requests_from_flags(values: flags.FlagValues) -> list[FoldRequest]:
    """What to cut. Raises `RequestError` for values that can't work and for datasets that aren't there."""
    if values.folds < 2:
        raise cli.invalid_flag("folds", expected="2 or more", received=values.folds, fix="for example --folds=5")
    if not 0 < values.validation_fraction < 1:
        expected, fix = "a number between 0 and 1", f"for example --validation_fraction={DEFAULT_VALIDATION}"
        raise cli.invalid_flag("validation_fraction", expected=expected, received=values.validation_fraction, fix=fix)
    tfrecords, output = local_path("tfrecords", values.tfrecords), local_path("output", values.output)
    if tfrecords.resolve() in (output.resolve(), *output.resolve().parents):
        fix = "name a folder outside of it: there, folds would be taken for organs"
        raise cli.invalid_flag("output", expected="no folder in --tfrecords", received=values.output, fix=fix)
    if tfrecords.resolve() in [(output / fold_name(number, values.folds)).resolve() for number in range(values.folds)]:
        fix = "name another one: a fold that is cut further must not be replaced by its own folds"
        raise cli.invalid_flag("output", expected="not the folder of this fold", received=values.output, fix=fix)
    return [
        FoldRequest(
            source=tfrecords / organ,
            manifest=Manifest.load(tfrecords / organ),
            output=output,
            folds=values.folds,
            validation_fraction=values.validation_fraction,
            seed=values.seed,
            workers=values.workers,
            overwrite=values.overwrite,
        )
        for organ in cli.chosen(values.organ, datasets_in(tfrecords), place=str(tfrecords))
    ]


def cut(request: FoldRequest) -> list[Manifest]:
    """Make the folds that aren't there yet; the manifests of all. Raises `RequestError` where a person must decide."""
    make_folder("output", request.output)
    busy = f"{request.organ} is being cut into folds by another process. To fix it: wait for its end."
    with exclusive(request.output / f".{request.organ}.lock", otherwise=busy), keeping_workers():
        there = [_existing(request, number) for number in range(request.folds)]
        if None not in there:
            cli.say(f"{request.organ}: these folds are there already, nothing to do")
            return [manifest for manifest in there if manifest]
        held_out = sum(shard.records for shard in request.manifest.shards_of("test"))
        cli.say(f"{request.organ}: its train and validation splits are cut, its {held_out} test records stay unopened")
        pool = read_pool(request.source, request.manifest, workers=request.workers)
        splits = split_into_folds(
            pool.per_group(len(request.manifest.classes)),
            pool.records.names,
            folds=request.folds,
            validation_fraction=request.validation_fraction,
            seed=request.seed,
        )
        return [manifest or write_fold(request, number, pool, splits[number]) for number, manifest in enumerate(there)]


def _existing(request: FoldRequest, number: int) -> Manifest | None:
    """A fold that is there already as it was asked for; None if it must be made. Raises `RequestError`."""
    target = request.target(number)
    restore_after_crash(target)
    if target.is_symlink() or (target.exists() and not is_dataset(target)):
        raise cli.RequestError(f"{target} exists and is no dataset of ours. To fix it: move it away.")
    if not target.exists():
        return None
    try:
        manifest = Manifest.load(target)
    except DatasetError:
        if request.overwrite:
            return None
        raise
    differences = _other_settings(request, number, manifest) or damage(target, manifest, request.workers)
    if not differences:
        return manifest
    if request.overwrite:
        return None
    raise cli.RequestError(
        f"The dataset at {target} isn't what this command would make: {'; '.join(differences[:SHOWN_DIFFERENCES])}. "
        "To fix it: add --overwrite to replace it, or name another --output."
    )


def _other_settings(request: FoldRequest, number: int, manifest: Manifest) -> list[str]:
    """What it was made with that isn't what is asked for now."""
    names = {"source_fingerprint": "the dataset it was cut from"}
    return [
        f"{names.get(name, f'--{name}')} was {manifest.settings.get(name)!r} and is {value!r}"
        for name, value in request.settings(number).items()
        if manifest.settings.get(name) != value
    ]


def _report(request: FoldRequest, manifests: Sequence[Manifest]) -> None:
    """Say what became of it: the last line on stdout says where the result is."""
    of_folds: dict[str, list[str]] = {}
    for number, manifest in enumerate(manifests):
        for warning in manifest.warnings:
            if not warning.startswith(INHERITED):
                of_folds.setdefault(warning, []).append(str(number + 1))
    for warning, numbers in of_folds.items():
        cli.say(f" warning  fold {', '.join(numbers)}: {warning}")
    tested = "/".join(str(manifest.splits["test"].records) for manifest in manifests)
    first, last = request.target(0), request.target(request.folds - 1)
    of = f"{manifests[0].counts.written} records of {manifests[0].grouping.groups} groups"
    print(f"Folds: {first} … {last} ({of}; tested in them: {tested})", flush=True)


def main(argv: Sequence[str]) -> None:
    """Cut the datasets of the command line, one after another."""
    if len(argv) > 1:
        raise cli.RequestError(f"Unexpected argument {argv[1]!r}. To fix it: flags begin with --, see --help.")
    cli.stop_on_sigterm()
    requests = requests_from_flags(flags.FLAGS)
    refused = []
    for request in requests:
        try:
            _report(request, cut(request))
        except cli.RequestError as error:
            refused.append(str(error))  # one organ's trouble is no reason to keep the others waiting
    if refused:
        raise cli.RequestError("\n".join(refused))


if __name__ == "__main__":
    define_flags()
    cli.run(main)
