"""The dataset card: complete, deterministic, safe against file names."""

import base64
import html
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from data_pipeline import grouping, page
from data_pipeline.card import CardImages, LookAlikes, render_card
from data_pipeline.manifest import (
    Counts,
    FileSeal,
    Grouping,
    Manifest,
    NearDuplicates,
    OriginalSizes,
    QuarantineRow,
    ShardSeal,
    SplitCounts,
)  # fmt: skip
from tests.conftest import make_images
from tests.data_pipeline.conversion import convert

NASTY = 'normal/"><img src=x onerror=alert(1)>.png'


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
    grouping=Grouping("slide", "slide number, then a dash", 95, {"normal/149143370-002.jpg": "149143370"}),
    near_duplicates=NearDuplicates(threshold=0.7, pairs=30, images=42),
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
LEFT, RIGHT, FAULTY = (encoded_image("JPEG", colour) for colour in ((200, 90, 90), (90, 200, 90), (90, 90, 200)))
SAME = LookAlikes(("normal/7-1.png", "normal/8-1.png"), 0.734, (LEFT, RIGHT))
SURE = LookAlikes(("normal/7-2.png", "normal/8-2.png"), 0.99, (LEFT, RIGHT))
DIFFERENT = LookAlikes(("carcinoma/9-1.png", NASTY), 0.918, (LEFT, RIGHT))
IMAGES = CardImages(
    samples={"carcinoma": [encoded_image("PNG"), encoded_image("JPEG")], "normal": [encoded_image("JPEG")]},
    near=(SURE, SAME, DIFFERENT),
    left_out={NASTY: FAULTY, "normal/mask.png": LEFT, "normal/half.jpg": LEFT},
    sizes=OriginalSizes((("640 × 480", 900), ("320 × 240", 300)), distinct=7, width=(64, 1280), height=(48, 960)),
)
NOTHING = CardImages()


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


def said(text: str) -> str:
    """The words of a page, or of a part of one."""
    return re.sub(r"\s+", " ", Elements(text).words)


@pytest.fixture(scope="module")
def card() -> str:
    return render_card(MANIFEST, QUARANTINE, IMAGES)


def test_equal_datasets_give_equal_cards_in_whatever_order_their_parts_come(card: str) -> None:
    reordered = replace(
        MANIFEST, settings=dict(reversed(MANIFEST.settings.items())), splits=dict(sorted(MANIFEST.splits.items()))
    )
    turned = replace(
        IMAGES,
        samples=dict(reversed(IMAGES.samples.items())),
        near=list(reversed(IMAGES.near)),
        left_out=dict(reversed(IMAGES.left_out.items())),
    )
    assert render_card(reordered, list(QUARANTINE), turned) == card


def test_the_card_reads_nothing_that_is_sealed_after_it(card: str) -> None:
    seal = FileSeal("cervix-test.tfrecord-00000-of-00001.idx", "cd" * 32, 9)
    shard = ShardSeal("cervix-test.tfrecord-00000-of-00001", "test", "ef" * 32, 99, 180, seal)
    assert render_card(replace(MANIFEST, shards=(shard,), files=(seal,)), QUARANTINE, IMAGES) == card
    assert MANIFEST.inputs_sha256 in card


def test_the_card_says_what_became_of_every_file(card: str) -> None:
    words = said(card)
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
    assert r"\udcff.png" in render_card(MANIFEST, [row], NOTHING).encode("utf-8").decode()


def test_every_image_has_words_and_nothing_is_loaded_from_elsewhere(card: str) -> None:
    tags = Elements(card).tags
    images = [attributes for tag, attributes in tags if tag == "img"]
    samples = ["carcinoma, sample 1", "carcinoma, sample 2", "normal, sample 1"]
    assert [image["alt"] for image in images][: len(samples)] == samples
    assert all(image["alt"] for image in images)
    assert all(attributes["aria-label"] for _, attributes in tags if attributes.get("role") == "img")
    addresses = [value for _, attributes in tags for name in ("src", "href") if (value := attributes.get(name))]
    assert all(value.startswith(("data:image/png;", "data:image/jpeg;", "#")) for value in addresses)
    assert {tag for tag, _ in tags} & {"script", "link", "iframe", "object", "embed", "form", "base"} == set()
    assert "url(" not in card
    assert "@import" not in card


def test_a_dataset_without_groups_says_so_in_plain_words() -> None:
    alone = Grouping(rule=page.NO_GROUPS, description="each image stands alone", groups=1200, examples={})
    words = Elements(render_card(replace(MANIFEST, grouping=alone), (), NOTHING)).words
    assert page.NO_GROUPS == grouping.NO_RULE
    assert "images of one slide may lie in several splits" in words
    assert "never saw" not in words


def test_nothing_left_out_and_an_empty_split_are_said_plainly() -> None:
    empty = replace(MANIFEST, splits={"train": MANIFEST.splits["train"]}, classes=("carcinoma",))
    words = said(render_card(empty, (), NOTHING))
    assert "Nothing: every file became a record." in words
    assert "carcinoma 214 0 0 214" in words


def test_the_first_hundred_files_are_listed_quarantined_ones_first_and_the_reader_is_told_where_the_rest_is() -> None:
    rows = [QuarantineRow(f"normal/{n:04}.png", "duplicate", "same bytes", "normal/a.png") for n in range(2000)]
    words = said(render_card(MANIFEST, [*rows, QuarantineRow("normal/z.png", "quarantined", "cut short", "")], NOTHING))
    assert "2,001 files by reason" in words
    assert "The complete list is quarantine.csv" in words
    assert words.index("normal/z.png cut short") < words.index("0000.png") < words.index("0098.png")
    assert "0099.png" not in words


