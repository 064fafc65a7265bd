"""The training report: an honest verdict, a self-contained page, safe against file names, shown in a real browser."""

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipeline import page
from data_pipeline.manifest import Counts, Grouping, Manifest, NearDuplicates, QuarantineRow, SplitCounts
from trainer.metrics import Predictions, compute_metrics, majority_baseline
from trainer.report import Example, ReportInputs, judge, render_report, write_report

NASTY = "normal/<img src=x onerror=alert(1)>.png"
CLASSES = ("carcinoma", "normal", "dyskeratosis")
CHROMIUM = shutil.which("chromium")
BROWSER_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium isn't installed")


def predictions(*, right: float, n: int = 300) -> Predictions:
    """Answers on `n` images of three classes, five to a slide, of which `right` are right."""
    labels = np.arange(n) // 5 % 3
    answers = np.where(np.arange(n) % 100 < right * 100, labels, (labels + 1) % 3)
    probabilities = np.full((n, 3), 0.05, np.float32)
    probabilities[np.arange(n), answers] = 0.9
    names = tuple(f"{CLASSES[label]}/{row}.png" for row, label in enumerate(labels))
    return Predictions(names, tuple(f"slide-{row // 5}" for row in range(n)), labels.astype(np.int64), probabilities)


def history(epochs: int) -> list[dict[str, float]]:
    return [
        {
            "epoch": epoch,
            "train_loss": 1.6 / epoch**0.7,
            "train_accuracy": 1 - 0.7 / epoch**0.7,
            "validation_loss": 1.5 / epoch**0.5 + 0.02 * epoch,
            "validation_accuracy": 0.9 - 0.6 / epoch**0.6,
            "validation_balanced_accuracy": 0.86 - 0.6 / epoch**0.6,
            "images_per_s": 200.0 + epoch,
            "seconds": 3.1,
            "learning_rate": 1e-3,
        }
        for epoch in range(1, epochs + 1)
    ]


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


@pytest.mark.parametrize(
    ("accuracy", "balanced", "groups", "level"),
    [
        (0.80, 0.75, 60, "better"),
        (0.80, 0.33, 60, "unclear"),
        (0.55, 0.50, 60, "unclear"),
        (0.80, 0.75, 5, "unclear"),
        (0.50, 0.60, 60, "no-better"),
        (0.20, 0.20, 60, "no-better"),
    ],
)
def test_the_verdict_is_no_kinder_than_the_number_of_groups_allows(
    accuracy: float, balanced: float, groups: int, level: str
) -> None:
    test = {"n": 3000, "groups": groups, "accuracy": accuracy, "balanced_accuracy": balanced}
    majority = {"accuracy": 0.5, "balanced_accuracy": 1 / 3}
    assert judge(test, majority, groups_known=True).level == level


def test_without_known_groups_images_are_what_is_counted() -> None:
    test = {"n": 300, "groups": 300, "accuracy": 0.6, "balanced_accuracy": 0.6}
    assert judge(test, {"accuracy": 0.5, "balanced_accuracy": 0.3}, groups_known=False).trials == 300


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
        "seed-7-1f3a", "29,783,365 parameters", "12 epochs in 10 min 15 s", "206 images a second",
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
    assert len(drawings) == 2
    assert all(
        attributes["role"] == "img" and "best epoch is 9" in str(attributes["aria-label"]) for attributes in drawings
    )
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
    assert text.count("<svg") == (2 if epochs else 0)


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


def chromium(tmp_path: Path, *arguments: str) -> str:
    command = (str(CHROMIUM), *BROWSER_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@needs_chromium
def test_chromium_shows_the_page_and_runs_nothing_in_it(tmp_path: Path) -> None:
    shown = chromium(tmp_path, "--dump-dom", write_report(tmp_path, INPUTS).as_uri())
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown
    assert shown.count("<img ") == 1


@needs_chromium
@pytest.mark.parametrize(("scheme", "dark"), [(0, True), (1, False)], ids=["dark", "light"])
def test_the_page_follows_the_readers_light_or_dark(tmp_path: Path, scheme: int, dark: bool) -> None:
    picture = tmp_path / "page.png"
    address = write_report(tmp_path, INPUTS).as_uri()
    chromium(tmp_path, f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={picture}", address)
    brightness = int(np.asarray(Image.open(picture).convert("L"))[2, 2])
    assert brightness < 60 if dark else brightness > 200


@needs_chromium
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_the_page_never_scrolls_sideways(tmp_path: Path, report: str, width: int) -> None:
    (tmp_path / "report.html").write_text(report, encoding="utf-8")
    measure = "this.dataset.excess = this.contentDocument.documentElement.scrollWidth - this.clientWidth"
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe src="report.html" style="border:0;width:{width}px;height:900px" onload="{measure}"></iframe>'
    )
    shown = chromium(tmp_path, "--allow-file-access-from-files", "--dump-dom", frame.as_uri())
    assert 'data-excess="0"' in shown
