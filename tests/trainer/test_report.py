"""The training report: every fact in its section, a self-contained page, safe against file names."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline import page
from data_pipeline.manifest import Counts, Grouping, Manifest, NearDuplicates, QuarantineRow, SplitCounts
from tests.trainer.report_cases import history, poor, rich
from trainer.metrics import Predictions, compute_metrics, majority_baseline
from trainer.report import Example, ReportInputs, render_report, write_report

NASTY = "normal/<img src=x onerror=alert(1)>.png"
CLASSES = ("carcinoma", "normal", "dyskeratosis")


def predictions(*, right: float, n: int = 300) -> Predictions:
    """Answers on `n` images of three classes, five to a slide, of which `right` are right."""
    labels = np.arange(n) // 5 % 3
    answers = np.where(np.arange(n) % 100 < right * 100, labels, (labels + 1) % 3)
    probabilities = np.full((n, 3), 0.05, np.float32)
    probabilities[np.arange(n), answers] = 0.9
    names = tuple(f"{CLASSES[label]}/{row}.png" for row, label in enumerate(labels))
    return Predictions(names, tuple(f"slide-{row // 5}" for row in range(n)), labels.astype(np.int64), probabilities)


BUFFER = BytesIO()
Image.new("RGB", (24, 24), (180, 120, 170)).save(BUFFER, "JPEG")
TRAIN = {"carcinoma": 200, "normal": 420, "dyskeratosis": 94}
MANIFEST = Manifest(
    organ="cervix",
    classes=CLASSES,
    image_size=256,
    counts=Counts(inputs=1327, written=1320, duplicates=4, quarantined=3),
    splits={
        "train": SplitCounts(records=714, groups=142, shards=2, per_class=TRAIN),
        "validation": SplitCounts(records=306, groups=61, shards=1, per_class=dict.fromkeys(CLASSES, 102)),
        "test": SplitCounts(records=300, groups=60, shards=1, per_class=dict.fromkeys(CLASSES, 100)),
    },
    grouping=Grouping("slide", "The slide number before the last dash of a file name.", 263, {"normal/7-1.jpg": "7"}),
    near_duplicates=NearDuplicates(),
    shards=(),
    files=(),
    settings={"seed": 7, "image_size": 256},
    warnings=("dyskeratosis has few slides.",),
    inputs_sha256="ab" * 32,
)
TEST = compute_metrics(predictions(right=0.8), CLASSES)
INPUTS = ReportInputs(
    organ="cervix",
    run="seed-7-1f3a",
    manifest=MANIFEST,
    quarantine=(QuarantineRow(NASTY, "quarantined", "not an image", ""),),
    history=history(12),
    best_epoch=9,
    monitor="loss",
    validation=compute_metrics(predictions(right=0.83), CLASSES),
    test=TEST,
    baselines={"majority": majority_baseline(TRAIN, predictions(right=0.8), CLASSES)},
    mistakes=(Example(BUFFER.getvalue(), NASTY, "slide-<b>1", "normal", "carcinoma", 0.97),),
    settings={"seed": 7, "learning_rate": 1e-3, "patience": None},
    environment={"python": "3.11", "devices": ["CPU:0"]},
    parameters=29_783_365,
    train_seconds=615.4,
    command="python -m trainer --organ=cervix --seed=7",
)


class Elements(HTMLParser):
    """Every start tag of a page with its attributes, and the text between tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.words = re.sub(r"\s+", " ", self.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data + " "


@pytest.fixture(scope="module")
def report() -> str:
    return render_report(INPUTS)


def test_the_verdict_comes_first_and_in_words(report: str) -> None:
    words = Elements(report).words
    assert "Clearly better than always answering the commonest diagnosis." in words
    assert (
        "On 300 test images of 60 groups that played no part in training, the model was right 80.0% of the time"
        in words
    )
    assert "Always answering “normal” would have been right 33.3% of the time" in words
    assert words.index("Clearly better") < words.index("By diagnosis")


def test_a_model_that_only_guesses_is_told_so() -> None:
    poor = replace(INPUTS, test=compute_metrics(predictions(right=0.3), CLASSES))
    words = Elements(render_report(poor)).words
    assert "No better than always answering the commonest diagnosis." in words
    assert "Clearly better" not in words


def test_unknown_groups_are_confessed_beside_the_verdict(report: str) -> None:
    sentence = "No slide or patient is known for these images, so images of one slide may lie in several splits"
    unknown = Grouping(page.NO_GROUPS, "Each image stands alone.", 1320, {})
    words = Elements(render_report(replace(INPUTS, manifest=replace(MANIFEST, grouping=unknown)))).words
    assert words.index(sentence) < words.index("By diagnosis")
    assert "of 60 groups" not in words
    assert sentence not in Elements(report).words


def test_every_section_holds_its_facts(report: str) -> None:
    words = Elements(report).words
    for fact in (
        "seed-7-1f3a", "29,783,365 parameters", "12 epochs in 10 min 15 s", "203 images a second in the median epoch",
        "3% of the time waiting for data",
        "Epoch 9 was kept: it had the best loss on the validation split", "Test, majority: always “normal”",
        "normal 420 102 100 622", "normal/7-1.jpg 7", "dyskeratosis has few slides.", "not an image quarantined 1",
        "carcinoma at 97%, truly normal", "learning_rate 0.001", "patience null", 'devices ["CPU:0"]',
        f"fingerprint {MANIFEST.fingerprint}", f"inputs_sha256 {'ab' * 32}",
        "python -m trainer --organ=cervix --seed=7",
    ):  # fmt: skip
        assert fact in words


def test_the_confusion_matrix_shows_counts_and_shares_of_the_true_diagnosis(report: str) -> None:
    matrix = Elements(report.split('<table class="confusion">')[1].split("</table>")[0])
    (first, second, third), total = TEST["confusion_matrix"][0], TEST["per_class"]["carcinoma"]["support"]
    shares = [f"{n} {100 * n / total:.0f}%" for n in (first, second, third)]
    assert "carcinoma " + " ".join(shares) in matrix.words
    assert next(a["style"] for _, a in matrix.tags if a.get("class") == "right") == f"--rate: {first / total:.3f}"


def test_a_diagnosis_without_test_images_shows_a_dash_and_no_number() -> None:
    only_two = predictions(right=0.8)
    rows = np.flatnonzero(only_two.labels < 2)
    few = Predictions(
        tuple(only_two.ids[row] for row in rows), tuple(only_two.groups[row] for row in rows),
        only_two.labels[rows], np.eye(3, dtype=np.float32)[only_two.labels[rows]],
    )  # fmt: skip
    words = Elements(render_report(replace(INPUTS, test=compute_metrics(few, CLASSES)))).words
    assert "dyskeratosis – – – 0" in words


def test_a_file_name_is_text_and_never_markup(report: str) -> None:
    assert "<img src=x" not in report
    assert "<b>1" not in report
    assert Elements(report).words.count(NASTY) == 2
    assert [tag for tag, attributes in Elements(report).tags if "onerror" in attributes or tag == "script"] == []


def test_every_figure_has_words_and_nothing_is_loaded_from_elsewhere(report: str) -> None:
    tags = Elements(report).tags
    drawings = [attributes for tag, attributes in tags if tag == "svg"]
    assert len(drawings) == 3
    assert all(attributes["role"] == "img" and attributes["aria-label"] for attributes in drawings)
    assert all(attributes["alt"] for tag, attributes in tags if tag == "img")
    addresses = [value for _, attributes in tags for name in ("src", "href") if (value := attributes.get(name))]
    assert all(value.startswith(("data:image/jpeg;", "#")) for value in addresses)
    assert all(reference.startswith("#") for reference in re.findall(r"url\(([^)]*)\)", report))
    assert "http://" not in report
    assert "https://" not in report


def test_ids_are_unique_and_every_reference_finds_its_target(report: str) -> None:
    tags = Elements(report).tags
    ids = [str(attributes["id"]) for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:url\(|href=")#([^)"]+)', report)
    assert set(references) <= set(ids)
    assert references


@pytest.mark.parametrize("epochs", [0, 1, 2, 100])
def test_any_number_of_epochs_can_be_drawn(epochs: int) -> None:
    text = render_report(replace(INPUTS, history=history(epochs), best_epoch=min(epochs, 1)))
    assert text.count("<svg") == (3 if epochs else 0)


def test_a_run_without_validation_still_has_a_report() -> None:
    rows = [{key: value for key, value in row.items() if not key.startswith("validation")} for row in history(3)]
    words = Elements(render_report(replace(INPUTS, validation={}, history=rows, best_epoch=3))).words
    assert "Loss train" in words
    assert "validation, balanced" not in words


def test_equal_inputs_give_equal_text(report: str) -> None:
    assert render_report(replace(INPUTS, settings=dict(reversed(list(INPUTS.settings.items()))))) == report


def test_the_file_is_whole_or_absent(tmp_path: Path, report: str) -> None:
    assert write_report(tmp_path, INPUTS) == tmp_path / "report.html"
    broken = replace(INPUTS, mistakes=(replace(INPUTS.mistakes[0], image=b"no image"),))
    with pytest.raises(ValueError, match="PNG or JPEG"):
        write_report(tmp_path, broken)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == report


def test_a_disk_that_refuses_leaves_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OSError, match=r"report\.html"):
        write_report(tmp_path, INPUTS)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.fixture(scope="module")