def test_a_sample_that_is_neither_png_nor_jpeg_is_refused() -> None:
    with pytest.raises(ValueError, match="PNG or JPEG"):
        render_card(MANIFEST, (), CardImages(samples={"normal": [b"GIF89a"]}))


def test_near_duplicates_come_with_both_pictures_names_and_diagnoses(card: str) -> None:
    for pair in IMAGES.near:
        shown = next(text for text in card.split("<li")[1:] if html.escape(pair.paths[0], quote=False) in text)
        pictures = [attributes["src"] for tag, attributes in Elements(shown.split("</li>")[0]).tags if tag == "img"]
        assert pictures == [page.data_uri(LEFT), page.data_uri(RIGHT)]
        expected = f"similarity {pair.similarity:.2f}"
        for path in pair.paths:
            expected += f" {path.partition('/')[0]} {path}"
        assert expected in said("<li" + shown.split("</li>")[0])
    assert "30 pairs were found among 42 images, with a similarity of at least 0.70" in said(card)
    assert "near_duplicates.csv" in said(card)


def test_pairs_of_two_diagnoses_are_marked_and_come_first_then_those_most_likely_to_be_chance(card: str) -> None:
    words = said(card)
    in_order = ("Look alike, different diagnoses: check the labels", "carcinoma or normal? similarity 0.92",
                "Look alike, same diagnosis", "similarity 0.73", "similarity 0.99")  # fmt: skip
    assert sorted(in_order, key=words.index) == list(in_order)
    assert card.count('<li class="differ">') == 1
    assert words.count(" or normal?") == 1
    assert "different diagnoses" not in said(render_card(MANIFEST, (), CardImages(near=[SAME])))


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (NearDuplicates(), "They were not looked for"),
        (NearDuplicates(threshold=0.7), "None were found. A pair would have a similarity of at least 0.70."),
        (NearDuplicates(threshold=0.7, pairs=1, images=2), "1 pair was found among 2 images"),
    ],
)
def test_the_card_tells_near_duplicates_not_looked_for_from_none_found(found: NearDuplicates, sentence: str) -> None:
    assert sentence in said(render_card(replace(MANIFEST, near_duplicates=found), (), NOTHING))


def test_what_was_left_out_is_shown_once_a_picture_with_its_reason_and_every_name(card: str) -> None:
    section = card.split('<section id="left-out">')[1].split("</section>")[0]
    pictures = [attributes for tag, attributes in Elements(section).tags if tag == "img"]
    assert [picture["src"] for picture in pictures] == [page.data_uri(FAULTY), page.data_uri(LEFT)]
    assert pictures[0]["alt"] == f"Left out: {NASTY}"
    assert f"A text file. {NASTY} Cut short. normal/half.jpg normal/mask.png" in said(section)


def test_the_sizes_of_the_originals_are_told(card: str) -> None:
    assert "7 sizes: 64 to 1,280 pixels wide, 48 to 960 high. All are stored at 256 × 256." in said(card)
    assert "The commonest 2, width × height. Pixels Images Share 640 × 480 900 75.0% 320 × 240 300 25.0%" in said(card)
    one = OriginalSizes((("640 × 480", 1200),), distinct=1, width=(640, 640), height=(480, 480))
    alone = said(render_card(MANIFEST, (), CardImages(sizes=one)))
    assert "Every original is 640 × 480 pixels, stored at 256 × 256." in alone


def test_warnings_stand_above_everything_they_are_about(card: str) -> None:
    words = said(card)
    assert words.index("1 warning") < words.index("carcinoma has few slides.") < words.index("Diagnoses and splits")
    assert "No warnings." not in words
    assert "No warnings." in said(render_card(replace(MANIFEST, warnings=()), (), NOTHING))


def unlikeness(small: Image.Image, original: Image.Image) -> float:
    """How far apart two pictures' green channels are, in grey levels."""
    pair = (small, original.resize(small.size, Image.Resampling.BILINEAR))
    return float(ImageStat.Stat(ImageChops.difference(*(picture.getchannel("G") for picture in pair))).mean[0])


def test_a_real_conversion_shows_its_look_alikes_its_label_conflicts_and_its_sizes(tmp_path: Path) -> None:
    images = make_images(tmp_path / "images", slides=4, tiles=2)
    straight = Image.open(images / "blue" / "S000_0.png")
    turned = straight.transpose(Image.Transpose.ROTATE_90)
    turned.resize((60, 60)).save(images / "red" / "turned.png")
    shutil.copy(images / "blue" / "S001_0.png", images / "green" / "conflict.png")
    convert(images, tmp_path)
    text = (tmp_path / "gland" / "card.html").read_text(encoding="utf-8")
    assert "blue or red?" in said(text)
    assert "blue/S000_0.png, which looks like red/turned.png" in text
    sources = re.findall(r'base64,([^"]+)" alt="[^"]*, which looks like', text)
    left, right = (Image.open(BytesIO(base64.b64decode(source))) for source in sources)
    assert unlikeness(left, straight) < unlikeness(left, turned)
    assert unlikeness(right, turned) < unlikeness(right, straight)
    assert "Left out: blue/S001_0.png, green/conflict.png" in text
    assert "2 sizes: 48 to 60 pixels wide" in said(text)
    assert "blue, sample 3" in text
    assert len(text) < 100_000
