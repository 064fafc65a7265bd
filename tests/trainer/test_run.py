"""A run as a whole, through real processes: it learns, it is tested honestly, it resumes, it serves."""

import fcntl
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from data_pipeline import cli
from data_pipeline.images import as_png, decode
from data_pipeline.manifest import Manifest
from tests.conftest import ROOT, make_images, run_module
from tests.trainer.conftest import SIZE, train_command
from trainer.checkpoints import Checkpoints
from trainer.config import TrainConfig
from trainer.export import load_served
from trainer.models import build_model
from trainer.pace import CLOCK_COLUMNS
from trainer.records import RecordReader
from trainer.run_folder import open_run


def metrics_of(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_a_run_leaves_all_that_the_contract_names(finished_run: Path) -> None:
    there = {path.name for path in finished_run.iterdir() if not path.name.startswith(".")}
    files = {"config.json", "metrics.json", "predictions.csv", "report.html", "MODEL_CARD.md", "model.keras"}
    assert there == files | {"checkpoints", "model", "serving", "tensorboard"}
    metrics = metrics_of(finished_run)
    assert {"accuracy", "balanced_accuracy", "macro_f1", "n", "per_class", "confusion_matrix"} <= metrics["test"].keys()
    assert metrics["test"]["n"] == sum(map(sum, metrics["test"]["confusion_matrix"]))
    assert metrics["baselines"]["majority"]["balanced_accuracy"] == pytest.approx(1 / 3)
    assert metrics["baselines"]["classical"]["difference"]["accuracy"]["value"] == pytest.approx(
        metrics["test"]["accuracy"] - metrics["baselines"]["classical"]["accuracy"]
    )
    assert metrics["shortcuts"].keys() == {"mean_colour", "border"}
    assert metrics["test"]["intervals"]["accuracy"][0] <= metrics["test"]["accuracy"]
    assert [row["epoch"] for row in metrics["history"]] == [1, 2, 3, 4]


def test_it_learns_what_can_be_learnt(finished_run: Path) -> None:
    assert metrics_of(finished_run)["test"]["accuracy"] > 0.8


def test_labels_that_mean_nothing_score_chance(tmp_path: Path) -> None:
    """Slides dealt out among the diagnoses: whatever a network learns of those, it can't be right."""
    make_images(tmp_path / "images" / "gland", slides=24, size=32)
    files = sorted((tmp_path / "images" / "gland").glob("*/*.png"))
    classes, slides = sorted({file.parent for file in files}), sorted({file.name[:4] for file in files})
    dealt = dict(zip(slides, np.random.default_rng(0).permutation(np.arange(len(slides)) % len(classes)), strict=True))
    for file in files:
        file.rename(classes[dealt[file.name[:4]]] / file.name)
    flags = [f"--tfrecords={tmp_path / 'tfrecords'}", "--organ=gland"]
    done = run_module(
        "data_pipeline", f"--images={tmp_path / 'images'}", "--image_size=32", "--near_duplicates=ignore", *flags
    )
    assert done.returncode == 0, done.stderr
    done = run_module("trainer", *train_command(tmp_path / "tfrecords", tmp_path))
    assert done.returncode == 0, done.stderr
    metrics = metrics_of(tmp_path / "gland" / "r")
    for name, chance in (("balanced_accuracy", 1 / 3), ("roc_auc", 0.5)):
        low, high = metrics["test"]["intervals"][name]
        assert low <= chance <= high, name  # a network that always says the same has no more than that
    assert not metrics["shortcuts"]["mean_colour"]["high"]
    assert "Clearly better" not in (tmp_path / "gland" / "r" / "report.html").read_text()


def test_scalars_are_readable_by_tensorboard(finished_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished_run / "tensorboard")).Reload()
    names = set(events.Tags()["tensors"])
    assert {"train_loss", "validation_loss", "validation_balanced_accuracy", "images_per_s"} <= names
    assert {"augmented", "test/confusion", "test/balanced_accuracy"} <= names
    assert [event.step for event in events.Tensors("train_loss")] == [1, 2, 3, 4]


def test_the_same_command_again_shows_the_report_and_trains_nothing(finished_run: Path, tfrecords: Path) -> None:
    before = (finished_run / "report.html").stat().st_mtime_ns
    done = run_module("trainer", *train_command(tfrecords, finished_run.parents[1]))
    assert done.returncode == 0
    assert "finished already" in done.stderr
    assert done.stdout.strip() == f"Report: {finished_run / 'report.html'}"
    assert (finished_run / "report.html").stat().st_mtime_ns == before


