"""What a sweep is about: from the flags of `python -m trainer.sweep` to a frozen `Sweep`, every trial of it checked.

    define_flags()                              # in __main__, those of training too
    sweep = request_of(flags.FLAGS, argv[1:])   # raises RequestError
    sweep.flags(TrialRun(7, epochs=30))         # ["--organ=cervix", …, "--run=sweep-1f3a9c02-0007-e30"]

A trial is checked by what checks a run of `python -m trainer`: its flags are parsed and made a `TrainConfig`, for each
number of epochs that it may be trained for, before anything is trained. TensorFlow isn't needed.
"""

import copy
import difflib
import hashlib
import json
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from absl import flags

from data_pipeline.cli import RequestError, invalid_flag
from data_pipeline.manifest import Manifest
from data_pipeline.storage import in_bucket, local_path
from trainer import train_flags
from trainer.addresses import find_workers
from trainer.config import ENVIRONMENT, MAX_SEED, TrainConfig
from trainer.model_names import weights_digest
from trainer.preflight import check_batch, checked_manifest, chosen_organs
from trainer.recipe_files import apply_recipe
from trainer.scratch import of_flags
from trainer.sweep_space import Rung, Space, different_trials, parse_space, rungs, values_of
from trainer.train_flags import RUN_NAME, config_from_flags

RANDOM, HALVING = METHODS = ("random", "halving")
NOT_SEARCHED = ENVIRONMENT | {"organ", "monitor"}  # what trials have to share to be compared
TRIALS, MAX_TRIALS, MAX_ETA, MAX_NAME = 20, 10_000, 10, 60