def full() -> str:
    return Elements(render_report(rich())).words.replace("_ ", "_")


def test_the_first_lines_say_that_the_classical_baseline_is_not_beaten_and_then_that_there_is_a_shortcut(
    full: str,
) -> None:
    verdict = full.index("but not shown to beat the classical baseline.")
    difference = full.index("a difference of +2.1 points (95% interval: −3.4 to 7.9). That may be chance")
    shortcut = full.index(
        "The border of an image, without anything it shows further in, is enough for a balanced accuracy of 46%"
    )
    assert verdict < difference < shortcut < full.index("On 210 test images of 70 groups")


def test_a_network_worse_than_the_classical_baseline_is_told_so_first() -> None:
    inputs = rich()
    difference = {name: {"value": -0.1, "interval": [-0.2, -0.02]} for name in ("accuracy", "balanced_accuracy")}
    classical = {**inputs.baselines["classical"], "difference": difference}
    words = Elements(render_report(replace(inputs, baselines={**inputs.baselines, "classical": classical}))).words
    assert 0 < words.index("Worse than the classical baseline") < words.index("Balanced accuracy on the test split")


def test_what_is_gained_by_giving_up_plain_accuracy_is_not_called_a_gain() -> None:
    inputs = rich()
    difference = {
        "balanced_accuracy": {"value": 0.05, "interval": [0.01, 0.09]},
        "accuracy": {"value": -0.02, "interval": None},
    }
    classical = {**inputs.baselines["classical"], "difference": difference}
    words = Elements(render_report(replace(inputs, baselines={**inputs.baselines, "classical": classical}))).words
    assert "but not shown to beat the classical baseline." in words
    assert "But plain accuracy falls by 2.0 points." in words


