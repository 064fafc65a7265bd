"""What the search for near duplicates finds, and what it costs: `python -m tests.benchmarks.near [--scaling N …]`.

Prints tables in GitHub's Markdown. Real images are read from $CYTOTRAIN_REAL_IMAGES, as in the tests.
"""

import argparse
import csv
import io
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from tabulate import tabulate

from data_pipeline.images import thumbnail
from data_pipeline.near import NearPairs, fingerprints, near_duplicates
from data_pipeline.near_moments import ORDERS, spectra
from tests.conftest import REAL_IMAGES

STORED_PX = 256
PER_ORGAN = 40
Change = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class RealImage:
    """A file, its organ, and the group in which provenance.csv puts it."""

    path: Path
    organ: str
    group: str

    def open(self) -> Image.Image:
        return Image.open(self.path).convert("RGB")


def read_images(folder: Path = REAL_IMAGES) -> list[RealImage]:
    with (folder / "provenance.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["path"])
    return [RealImage(folder / row["path"], row["organ"], row["group"]) for row in rows]


def prints_of(images: Sequence[Image.Image]) -> NDArray[np.int8]:
    """Fingerprints of the images as conversion stores them."""
    stored = (image.resize((STORED_PX, STORED_PX), Image.Resampling.BILINEAR) for image in images)
    return fingerprints(np.stack([thumbnail(image) for image in stored]))


def jpeg(quality: int) -> Change:
    def change(image: Image.Image) -> Image.Image:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        return Image.open(out).convert("RGB")

    return change


def scaled(factor: float) -> Change:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)))


def levels(gain: float, offset: float, *, around: float = 0) -> Change:
    return lambda image: image.point(lambda value: round((value - around) * gain + around + offset))


def cropped(share: float, *, centred: bool) -> Change:
    def change(image: Image.Image) -> Image.Image:
        across, down = image.width * share, image.height * share
        left, top = (across / 2, down / 2) if centred else (across, down)
        box = (left, top, image.width - (across - left), image.height - (down - top))
        return image.resize(image.size, Image.Resampling.BICUBIC, box=box)

    return change


def rotated(degrees: float, fill: str) -> Change:
    """About the middle; what wasn't in the picture is mirrored, repeated from its edge, or black."""

    def change(image: Image.Image) -> Image.Image:
        margin = max(image.size) // 2
        pixels = np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), mode=fill)  # type: ignore[call-overload]
        turned = Image.fromarray(pixels).rotate(degrees, Image.Resampling.BICUBIC)
        return turned.crop((margin, margin, margin + image.width, margin + image.height))

    return change


def rotated_inside(degrees: float) -> Change:
    """As augmentation libraries do: turn, keep the largest upright square inside, bring it back to size."""

    def change(image: Image.Image) -> Image.Image:
        square = image.resize((min(image.size),) * 2)
        kept = square.width / (np.cos(np.radians(degrees)) + np.sin(np.radians(degrees)))
        edge = (square.width - kept) / 2
        turned = square.rotate(degrees, Image.Resampling.BICUBIC)
        return turned.resize(square.size, Image.Resampling.BICUBIC, box=(edge, edge, edge + kept, edge + kept))

    return change


def noisy(deviation: float) -> Change:
    def change(image: Image.Image) -> Image.Image:
        noise = np.random.default_rng(0).normal(0, deviation, (image.height, image.width, 3))
        return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))

    return change


def cast(red: float, green: float, blue: float) -> Change:
    gains = np.array([red, green, blue])
    return lambda image: Image.fromarray(np.clip(np.asarray(image) * gains, 0, 255).astype(np.uint8))


def transposed(way: Image.Transpose) -> Change:
    return lambda image: image.transpose(way)


def blurred(radius_px: float) -> Change:
    return lambda image: image.filter(ImageFilter.GaussianBlur(radius_px))


CHANGES: dict[str, Change] = {
    **{f"transposed: {way.name.lower()}": transposed(way) for way in Image.Transpose},
    **{f"JPEG, quality {quality}": jpeg(quality) for quality in (50, 75, 90)},
    **{f"resized × {factor}": scaled(factor) for factor in (0.5, 0.7, 1.5, 2.0)},
    **{f"brightness × {gain}": levels(gain, 0) for gain in (0.7, 1.3)},
    **{f"brightness {offset:+}": levels(1, offset) for offset in (-20, 20)},
    **{f"contrast × {gain}": levels(gain, 0, around=128) for gain in (0.7, 1.3)},
    **{f"{share:.0%} cropped all round": cropped(share, centred=True) for share in (0.02, 0.05)},
    **{f"{share:.0%} cropped at a corner": cropped(share, centred=False) for share in (0.02, 0.05)},
    **{
        f"rotated by {degrees}°, {name}": rotated(degrees, fill)
        for degrees in (10, 25, 45)
        for name, fill in (("mirrored", "reflect"), ("edge repeated", "edge"), ("black", "constant"))
    },
    **{f"rotated by {degrees}°, cropped inside": rotated_inside(degrees) for degrees in (5, 10, 15, 20, 25)},
    **{f"noise, σ {deviation}": noisy(deviation) for deviation in (5, 15)},
    **{f"blur, σ {radius} px": blurred(radius) for radius in (1, 2)},
    "colour cast": cast(1.1, 0.9, 1.05),
}