@dataclass(frozen=True, slots=True)
class TrialRun:
    """One training: of this trial, for so many epochs."""

    trial: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All that decides a sweep. `place` is RUNS/ORGAN, `output` gets the table; either may be in a bucket.

    `base` are the flags that all trials share, `local` a folder of this machine for locks and logs, `only` the one
    trial to run. `identity` is what a sweep that is gone on with must have been begun with.
    """

    name: str
    organ: str
    space: Space
    seed: int
    trials: int
    rungs: tuple[Rung, ...]
    only: int | None
    monitor: str
    base: tuple[str, ...]
    place: str
    output: str
    local: Path
    identity: dict[str, Any]

    @property
    def score(self) -> str:
        """What `monitor` is called among the scores of a run."""
        return "log_loss" if self.monitor == "loss" else self.monitor

    def values(self, trial: int) -> dict[str, str]:
        """The value of each flag that is searched."""
        return values_of(self.space, seed=self.seed, trial=trial)

    def run(self, trial: int, rung: Rung) -> TrialRun:
        """The training of a trial on a rung; epochs may be what is searched."""
        return TrialRun(trial, int(self.values(trial).get("epochs", rung.epochs)))

    def run_name(self, run: TrialRun) -> str:
        """`--run` of this training."""
        return f"{self.name}-{run.trial:04d}-e{run.epochs}"

    def settings(self, run: TrialRun) -> list[str]:
        """The flags of `python -m trainer` that say what is trained."""
        searched = [f"--{name}={value}" for name, value in self.values(run.trial).items() if name != "epochs"]
        return [*self.base, *searched, f"--epochs={run.epochs}"]

    def flags(self, run: TrialRun) -> list[str]:
        """All flags of `python -m trainer` for this training."""
        return [*self.settings(run), f"--run={self.run_name(run)}"]

    def words(self, trial: int) -> str:
        """What a trial tries, for people."""
        return ", ".join(f"{name}={value}" for name, value in self.values(trial).items())


def define_flags() -> None:
    """Declare the flags of a sweep, and those of training, which go to each trial."""
    string, integer = flags.DEFINE_string, flags.DEFINE_integer
    flags.DEFINE_multi_string(
        "search",
        [],
        "A flag of training and the values to try, once for each flag: NAME:log:LOW:HIGH, NAME:uniform:LOW:HIGH, "
        "NAME:integer:LOW:HIGH or NAME:choice:A,B,…",
    )
    many = f"How many trials there are, from 0; by default {TRIALS}, or as many as differ."
    integer("trials", None, many, lower_bound=1, upper_bound=MAX_TRIALS)
    flags.DEFINE_enum(
        "method",
        RANDOM,
        list(METHODS),
        "Train all trials for --epochs, or all for few epochs, the best of them for more, and so on.",
    )
    integer("eta", 3, "Of halving: one in so many goes on, for so many times the epochs.", 2, MAX_ETA)
    integer("min_epochs", 3, "Of halving: the fewest epochs that a trial is judged by.", lower_bound=1)
    integer("search_seed", 0, "Which trials are drawn.", lower_bound=0, upper_bound=MAX_SEED)
    string("sweep", "", "Name of the sweep. By default made from settings and data: the same command goes on.")
    integer("trial", None, "Run this trial alone, as a pod of an Indexed Job does.", lower_bound=0)
    flags.DEFINE_bool("table_only", False, "Train nothing; write the table of what is there.")
    string("output", "", "Folder, or its gs:// address, that gets the table; by default RUNS/ORGAN/SWEEP.")
    train_flags.define_flags()


def training_modules(values: flags.FlagValues) -> list[Any]:
    """The modules that declare flags of training."""
    names = [name for name in values.flags_by_module_dict() if name.startswith("trainer.") and name != __name__]
    return [sys.modules[name] for name in names]


def request_of(values: flags.FlagValues, stray: Sequence[str]) -> Sweep:
    """The sweep of the command line. Raises `RequestError`, for whichever trial is wrong."""
    if stray:
        raise RequestError(f"Unexpected argument {stray[0]!r}. To fix it: flags begin with --, see --help.")
    space = parse_space(values.search)
    _check_flags(values, space)
    organ, manifest = _dataset(values)
    first = _config(values, organ, 0, values_of(space, seed=values.search_seed, trial=0))
    if find_workers(first, os.environ, hostname=socket.gethostname()):
        fix = "leave out --num_workers, --distribution=multiworker and TF_CONFIG; run trials beside each other instead"
        raise RequestError(f"A trial is trained by one process, not by several workers. To fix it: {fix}.")
    sweep = _sweep(values, space, first, manifest)
    for rung in sweep.rungs:
        for trial in range(sweep.trials):
            _config(values, organ, trial, {"epochs": str(rung.epochs)} | sweep.values(trial))
    _check_place(values, first, f"{sweep.place}/{sweep.name}")
    return sweep


def _sweep(values: flags.FlagValues, space: Space, first: TrainConfig, manifest: Manifest) -> Sweep:
    """`first` is the config of trial 0."""
    identity = _identity(values, space, first, manifest)
    name = values.sweep or f"sweep-{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]}"
    trials = _trials(values, space)
    place = f"{first.runs_address.rstrip('/') or first.runs}/{first.organ}"
    return Sweep(
        name=name,
        organ=first.organ,
        space=space,
        seed=values.search_seed,
        trials=trials,
        rungs=_rungs(values, trials, first.epochs_on(manifest.splits["train"].records)),
        only=values.trial,
        monitor=first.monitor,
        base=tuple(_given(values, left_out={"run", "epochs", *(one.flag for one in space)})),
        place=place,
        output=values.output or f"{place}/{name}",
        local=_local(values, first) / first.organ / name,
        identity=identity,
    )


def _config(values: flags.FlagValues, organ: str, trial: int, given: Mapping[str, str]) -> TrainConfig:
    """What `python -m trainer` makes of the command line and these flags. Raises `RequestError` naming the trial."""
    words = [f"--{name}={value}" for name, value in given.items()]
    try:
        parsed = copy.deepcopy(values)
        parsed([sys.argv[0], *words])
        apply_recipe(parsed)
        config = config_from_flags(parsed, organ)
        check_batch([config], replicas=max(config.logical_cpus, 1))
    except (flags.Error, RequestError) as error:
        fix = "" if isinstance(error, RequestError) else " To fix it: change what --search says of it."
        raise RequestError(f"Trial {trial} can't be trained ({' '.join(words)}). {error}{fix}") from error
    return config


def _check_flags(values: flags.FlagValues, space: Space) -> None:
    """What the flags of the sweep say among each other. Raises `RequestError`."""
    names = {flag.name for module in training_modules(values) for flag in values.get_flags_for_module(module)}
    possible = sorted(names - NOT_SEARCHED)
    for one in space:
        if one.flag not in possible:
            close = difflib.get_close_matches(one.flag, possible, n=1)
            fix = f"did you mean {close[0]}?" if close else "give it a value of its own; `--help` lists all flags"
            expected = "a flag of python -m trainer that decides what is learnt"
            raise invalid_flag("search", expected=expected, received=str(one), fix=fix)
    if values.run:
        fix = "leave it out, and name the sweep by --sweep"
        raise invalid_flag("run", expected="none, as each trial has a run of its own", received=values.run, fix=fix)
    if values.sweep and (not RUN_NAME.fullmatch(values.sweep) or len(values.sweep) > MAX_NAME):
        fix = f"begin with a letter or digit, leave out slashes, and keep to {MAX_NAME} letters"
        raise invalid_flag("sweep", expected="a plain name", received=values.sweep, fix=fix)
    count = _trials(values, space)
    if values.trial is not None and values.trial >= count:
        fix = "count trials from 0, or give more --trials"
        raise invalid_flag("trial", expected=f"0 to {count - 1}", received=values.trial, fix=fix)
    if values.method == HALVING:
        if values.trial is not None:
            fix = "leave out --trial, or give --method=random"
            expected = "none with --method=halving, which has to see all trials to choose among them"
            raise invalid_flag("trial", expected=expected, received=values.trial, fix=fix)
        if any(one.flag == "epochs" for one in space):
            fix = "leave it out, or give --method=random"
            raise invalid_flag("search", expected="no epochs with halving", received="epochs", fix=fix)


def _trials(values: flags.FlagValues, space: Space) -> int:
    """How many trials there are. Raises `RequestError` if fewer differ."""
    count = different_trials(space) or MAX_TRIALS
    if values.trials is None:
        return min(TRIALS, count)
    if values.trials > count:
        expected = f"at most {count}, as that many trials differ"
        raise invalid_flag("trials", expected=expected, received=values.trials, fix=f"give --trials={count}")
    return int(values.trials)


def _dataset(values: flags.FlagValues) -> tuple[str, Manifest]:
    """The organ and its sealed dataset. Raises `RequestError`."""
    if in_bucket(values.tfrecords):
        from trainer.staging import BucketDatasets  # only now: the client of Cloud Storage takes half a second

        datasets: Any = BucketDatasets(values.tfrecords, of_flags(values))
    else:
        datasets = local_path("tfrecords", values.tfrecords)
    organs = chosen_organs(values.organ, datasets)
    if len(organs) > 1:
        fix = "give a sweep of its own to each"
        raise invalid_flag("organ", expected="one organ", received=",".join(values.organ), fix=fix)
    return organs[0], checked_manifest(datasets, organs[0])


def _rungs(values: flags.FlagValues, trials: int, epochs: int) -> tuple[Rung, ...]:
    if values.method == RANDOM:
        return (Rung(trials, epochs),)
    return rungs(trials, epochs=epochs, eta=values.eta, min_epochs=values.min_epochs)


def _given(values: flags.FlagValues, *, left_out: set[str]) -> Iterator[str]:
    """The flags of training that were given, as a command line has them."""
    for module in training_modules(values):
        for flag in values.get_flags_for_module(module):
            if flag.present and flag.value is not None and flag.name not in left_out:
                yield flag.serialize()


def _identity(values: flags.FlagValues, space: Space, config: TrainConfig, manifest: Manifest) -> dict[str, Any]:
    """What decides the trials, but for how many there are: more of them may be added later."""
    halving = {"eta": values.eta, "min_epochs": values.min_epochs} if values.method == HALVING else {}
    settings = replace(config, weights_sha256=weights_digest(config.weights)).settings()
    return {
        "search": [str(one) for one in space],
        "search_seed": values.search_seed,
        "method": values.method,
        **halving,
        "settings": {name: value for name, value in settings.items() if name not in {one.flag for one in space}},
        "dataset": manifest.fingerprint,
    }


def _check_place(values: flags.FlagValues, config: TrainConfig, place: str) -> None:
    """Whether the table would lie in the dataset, or in place of a file. Raises `RequestError`."""
    fix = "name a folder outside of --tfrecords"
    if config.runs_address or config.tfrecords_address:
        inside = f"{place}/".startswith(f"{config.tfrecords_address.rstrip('/') or 'no'}/{config.organ}/")
    else:
        inside = config.dataset_folder.resolve() in Path(place).resolve().parents
    if inside:
        raise invalid_flag("runs", expected="no folder in a dataset", received=values.runs, fix=fix)
    if values.output and not in_bucket(values.output):
        folder = local_path("output", values.output)
        if folder.exists() and not folder.is_dir():
            fix = "name a folder, or one to be made"
            raise invalid_flag("output", expected="a folder", received=values.output, fix=fix)


def _local(values: flags.FlagValues, config: TrainConfig) -> Path:
    """What stands for `--runs` on this machine. Raises `RequestError`."""
    if not config.runs_address:
        return config.runs
    scratch = of_flags(values)
    scratch.open()
    return scratch.runs(config.runs_address, worker=0)
