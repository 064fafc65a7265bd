"""Images in a bucket are the images of a folder that holds the same files."""

import pickle
from pathlib import Path

import pytest

from data_pipeline import cli
from data_pipeline.bucket_source import NO_FILE, BucketSource
from data_pipeline.manifest import read_quarantine
from data_pipeline.sources import InputChangedError, open_sources
from tests.bucket_faults import EVERY_FAULT, seeded
from tests.bucket_server import IN_MEMORY, BucketServer, FaultyBucket
from tests.conftest import image_bytes, make_images
from tests.data_pipeline.bucket_files import add_mess, fill
from tests.data_pipeline.conversion import contents, convert


@pytest.mark.parametrize("faulty_bucket", IN_MEMORY, indirect=True)
def test_a_bucket_gives_the_dataset_of_a_folder_byte_for_byte(
    faulty_bucket: FaultyBucket, images: Path, tmp_path: Path
) -> None:
    """With everything that folders hold, through a network that fails."""
    add_mess(images / "gland")
    fill(faulty_bucket.server.folder("images"), images)
    faulty_bucket.front.rule = seeded(1, rate=0.05, faults=[fault for fault in EVERY_FAULT if fault != "429 wait"])
    convert("gs://lab/images", tmp_path / "theirs", "--workers=2")
    convert(images, tmp_path / "ours")
    assert contents(tmp_path / "theirs" / "gland") == contents(tmp_path / "ours" / "gland")
    assert len(set(faulty_bucket.front.hit())) > 2


@pytest.mark.parametrize("bucket_server", IN_MEMORY, indirect=True)
def test_organs_are_found_as_in_a_folder(bucket_server: BucketServer, tmp_path: Path) -> None:
    for name in ("gland", "lung"):
        make_images(tmp_path / "images" / name, slides=1, tiles=1)
        (tmp_path / "images" / name / "none yet").mkdir()
    make_images(tmp_path / "images" / ".trash" / "x", slides=1, tiles=1)
    fill(bucket_server.folder("images"), tmp_path / "images")
    for below, organs in (
        ("", ["all"]),
        ("", ["gland"]),
        ("", ["lung", "gland"]),
        ("/lung", ["all"]),
        ("/lung", ["x"]),
    ):
        try:
            here = open_sources(f"{tmp_path}/images{below}", organs)
        except cli.RequestError:
            with pytest.raises(cli.RequestError, match="--organ"):
                open_sources(f"gs://lab/images{below}", organs)
            continue
        there = open_sources(f"gs://lab/images{below}", organs)
        assert list(there) == list(here)
        for organ, source in there.items():
            assert [(file.id, file.diagnosis) for file in source.files()] == [
                (file.id, file.diagnosis) for file in here[organ].files()
            ]
            assert source.diagnoses() == here[organ].diagnoses()


def test_an_object_is_what_was_listed_or_an_error(bucket_server: BucketServer) -> None:
    folder = bucket_server.folder("images")
    for number in range(3):
        folder.write(f"gland/red/{number}.png", image_bytes(number))
    source = open_sources("gs://lab/images", ["gland"])["gland"]
    files = source.files()
    stamps = [source.stamp(file) for file in files]
    folder.write("gland/red/1.png", image_bytes(7))
    folder.delete(["gland/red/2.png"])
    elsewhere = pickle.loads(pickle.dumps(source))  # as a worker gets it
    assert next(elsewhere.read(files[:1])).data == image_bytes(0)
    for gone in files[1:]:
        with pytest.raises(InputChangedError, match=r"gs://lab/images/gland/red/.\.png was replaced or removed"):
            list(elsewhere.read([gone]))
    again = open_sources("gs://lab/images", ["gland"])["gland"]
    assert [again.stamp(file) == stamp for file, stamp in zip(again.files(), stamps, strict=False)] == [True, False]
    folder.write("gland/red/0.png", image_bytes(8))
    folder.write("gland/red/0.png", image_bytes(0))  # the same bytes, written anew: no reason to trust it less or more
    again = open_sources("gs://lab/images", ["gland"])["gland"]
    assert again.stamp(again.files()[0]) != stamps[0]


def test_a_source_is_small_when_pickled_however_many_objects_there_are(bucket_server: BucketServer) -> None:
    folder = bucket_server.folder("images")
    for number in range(30):
        folder.write(f"gland/red/{number}.png", b"x")
    (source,) = open_sources("gs://lab/images", ["all"]).values()
    assert isinstance(source, BucketSource)
    assert source.listed
    assert len(source.files()) == 30
    assert len(pickle.dumps(source)) < 300


@pytest.mark.parametrize("bucket_server", IN_MEMORY, indirect=True)
def test_what_no_file_could_be_called_is_listed_and_left_out(
    bucket_server: BucketServer, images: Path, tmp_path: Path
) -> None:
    fill(bucket_server.folder("images"), images)
    strange = ["red//x.png", "red/../x.png", "./red.png", "/red.png", "red/no marker/"]
    for number, name in enumerate(strange):
        client = bucket_server.folder()._client()
        client.bucket("lab").blob(f"images/gland/{name}").upload_from_string(image_bytes(70_000 + number))
    convert("gs://lab/images", tmp_path / "tf")
    rows = {row.path: row.reason for row in read_quarantine(tmp_path / "tf" / "gland")}
    assert rows == dict.fromkeys(strange, NO_FILE)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ("gs://", "a folder in a bucket"),
        ("gs://no/../such", "a folder in a bucket"),
        ("gs://lab/LC25000.zip", "fetch it first"),
        ("gs://lab/nothing", "There is nothing at gs://lab/nothing"),
        ("gs://nowhere/images", "There is no bucket gs://nowhere"),
    ],
)
def test_an_address_without_images_is_refused(bucket_server: BucketServer, images: str, says: str) -> None:
    del bucket_server
    with pytest.raises(cli.RequestError, match=says):
        open_sources(images, ["gland"])
