"""The report in a real browser: nothing fails, nothing is fetched, everything can be seen, read and reached by key."""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.browser import Browser, needs_chromium
from tests.trainer.report_cases import poor, rich
from trainer.report import render_report, write_report
from trainer.report_inputs import ReportInputs

NASTY = "normal/<img src=x onerror=alert(1)>" + "endless" * 30 + ".png"
LOOKS = {"light": (1280, False), "dark": (1280, True), "phone": (360, False), "dark phone": (360, True)}
# Of everything with words of its own: the contrast of its colour with what lies behind it, as WCAG 2.2 counts it.
CONTRASTS = """(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgba = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map(c => c / 255) };
  const behind = element => { for (let e = element; e; e = e.parentElement) {
    const colour = rgba(getComputedStyle(e).backgroundColor); if (colour[3] > 0.99) return colour }
    return rgba(getComputedStyle(document.body).backgroundColor) };
  const luminance = c => { const [r, g, b] = c.slice(0, 3).map(
    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b };
  const found = [];
  for (const e of document.querySelectorAll('main *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), svg = e.namespaceURI.endsWith('svg');
    const [low, high] = [luminance(rgba(svg ? style.fill : style.color)), luminance(behind(e))].sort((a, b) => a - b);
    found.push([(high + 0.05) / (low + 0.05), e.tagName + ' ' + e.textContent.trim().slice(0, 40)]);
  }
  return found })()"""
SIZES = "[...document.querySelectorAll('img, svg')].map(e => e.getBoundingClientRect()).map(r => [r.width, r.height])"
DECODED = "Promise.all([...document.images].map(image => image.decode())).then(() => document.images.length)"
UNREACHABLE = """[...document.querySelectorAll('main *')].filter(e => e.scrollWidth > e.clientWidth + 1
  && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX) && e.tabIndex !== 0)
  .map(e => e.outerHTML.slice(0, 80))"""
HEADINGS = "[...document.querySelectorAll('h1, h2, h3, h4')].map(heading => Number(heading.tagName[1]))"


def nasty(inputs: ReportInputs) -> ReportInputs:
    return replace(inputs, mistakes=(replace(inputs.mistakes[0], id=NASTY, group=NASTY), *inputs.mistakes[1:]))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture(scope="module", params=["rich", "poor"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    inputs = nasty(rich()) if request.param == "rich" else poor()
    return write_report(tmp_path_factory.mktemp(request.param), inputs)


@needs_chromium
@pytest.mark.parametrize("look", LOOKS)
def test_the_page_is_whole_in_every_light_and_at_every_width(browser: Browser, page: Path, look: str) -> None:
    width_px, dark = LOOKS[look]
    browser.open(page, width_px=width_px, dark=dark)
    assert browser.failures == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page.as_uri()]
    assert browser.evaluate(DECODED) == page.read_text().count("<img ")
    assert min(min(size) for size in browser.evaluate(SIZES)) > 40
    assert browser.evaluate("document.documentElement.scrollWidth") == width_px
    faint = [(round(ratio, 2), words) for ratio, words in browser.evaluate(CONTRASTS) if ratio < 4.5]
    assert faint == []
    assert browser.evaluate(UNREACHABLE) == []


@needs_chromium
def test_the_dark_page_is_dark_and_the_light_one_light(browser: Browser, page: Path) -> None:
    grounds = []
    for dark in (False, True):
        browser.open(page, width_px=1280, dark=dark)
        grounds.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(252, 251, 249)", "rgb(21, 22, 26)"]


@needs_chromium
def test_the_accessibility_tree_names_every_picture_and_landmark(browser: Browser, page: Path) -> None:
    browser.open(page, width_px=1280)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]

    def names(role: str) -> list[str]:
        seen = [node for node in nodes if not node["ignored"] and node["role"]["value"] == role]
        return [node.get("name", {}).get("value", "") for node in seen]

    pictures = [*names("image"), *names("img")]
    text = page.read_text()
    assert len(pictures) == text.count("<img ") + text.count("<svg ")
    assert all(len(name) > 10 for name in pictures)
    assert {"By diagnosis", "Confusions", "Training", "Dataset"} <= set(names("region"))
    assert all(names("region"))
    assert names("main") == [""]
    assert names("navigation") == ["Sections"]


@needs_chromium
def test_headings_come_in_order_and_tables_say_what_they_are(browser: Browser, page: Path) -> None:
    browser.open(page, width_px=1280)
    levels = browser.evaluate(HEADINGS)
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert browser.evaluate("[...document.querySelectorAll('table')].every(table => table.caption.textContent.trim())")
    assert browser.evaluate("[...document.querySelectorAll('th')].every(head => head.scope)")


@needs_chromium
def test_the_page_prints_on_paper_that_fits_it(browser: Browser, page: Path) -> None:
    browser.open(page, width_px=1280, dark=True)
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 20
    browser.call("Emulation.setEmulatedMedia", media="print")
    browser.call("Emulation.setDeviceMetricsOverride", width=680, height=900, deviceScaleFactor=1, mobile=False)
    assert browser.evaluate("document.documentElement.scrollWidth") == 680
    assert browser.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    # A browser that was set to dark prints on white.
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


@needs_chromium
def test_a_file_name_runs_nothing(browser: Browser, tmp_path: Path) -> None:
    browser.open(write_report(tmp_path, nasty(rich())), width_px=1280)
    assert browser.evaluate("document.querySelectorAll('[onerror], script').length") == 0
    assert browser.evaluate("document.body.textContent").count(NASTY) == 2


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_stand_out_from_every_ground_they_are_used_on(scheme: int) -> None:
    colours = _variables(render_report(poor()), scheme)
    for ground in ("paper", "surface"):
        words = ("ink", "muted", "good", "fair", "poor", "validation")
        assert min(contrast(colours[name], colours[ground]) for name in words) > 4.5
        assert min(contrast(colours[name], colours[ground]) for name in ("train", "validation", "test", "good")) > 3


@needs_chromium
def test_the_contrast_test_finds_words_that_cannot_be_read(browser: Browser, tmp_path: Path) -> None:
    path = write_report(tmp_path, poor())
    path.write_text(path.read_text().replace("--muted: #5b5f6b", "--muted: #9b9fab"))
    browser.open(path, width_px=1280)
    assert any(ratio < 4.5 for ratio, _ in browser.evaluate(CONTRASTS))


def contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` as in WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _variables(text: str, scheme: int) -> dict[str, Any]:
    return dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", text.split(":root {")[1 + scheme].split("}")[0]))
