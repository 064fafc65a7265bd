"""The images of a tensorflow-datasets set, all splits together.

    sources = open_tfds("colorectal_histology", ["all"])

A set that isn't on the disk is downloaded first, to $TFDS_DATA_DIR or ~/tensorflow_datasets. Its own splits are not
kept: they may tear slides apart. Images come as they are stored, and are never decoded here.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data_pipeline.cli import FaultError, RequestError, invalid_flag
from data_pipeline.sources import (
    MAX_FILE_BYTES,
    TFDS_PREFIX,
    FileContents,
    SourceFile,
    input_changed,
    is_system_name,
    organ_name,
    too_large,
)

CATALOG = "https://www.tensorflow.org/datasets/catalog/overview"
SET_NAME = re.compile(r"\w+(/[\w.-]+)?(:[\w.*]+)?")
FILE_NAME_FEATURES = ("filename", "file_name", "image/filename", "image_name", "image/name")
SIGNATURES = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"GIF8": ".gif", b"BM": ".bmp"}


@dataclass(frozen=True)
class TfdsSource:
    """Every example of the set `name`, such as `colorectal_histology` or `patch_camelyon:2.0.0`."""

    name: str

    @property
    def description(self) -> str:
        return TFDS_PREFIX + self.name

    @property
    def sequential(self) -> bool:
        return True

    def files(self) -> list[SourceFile]:
        return [file for file, _ in self._stream()]

    def diagnoses(self) -> list[str]:
        return diagnosis_names(_builder(self.name).info.features["label"].names)

    def stamp(self, file: SourceFile) -> str:
        """The same for all of the set: an example's id stands for its place in it."""
        return _fingerprint(self.name, os.environ.get("TFDS_DATA_DIR"))

    def read(self, files: Sequence[SourceFile]) -> Iterator[FileContents]:
        stream = self._stream()
        for wanted in files:
            for file, data in stream:
                if file == wanted:
                    large = len(data) > MAX_FILE_BYTES
                    yield FileContents(None, too_large(len(data))) if large else FileContents(data, "")
                    break
            else:
                raise input_changed(f"{self.description}: {wanted.id}", "has vanished")

    def _stream(self) -> Iterator[tuple[SourceFile, bytes]]:
        """Every example with its encoded image, in an order that is the same each time."""
        builder = _builder(self.name)
        names = diagnosis_names(builder.info.features["label"].names)
        feature = _file_name_feature(builder.info.features)
        taken: set[str] = set()
        for split in sorted(builder.info.splits):
            for number, example in enumerate(_examples(builder, split, feature)):
                data, label = example["image"], int(example["label"])
                given = example[feature].decode(errors="replace") if feature else ""
                name = file_name(given, split, number, data)
                # Unlabelled examples have the label -1: they are inputs of no diagnosis.
                id = f"{names[label]}/{name}" if 0 <= label < len(names) else name
                if id in taken:
                    path = PurePosixPath(id)
                    id = str(path.with_name(f"{path.stem} {split}-{number:06d}{path.suffix}"))
                while id in taken:
                    id = _marked(id)
                taken.add(id)
                yield SourceFile.of(id), data


def open_tfds(name: str, organs: Sequence[str]) -> dict[str, TfdsSource]:
    """The set as the one organ it is, downloaded if need be. Raises `RequestError`, and `FaultError` offline."""
    if not SET_NAME.fullmatch(name):
        raise _unknown(name, "no name of a set")
    if len(organs) != 1:
        fix = "name one, or convert the sets one by one"
        raise invalid_flag("organ", expected="one name for the set", received=",".join(organs), fix=fix)
    organ = organ_name(re.split("[/:]", name)[0]) if organs[0] == "all" else organs[0]
    _builder(name)
    return {organ: TfdsSource(name)}


def diagnosis_names(labels: Sequence[str]) -> list[str]:
    """The label names of a set as folder names, in their order, each of them unlike the others."""
    names: list[str] = []
    for label in labels:
        name = _as_part(label)
        while name in names:
            name += "~"
        names.append(name)
    return names


def file_name(given: str, split: str, number: int, data: bytes) -> str:
    """What an example is called: as the set says, else by its place in the split."""
    name = _as_part(given) if given else f"{split}-{number:06d}"
    return name if PurePosixPath(name).suffix else name + _suffix(data)