def components(count: int, pairs: NearPairs) -> NDArray[np.int32]:
    """`[count]`: the number of each image's component."""
    graph = coo_array((np.ones(len(pairs)), (pairs.left, pairs.right)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def planted(images: Sequence[RealImage]) -> str:
    """Recall by organ and precision, for one copy of each of some images, each kind of change by itself."""
    organs = sorted({image.organ for image in images})
    sample = [image for organ in organs for image in _spread([i for i in images if i.organ == organ], PER_ORGAN)]
    originals = [image.open() for image in sample]
    prints, count = prints_of(originals), len(sample)
    known = {_key(pair, count) for pair in _pairs(near_duplicates(prints))}
    rows = []
    for name, change in CHANGES.items():
        pairs = near_duplicates(np.concatenate([prints, prints_of([change(image) for image in originals])]))
        names = components(2 * count, pairs)
        found = np.array([names[index] == names[count + index] for index in range(count)])
        keys = [_key(pair, count) for pair in _pairs(pairs)]
        right = [a == b or sample[a].group == sample[b].group or (a, b) in known for a, b in keys]
        recall = [f"{found[[image.organ == organ for image in sample]].mean():.2f}" for organ in organs]
        rows.append([name, *recall, f"{sum(right)} / {len(right)}"])
    return tabulate(rows, ["change", *organs, "pairs right"], tablefmt="github", disable_numparse=True)


def real(images: Sequence[RealImage]) -> str:
    """What is found among the real images of each organ, against the groups of provenance.csv."""
    rows = []
    for organ in sorted({image.organ for image in images}):
        some = [image for image in images if image.organ == organ]
        pairs = near_duplicates(prints_of([image.open() for image in some]))
        names, groups = components(len(some), pairs), np.array([image.group for image in some])
        same = sum(groups[left] == groups[right] for left, right in _pairs(pairs))
        rows.append(
            [
                organ,
                len(some),
                len(pairs),
                same,
                np.bincount(names).max(),
                *_siblings(names, groups),
            ]
        )
    header = ["organ", "images", "pairs", "of one group", "largest component", "same-group pairs connected"]
    header += ["images with a sibling in their component", "test images with a sibling in train", "… without linking"]
    return tabulate(rows, header, tablefmt="github", floatfmt=".3f")


def _siblings(component: NDArray[np.int32], group: NDArray[np.str_]) -> list[float]:
    """Shares: same-group pairs connected, images beside a sibling, leaks of an 85 : 15 split with and without links."""
    same_group = (group[:, None] == group) & ~np.eye(len(group), dtype=bool)
    together = same_group & (component[:, None] == component)
    has = same_group.any(axis=1)
    alone = np.arange(len(group))
    return [
        together.sum() / max(1, same_group.sum()),
        together.any(axis=1)[has].mean(),
        _leak(component, same_group),
        _leak(alone, same_group),
    ]


def _leak(unit: NDArray[np.generic], same_group: NDArray[np.bool_]) -> float:
    """The share of test images with a sibling in train, over 50 splits of whole units."""
    shares = []
    for seed in range(50):
        units = np.random.default_rng(seed).permutation(np.unique(unit))
        test = np.isin(unit, units[: round(0.15 * len(units))])
        shares.append((same_group[test][:, ~test]).any(axis=1).mean())
    return float(np.mean(shares))


def scaling(count: int, images: Sequence[RealImage]) -> list[str]:
    """Seconds and memory for mixtures of two real fingerprints each, turned against each other."""
    real_prints = prints_of([image.open() for image in images])
    random = np.random.default_rng(0)
    prints = np.empty((count, real_prints.shape[1]), dtype=np.int8)
    for start in range(0, count, 4096):
        some = prints[start : start + 4096]
        a, b = (spectra(real_prints[random.integers(0, len(real_prints), len(some))]) for _ in range(2))
        turn = np.exp(1j * random.uniform(0, 2 * np.pi, (len(some), 1, 1)) * np.arange(1, ORDERS + 1))
        weight = random.uniform(0.4, 0.6, (len(some), 1, 1))
        mixed = (weight * a + (1 - weight) * b * turn).astype(np.complex64)
        values = mixed.view(np.float32).reshape(len(some), -1)
        some[...] = np.rint(values * (127 / np.maximum(np.abs(values).max(axis=1, keepdims=True), 1)))
    before, start_s, cpu_s = _peak_mib(), time.perf_counter(), time.process_time()
    pairs = near_duplicates(prints)
    wall_s, cpu_s = time.perf_counter() - start_s, time.process_time() - cpu_s
    return [
        f"{count:,}",
        f"{wall_s:.0f}",
        f"{cpu_s:.0f}",
        f"{cpu_s / count * 1e6:.1f}",
        f"{_peak_mib() - before:.0f}",
        f"{len(pairs):,}",
    ]


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _pairs(pairs: NearPairs) -> list[tuple[int, int]]:
    return list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))


def _key(pair: tuple[int, int], count: int) -> tuple[int, int]:
    low, high = sorted(index % count for index in pair)
    return low, high


def _spread(images: list[RealImage], count: int) -> list[RealImage]:
    return images[:: max(1, len(images) // count)][:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scaling", type=int, nargs="*", default=[50_000], help="numbers of images to time")
    arguments = parser.parse_args()
    images = read_images()
    print(f"### Real images\n\n{real(images)}\n", flush=True)
    print(f"### Planted copies\n\n{planted(images)}\n", flush=True)
    rows = [scaling(count, images) for count in arguments.scaling]
    header = ["images", "wall s", "CPU s", "CPU µs an image", "more MiB", "pairs"]
    print(f"### Cost\n\n{tabulate(rows, header, tablefmt='github')}")


if __name__ == "__main__":
    main()
