"""The dataset card: what a sealed dataset holds, on one page that a person reads before training on it.

    text = render_card(manifest, quarantine, CardImages(samples={"benign": [jpeg, jpeg], "malignant": [jpeg]}))

The card is one of the files that the manifest seals, so it is the same text for the same dataset, carries no date, and
shows the fingerprint of the input instead of the manifest's own. `manifest.shards` and `manifest.files` aren't read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from data_pipeline import page
from data_pipeline.manifest import Manifest, OriginalSizes, QuarantineRow

FILE_NAME = "card.html"
# Enough to see every kind of trouble; quarantine.csv beside the card lists the rest.
ROWS_SHOWN, PICTURES_SHOWN = 100, 24


@dataclass(frozen=True, slots=True)
class LookAlikes:
    """Two near duplicates: their paths, how alike they are (at most 1), and the two in small, as PNG or JPEG files."""

    paths: tuple[str, str]
    similarity: float
    images: tuple[bytes, bytes]

    @property
    def diagnoses(self) -> tuple[str, str]:
        left, right = (path.partition("/")[0] for path in self.paths)
        return left, right

    @property
    def differ(self) -> bool:
        return self.diagnoses[0] != self.diagnoses[1]


@dataclass(frozen=True, slots=True)
class CardImages:
    """What the card shows of the images themselves; each picture is the bytes of a PNG or JPEG file.

    `samples` maps a diagnosis to a few of its images, `left_out` the path of a file in `quarantine.csv` to its picture.
    """

    samples: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    near: Sequence[LookAlikes] = ()
    left_out: Mapping[str, bytes] = field(default_factory=dict)
    sizes: OriginalSizes | None = None


@dataclass(frozen=True, slots=True)
class LeftOutPicture:
    """A picture that wasn't written, why, and every file that holds it."""

    image: bytes
    reason: str
    paths: tuple[str, ...]


def render_card(manifest: Manifest, quarantine: Sequence[QuarantineRow], images: CardImages) -> str:
    """The text of `card.html`. Raises `ValueError` for a picture that is neither PNG nor JPEG."""
    context = {
        "kind": "Dataset card",
        "title": manifest.organ,
        "manifest": manifest,
        "samples_of": images.samples,
        "sizes": images.sizes,
        "near": near_in_order(images.near),
        "left_out": page.left_out(quarantine, limit=ROWS_SHOWN),
        "left_out_pictures": left_out_pictures(quarantine, images.left_out)[:PICTURES_SHOWN],
    }
    return page.render("data_pipeline", FILE_NAME, context)


def near_in_order(pairs: Iterable[LookAlikes]) -> list[LookAlikes]:
    """Pairs of two diagnoses first, the surest of them foremost; of the others, those most likely to be chance."""
    return sorted(pairs, key=lambda pair: (-pair.similarity if pair.differ else pair.similarity, pair.paths))


def left_out_pictures(rows: Iterable[QuarantineRow], images: Mapping[str, bytes]) -> list[LeftOutPicture]:
    """The pictures among `rows`, in their order; one that several files share comes once, with all their names."""
    paths: dict[tuple[bytes, str], list[str]] = {}
    for row in rows:
        if image := images.get(row.path):
            paths.setdefault((image, row.reason), []).append(row.path)
    return [LeftOutPicture(image, reason, tuple(names)) for (image, reason), names in paths.items()]
