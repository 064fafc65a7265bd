"""The dataset card: what a sealed dataset holds, on one page that a person reads before training on it.

    text = render_card(manifest, quarantine, {"benign": [jpeg, jpeg], "malignant": [jpeg]})

The card is one of the files that the manifest seals, so it is the same text for the same dataset, carries no date, and
shows the fingerprint of the input instead of the manifest's own. `manifest.shards` and `manifest.files` aren't read.
"""

from collections.abc import Mapping, Sequence

from data_pipeline import page
from data_pipeline.manifest import Manifest, QuarantineRow

FILE_NAME = "card.html"
# Enough to see every kind of trouble; quarantine.csv beside the card lists the rest.
ROWS_SHOWN = 100


def render_card(manifest: Manifest, quarantine: Sequence[QuarantineRow], samples: Mapping[str, Sequence[bytes]]) -> str:
    """The text of `card.html`. `samples` maps a class to a few of its images, as bytes of PNG or JPEG files.

    Raises `ValueError` for a sample in another format.
    """
    context = {
        "kind": "Dataset card",
        "title": manifest.organ,
        "manifest": manifest,
        "left_out": page.left_out(quarantine, limit=ROWS_SHOWN),
        "samples_of": samples,
    }
    return page.render("data_pipeline", FILE_NAME, context)
