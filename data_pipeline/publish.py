"""A dataset from this machine to a bucket, so that nobody ever reads half of one or a mixture of two.

    publish(conversion, manifest, seen)

Whoever publishes claims the place first, by an object `.ORGAN.publishing` that only one can make. A manifest there that
is to be replaced goes first: its files are about to change under it, and without a manifest there is no dataset. Then
come all files, each in place of the generation that was seen, and the manifest last. So a reader finds a manifest whose
files are all there, or none; and of two who publish different datasets at once, one is told (`ConflictError`).
A publication that was cut off is finished by the same command; by another one only with --overwrite.
"""

import hashlib
import json

from data_pipeline.bucket import Blob, BucketFolder, ConflictError
from data_pipeline.bucket_dataset import Note, Seen, inputs_noted, is_ours, note_name
from data_pipeline.conversion import Conversion
from data_pipeline.manifest import FILE_NAME, Manifest
from data_pipeline.transfer import is_copy, remove, upload


def claim_name(organ: str) -> str:
    """The object that says who publishes, in the folder of datasets."""
    return f".{organ}.publishing"


def publish(conversion: Conversion, bucket: BucketFolder, manifest: Manifest, seen: Seen) -> None:
    """Upload the dataset at `conversion.target`. `seen` is what was at its place when the conversion began.

    Raises `ConflictError` if somebody else publishes, or has published, another one.
    """
    organ, place = conversion.organ, bucket / conversion.organ
    files = {path.name: path for path in conversion.target.iterdir()}
    sealed = files.pop(FILE_NAME).read_bytes()
    claim = _claim(bucket, organ, manifest.fingerprint, overwrite=conversion.overwrite)
    there = {blob.name: blob for blob in place.files()}
    current = there.pop(FILE_NAME, None)
    if current and current.generation != seen.generation and place.read(current) != sealed:
        bucket.delete([claim_name(organ)], generation=claim.generation)
        raise _beaten(place)
    changed = {name: path for name, path in files.items() if name not in there or not is_copy(path, there[name])}
    stale = [name for name in there if name not in files and is_ours(name, organ)]
    if current and (changed or stale or place.read(current) != sealed):
        place.delete([FILE_NAME], generation=current.generation)
        current = None
    generations = {name: there[name].generation if name in there else 0 for name in changed}
    there |= upload(place, changed, title="publish", generations=generations)
    _note(conversion, bucket, sealed, {name: there[name] for name in files})
    _confirm(bucket, organ, manifest.fingerprint, place, sealed)
    written = current or place.write(FILE_NAME, sealed, generation=0)
    try:
        _confirm(bucket, organ, manifest.fingerprint, place, sealed)
    except ConflictError:
        place.delete([FILE_NAME], generation=written.generation)
        raise
    remove(place, stale)
    bucket.delete([claim_name(organ)])


def _claim(bucket: BucketFolder, organ: str, fingerprint: str, *, overwrite: bool) -> Blob:
    name, data = claim_name(organ), json.dumps({"fingerprint": fingerprint}).encode()
    there = bucket.find(name)
    if there is None or overwrite:
        return bucket.write(name, data, generation=there.generation if there else 0)
    try:
        if (there.size, bucket.read(there)) == (len(data), data):
            return there  # ours, of a run that was cut off, or of one that does the same
    except ConflictError:  # whoever it was has ended
        return bucket.write(name, data, generation=0)
    raise ConflictError(
        f"Another dataset is being published at {bucket / organ}. To fix it: wait for its end; if that was cut off and "
        "won't go on, add --overwrite."
    )


def _confirm(bucket: BucketFolder, organ: str, fingerprint: str, place: BucketFolder, sealed: bytes) -> None:
    """Raises `ConflictError` if another one has claimed the place meanwhile."""
    try:
        if json.loads(bucket.read(claim_name(organ)))["fingerprint"] == fingerprint:
            return
    except FileNotFoundError:  # one who did the same has ended
        if _read(place) == sealed:
            return
    raise _beaten(place)


def _read(place: BucketFolder) -> bytes:
    try:
        return place.read(FILE_NAME)
    except FileNotFoundError:
        return b""


def _note(conversion: Conversion, bucket: BucketFolder, sealed: bytes, blobs: dict[str, Blob]) -> None:
    objects = {name: (blob.size, blob.crc32c) for name, blob in sorted(blobs.items())}
    note = Note(hashlib.sha256(sealed).hexdigest(), inputs_noted(conversion), objects)
    bucket.write(note_name(conversion.organ), note.to_json())


def _beaten(place: BucketFolder) -> ConflictError:
    return ConflictError(
        f"Another dataset was published at {place} meanwhile. To fix it: look which of the two is wanted; to replace "
        "that one, run this command again with --overwrite."
    )