def test_everything_a_run_knows_is_shown(full: str) -> None:
    inputs = rich()
    test = inputs.test
    low, high = (100 * end for end in test["intervals"]["accuracy"])
    assert inputs.abstention
    kept = inputs.abstention["test"]
    wrong = next(row for row in inputs.groups if not row.right)
    for fact in (
        f"Accuracy {100 * test['accuracy']:.1f}% 95%: {low:.1f}–{high:.1f}%",
        "1 group whose images carry several diagnoses is left out",
        "Network minus extra trees +2.4 points −3.1 to 8.1 +2.1 points −3.4 to 7.9",
        f"{sum(row.right for row in inputs.groups)} of 70 groups are right",
        f"{wrong.group} {wrong.truth} {wrong.answer} {100 * wrong.confidence:.0f}% 3 wrong",
        "Most often, moderate_dysplastic is taken for severe_dysplastic: 7 of 30 images",
        f"carcinoma_in_situ area {test['per_class']['carcinoma_in_situ']['roc_auc']:.3f}",
        "before temperature scaling it was", "The temperature is 1.31",
        "at least 83.0% . The threshold was chosen on the validation split, of which it leaves 48.0%.",
        f"it then abstains from {100 - 100 * kept['coverage']:.1f}% of the images",
        f"and {100 * kept['error']:.1f}% of its answers are wrong",
        "If it may abstain from the 50% it is least sure of",
        "Beside each image, in colour: where the network found what speaks for its answer (Grad-CAM)",
        "; next moderate_dysplastic at", "Border pixels alone 46.2% 39.0–53.0% 48.0% 45.0% high",
        "Look-alikes (similarity of at least 0.70): 30 pairs among 42 images", f"model.keras {'cd' * 32}",
    ):  # fmt: skip
        assert fact in full, fact


def test_what_a_tiny_dataset_cannot_tell_is_said_and_not_made_up() -> None:
    words = Elements(render_report(poor())).words
    assert "There are too few groups to tell a difference from chance." in words
    assert "There are too few groups for 95% intervals." in words
    assert "Accuracy 60.0% 95%: too few groups" in words
    assert "no threshold can be shown to keep the error among the answered at 5% or less" in words
    assert "ROC AUC – guessing" in words
    assert "nan" not in words.lower().split()
    assert "None" not in words.replace("None to show", "")


def test_a_page_full_of_pictures_can_still_be_sent_by_mail() -> None:
    buffer = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    heavy = replace(rich().mistakes[0], image=buffer.getvalue(), heat_map=buffer.getvalue())
    text = render_report(replace(rich(), mistakes=(heavy,) * 30, uncertain=(heavy,) * 30))
    assert text.count("<img ") == 2 * (24 + 12)
    assert len(text.encode()) < 3_000_000
