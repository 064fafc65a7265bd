"""Wrong requests, and what each must be told: what a row of `test_bad_requests.py` is, and the rows on flags.

A row makes what is wrong in a place of its own and says which flags then ask for it.
"""

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from data_pipeline.manifest import FILE_NAME, Manifest, SplitCounts
from tests.conftest import image_bytes
from trainer.config import TrainConfig
from trainer.run_folder import open_run


class Place:
    """A folder of a test, with a dataset that may be harmed and a folder for runs."""

    def __init__(self, folder: Path, tfrecords: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self.tfrecords, self.runs = tfrecords, folder / "runs"
        self.model = Path()
        self.env: dict[str, str] = {}

    @property
    def dataset(self) -> Path:
        """A copy of the dataset, made when it is first asked for; from then on the request is about that."""
        copy = self.folder / "tfrecords"
        if not copy.exists():
            shutil.copytree(self.tfrecords, copy)
            self.tfrecords = copy
        return copy / "gland"

    @property
    def manifest(self) -> Manifest:
        return Manifest.load(self.dataset)

    def seal(self, manifest: Manifest) -> None:
        """Make this the dataset's manifest, whole and unaltered."""
        (self.dataset / FILE_NAME).write_text(manifest.to_json())

    def shard(self, number: int = 0) -> Path:
        return self.dataset / self.manifest.shards_of("train")[number].path

    def run(self, **settings: object) -> Path:
        """A run that has begun; what it is of is what `flags` asks for, but for `settings`."""
        manifest = Manifest.load(self.tfrecords / "gland")
        config = TrainConfig(organ="gland", tfrecords=self.tfrecords, runs=self.runs, run="r", image_size=32)
        config = replace(config, **settings)
        open_run(self.runs / "gland" / "r", config, dataset=manifest.fingerprint, chief=True)
        return self.runs / "gland" / "r"

    def image(self) -> Path:
        path = self.folder / "images" / "cell.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image_bytes(1))
        return path

    def flags(self, *more: str) -> list[str]:
        """The request; a flag given twice counts as it is given last."""
        return ["--organ=gland", f"--tfrecords={self.tfrecords}", f"--runs={self.runs}", "--run=r", *more]


Make = Callable[[Place], list[str] | None]


@dataclass(frozen=True)
class Row:
    """`make` gives the flags that are added, if any, and `says` is what the message must hold."""

    name: str
    make: Make
    says: tuple[str, ...]


def flag(text: str, *says: str) -> Row:
    """A request that is wrong in its flags alone."""
    return Row(text, lambda place: [text], says)


def flip_bit(path: Path, at: float) -> None:
    """Flip one bit at this share of the file."""
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 1
    path.write_bytes(data)


def manifest_text(change: Callable[[str], str]) -> Make:
    def make(place: Place) -> None:
        path = place.dataset / FILE_NAME
        path.write_text(change(path.read_text()))

    return make


def without(split: str) -> Make:
    def make(place: Place) -> None:
        splits = place.manifest.splits | {split: SplitCounts(0, 0, 0, {})}
        shards = tuple(shard for shard in place.manifest.shards if shard.split != split)
        place.seal(replace(place.manifest, splits=splits, shards=shards))

    return make


# ── Flags ────────────────────────────────────────────────────────────────────────────────────────────────────────────

FOUR_WORKERS = json.dumps(
    {"cluster": {"worker": [f"a{i}:1" for i in range(4)]}, "task": {"type": "worker", "index": 0}}
)


def _in_cluster(text: str, *more: str) -> Make:
    def make(place: Place) -> list[str]:
        place.env["TF_CONFIG"] = text
        return list(more)

    return make


INTEGERS = (
    "steps_per_call",
    "epochs",
    "image_budget",
    "batch_size",
    "accumulate",
    "image_size",
    "patience",
    "seed",
    "logical_cpus",
    "num_workers",
    "worker_port",
)
TIMES = ("checkpoint_deadline", "step_timeout", "start_timeout", "stop_timeout")
BAD_SIZES = ("", "100", "0GB", "-1GB", "1gb", "1 GB", "1GiB", "1e3GB", "nanGB", "GB", "9" * 400 + "GB", "9999999TB")
SHARES = (
    "clip_norm",
    "augment_strength",
    "rotation",
    "shift",
    "zoom",
    "brightness",
    "colour",
    "stain",
    "blur",
    "cutout",
    "mixup",
    "cutmix",
)
RATES = ("warmup", "weight_decay", "label_smoothing", "dropout", "ema", "fine_tune_rate")
BAD_SHARES = ("", "much", "nan", "inf", "-0.1")
BAD_INTEGERS = ("", "many", "1.5", "nan", "inf", "-1", "9" * 30)
BAD_NUMBERS = ("", "fast", "nan", "inf", "-inf", "0", "-0.1", "1e400", "10")
BAD_STEPS = ("1", "2,1", "0,4", "1,", "a,b", "-1,2", "1,2,3", "1 ,2", "1,99999999999")
BAD_TIMES = ("", "10", "-5m", "10x", "m", "1e3s", "nan", "1h30m", "9" * 400 + "h")

FLAGS = (
    *(flag(f"--{name}={value}", name, value[:9]) for name in INTEGERS for value in BAD_INTEGERS),
    *(flag(f"--worker={value}", "worker", value[:9]) for value in BAD_INTEGERS if value != "-1"),
    *(flag(f"--worker_service={value}", "`--worker_service`") for value in ("a b", "-a", "a/b", "http://a")),
    *(flag(f"--learning_rate={value}", "learning_rate") for value in BAD_NUMBERS),
    *(flag(f"--{name}={value}", name, value[:9]) for name in RATES for value in BAD_SHARES),
    *(flag(f"--freeze_epochs={value}", "freeze_epochs") for value in BAD_INTEGERS),
    *(flag(f"--optimizer={value}", "optimizer", "adamw") for value in ("", "sgd")),
    *(flag(f"--schedule={value}", "schedule", "cosine") for value in ("", "linear")),
    *(flag(f"--class_weights={value}", "class_weights", "effective") for value in ("", "some")),
    *(flag(f"--keep={value}", "keep", "last") for value in ("", "first")),
    *(flag(f"--recipe={value}", "recipe", "strong") for value in ("best", "../strong")),
    Row("patience for the last", lambda p: ["--keep=last", "--patience=3"], ("`--patience`", "--keep=last")),
    Row("all frozen", lambda p: ["--freeze_epochs=3", "--epochs=3"], ("`--freeze_epochs`", "--epochs=3")),
    Row("a second rate alone", lambda p: ["--fine_tune_rate=0.1"], ("`--fine_tune_rate`", "--freeze_epochs")),
    Row(
        "weights of no backbone", lambda p: ["--weights=/etc/hostname"], ("`--weights`", "--model=seed", "MobileNetV2")
    ),
    *(
        Row(
            f"weights {path}",
            lambda p, path=path: ["--model=MobileNetV2", f"--weights={path}"],
            ("`--weights`", "https://"),
        )
        for path in ("/proc/nowhere", "/etc/hostname", "/etc")
    ),
    *(flag(f"--target_error={value}", "target_error") for value in (*BAD_NUMBERS, "1")),
    *(flag(f"--{name}={value}", name) for name in ("tta", "tflite") for value in ("2", "maybe")),
    *(flag(f"--{name}={value}", f"`--{name}`", f"{value[:9]}", "10m") for name in TIMES for value in BAD_TIMES),
    *(flag(f"--checkpoint_every={value}", "`--checkpoint_every`", value[:9]) for value in BAD_TIMES if value != "10"),
    flag("--checkpoint_every=" + "9" * 5000, "`--checkpoint_every`"),
    *(flag(f"--model={value}", "model", "seed_pooled") for value in ("", "huge")),
    *(flag(f"--monitor={value}", "monitor", "macro_f1") for value in ("", "auc")),
    *(flag(f"--precision={value}", "precision", "bfloat16") for value in ("", "float64")),
    *(flag(f"--xla={value}", "xla", "off") for value in ("", "yes")),
    *(flag(f"--augment_on={value}", "augment_on", "host") for value in ("", "gpu")),
    *(flag(f"--profile_steps={value}", "`--profile_steps`", "100,110") for value in BAD_STEPS),
    *(flag(f"--distribution={value}", "distribution", "mirrored") for value in ("", "tpu")),
    *(flag(f"--on_nan={value}", "on_nan", "rollback") for value in ("", "ignore")),
    *(flag(f"--augment={value}", "augment") for value in ("2", "maybe")),
    *(flag(f"--{name}={value}", name, value[:9]) for name in SHARES for value in BAD_SHARES),
    *(flag(f"--run={value}", "`--run`", "plain name") for value in ("../x", "a/b", ".hidden", "..", "-x", "r" * 300)),
    *(flag(f"--organ={value}", "`--organ`", "gland") for value in ("", "liver", "gland,", "../gland", "/etc", ".")),
    flag("--organ=all,gland", "`--organ`", "'all'"),
    *(flag(f"--{name}=", f"`--{name}`", "folder") for name in ("tfrecords", "runs")),
    *(
        flag(f"--{name}={value}", f"`--{name}`", f"gs://my-bucket/{name}")
        for name in ("tfrecords", "runs")
        for value in ("gs://", "gs:///x", "gs://B/x", "gs://lab/../x", "gs://lab/a//b")
    ),
    *(flag(f"--{name}=s3://lab/x", f"`--{name}`", "s3://lab/x") for name in ("tfrecords", "runs")),
    *(flag(f"--scratch_budget={value}", "`--scratch_budget`", "100GB") for value in BAD_SIZES),
    flag("--scratch=gs://lab/scratch", "`--scratch`", "local"),
    *(flag(f"--{name}=~nobody_of_that_name/x", f"`--{name}`") for name in ("tfrecords", "runs")),
    *(flag(f"--{name}=/tmp/{'x' * 5000}", f"`--{name}`", "too long") for name in ("tfrecords", "runs")),
    flag("--learnin_rate=1", "learnin_rate", "learning_rate"),
    flag("--flagfile=/proc/nowhere", "/proc/nowhere"),
    flag("stray", "'stray'"),
    flag("--image_size=31", "`--image_size`", "32 or more"),
    Row("an image too small for a backbone", lambda p: ["--model=InceptionV3"], ("`--image_size`", "75 or more", "32")),
    flag("--tfrecords=/proc/nowhere", "`--tfrecords`", "No such file"),
    flag("--tfrecords=/etc/hostname", "`--tfrecords`", "Not a directory"),
    flag("--tfrecords=/proc/sys", "holds no dataset"),
    flag("--distribution=multiworker", "`--distribution`", "TF_CONFIG"),
    flag("--num_workers=2", "`--worker`", "JOB_COMPLETION_INDEX"),
    Row("workers without a service", lambda p: ["--num_workers=2", "--worker=0"], ("`--worker_service`", "Service")),
    Row("a worker too many", lambda p: ["--num_workers=2", "--worker=2"], ("`--worker`", "0 to 1")),
    Row("workers, mirrored", lambda p: ["--num_workers=2", "--distribution=mirrored"], ("`--num_workers`",)),
    Row("no cluster", _in_cluster("{"), ("`TF_CONFIG`", "JSON")),
    Row("too few images for the workers", _in_cluster(FOUR_WORKERS, "--batch_size=3"), ("`--batch_size`", "4 or more")),
    Row("too few images for the replicas", lambda p: ["--logical_cpus=4", "--batch_size=2"], ("--batch_size", "4 or")),
    Row(
        "too few images for mirrored replicas",
        lambda p: ["--logical_cpus=4", "--batch_size=3", "--distribution=mirrored"],
        ("`--batch_size`", "one image for each replica"),
    ),
    *(
        Row(f"devices for {name}", lambda p, n=name: ["--logical_cpus=2", f"--distribution={n}"], ("`--logical_cpus`",))
        for name in ("single", "multiworker")
    ),
)
