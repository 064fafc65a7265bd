"""The page that a card is: readable in any light and at any width in a real browser, which runs nothing in it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from data_pipeline.card import render_card
from tests.data_pipeline.test_card import IMAGES, MANIFEST, QUARANTINE, Elements

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium isn't installed")
BROWSER_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def card() -> str:
    return render_card(MANIFEST, QUARANTINE, IMAGES)


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


def chromium(folder: Path, *arguments: str) -> str:
    command = [str(CHROMIUM), *BROWSER_FLAGS, f"--user-data-dir={folder / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@needs_chromium
def test_chromium_shows_the_card_and_runs_nothing_in_it(card: str, tmp_path: Path) -> None:
    path = tmp_path / "card.html"
    path.write_text(card, encoding="utf-8")
    shown = Elements(chromium(tmp_path, "--dump-dom", path.as_uri())).tags
    assert [tag for tag, attributes in shown if "onerror" in attributes or tag == "script"] == []
    assert sum(tag == "img" for tag, _ in shown) == 3 + 6 + 2


@needs_chromium
@pytest.mark.parametrize("width_px", [320, 360, 1280])
def test_near_duplicates_stand_side_by_side_and_the_page_never_scrolls_sideways(
    card: str, tmp_path: Path, width_px: int
) -> None:
    endless = card.replace("carcinoma", "carcinoma" * 12).replace("dash", "dash" * 30)
    (tmp_path / "card.html").write_text(endless, encoding="utf-8")
    measure = (
        "const page = this.contentDocument; this.dataset.excess = page.documentElement.scrollWidth - this.clientWidth;"
        "this.dataset.level = [...page.querySelectorAll('.twins li')].every(pair => {"
        "const [left, right] = [...pair.querySelectorAll('img')].map(image => image.getBoundingClientRect());"
        "return left.top === right.top && left.right <= right.left && left.width > 100 })"
    )
    frame = tmp_path / "frame.html"
    frame.write_text(f'<iframe src="card.html" style="border:0;width:{width_px}px" onload="{measure}"></iframe>')
    shown = chromium(tmp_path, "--allow-file-access-from-files", "--dump-dom", frame.as_uri())
    assert 'data-excess="0"' in shown
    assert 'data-level="true"' in shown
