"""How fast training is fed, beside peers and bare decoding: `python -m tests.benchmarks.input` prints the table."""

import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks.comparison import TURNS, AtLeast, Row, markdown, spread, table
from tests.benchmarks.peers import KEEPS_MEMORY, Figure, Way, peer, round_robin, told
from tests.benchmarks.sample import Sample, make_sample

SIZE_PX, BATCH, WORKERS = 256, 64, 2
OURS, KEPT, DECODING = "ours", "ours, kept decoded", "decoding alone"
LAYERS, GENERATOR = "Keras's layers in tf.data", "ImageDataGenerator"
DATALOADER, DALI = "PyTorch's DataLoader with albumentations", "DALI"
CLAIMS = (
    (OURS, GENERATOR, 15),
    (OURS, LAYERS, 8),
    (OURS, DATALOADER, 1.8),
    (OURS, DALI, 2.5),
    (OURS, DECODING, 0.55),
    (KEPT, DECODING, 0.75),
)


def ways(sample: Sample) -> dict[str, Way]:
    """Everything that is compared, on the same images."""
    task = [str(argument) for argument in (sample.dataset, sample.files, SIZE_PX, BATCH)]

    def here(name: str) -> Way:
        return Way(Path(sys.executable), ["-m", "tests.benchmarks.feeding", name, *task])

    files = [sample.files, SIZE_PX, BATCH, WORKERS]
    return {
        OURS: here("files"),
        DECODING: here("decoding"),
        KEPT: here("kept"),
        DATALOADER: peer("peer_dataloader.py", *files, environment=KEEPS_MEMORY),
        DALI: peer("peer_dali.py", *files, environment=KEEPS_MEMORY),
        LAYERS: here("layers"),
        GENERATOR: here("generator"),
    }


def rows(figures: Mapping[str, Sequence[Figure]]) -> list[Row]:
    """A row a claim, of what could be measured."""
    speeds = {name: [figure.images_per_s for figure in found] for name, found in figures.items()}
    return [
        Row(f"{ours}, against {other}", "images/s", speeds[ours], speeds[other], AtLeast(bar))
        for ours, other, bar in CLAIMS
        if other in speeds
    ]


def costs(figures: Mapping[str, Sequence[Figure]]) -> str:
    """What an image takes of a processor, which a busy machine changes less, and the settings of peers."""
    cells = []
    for name, found in figures.items():
        used = [figure.cpu_ms * 1e3 for figure in found]
        settings = statistics.mode(figure.settings for figure in found)
        cells.append([name, spread(used, "µs CPU"), settings or "–"])
    return markdown(cells, ["way", "an image takes", "settings"])


def run() -> str:
    """The group's section of RESULTS.md."""
    with tempfile.TemporaryDirectory() as name:
        sample = make_sample(Path(name), image_size=SIZE_PX)
        figures, missing = round_robin(ways(sample), turns=TURNS)
    return (
        f"Images a second with the seed augmentation, delivered as float32 in batches of {BATCH}, from {sample.about}, "
        f"JPEG as conversion stores them: ours from TFRecords, the same bytes as files or from memory for others. All "
        f"take turns, each time in a new process, after some batches that aren't counted: medians (lowest – highest) "
        f"of {TURNS} turns. DataLoader decodes with simplejpeg and augments with albumentations and OpenCV; DALI runs "
        f"on the CPU. Both keep memory that is freed, in huge pages, by `GLIBC_TUNABLES`.\n\n"
        f"{table(rows(figures))}\n\n{costs(figures)}{told(missing)}"
    )


if __name__ == "__main__":
    print(run())
