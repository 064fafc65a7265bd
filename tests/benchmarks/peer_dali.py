"""DALI on the CPU, with the seed augmentation: PEERS/bin/python tests/benchmarks/peer_dali.py FILES SIZE BATCH THREADS.

A program for the environment of `make peers`. Each image is decoded (fast inverse DCT, plain upsampling of chroma),
warped once by one matrix (rotation, shifts, zooms and flips), bilinearly with the border repeated, and multiplied by
its brightness and 1/255 into float32, cut at 1.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from nvidia.dali import fn, math, pipeline_def, types

WARM_UP, BATCHES = 4, 24


def uniform(low: float, high: float) -> Any:
    return fn.random.uniform(range=[low, high])


def sign() -> Any:
    return 1 - 2 * fn.cast(fn.random.coin_flip(), dtype=types.FLOAT)


def matrices(size: int) -> Any:
    centre, shift = [size / 2, size / 2], 0.15 * size
    zoom = fn.stack(uniform(0.8, 1.2) * sign(), uniform(0.8, 1.2) * sign())
    scaled = fn.transforms.scale(scale=zoom, center=centre)
    turned = fn.transforms.rotation(scaled, angle=uniform(-30, 30), center=centre)
    return fn.transforms.translation(turned, offset=fn.stack(uniform(-shift, shift), uniform(-shift, shift)))


@pipeline_def
def pipeline(files: list[str], size: int) -> Any:
    encoded, labels = fn.readers.file(files=files, labels=[0] * len(files), random_shuffle=True, read_ahead=True)
    images = fn.decoders.image(encoded, device="cpu", use_fast_idct=True, jpeg_fancy_upsampling=False)
    images = fn.warp_affine(images, matrix=matrices(size), interp_type=types.INTERP_LINEAR, inverse_map=False)
    lit = fn.brightness(images, brightness=uniform(0.5, 1.5) / 255, dtype=types.FLOAT)
    return math.min(lit, 1.0), labels


def main() -> None:
    folder, size, batch, threads = sys.argv[1], *map(int, sys.argv[2:5])
    files = sorted(map(str, Path(folder).rglob("*.jpg")))
    fed = pipeline(files, size, batch_size=batch, num_threads=threads, device_id=None, prefetch_queue_depth=2)
    fed.build()
    for _ in range(WARM_UP):
        images, _ = fed.run()
    first = np.asarray(images[0])
    assert first.shape == (size, size, 3), first.shape
    assert first.dtype == np.float32, first.dtype
    wall, cpu, seen = time.perf_counter(), time.process_time(), 0
    for _ in range(BATCHES):
        images, _ = fed.run()
        seen += images.as_tensor().shape()[0]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    settings = f"{threads} threads, two batches ahead, fast inverse DCT, plain upsampling"
    print(json.dumps({"images_per_s": seen / wall, "cpu_ms": cpu / seen * 1e3, "settings": settings}))


if __name__ == "__main__":
    main()
