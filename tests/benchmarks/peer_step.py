"""A training step of the seed network in PyTorch: PEERS/bin/python tests/benchmarks/peer_step.py PRECISION SIZE BATCH.

A program for the environment of `make peers`. The network is that of `trainer/models.py`, in channels-last memory
format, on one batch again and again. What there is to choose is tried, and the fastest counts: for bfloat16, autocast
or weights and all.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

CLASSES = 5
WARM_UP, STEPS = 2, 6


def seed_network(size: int) -> nn.Sequential:
    """Conv 32 (3 × 3), 64 (3 × 3), 128 (1 × 1), 256 (2 × 2), each with ReLU and 2 × 2 max-pooling; dense 512, 256."""
    layers: list[nn.Module] = []
    channels, side = 3, size
    for filters, kernel in ((32, 3), (64, 3), (128, 1), (256, 2)):
        layers += [nn.Conv2d(channels, filters, kernel), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
        channels, side = filters, (side - kernel + 1) // 2
    layers += [nn.Flatten(), nn.Linear(side * side * channels, 512), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(512, 256), nn.ReLU(inplace=True), nn.Linear(256, CLASSES))


def make_step(size: int, batch: int, how: str) -> tuple[Callable[[], float], int]:
    """A step that returns its loss, and how many parameters the network has. `how`: float32, autocast or bfloat16."""
    torch.manual_seed(0)
    kind = torch.bfloat16 if how == "bfloat16" else torch.float32
    model = seed_network(size).to(kind).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adamax(model.parameters(), lr=1e-3, foreach=True)
    images = torch.rand(batch, 3, size, size).to(kind).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch,))

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
            logits = model(images)
        loss = functional.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step, sum(parameter.numel() for parameter in model.parameters())


def measure(size: int, batch: int, how: str) -> dict[str, Any]:
    step, parameters = make_step(size, batch, how)
    for _ in range(WARM_UP):
        step()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(STEPS):
        step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    count = STEPS * batch
    settings = f"{how}, channels last, foreach Adamax, {torch.get_num_threads()} threads"
    return {"images_per_s": count / wall, "cpu_ms": cpu / count * 1e3, "settings": settings, "parameters": parameters}


def main() -> None:
    precision, size, batch = sys.argv[1], *map(int, sys.argv[2:4])
    tried = [measure(size, batch, how) for how in (["float32"] if precision == "float32" else ["autocast", "bfloat16"])]
    print(json.dumps(max(tried, key=lambda one: one["images_per_s"])))


if __name__ == "__main__":
    main()
