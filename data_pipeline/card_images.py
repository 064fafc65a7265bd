"""What a dataset card shows of the images: samples, near duplicates, what was left out.

    images = card_images(summary, manifest, work, folder)

Each picture is a small JPEG, so that the card stays a page that can be sent by mail.
"""

from io import BytesIO
from itertools import pairwise
from pathlib import Path

from PIL import Image

from data_pipeline.card import CardImages, LookAlikes
from data_pipeline.manifest import Manifest, load_offsets
from data_pipeline.plan_folder import PlanSummary, ShownPair
from data_pipeline.schema import decode_example, unframe_record
from data_pipeline.spool import ChunkLostError, ImageRef, read_image
from data_pipeline.write import INSPECT_FOLDER

# Samples of all diagnoses together, and of one: many diagnoses get fewer each.
SAMPLES, SAMPLES_PER_CLASS, SAMPLES_LEAST = 64, 8, 2
SAMPLE_PX, PAIR_PX, QUALITY = 112, 144, 75


def card_images(summary: PlanSummary, manifest: Manifest, work: Path, folder: Path) -> CardImages:
    """Read the pictures from the shards in `folder` and the chunks of the inspection in `work`."""
    near = (_look_alikes(work, pair) for pair in summary.near_shown)
    left_out = {name: _spooled(work, image, SAMPLE_PX) for name, image in summary.left_out_shown.items()}
    return CardImages(
        samples=training_samples(folder, manifest),
        near=[pair for pair in near if all(pair.images)],
        # By the name in quarantine.csv, which spells out bytes that are no text.
        left_out={name.encode(errors="backslashreplace").decode(): image for name, image in left_out.items() if image},
        sizes=summary.sizes,
    )


def _look_alikes(work: Path, pair: ShownPair) -> LookAlikes:
    left, right = (_spooled(work, image, PAIR_PX) for image in pair.images)
    return LookAlikes((pair.left, pair.right), pair.similarity, (left, right))


def _spooled(work: Path, image: ImageRef, size_px: int) -> bytes:
    """The picture in small; nothing if its chunk has gone, which is no reason to end without a card."""
    try:
        data = read_image(work / INSPECT_FOLDER, image)
    except ChunkLostError:
        return b""
    return _in_small(data, size_px)


def _in_small(stored: bytes, size_px: int) -> bytes:
    """An image as it is stored, brought to at most `size_px` a side. Fine enough to look at, a few kilobytes."""
    opened = Image.open(BytesIO(stored))
    opened.draft("RGB", (size_px, size_px))  # a JPEG needn't be decoded in full to be shown small
    picture = opened.convert("RGB")
    picture.thumbnail((size_px, size_px))
    out = BytesIO()
    picture.save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue()


def training_samples(folder: Path, manifest: Manifest) -> dict[str, list[bytes]]:
    """The first few training images of each diagnosis."""
    samples: dict[str, list[bytes]] = {name: [] for name in manifest.classes}
    most = max(SAMPLES_LEAST, min(SAMPLES_PER_CLASS, SAMPLES // len(samples)))
    wanted = {name: min(most, manifest.splits["train"].per_class[name]) for name in manifest.classes}
    for shard in manifest.shards_of("train"):
        offsets = load_offsets(folder, shard)
        with (folder / shard.path).open("rb") as file:
            for start, end in pairwise(offsets.tolist()):
                if all(len(samples[name]) == wanted[name] for name in samples):
                    return samples
                file.seek(start)
                record = decode_example(unframe_record(file.read(end - start), 0, end - start))
                name = manifest.classes[record.label]
                if len(samples[name]) < wanted[name]:
                    samples[name].append(_in_small(record.image, SAMPLE_PX))
    return samples
