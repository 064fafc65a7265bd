"""The figures of a training: page colours, page font, words for those who can't see them, no stray ids."""

import re

import pytest

from trainer.plots import Figure
from trainer.plots_training import accuracy_curve, loss_curve, speed_curve

HISTORY = [
    {
        "epoch": epoch,
        "train_loss": 1 / epoch,
        "train_accuracy": 1 - 1 / (epoch + 1),
        "validation_loss": 1.2 / epoch,
        "validation_accuracy": 0.8 - 0.5 / epoch,
        "validation_balanced_accuracy": 0.7 - 0.5 / epoch,
    }
    for epoch in range(1, 6)
]


@pytest.fixture(params=[loss_curve, accuracy_curve], ids=["loss", "accuracy"])
def figure(request: pytest.FixtureRequest) -> Figure:
    drawn: Figure = request.param(HISTORY, best_epoch=3)
    return drawn


def test_a_figure_is_drawn_in_the_colours_and_the_font_of_the_page(figure: Figure) -> None:
    assert "var(--train)" in figure.svg
    assert "var(--validation)" in figure.svg
    assert re.findall(r": #[0-9a-f]{3,6}", figure.svg) == []
    assert "font-family" not in figure.svg
    assert "<style" not in figure.svg


def test_a_figure_says_in_words_what_it_shows() -> None:
    figure = loss_curve(HISTORY, best_epoch=3)
    assert figure.description == (
        "Loss over 5 epochs: train from 1.000 to 0.200; validation from 1.200 to 0.240. Epoch 3 was kept."
    )
    assert f'role="img" aria-label="{figure.description}"' in figure.svg


def test_the_best_epoch_is_marked(figure: Figure) -> None:
    assert ">kept: 3</text>" in figure.svg


def test_lettering_is_text_and_equal_numbers_give_equal_drawings(figure: Figure) -> None:
    again = {"Loss": loss_curve, "Accuracy": accuracy_curve}[figure.name](HISTORY, best_epoch=3)
    assert ">epoch</text>" in figure.svg
    assert again == figure


def test_a_loss_that_is_no_number_leaves_a_gap_and_no_error() -> None:
    rows = [row | {"train_loss": float("nan")} for row in HISTORY]
    assert "nan" not in loss_curve(rows, best_epoch=3).svg.split(">", 1)[1]


def test_a_line_without_numbers_is_left_out_of_the_legend() -> None:
    rows = [{"epoch": row["epoch"], "train_loss": row["train_loss"]} for row in HISTORY]
    assert [line.name for line in loss_curve(rows, best_epoch=3).lines] == ["train"]


def test_speed_begins_at_zero_so_that_small_changes_look_small() -> None:
    figure = speed_curve([row | {"images_per_s": 200.0 + row["epoch"]} for row in HISTORY])
    assert figure.description == "Images trained on a second: from 201 to 205 over 5 epochs."
    assert ">0</text>" in figure.svg
