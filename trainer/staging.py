"""Datasets of a bucket, brought to this machine before training: checked against their seals, and kept for next time.

    datasets = BucketDatasets("gs://lab/tfrecords", scratch)
    manifest = datasets.manifest("cervix")      # a few kilobytes
    datasets.reserve([manifest])                # RequestError if there is no room
    tfrecords = datasets.stage(manifest)        # tfrecords/"cervix" is the dataset now

What is fetched is checked against the manifest once; notes say so, as for a dataset on a disk (`seal_check.py`). A file
that is there and noted is left, one that has changed or was cut off is fetched again. The manifest stands for one
generation of the dataset: if another has taken its place meanwhile, that is an error.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from data_pipeline.bucket import Blob, BucketFolder, ConflictError
from data_pipeline.cli import FaultError
from data_pipeline.manifest import FILE_NAME, DatasetError, FileSeal, Manifest
from data_pipeline.storage import write_atomic
from data_pipeline.transfer import download
from trainer import seal_check
from trainer.scratch import Dataset, Scratch, waiting_for

STAGING = ".staging"


class BucketDatasets:
    """The datasets below one address, as `--tfrecords` names it."""

    def __init__(self, address: str, scratch: Scratch) -> None:
        """Raises `RequestError` for what is no address."""
        self.folder = BucketFolder.of("tfrecords", address)
        self._scratch = scratch
        self._found: dict[str, tuple[Blob, bytes]] = {}

    def __str__(self) -> str:
        return str(self.folder)

    def organs(self) -> dict[str, bool]:
        """The folders there, and whether each holds a sealed dataset."""
        return {name: bool((self.folder / name).find(FILE_NAME)) for name in self.folder.folders()}

    def manifest(self, organ: str) -> Manifest:
        """The manifest of a dataset, from now on the one that counts. Raises `DatasetError`."""
        folder = self.folder / organ
        blob = folder.find(FILE_NAME)
        if blob is None:
            raise DatasetError(
                f"No sealed dataset in {folder}: there is no {FILE_NAME}. "
                "To fix it: run `python -m data_pipeline` for this organ, to its end."
            )
        data = folder.read(blob)
        self._found[organ] = blob, data
        return Manifest.of_file(data, f"{folder}/{FILE_NAME}")

    def reserve(self, manifests: Sequence[Manifest], *splits: str) -> None:
        """Make room for all of them. Raises `RequestError` if there can't be."""
        wanted = {}
        for manifest in manifests:
            size = sum(seal.bytes for seal in seal_check.sealed_files(manifest, *splits))
            wanted[Dataset(manifest.fingerprint, manifest.organ)] = size
        self._scratch.reserve(wanted)

    def stage(self, manifest: Manifest, *splits: str) -> Path:
        """Fetch what isn't here yet, of these splits or of all; the folder of datasets that it lies in then.

        Raises `DatasetError` naming what isn't as it was sealed, `ConflictError` if the dataset is replaced meanwhile.
        """
        organ, tfrecords = manifest.organ, self._scratch.dataset(manifest.fingerprint)
        notes = tfrecords / seal_check.NOTES
        what = f"{organ}: waiting for another process of this machine, which fetches the same dataset"
        with waiting_for(tfrecords / STAGING, what=what):
            target = tfrecords / organ
            write_atomic(target / FILE_NAME, self._found[organ][1])
            missing = seal_check.not_noted(target, manifest, *splits, notes=notes)
            if missing:
                try:
                    download(self.folder / organ, self._sealed_objects(organ, missing), target, title=organ)
                    seal_check.check_contents(target, manifest, *splits, notes=notes)
                except DatasetError as error:
                    self._check_current(organ)
                    raise DatasetError(str(error).replace(str(target), str(self.folder / organ))) from error
                self._check_current(organ)
        return tfrecords

    def _sealed_objects(self, organ: str, seals: Sequence[FileSeal]) -> list[Blob]:
        """The objects of these files. Raises `DatasetError` naming each that is missing or of another size."""
        folder = self.folder / organ
        there = {blob.name: blob for blob in folder.files()}
        seal_check.refuse(
            f"{folder}/{seal.path} is missing"
            if seal.path not in there
            else f"{folder}/{seal.path} has {there[seal.path].size:,} bytes, {seal.bytes:,} were sealed"
            for seal in seals
            if seal.path not in there or there[seal.path].size != seal.bytes
        )
        return [there[seal.path] for seal in seals]

    def _check_current(self, organ: str) -> None:
        """Raises `ConflictError` if the manifest isn't the one that was read."""
        folder = self.folder / organ
        if folder.find(FILE_NAME) != self._found[organ][0]:
            raise ConflictError(
                f"The dataset in {folder} was replaced while it was fetched. To fix it: run the same command again, "
                "once its conversion is done."
            )


@contextmanager
def fetched_again(tfrecords: Path, address: str) -> Iterator[None]:
    """While a staged dataset is read: a copy that has been damaged since it was fetched is no reason to give up.

    Raises `FaultError` for it, and has all files checked, and where needed fetched, the next time.
    """
    try:
        yield
    except DatasetError as error:
        (tfrecords / seal_check.NOTES).unlink(missing_ok=True)
        cause = str(error).partition(" To fix it: ")[0]
        raise FaultError(
            f"{cause} This copy of what is in {address} was right when it was fetched. To fix it: run the same command "
            "again, it fetches what is damaged; if it lasts, look at the disk."
        ) from error