def _as_part(name: str) -> str:
    """A name as one part of an id, which no later stage takes for a system file."""
    part = re.sub(r"[/\\\0]", "_", name).strip() or "_"
    return f"_{part}" if is_system_name(part) else part


def _marked(id: str) -> str:
    path = PurePosixPath(id)
    return str(path.with_name(f"{path.stem}~{path.suffix}"))


def _suffix(data: bytes) -> str:
    return next((suffix for start, suffix in SIGNATURES.items() if data.startswith(start)), ".image")


def _builder(name: str) -> Any:
    return _prepared(name, os.environ.get("TFDS_DATA_DIR"))


@lru_cache(maxsize=1)
def _prepared(name: str, data_dir: str | None) -> Any:
    """The set's builder once its files are on the disk and known to be labelled images."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # unknown set, version or configuration: each has an error of its own
        raise _unknown(name, str(error).partition("\n")[0]) from error
    _check_features(name, builder.info.features)
    if not builder.is_prepared():
        try:
            with redirect_stdout(sys.stderr):  # standard output says where the result is, and nothing else
                builder.download_and_prepare()
        except Exception as error:  # network, disk, checksum, terms of use: there is no list
            raise FaultError(
                f"Can't download {TFDS_PREFIX}{name} to {builder.data_path}: {error}. To fix it: give this machine a "
                f"network and room, or run `tfds build {name}` on another one, copy the folder to {builder.data_path} "
                "and set TFDS_DATA_DIR to the folder above."
            ) from error
    return builder


def _check_features(name: str, features: Any) -> None:
    import tensorflow_datasets as tfds

    there = dict(features.items()) if hasattr(features, "items") else {}
    image, label = there.get("image"), there.get("label")
    is_image = isinstance(image, tfds.features.Image) and np.dtype(image.np_dtype).name in ("uint8", "uint16")
    if not is_image or not isinstance(label, tfds.features.ClassLabel):
        listed = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in there.items())
        raise invalid_flag(
            "images",
            expected="a set with the features image (Image of whole numbers) and label (ClassLabel)",
            received=f"{TFDS_PREFIX}{name} with {listed or features}",
            fix=f"name a set for image classification, see {CATALOG}",
        )


def _unknown(name: str, why: str) -> RequestError:
    from difflib import get_close_matches

    import tensorflow_datasets as tfds

    like = get_close_matches(re.split("[/:]", name)[0], tfds.list_builders(with_community_datasets=False))
    fix = f"did you mean {', '.join(like)}?" if like else f"see {CATALOG}"
    expected = "tfds:NAME, tfds:NAME/CONFIG or tfds:NAME:VERSION of a set that tensorflow-datasets knows"
    return invalid_flag("images", expected=expected, received=TFDS_PREFIX + name, fix=f"{fix} ({why})")


def _file_name_feature(features: Any) -> str:
    import tensorflow_datasets as tfds

    texts = {key for key, feature in features.items() if isinstance(feature, tfds.features.Text)}
    return next((key for key in FILE_NAME_FEATURES if key in texts), "")


def _examples(builder: Any, split: str, feature: str) -> Iterator[dict[str, Any]]:
    """The examples of a split in the order of its files: encoded image, label, and the text `feature`."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    with suppress(RuntimeError):  # they are in use already
        tf.config.set_visible_devices([], "GPU")
    wanted = dict.fromkeys(["image", "label", *([feature] if feature else [])], True)
    decoders = tfds.decode.PartialDecoding(wanted, decoders={"image": tfds.decode.SkipDecoding()})
    config = tfds.ReadConfig(try_autocache=False, interleave_cycle_length=1)
    dataset = builder.as_dataset(split=split, decoders=decoders, read_config=config, shuffle_files=False)
    try:
        yield from tfds.as_numpy(dataset)
    except tf.errors.OpError as error:
        raise RequestError(
            f"{builder.data_path} is damaged: {error.message}. To fix it: delete the folder, then run this again to "
            "download it anew."
        ) from error


@lru_cache(maxsize=1)
def _fingerprint(name: str, data_dir: str | None) -> str:
    """Changes with the set's version and whenever its files may have changed."""
    builder = _prepared(name, data_dir)
    key = hashlib.sha256(builder.info.full_name.encode())
    for path in sorted(Path(builder.data_path).iterdir()):
        status = path.stat()
        key.update(f"\n{path.name} {status.st_size} {status.st_mtime_ns}".encode())
    return key.hexdigest()[:32]
