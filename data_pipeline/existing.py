"""Is the dataset that is there already the one that was asked for?

    manifest = find_existing(conversion)        # None: it must be made

Both questions are asked of the dataset itself: whether it was made of these images with these flags, and whether it
still is what was sealed.
"""

from collections.abc import Sequence
from pathlib import Path

from data_pipeline.audit import audit_file, audit_shards
from data_pipeline.cli import RequestError, say
from data_pipeline.conversion import Conversion
from data_pipeline.inspect_stage import inputs_sha256
from data_pipeline.manifest import DatasetError, Manifest, is_dataset

SHOWN_DIFFERENCES = 5


def find_existing(conversion: Conversion) -> Manifest | None:
    """The dataset at the target if it is what was asked for; None if it must be made. Raises `RequestError`."""
    target = conversion.target
    if target.is_symlink():
        fix = "name the folder that holds the dataset itself, or remove the link"
        raise RequestError(f"{target} is a symbolic link, which can't be replaced at once. To fix it: {fix}.")
    if not target.exists():
        return None
    if not is_dataset(target):
        raise RequestError(f"{target} exists and is no dataset of ours. To fix it: move it away.")
    try:
        manifest = Manifest.load(target)
    except DatasetError:
        if conversion.overwrite:
            return None
        raise
    differences = other_flags(conversion, manifest) or other_images(conversion, manifest)
    return settled(conversion, manifest, differences or damage(target, manifest, conversion.workers), target)


def settled(conversion: Conversion, manifest: Manifest, differences: Sequence[str], where: object) -> Manifest | None:
    """`manifest` if the dataset `where` has no `differences`, None if it may be replaced. Raises `RequestError`."""
    if not differences:
        say(f"{manifest.organ}: up to date, nothing to do")
        return manifest
    if conversion.overwrite:
        return None
    raise RequestError(
        f"The dataset at {where} isn't what this command would make: {'; '.join(differences[:SHOWN_DIFFERENCES])}. "
        "To fix it: add --overwrite to replace it, or name another --tfrecords."
    )


def other_flags(conversion: Conversion, manifest: Manifest) -> list[str]:
    """Which flags were others."""
    return [
        f"--{name} was {manifest.settings.get(name)!r} and is {value!r}"
        for name, value in conversion.settings.to_json().items()
        if manifest.settings.get(name) != value
    ]


def other_images(conversion: Conversion, manifest: Manifest) -> list[str]:
    """Whether the images were others; reads all of them."""
    inputs = inputs_sha256(conversion.source, conversion.files, workers=conversion.workers)
    return ["the images have changed"] * (inputs != manifest.inputs_sha256)


def damage(folder: Path, manifest: Manifest, workers: int) -> list[str]:
    """What in `folder` isn't as it was sealed; reads every file."""
    problems = [problem for file in manifest.files if (problem := audit_file(folder, file))]
    audits = audit_shards(
        folder, manifest.shards, image_size=manifest.image_size, decode=False, workers=workers, title="check"
    )
    return problems + [problem for audit in audits for problem in audit.problems]
