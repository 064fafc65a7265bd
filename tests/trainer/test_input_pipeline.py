"""What reaches the devices: every record once, its own label, whatever the batch and the number of replicas."""

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.manifest import Manifest
from tests.trainer.conftest import SIZE
from trainer.augment import PACKED, draw, make_augment
from trainer.augment_config import Augmentation, Mixing
from trainer.input_pipeline import Layout, TrainInput, decode_stored, evaluation_batches, train_batches
from trainer.mixing import draw_mix, mixed
from trainer.order import TrainOrder
from trainer.records import RecordReader

EVERYTHING = Augmentation(quarter_turns=True, stain=0.1, blur_px=1.0, cutout=0.2)
MIXED = Mixing(mixup=0.4, cutmix=1.0)
Dataset = tuple[Path, Manifest]


def elements(dataset) -> list[dict[str, np.ndarray]]:
    return list(dataset.as_numpy_iterator())


def images_by_record(parts: list[dict[str, np.ndarray]]) -> dict[int, np.ndarray]:
    return {int(i): x for part in parts for i, x in zip(part["index"], part["image"], strict=True) if i >= 0}


@pytest.mark.parametrize(
    ("replicas", "batch_size", "how"),
    [
        *(
            (replicas, size, TrainInput(SIZE, Augmentation(), 1))
            for replicas, size in [(1, 16), (2, 16), (2, 17), (3, 16)]
        ),
        (2, 17, TrainInput(SIZE, EVERYTHING, 1, MIXED)),
    ],
)
def test_an_epoch_is_the_same_on_any_number_of_replicas(
    dataset: Dataset, replicas: int, batch_size: int, how: TrainInput
) -> None:
    reader = RecordReader(*dataset, "train")
    order = TrainOrder(len(reader), batch_size, seed=1)
    steps = order.steps_per_epoch
    layout = Layout(replicas, 0, replicas)
    parts = elements(train_batches(reader, order, how, layout, start_step=0, stop_step=steps))
    assert len(parts) == steps * replicas
    for step in range(steps):
        shares = parts[step * replicas : (step + 1) * replicas]
        indices = np.concatenate([part["index"] for part in shares])
        assert sorted(indices[indices >= 0]) == sorted(order.batch(step)[1])
        weights = np.concatenate([part["weight"] for part in shares])
        assert (weights > 0).tolist() == (indices >= 0).tolist()
        assert weights.sum() == pytest.approx(1.0, abs=1e-5)
    truth = {i: record.label for i, record in enumerate(reader.records(np.arange(len(reader))))}
    for part in parts:
        real = part["index"] >= 0
        assert [truth[int(i)] for i in part["index"][real]] == part["label"][real].tolist()
    alone = images_by_record(elements(train_batches(reader, order, how, Layout(), start_step=0, stop_step=steps)))
    for index, image in images_by_record(parts).items():
        assert (image == alone[index]).all()


def test_mixed_images_are_those_of_their_two_records_and_have_both_labels(dataset: Dataset) -> None:
    reader = RecordReader(*dataset, "train")
    order = TrainOrder(len(reader), 16, seed=1)
    dataset_ = train_batches(reader, order, TrainInput(SIZE, EVERYTHING, 1, MIXED), Layout(), start_step=3, stop_step=4)
    (batch,) = elements(dataset_)
    indices = batch["index"]
    mix = draw_mix(MIXED, seed=1, epoch=0, indices=indices, records=len(reader), size_px=SIZE)

    def augmented(numbers: np.ndarray) -> np.ndarray:
        pixels = [decode_stored(r.image, stored_size=SIZE, image_size=SIZE).numpy() for r in reader.records(numbers)]
        packed = draw(EVERYTHING, seed=1, epoch=0, indices=numbers).packed(SIZE)
        assert packed.shape[1] == PACKED
        return make_augment(EVERYTHING, on_host=True)(np.stack(pixels), packed)

    expected = mixed(augmented(indices), augmented(mix.partners), mix.packed()).numpy()
    assert (batch["image"] == expected).all()
    assert batch["partner_label"].tolist() == [record.label for record in reader.records(mix.partners)]
    assert (batch["share"] == mix.share).all()
    assert 0 < batch["share"].mean() < 1


def test_starting_at_a_step_gives_what_the_whole_sequence_gives_there(dataset: Dataset) -> None:
    reader = RecordReader(*dataset, "train")
    order = TrainOrder(len(reader), 32, seed=9)
    how = TrainInput(SIZE, Augmentation(), seed=9)
    last = 3 * order.steps_per_epoch
    whole = elements(train_batches(reader, order, how, Layout(), start_step=0, stop_step=last))
    later = elements(train_batches(reader, order, how, Layout(), start_step=last - 4, stop_step=last))
    assert len(later) == 4
    for ours, theirs in zip(later, whole[-4:], strict=True):
        assert all((ours[key] == theirs[key]).all() for key in ours)


@pytest.mark.parametrize("batch_size", [1, 7, 16, 1000])
@pytest.mark.parametrize("replicas", [1, 2])
def test_evaluation_sees_every_record_once_and_unaltered(dataset: Dataset, batch_size: int, replicas: int) -> None:
    reader = RecordReader(*dataset, "validation")
    layout = Layout(replicas, 0, replicas)
    parts = elements(evaluation_batches(reader, batch_size=batch_size, image_size=SIZE, layout=layout))
    indices = np.concatenate([part["index"] for part in parts])
    assert sorted(indices[indices >= 0]) == list(range(len(reader)))
    weights = np.concatenate([part["weight"] for part in parts])
    assert (weights == (indices >= 0)).all()
    assert {part["image"].shape for part in parts} == {parts[0]["image"].shape}


def test_workers_feed_disjoint_replicas_that_make_up_the_batch(dataset: Dataset) -> None:
    reader = RecordReader(*dataset, "train")
    order = TrainOrder(len(reader), 16, seed=0)
    how = TrainInput(SIZE, Augmentation.none(), seed=0)
    seen = []
    for worker in range(2):
        layout = Layout(replicas=4, first=2 * worker, local=2)
        seen += elements(train_batches(reader, order, how, layout, start_step=5, stop_step=6))
    indices = np.concatenate([part["index"] for part in seen])
    assert sorted(indices[indices >= 0]) == sorted(order.batch(5)[1])
