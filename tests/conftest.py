"""What all tests share: tiny image folders made on the spot, and programs run as real processes.

Real images are read from $CYTOTRAIN_REAL_IMAGES (ORGAN/DIAGNOSIS/FILE beside a provenance.csv), by default a folder
`shared/data` beside this checkout. Tests that need them skip where there are none.
"""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest_plugins = ("tests.bucket_server",)
ROOT = Path(__file__).resolve().parents[1]
REAL_IMAGES = Path(os.environ.get("CYTOTRAIN_REAL_IMAGES", ROOT.parent / "shared" / "data"))
COLOURS = {"blue": (70, 80, 200), "green": (60, 180, 80), "red": (200, 70, 60)}

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def image_bytes(
    seed: int, *, colour: tuple[int, int, int] = (128, 128, 128), size: int = 48, form: str = "PNG"
) -> bytes:
    """A noisy square around `colour`, different for every seed."""
    noise = np.random.default_rng(seed).normal(0, 30, (size, size, 3))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


def make_images(folder: Path, *, slides: int = 8, tiles: int = 3, size: int = 48) -> Path:
    """`folder/<diagnosis>/<slide>_<tile>.png` of three diagnoses that a small network tells apart by colour."""
    for label, (diagnosis, colour) in enumerate(COLOURS.items()):
        for slide in range(slides):
            for tile in range(tiles):
                path = folder / diagnosis / f"S{100 * label + slide:03d}_{tile}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                seed = (label * 1000 + slide) * 1000 + tile
                path.write_bytes(image_bytes(seed, colour=colour, size=size))
    return folder


def run_module(module: str, *arguments: object, timeout: float = 200, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run `python -m module` as a process of its own; the test reads its exit code and output."""
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with one organ, `gland`, of three diagnoses, 24 slides and 72 tiles."""
    make_images(tmp_path / "images" / "gland")
    return tmp_path / "images"


@pytest.fixture(scope="session")
def two_devices() -> None:
    """Two logical CPUs, on which MirroredStrategy does what it does on two GPUs.

    Every test that uses TensorFlow in this process asks for it, since the first use of a device settles their number.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(scope="session")
def real_images() -> Path:
    """The folder of real images; skips where there is none."""
    if not (REAL_IMAGES / "provenance.csv").exists():
        pytest.skip(f"no real images at {REAL_IMAGES}: set CYTOTRAIN_REAL_IMAGES")
    return REAL_IMAGES