def test_tflite_can_be_had_of_a_run_that_is_done_and_changes_no_number(
    finished_run: Path, tfrecords: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run, tmp_path / "gland" / "r")
    done = run_module("trainer", *train_command(tfrecords, tmp_path, "--tflite"))
    assert done.returncode == 0, done.stderr
    assert "model.tflite gives the same answer to 100.0%" in done.stderr
    before, after = metrics_of(finished_run), metrics_of(tmp_path / "gland" / "r")
    assert after.pop("tflite")["largest_difference"] < 1e-5
    assert after == before
    assert (tmp_path / "gland" / "r" / "predictions.csv").read_bytes() == (
        finished_run / "predictions.csv"
    ).read_bytes()


@pytest.fixture(scope="module")
def patient_run(tfrecords: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has stopped early, and is tested and served with eight views of an image."""
    runs = tmp_path_factory.mktemp("runs")
    arguments = ["--epochs=30", "--patience=2", "--learning_rate=0.02", "--tta"]
    done = run_module("trainer", *train_command(tfrecords, runs, *arguments))
    assert done.returncode == 0, done.stderr
    return runs / "gland" / "r"


def test_test_time_augmentation_is_in_the_model_that_is_tested_and_served(patient_run: Path, tfrecords: Path) -> None:
    served = load_served(patient_run)
    assert served.views == metrics_of(patient_run)["views"] == 8
    manifest = Manifest.load(tfrecords / "gland")
    records = RecordReader(tfrecords / "gland", manifest, "test").records(np.arange(8))
    turned = [as_png(np.ascontiguousarray(np.rot90(decode(record.image).pixels))) for record in records]
    straight = served.probabilities([as_png(decode(record.image).pixels) for record in records])
    assert np.abs(served.probabilities(turned) - straight).max() < 1e-5


def test_two_replicas_learn_what_one_learns(finished_run: Path, tfrecords: Path, tmp_path: Path) -> None:
    done = run_module("trainer", *train_command(tfrecords, tmp_path, "--logical_cpus=2"))
    assert done.returncode == 0, done.stderr
    assert "MirroredStrategy over 2 replicas" in done.stderr
    one, two = metrics_of(finished_run), metrics_of(tmp_path / "gland" / "r")
    for ours, theirs in zip(one["history"], two["history"], strict=True):
        assert theirs["train_loss"] == pytest.approx(ours["train_loss"], rel=0.02)
    assert two["test"]["accuracy"] == pytest.approx(one["test"]["accuracy"], abs=0.05)


def test_interrupted_by_sigterm_and_sigkill_it_ends_bit_identical(
    finished_run: Path, tfrecords: Path, tmp_path: Path
) -> None:
    """SIGTERM mid-epoch exits 75 with a checkpoint; SIGKILL later loses nothing published; the result is the same."""
    command = [sys.executable, "-m", "trainer"]
    command += [str(a) for a in train_command(tfrecords, tmp_path, "--checkpoint_every=1")]
    folder = tmp_path / "gland" / "r"
    codes = []
    for signal_number, steps in ((signal.SIGTERM, 3), (signal.SIGKILL, 17)):
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while _last_step(folder) < steps and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal_number)
        process.communicate(timeout=60)
        codes.append(process.returncode)
        assert steps <= _last_step(folder) < 44
    assert codes == [cli.EXIT_PREEMPTED, -signal.SIGKILL]
    done = run_module("trainer", *train_command(tfrecords, tmp_path, "--checkpoint_every=1"))
    assert done.returncode == 0, done.stderr
    assert "goes on after step" in done.stderr
    whole, cut = metrics_of(finished_run), metrics_of(folder)
    for row in (*whole["history"], *cut["history"]):
        for name in CLOCK_COLUMNS:
            del row[name]
    assert whole == cut
    assert _weights(finished_run) == _weights(folder)


@pytest.mark.long
@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_while_it_is_exported_and_tested_it_ends_as_if_it_was_not(
    finished_run: Path, tfrecords: Path, tmp_path: Path, signal_number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "trainer", *map(str, train_command(tfrecords, tmp_path))]
    folder = tmp_path / "gland" / "r"
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(folder.glob("*model*")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=60)
    expected = cli.EXIT_PREEMPTED if signal_number == signal.SIGTERM else -signal.SIGKILL
    assert process.returncode == expected, errors
    assert not (folder / "report.html").exists()
    done = run_module("trainer", *train_command(tfrecords, tmp_path))
    assert done.returncode == 0, done.stderr
    assert metrics_of(folder)["test"] == metrics_of(finished_run)["test"]
    assert _weights(folder) == _weights(finished_run)
    assert not [
        path for path in folder.iterdir() if path.name.endswith((".tmp", "model.keras")) and path.name[0] == "."
    ]


def test_a_stop_before_anything_has_begun_ends_with_code_75(tfrecords: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trainer", *map(str, train_command(tfrecords, tmp_path))]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    time.sleep(1.0)  # TensorFlow is being imported
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == cli.EXIT_PREEMPTED


def test_a_second_process_is_kept_out_of_a_run(tfrecords: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gland" / "r"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run_module("trainer", *train_command(tfrecords, tmp_path))
    assert done.returncode == cli.EXIT_REQUEST
    assert "under way" in done.stderr


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_checkpoints_of_unknown_settings_are_refused(
    finished_run: Path, tfrecords: Path, tmp_path: Path, harm: str
) -> None:
    folder = tmp_path / "gland" / "r"
    shutil.copytree(finished_run, folder)
    config = folder / "config.json"
    config.unlink() if harm == "gone" else config.write_text(config.read_text()[:40])
    done = run_module("trainer", *train_command(tfrecords, tmp_path, "--seed=7"))
    assert done.returncode == cli.EXIT_REQUEST, done.stderr
    assert "config.json" in done.stderr
    assert "Traceback" not in done.stderr


def _last_step(folder: Path) -> int:
    try:
        return int(json.loads((folder / "checkpoints" / "last.json").read_text())["checkpoint"].split("-")[1])
    except FileNotFoundError:
        return -1


def _weights(folder: Path) -> list[bytes]:
    return [weight.tobytes() for weight in keras.models.load_model(folder / "model.keras").get_weights()]


def test_other_settings_or_data_under_the_same_name_are_refused(finished_run: Path, tfrecords: Path) -> None:
    done = run_module("trainer", *train_command(tfrecords, finished_run.parents[1], "--learning_rate=0.01", "--seed=3"))
    assert done.returncode == cli.EXIT_REQUEST
    assert "--learning_rate was 0.001 and is 0.01" in done.stderr
    assert "--seed was 0 and is 3" in done.stderr


def test_another_dataset_under_the_same_name_is_refused(tmp_path: Path) -> None:
    config = TrainConfig(organ="gland", tfrecords=tmp_path, runs=tmp_path)
    open_run(tmp_path / "r", config, dataset="one", chief=True)
    open_run(tmp_path / "r", config, dataset="one", chief=True)
    with pytest.raises(cli.RequestError, match="dataset is another"):
        open_run(tmp_path / "r", config, dataset="two", chief=True)


def test_patience_stops_early_and_the_best_epoch_is_tested(patient_run: Path) -> None:
    metrics = metrics_of(patient_run)
    assert len(metrics["history"]) == metrics["best_epoch"] + 2 < 30
    scores = [row["validation_balanced_accuracy"] for row in metrics["history"]]
    assert scores[metrics["best_epoch"] - 1] == max(scores)
    assert metrics["validation"]["balanced_accuracy"] == pytest.approx(max(scores), abs=0.02)
    model = build_model("seed", image_size=SIZE, classes=3)
    optimizer = keras.optimizers.Adamax()
    optimizer.build(model.trainable_variables)
    checkpoints = Checkpoints(patient_run / "checkpoints", model, optimizer)
    last = checkpoints.restore_last()
    assert last is not None
    newest = [weight.tobytes() for weight in model.get_weights()]
    checkpoints.restore_best(last)
    best = [weight.tobytes() for weight in model.get_weights()]
    assert _weights(patient_run) == best != newest


@pytest.mark.long
def test_in_float16_augmented_in_the_step_and_profiled_it_ends_as_any_run(tfrecords: Path, tmp_path: Path) -> None:
    more = ("--precision=float16", "--augment_on=device", "--profile_steps=2,3", "--epochs=1")
    done = run_module("trainer", *train_command(tfrecords, tmp_path, "--mixup=0.2", *more))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "gland" / "r"
    metrics = metrics_of(folder)
    assert np.isfinite([row["train_loss"] for row in metrics["history"]]).all()
    (profile,) = (folder / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(profile.read_bytes())
    assert "train" in {event.name for plane in space.planes for event in plane.event_metadata.values()}
    assert "Profile page" in done.stderr


def test_help_teaches_and_lists_the_flags() -> None:
    done = run_module("trainer", "--help")
    assert done.returncode == cli.EXIT_DONE
    assert "python -m trainer --organ=cervix" in done.stdout
    assert "--precision" in done.stdout
    assert "--epochs" in done.stdout
