"""PyTorch's DataLoader with simplejpeg and albumentations, and the seed augmentation.

PEERS/bin/python tests/benchmarks/peer_dataloader.py FILES SIZE BATCH WORKERS

A program for the environment of `make peers`. Workers stay alive and use one thread each, as does OpenCV in them. A
batch counts when it is float32 in [0, 1]; where pixels become that, in the workers or in a batch once it has come over
as bytes, is tried both ways, and the faster counts.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import albumentations
import cv2
import numpy as np
import simplejpeg
import torch
from torch.utils.data import DataLoader, Dataset

AHEAD, BATCHES = 4, 20


class Smears(Dataset[Any]):
    """Augmented images `[size, size, 3]`: uint8, or float32 in [0, 1]."""

    def __init__(self, files: list[Path], *, as_float: bool) -> None:
        self.files, self.as_float = files, as_float
        zoom, shift = (0.8, 1.2), (-0.15, 0.15)
        self.augment = albumentations.Compose(
            [
                albumentations.HorizontalFlip(),
                albumentations.VerticalFlip(),
                albumentations.Affine(
                    scale={"x": zoom, "y": zoom},
                    translate_percent={"x": shift, "y": shift},
                    rotate=(-30, 30),
                    interpolation=cv2.INTER_LINEAR,
                    border_mode=cv2.BORDER_REPLICATE,
                    p=1,
                ),
                # Of the ways to multiply bytes by a factor the fastest: it changes nothing but brightness.
                albumentations.ColorJitter(brightness=(0.5, 1.5), contrast=(1, 1), saturation=(1, 1), hue=(0, 0), p=1),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> torch.Tensor:
        image = simplejpeg.decode_jpeg(self.files[number].read_bytes(), "RGB")
        pixels = self.augment(image=image)["image"]
        return torch.from_numpy(np.multiply(pixels, np.float32(1 / 255)) if self.as_float else pixels)


def single_threaded(_: int) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def forever(loader: "DataLoader[Any]") -> Any:
    while True:
        yield from loader


def measure(files: list[Path], batch: int, workers: int, *, as_float: bool) -> dict[str, Any]:
    loader = DataLoader(
        Smears(files, as_float=as_float),
        batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        prefetch_factor=AHEAD,
        worker_init_fn=single_threaded,
    )
    batches = forever(loader)
    for _ in range(workers * AHEAD + 1):
        next(batches)
    wall, cpu, seen = time.perf_counter(), cpu_s(loader), 0
    for _ in range(BATCHES):
        pixels = next(batches)
        images = (pixels if as_float else pixels.float().mul_(1 / 255)).permute(0, 3, 1, 2)  # channels last in memory
        seen += len(images)
    wall, cpu = time.perf_counter() - wall, cpu_s(loader) - cpu
    where = "in the workers" if as_float else "batch by batch"
    settings = f"{workers} persistent workers, {AHEAD} batches ahead each, one thread each, made float32 {where}"
    return {"images_per_s": seen / wall, "cpu_ms": cpu / seen * 1e3, "settings": settings}


def cpu_s(loader: "DataLoader[Any]") -> float:
    """Seconds of CPU time of this process and the workers."""
    total, tick = time.process_time(), os.sysconf("SC_CLK_TCK")
    for worker in loader._iterator._workers:
        user, system = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        total += (int(user) + int(system)) / tick
    return total


def main() -> None:
    folder, _, batch, workers = sys.argv[1], *map(int, sys.argv[2:5])
    torch.set_num_threads(1)
    files = sorted(Path(folder).rglob("*.jpg"))
    tried = [measure(files, batch, workers, as_float=as_float) for as_float in (False, True)]
    print(json.dumps(max(tried, key=lambda one: one["images_per_s"])))


if __name__ == "__main__":
    main()
