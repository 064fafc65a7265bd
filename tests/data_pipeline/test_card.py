"""The dataset card: complete, deterministic, safe against file names, readable in a real browser."""

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from data_pipeline import grouping, page
from data_pipeline.card import render_card
from data_pipeline.manifest import Counts, FileSeal, Grouping, Manifest, QuarantineRow, ShardSeal, SplitCounts

NASTY = "normal/<img src=x onerror=alert(1)>.png"
CHROMIUM = shutil.which("chromium")
BROWSER_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def encoded_image(kind: str, colour: tuple[int, int, int] = (180, 120, 170)) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (24, 24), colour).save(buffer, kind)
    return buffer.getvalue()


MANIFEST = Manifest(
    organ="cervix",
    classes=("carcinoma", "normal"),
    image_size=256,
    counts=Counts(inputs=1207, written=1200, duplicates=4, quarantined=3),
    splits={
        "train": SplitCounts(records=714, groups=60, shards=2, per_class={"carcinoma": 214, "normal": 500}),
        "validation": SplitCounts(records=306, groups=20, shards=1, per_class={"carcinoma": 106, "normal": 200}),
        "test": SplitCounts(records=180, groups=15, shards=1, per_class={"carcinoma": 80, "normal": 100}),
    },
    grouping=Grouping(
        rule="slide",
        description="slide number, then a dash",
        groups=95,
        examples={"normal/149143370-002.jpg": "149143370"},
    ),
    shards=(),
    files=(),
    settings={"seed": 7, "image_size": 256, "group_by": "auto"},
    warnings=("carcinoma has few slides.",),
    inputs_sha256="ab" * 32,
)
QUARANTINE = (
    QuarantineRow(NASTY, "quarantined", "a text file", ""),
    *(QuarantineRow(f"normal/{n}.png", "duplicate", "same pixels", "normal/first.png") for n in range(4)),
    QuarantineRow("normal/half.jpg", "quarantined", "cut short", ""),
    QuarantineRow("normal/mask.png", "quarantined", "cut short", ""),
)
SAMPLES = {"carcinoma": [encoded_image("PNG"), encoded_image("JPEG")], "normal": [encoded_image("JPEG")]}


class Elements(HTMLParser):
    """Every start tag of a page with its attributes, and the text between tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data + " "


@pytest.fixture(scope="module")
def card() -> str:
    return render_card(MANIFEST, QUARANTINE, SAMPLES)


def test_equal_datasets_give_equal_cards_whatever_the_order_of_their_dictionaries(card: str) -> None:
    reordered = replace(
        MANIFEST, settings=dict(reversed(MANIFEST.settings.items())), splits=dict(sorted(MANIFEST.splits.items()))
    )
    assert render_card(reordered, list(QUARANTINE), dict(reversed(SAMPLES.items()))) == card


def test_the_card_reads_nothing_that_is_sealed_after_it(card: str) -> None:
    seal = FileSeal("cervix-test.tfrecord-00000-of-00001.idx", "cd" * 32, 9)
    shard = ShardSeal("cervix-test.tfrecord-00000-of-00001", "test", "ef" * 32, 99, 180, seal)
    assert render_card(replace(MANIFEST, shards=(shard,), files=(seal,)), QUARANTINE, SAMPLES) == card
    assert MANIFEST.inputs_sha256 in card


def test_the_card_says_what_became_of_every_file(card: str) -> None:
    words = re.sub(r"\s+", " ", Elements(card).words)
    assert "1,207 files in, 1,200 records out" in words
    assert "carcinoma 214 106 80 400" in words
    assert "Images 714 306 180 1,200" in words
    assert "Groups 60 20 15 95" in words
    assert "same pixels duplicate 4 cut short quarantined 2 a text file quarantined 1" in words
    assert "149143370-002.jpg 149143370" in words
    assert "Slide number, then a dash. This ties 1,200 images into 95 groups." in words
    assert "carcinoma has few slides." in words
    assert "seed 7" in words


def test_a_file_name_is_text_and_never_markup(card: str) -> None:
    assert "<img src=x" not in card
    assert NASTY in Elements(card).words
    assert [tag for tag, attributes in Elements(card).tags if "onerror" in attributes or tag == "script"] == []


def test_a_file_name_that_is_no_unicode_can_still_be_written() -> None:
    row = QuarantineRow("normal/\udcff.png", "quarantined", "not an image", "")
    assert r"\udcff.png" in render_card(MANIFEST, [row], {}).encode("utf-8").decode()


def test_every_image_has_words_and_nothing_is_loaded_from_elsewhere(card: str) -> None:
    tags = Elements(card).tags
    images = [attributes for tag, attributes in tags if tag == "img"]
    assert [image["alt"] for image in images] == ["carcinoma, sample 1", "carcinoma, sample 2", "normal, sample 1"]
    assert all(attributes["aria-label"] for _, attributes in tags if attributes.get("role") == "img")
    addresses = [value for _, attributes in tags for name in ("src", "href") if (value := attributes.get(name))]
    assert all(value.startswith(("data:image/png;", "data:image/jpeg;", "#")) for value in addresses)
    assert "url(" not in card
    assert "@import" not in card


def test_a_dataset_without_groups_says_so_in_plain_words() -> None:
    alone = Grouping(rule=page.NO_GROUPS, description="each image stands alone", groups=1200, examples={})
    words = Elements(render_card(replace(MANIFEST, grouping=alone), (), {})).words
    assert page.NO_GROUPS == grouping.NO_RULE
    assert "images of one slide may lie in several splits" in words
    assert "never saw" not in words


def test_nothing_left_out_and_an_empty_split_are_said_plainly() -> None:
    empty = replace(MANIFEST, splits={"train": MANIFEST.splits["train"]}, classes=("carcinoma",))
    words = re.sub(r"\s+", " ", Elements(render_card(empty, (), {})).words)
    assert "Nothing: every file became a record." in words
    assert "carcinoma 214 0 0 214" in words


def test_only_the_first_hundred_files_are_listed_and_the_reader_is_told_where_the_rest_is() -> None:
    rows = [QuarantineRow(f"normal/{n:04}.png", "duplicate", "same bytes", "normal/a.png") for n in range(2000)]
    text = render_card(MANIFEST, rows, {})
    assert "0099.png" in text
    assert "0100.png" not in text
    assert "The first 100; all of them are in quarantine.csv." in text
    assert "2,000 files by reason" in text


def test_a_sample_that_is_neither_png_nor_jpeg_is_refused() -> None:
    with pytest.raises(ValueError, match="PNG or JPEG"):
        render_card(MANIFEST, (), {"normal": [b"GIF89a"]})


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` as in WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_every_colour_stands_out_from_its_ground(card: str, scheme: int) -> None:
    colours = dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", card.split(":root {")[1 + scheme].split("}")[0]))
    for ground in (colours["paper"], colours["surface"]):
        assert contrast(colours["ink"], ground) > 7
        assert min(contrast(colours[name], ground) for name in ("muted", "good", "fair", "poor", "validation")) > 4.5
        assert min(contrast(colours[name], ground) for name in ("train", "validation", "test")) > 3


@pytest.mark.skipif(CHROMIUM is None, reason="chromium isn't installed")
def test_chromium_shows_the_card_and_runs_nothing_in_it(card: str, tmp_path: Path) -> None:
    path = tmp_path / "card.html"
    path.write_text(card, encoding="utf-8")
    command = [str(CHROMIUM), *BROWSER_FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]
    shown = subprocess.run(
        [*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    assert "&lt;img src=x onerror=alert(1)&gt;" in shown.stdout
    assert shown.stdout.count("<img ") == 3
