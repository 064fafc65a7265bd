"""The figures of "Sizing" in k8s/README.md, computed from what was measured: `python tests/k8s/sizing.py` prints them.

What was measured, and where: the input pipeline, conversion, planning and checkpoints in tests/benchmarks/RESULTS.md,
hashing in README.md; stored images of 256 × 256 pixels take 14 to 31 kB (three organs of real images); the order of an
epoch of 59,500,000 records takes 13 s and 1.5 GB. The speed of a GPU was not measured, so it is a column or is assumed.
"""

INPUT_S = 2 / 1575  # CPU seconds to decode and augment an image: two cores make 1,575 a second
CONVERT_S = (486e-6, 3129e-6)  # CPU seconds an image: a JPEG that is kept, and one of 768 pixels made into 256
CONVERT_GAIN = 1.76 / 2  # of each further core
PLAN_S, PLAN_GB = 51.4e-6, 1.63 / 2e6  # an image, on one core of pod 0
HASH_BYTES_S = 1.6e9  # on one core
IMAGE_BYTES = 25e3  # stored, with its record
RECORDS_PER_SHARD, SHARD_ENTRY_BYTES, INDEX_BYTES = 4096, 360, 12  # in manifest.json a shard, in its index a record
PARAMETERS = 29_783_365
CHECKPOINT_MB = 357
MACS = (  # multiply-adds of the default network, a layer: pixels that come out × weights of one of them
    254**2 * 32 * 27 + 125**2 * 64 * 288 + 62**2 * 128 * 64 + 30**2 * 256 * 512 + 57_600 * 512 + 512 * 256 + 256 * 5
)
TRAIN_SHARE, READ_SHARE = 0.85 * 0.7, 0.85  # of all images: for training, and with those for validation
ASSUMED_RATE = 2500  # images a second and GPU
LINKS_GBIT = (10, 100)
STAGING_BYTES_S = 1e9  # assumed: from a bucket to a node
RESTART_S = 120  # assumed: to notice, schedule, start, and compile
IMAGES = 100_000_000


def one_gpu() -> str:
    """What one GPU needs, by how fast it trains."""
    rows = ["| images/s a GPU | cores | read from disk | GPU's own work |", "|---|---|---|---|"]
    for rate in (500, 1000, 2500, 5000):
        cores, megabytes = rate * INPUT_S, rate * IMAGE_BYTES / 1e6
        teraflops = rate * 3 * 2 * MACS / 1e12
        rows.append(f"| {rate:,} | {cores:.1f} | {megabytes:.0f} MB/s | {teraflops:.1f} TFLOP/s |")
    return "\n".join(rows)


def many_gpus() -> str:
    """What changes with the number of GPUs, one a node, at the assumed speed of each, for 100 million images."""
    rows = ["| GPUs | 10 | 100 | 1,000 |", "|---|---|---|---|"]
    counts = (10, 100, 1000)

    def row(name: str, values: list[str]) -> None:
        rows.append(f"| {name} | {' | '.join(values)} |")

    row("images/s", [f"{n * ASSUMED_RATE:,}" for n in counts])
    row("cores for input", [f"{n * ASSUMED_RATE * INPUT_S:,.0f}" for n in counts])
    row("read, all nodes", [f"{n * ASSUMED_RATE * IMAGE_BYTES / 1e9:.3g} GB/s" for n in counts])
    row("all-reduce, out of each node and in, a step", [f"{_traffic(n) / 1e6:.0f} MB" for n in counts])
    for link in LINKS_GBIT:
        name = f"images a GPU and step that hide it, {link} Gbit/s"
        row(name, [f"{_traffic(n) * 8 / (link * 1e9) * ASSUMED_RATE:.0f}" for n in counts])
    row("`--batch_size` for that, 100 Gbit/s", [f"{_hiding_batch(n):,.0f}" for n in counts])
    row("an epoch of 59.5 million", [_duration(IMAGES * TRAIN_SHARE / n / ASSUMED_RATE) for n in counts])
    row("checkpoint read by all at a start", [f"{n * CHECKPOINT_MB / 1e3:.3g} GB" for n in counts])
    row("lost to restarts, each node taken away once a day", [f"{n * RESTART_S / 86400:.1%}" for n in counts])
    return "\n".join(rows)


def many_images() -> str:
    """What 100 million images take."""
    low, high = (IMAGES * seconds / CONVERT_GAIN / 3600 for seconds in CONVERT_S)
    shards = -(-IMAGES // RECORDS_PER_SHARD)
    rows = [
        ("disk for the dataset; as much again while it is made", f"{IMAGES * IMAGE_BYTES / 1e12:.1f} TB"),
        ("conversion, spread over cores and pods", f"{low:.0f} to {high:.0f} core hours"),
        (
            "planning, in pod 0 alone (extrapolated from 2 million)",
            f"{IMAGES * PLAN_S / 3600:.1f} h, {IMAGES * PLAN_GB:.0f} GB of memory",
        ),
        ("shards", f"{shards:,}"),
        ("`manifest.json`", f"{shards * SHARD_ENTRY_BYTES / 1e6:.0f} MB"),
        ("indexes, kept in memory by each worker", f"{IMAGES * READ_SHARE * INDEX_BYTES / 1e9:.1f} GB"),
        ("order of an epoch, in each worker", "13 s, 1.5 GB"),
        (
            "staging from a bucket, all of it to each node, at an assumed 1 GB/s",
            f"{_duration(IMAGES * IMAGE_BYTES / STAGING_BYTES_S)}, {IMAGES * IMAGE_BYTES / 1e12:.1f} TB of scratch",
        ),
        ("hashing all of it once a run", f"{_duration(IMAGES * IMAGE_BYTES / HASH_BYTES_S)} of one core"),
    ]
    return "\n".join(["| 100 million images | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _traffic(workers: int) -> float:
    """Bytes that a ring all-reduce of all gradients sends from each worker."""
    return 2 * (workers - 1) / workers * PARAMETERS * 4


def _hiding_batch(workers: int) -> float:
    return workers * _traffic(workers) * 8 / (LINKS_GBIT[-1] * 1e9) * ASSUMED_RATE


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


if __name__ == "__main__":
    print(one_gpu(), many_gpus(), many_images(), sep="\n\n")
