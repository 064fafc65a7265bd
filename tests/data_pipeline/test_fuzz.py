"""Whatever is done to a file, conversion ends, and every file is written or left out with a reason."""

import resource
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data_pipeline.images import ImageRefusedError, decode, prepare
from data_pipeline.manifest import Manifest, read_quarantine
from tests.conftest import COLOURS, image_bytes
from tests.data_pipeline.conversion import convert, read_all
from tests.data_pipeline.image_files import chunk, encoded, every_kind, scene

pytestmark = pytest.mark.usefixtures("two_devices")
IN_PROCESS, IN_PROGRAM = 8000, 1500
SLOWEST_S, LARGEST_MB = 2.0, 1500
HEADER_BYTES = 64


def mutations(seed: int) -> Iterator[bytes]:
    """Damaged files without end: the same for the same seed."""
    rng = np.random.default_rng(seed)
    # Some are of the stored size, so that what Pillow accepts is kept as it is.
    fitting = [encoded(scene(32, 32, seed=number), form) for number, form in enumerate(("JPEG", "PNG") * 4)]
    fitting += [encoded(scene(32, 32, seed=9).convert("L"), "JPEG", progressive=True)]
    files = [*every_kind().values(), *fitting]
    while True:
        first, second = (bytearray(files[int(rng.integers(len(files)))]) for _ in range(2))
        for _ in range(int(rng.integers(1, 4))):
            first = MUTATIONS[int(rng.integers(len(MUTATIONS)))](first, second, rng)
        yield bytes(first)


def place(data: bytearray, rng: np.random.Generator) -> int:
    return int(rng.integers(len(data) + 1))


def flip_bits(data: bytearray, _: bytearray, rng: np.random.Generator) -> bytearray:
    for position in rng.integers(0, max(1, len(data)), int(rng.integers(1, 6))) if data else ():
        data[position] ^= 1 << int(rng.integers(8))
    return data


def overwrite(data: bytearray, _: bytearray, rng: np.random.Generator) -> bytearray:
    start, length = place(data, rng), int(rng.integers(1, 40))
    data[start : start + length] = rng.bytes(length) if rng.integers(2) else bytes([int(rng.integers(256))]) * length
    return data


def truncate(data: bytearray, _: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: place(data, rng)]


def insert(data: bytearray, _: bytearray, rng: np.random.Generator) -> bytearray:
    start = place(data, rng)
    return data[:start] + rng.bytes(int(rng.integers(1, 30))) + data[start:]


def splice(data: bytearray, other: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: place(data, rng)] + other[place(other, rng) :]


def remove(data: bytearray, _: bytearray, rng: np.random.Generator) -> bytearray:
    start = place(data, rng)
    return data[:start] + data[start + int(rng.integers(1, 30)) :]


def edit_header(data: bytearray, _: bytearray, rng: np.random.Generator) -> bytearray:
    start = int(rng.integers(HEADER_BYTES))
    number = int(rng.choice([0, 1, 2, 255, 256, 65535, 2**31 - 1, 2**32 - 1, 10_000]))
    data[start : start + 4] = number.to_bytes(4, "big" if rng.integers(2) else "little")
    return data


def append(data: bytearray, other: bytearray, rng: np.random.Generator) -> bytearray:
    return data + (other if rng.integers(2) else rng.bytes(50))


def mend_png(data: bytearray, _: bytearray, rng: np.random.Generator) -> bytearray:
    """Damage inside a chunk of a PNG, with the right checksum: else nothing behind that is ever tried."""
    start = bytes(data).find((b"IDAT", b"IHDR", b"PLTE", b"tRNS")[int(rng.integers(4))])
    length = int.from_bytes(data[start - 4 : start], "big")
    if start < 4 or not length or start + length + 8 > len(data):
        return flip_bits(data, data, rng)
    body = flip_bits(data[start + 4 : start + 4 + length], data, rng)
    return data[: start - 4] + chunk(bytes(data[start : start + 4]), bytes(body)) + data[start + 8 + length :]


MUTATIONS = (flip_bits, overwrite, truncate, insert, splice, remove, edit_header, append, mend_png)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_a_damaged_file_is_prepared_or_refused_and_nothing_else() -> None:
    before, prepared = peak_mb(), 0
    for number, data in enumerate(islice(mutations(1), IN_PROCESS)):
        start = time.process_time()
        with suppress(ImageRefusedError):
            image = prepare(data, size_px=32, encoding="png" if number % 4 == 0 else "jpeg")
            prepared += 1
            assert decode(image.stored).pixels.shape == (32, 32, 3), f"mutation {number}"
            seen = tf.io.decode_image(image.stored, channels=3, expand_animations=False)
            assert seen.shape == (32, 32, 3), f"mutation {number}"
        assert time.process_time() - start < SLOWEST_S, f"mutation {number}"
    assert peak_mb() - before < LARGEST_MB
    assert prepared > IN_PROCESS / 20  # else damage was too coarse to get anywhere


def test_conversion_survives_any_damage_and_accounts_for_every_file(tmp_path: Path) -> None:
    organ = tmp_path / "images" / "gland"
    for label, (diagnosis, colour) in enumerate(COLOURS.items()):
        (organ / diagnosis).mkdir(parents=True)
        for number in range(20):
            data = image_bytes(1000 * label + number, colour=colour)
            (organ / diagnosis / f"S{number}_0.png").write_bytes(data)
    suffixes = (".jpg", ".png", ".tif", ".bmp", ".webp", ".jp2", ".gif", ".ppm")
    for number, data in enumerate(islice(mutations(2), IN_PROGRAM)):
        diagnosis = list(COLOURS)[number % len(COLOURS)]
        (organ / diagnosis / f"D{number}_0{suffixes[number % len(suffixes)]}").write_bytes(data)
    convert(tmp_path / "images", tmp_path / "tf", "--workers=2")
    folder = tmp_path / "tf" / "gland"
    manifest, left_out = Manifest.load(folder), read_quarantine(folder)
    counts = manifest.counts
    assert counts.inputs == IN_PROGRAM + 60 == counts.written + counts.duplicates + counts.quarantined
    assert len(left_out) == counts.duplicates + counts.quarantined
    assert all(row.reason for row in left_out)
    records = [record for split in manifest.splits for record in read_all(folder, manifest, split)]
    names = {record.id for record in records} | {row.path for row in left_out}
    assert len(records) == counts.written
    assert names == {path.relative_to(organ).as_posix() for path in organ.rglob("*.*")}
    for record in records:
        assert decode(record.image).pixels.shape == (32, 32, 3), record.id
        assert tf.io.decode_image(record.image, channels=3).shape == (32, 32, 3), record.id
