"""Images kept decoded: the same pixels, within a budget."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.cli import RequestError
from data_pipeline.manifest import Manifest
from tests.conftest import run_module
from tests.trainer.conftest import SIZE, train_command
from trainer.augment_config import Augmentation, Mixing
from trainer.decoded_cache import available_bytes, choose_cache
from trainer.input_pipeline import Layout, TrainInput, decode_stored, train_batches
from trainer.order import TrainOrder
from trainer.records import RecordReader
from trainer.scratch import Scratch

Dataset = tuple[Path, Manifest]
BUDGET = 10**9


@pytest.mark.parametrize("budget", [BUDGET, 1])
@pytest.mark.parametrize(("image_size", "mixing"), [(SIZE, Mixing()), (SIZE, Mixing(cutmix=1.0)), (2 * SIZE, Mixing())])
def test_batches_are_bit_by_bit_those_without_it(
    dataset: Dataset, tmp_path: Path, budget: int, image_size: int, mixing: Mixing
) -> None:
    """In memory and in a file, at the stored size and at another, with partners to mix."""
    reader = RecordReader(*dataset, "train")
    cache = choose_cache(reader, mode="decoded", budget_bytes=budget, scratch=Scratch(tmp_path, BUDGET), name="gland")
    assert cache is not None
    assert isinstance(cache.pixels, np.memmap) == (budget == 1)
    assert not list(tmp_path.iterdir())  # the file has no name
    order, layout = TrainOrder(len(reader), 17, seed=1), Layout(2, 0, 2)
    how = TrainInput(image_size, Augmentation(), 1, mixing)
    last = order.steps_per_epoch

    def elements(source: object) -> list[dict[str, np.ndarray]]:
        batches = train_batches(source, order, how, layout, start_step=last - 2, stop_step=last)
        return list(batches.as_numpy_iterator())

    ours, theirs = elements(cache), elements(reader)
    assert len(ours) == len(theirs) == 4
    for our, their in zip(ours, theirs, strict=True):
        assert our.keys() == their.keys()
        assert all((our[key] == their[key]).all() for key in our)


def test_an_image_is_decoded_when_it_is_first_needed_and_never_again(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = RecordReader(*dataset, "train")
    cache = choose_cache(reader, mode="decoded", budget_bytes=BUDGET, scratch=Scratch(tmp_path, BUDGET), name="gland")
    assert cache is not None
    assert cache.kept_bytes == 0  # nothing before the first step
    first, labels = cache.take(np.array([5, 2, 5]))
    assert np.flatnonzero(cache.there).tolist() == [2, 5]
    assert cache.kept_bytes == 2 * SIZE * SIZE * 3
    truth = reader.records(np.array([5, 2]))
    for pixels, label, record in zip(first, labels, truth, strict=False):
        assert (pixels == decode_stored(record.image, stored_size=SIZE, image_size=SIZE).numpy()).all()
        assert label == record.label
    asked: list[int] = []
    records = reader.records
    monkeypatch.setattr(reader, "records", lambda numbers: [asked.extend(numbers), *records(numbers)][1:])
    again, _ = cache.take(np.array([2, 3, 5]))
    assert asked == [3]
    assert (again[[2, 0]] == first[:2]).all()


def test_threads_that_fill_it_at_once_see_no_image_before_it_is_there(dataset: Dataset, tmp_path: Path) -> None:
    reader = RecordReader(*dataset, "train")
    scratch, count = Scratch(tmp_path, BUDGET), len(reader)
    whole = choose_cache(reader, mode="decoded", budget_bytes=BUDGET, scratch=scratch, name="gland")
    shared = choose_cache(reader, mode="decoded", budget_bytes=BUDGET, scratch=scratch, name="gland")
    assert whole is not None
    assert shared is not None
    pixels, labels = whole.take(np.arange(count))

    def takes(seed: int) -> bool:
        order = np.random.default_rng(seed).permutation(count)
        parts = [(part, shared.take(part)) for part in np.array_split(order, 20)]
        return all((p == pixels[part]).all() and (n == labels[part]).all() for part, (p, n) in parts)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(takes, range(8)))
    assert shared.there.all()


def test_auto_keeps_them_only_if_they_fit(dataset: Dataset, tmp_path: Path) -> None:
    reader = RecordReader(*dataset, "train")
    size = len(reader) * SIZE * SIZE * 3
    assert size < available_bytes() // 4
    for mode, budget, kept in (("auto", size, True), ("auto", size - 1, False), ("none", BUDGET, False)):
        cache = choose_cache(reader, mode=mode, budget_bytes=budget, scratch=Scratch(tmp_path, BUDGET), name="gland")
        assert (cache is not None) == kept


def test_a_disk_without_room_is_told(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = subprocess.run(["df", "--output=avail", "-B1", str(tmp_path)], capture_output=True, text=True, check=True)
    free = int(usage.stdout.split()[-1])
    reader = RecordReader(*dataset, "train")
    monkeypatch.setattr(reader, "image_size", int(np.sqrt(2 * free / len(reader) / 3)))
    told = r"`--cache`.*the decoded images take .* and .* has.*To fix it"
    with pytest.raises(RequestError, match=told):
        choose_cache(reader, mode="decoded", budget_bytes=1, scratch=Scratch(tmp_path, 10**18), name="gland")
    monkeypatch.undo()
    with pytest.raises(RequestError, match=told):
        choose_cache(reader, mode="decoded", budget_bytes=1, scratch=Scratch(tmp_path, 1000), name="gland")


def test_a_run_with_it_is_a_run_without_it(tfrecords: Path, finished_run: Path, tmp_path: Path) -> None:
    command = train_command(tfrecords, tmp_path)
    done = run_module("trainer", *command, "--cache=auto")
    assert done.returncode == 0, done.stderr
    assert "decoded once" in done.stderr
    again, kept = (folder / "model.keras" for folder in (tmp_path / "gland" / "r", finished_run))
    assert again.stat().st_size == kept.stat().st_size
    import keras

    weights = [keras.models.load_model(path).get_weights() for path in (again, kept)]
    assert all((ours == theirs).all() for ours, theirs in zip(*weights, strict=True))
