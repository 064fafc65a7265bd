"""What decides a run, as a frozen dataclass, and what its values may be. `train_flags.py` makes it of the command line.

config.run_folder(manifest.fingerprint), config.settings(), config.command()
"""

import hashlib
import json
import shlex
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from data_pipeline.cli import invalid_flag
from trainer.augment_config import AugmentFlags
from trainer.learning_config import LearningFlags
from trainer.model_names import MODEL_NAMES as MODEL_NAMES
from trainer.model_names import least_px
from trainer.recipe_files import recipe_settings
from trainer.scratch import DEFAULT_BUDGET

# What may differ between the start of a run and its resumption, without changing what is learnt by more than rounding.
ENVIRONMENT = frozenset(
    {
        "recipe",
        "weights",
        "tfrecords",
        "runs",
        "run",
        "distribution",
        "logical_cpus",
        "augment_on",
        "xla",
        "profile_steps",
        "steps_per_call",
        "tflite",
        "checkpoint_every",
        "checkpoint_deadline",
        "on_nan",
        "step_timeout",
        "num_workers",
        "worker",
        "worker_service",
        "worker_port",
        "start_timeout",
        "stop_timeout",
        "cache",
        "cache_budget",
        "scratch",
        "scratch_budget",
        "tfrecords_address",
        "runs_address",
    }
)
ADDRESSES = ("tfrecords_address", "runs_address")
FOUND = (*ADDRESSES, "weights_sha256")  # no flags: what is found out about those that are
MAX_SEED = 2**32 - 1  # NumPy's and Keras's limit
AUTO, SINGLE, MIRRORED, MULTIWORKER = DISTRIBUTIONS = ("auto", "single", "mirrored", "multiworker")
MONITORS = ("balanced_accuracy", "accuracy", "macro_f1", "loss")
FLOAT32, BFLOAT16, FLOAT16, _ = PRECISIONS = ("float32", "bfloat16", "float16", AUTO)
_, ON, OFF = XLA = (AUTO, "on", "off")
_, HOST, DEVICE = AUGMENT_ON = (AUTO, "host", "device")
CACHES = ("auto", "none", "decoded")
ON_NAN = ("fail", "rollback")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(AugmentFlags, LearningFlags):
    """All that decides a run. `image_size` 0 means as stored, `patience` 0 never to stop early, `image_budget` 0 none.

    `tfrecords` and `runs` are folders of this machine. Where they stand for folders of a bucket, `tfrecords_address`
    and `runs_address` say which; otherwise these are empty. `weights_sha256` is that of the file `weights`. Times and
    intervals are as their flags say them, see `intervals.py`.
    """

    organ: str
    tfrecords: Path
    runs: Path
    run: str = ""
    recipe: str = ""
    model: str = "seed"
    epochs: int = 30
    image_budget: int = 0
    batch_size: int = 128
    clip_norm: float = 0.0
    accumulate: int = 1
    image_size: int = 0
    patience: int = 0
    monitor: str = "balanced_accuracy"
    seed: int = 0
    tta: bool = False
    target_error: float = 0.05
    precision: str = "float32"
    xla: str = "auto"
    augment_on: str = "auto"
    profile_steps: str = ""
    steps_per_call: int = 0
    tflite: bool = False
    distribution: str = "auto"
    logical_cpus: int = 0
    checkpoint_every: str = "10m"
    checkpoint_deadline: str = "30m"
    on_nan: str = "fail"
    step_timeout: str = "10m"
    num_workers: int = 0
    worker: int = -1
    worker_service: str = ""
    worker_port: int = 2222
    start_timeout: str = "10m"
    stop_timeout: str = "25s"
    cache: str = "auto"
    cache_budget: str = "4GB"
    scratch: str = ""
    scratch_budget: str = DEFAULT_BUDGET
    tfrecords_address: str = ""
    runs_address: str = ""
    weights_sha256: str = ""

    @property
    def dataset_folder(self) -> Path:
        return self.tfrecords / self.organ

    def epochs_on(self, records: int) -> int:
        """How many epochs a training split of so many records gets."""
        return min(self.epochs, max(1, self.image_budget // records)) if self.image_budget else self.epochs

    def run_folder(self, fingerprint: str) -> Path:
        """Where the run on the dataset of this fingerprint is."""
        return self.runs / self.organ / self.run_name(fingerprint)

    def run_place(self, fingerprint: str) -> str:
        """The same as a person knows it: below what `--runs` says, which may be in a bucket."""
        if not self.runs_address:
            return str(self.run_folder(fingerprint))
        return f"{self.runs_address.rstrip('/')}/{self.organ}/{self.run_name(fingerprint)}"

    def settings(self) -> dict[str, Any]:
        """What decides the result: everything but `ENVIRONMENT`."""
        return {name: value for name, value in asdict(self).items() if name not in ENVIRONMENT}

    def run_name(self, fingerprint: str) -> str:
        """`--run`, or a name that is the same for the same settings and data, so that a repeated command resumes."""
        key = json.dumps([self.settings(), fingerprint], sort_keys=True)
        short = hashlib.sha256(key.encode()).hexdigest()[:8]
        return self.run or f"{self.model}-{self.image_size}px-e{self.epochs}-s{self.seed}-{short}"

    def command(self) -> str:
        """The command that makes this run, for the report. What defaults or the recipe say is left out."""
        defaults = {field.name: field.default for field in fields(self) if field.default is not MISSING}
        defaults |= recipe_settings(self.recipe, defaults)
        given = {"tfrecords": self.tfrecords_address or self.tfrecords, "runs": self.runs_address or self.runs}
        parts = []
        values = asdict(self) | given
        for name, value in sorted(values.items(), key=lambda item: item[0] in defaults):  # what must be given first
            if name in FOUND:
                continue
            if name not in defaults or value != defaults[name]:
                parts.append(f"--no{name}" if value is False else f"--{name}={value}")
        return shlex.join(["python", "-m", "trainer", *parts])


def check_image_size(size_px: int, model: str) -> None:
    """Raises `RequestError` for an image that the network can't take."""
    least = least_px(model)
    if size_px < least:
        fix = f"use at least {least} pixels"
        raise invalid_flag("image_size", expected=f"{least} or more for {model}", received=size_px, fix=fix)
