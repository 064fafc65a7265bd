"""Whatever the network does: the right bytes in the end, or an error that says what to do."""

import http.client
import random
import urllib.request
from pathlib import Path

import pytest

from data_pipeline import bucket, resumable, retrying
from data_pipeline.bucket import ConflictError
from data_pipeline.transfer import download, upload
from tests.bucket_faults import EVERY_FAULT, Seen, matching, seeded
from tests.bucket_server import FaultyBucket


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses as between the first tries of a call, but a hundredth of them."""
    monkeypatch.setattr(retrying, "FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr(retrying, "LONGEST_PAUSE_S", 0.05)


@pytest.mark.parametrize("fault", EVERY_FAULT)
def test_every_operation_ends_with_the_right_bytes(faulty_bucket: FaultyBucket, fault: str) -> None:
    folder, front = faulty_bucket.server.folder("a"), faulty_bucket.front
    data = random.Random(1).randbytes(100_000)
    front.rule = lambda seen: fault if seen.number % 2 else ""
    folder.write("x/one", data, generation=0)
    folder.write("x/one", data[1:])
    folder.write("two", b"")
    assert [blob.name for blob in folder.files()] == ["two", "x/one"]
    assert folder.folders() == ["x"]
    assert folder.read("x/one") == data[1:]
    assert folder.read("two") == b""
    folder.delete(["x/one", "x/one"])
    assert folder.find("x/one") is None
    assert set(front.hit()) == {fault}


def test_files_arrive_whole_through_faults_of_every_kind(faulty_bucket: FaultyBucket, tmp_path: Path) -> None:
    folder, front = faulty_bucket.server.folder("a"), faulty_bucket.front
    front.rule = seeded(3, rate=0.4, faults=EVERY_FAULT)
    files = {f"{number}/ü {number}": tmp_path / str(number) for number in range(20)}
    for number, path in enumerate(files.values()):
        path.write_bytes(random.Random(number).randbytes(number * 3001))
    blobs = upload(folder, files)
    for name, path in zip(blobs, download(folder, list(blobs.values()), tmp_path / "back"), strict=True):
        assert path.read_bytes() == files[name].read_bytes()
    assert len(set(front.hit())) > 6


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("POST", "reset after"),
        ("POST", "503"),
        ("PUT", "reset before"),
        ("PUT", "reset after"),
        ("PUT", "503"),
        ("PUT", "429 wait"),
        ("PUT", "flip sent"),
    ],
)
def test_a_large_upload_that_is_interrupted_ends_right(
    faulty_bucket: FaultyBucket, tmp_path: Path, method: str, fault: str
) -> None:
    folder, front = faulty_bucket.server.folder("a"), faulty_bucket.front
    large = tmp_path / "large"
    large.write_bytes(random.Random(1).randbytes(9 << 20))
    front.rule = matching(method, "resumable" if method == "POST" else "", fault)
    blob = folder.write("large", large, generation=0)
    assert folder.read(blob) == large.read_bytes()
    assert front.hit() == [fault]


@pytest.mark.parametrize("fault", ["reset before", "reset after", "503"])
def test_of_a_large_upload_only_the_piece_that_was_lost_is_sent_again(
    faulty_bucket: FaultyBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(resumable, "PIECE_BYTES", 1 << 20)
    folder, front = faulty_bucket.server.folder("a"), faulty_bucket.front
    large = tmp_path / "large"
    large.write_bytes(random.Random(1).randbytes((9 << 20) + 5))
    puts = 0

    def rule(seen: Seen) -> str:
        nonlocal puts
        puts += seen.method == "PUT"
        return fault if seen.method == "PUT" and puts in (4, 8) else ""

    front.rule = rule
    blob = folder.write("large", large, generation=0)
    assert folder.read(blob) == large.read_bytes()
    assert front.hit() == [fault] * 2
    sent = [seen.received for seen in front.log if seen.method == "PUT"]
    assert large.stat().st_size <= sum(sent) <= large.stat().st_size + (2 << 20)
    assert sum(seen.method == "POST" for seen in front.log) == 1


def test_an_upload_that_the_service_has_forgotten_begins_again(
    faulty_bucket: FaultyBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable, "PIECE_BYTES", 1 << 20)
    folder, front = faulty_bucket.server.folder("a"), faulty_bucket.front
    large = tmp_path / "large"
    large.write_bytes(random.Random(1).randbytes(9 << 20))
    front.rule = matching("PUT", "", "404")
    blob = folder.write("large", large, generation=0)
    assert folder.read(blob) == large.read_bytes()
    assert sum(seen.method == "POST" for seen in front.log) == 2


@pytest.mark.parametrize("fault", ["400", "404"])
def test_an_upload_that_the_service_will_not_end_begins_again_however_often(
    faulty_bucket: FaultyBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Once it has found the checksum wrong, it says so to whatever is sent to that upload."""
    monkeypatch.setitem(http.client.responses, 400, "Provided CRC32C doesn't match calculated CRC32C")
    folder, front = faulty_bucket.server.folder("a"), faulty_bucket.front
    large = tmp_path / "large"
    large.write_bytes(random.Random(1).randbytes(9 << 20))
    begun = 0

    def rule(seen: Seen) -> str:
        nonlocal begun
        begun += seen.method == "POST"
        return fault if seen.method == "PUT" and begun <= resumable.TRIES else ""

    front.rule = rule
    blob = folder.write("large", large, generation=0)
    assert folder.read(blob) == large.read_bytes()
    assert front.hit() == [fault] * resumable.TRIES


def test_what_arrived_damaged_is_sent_again_in_place_of_the_damage(faulty_bucket: FaultyBucket) -> None:
    folder, front = faulty_bucket.server.folder("a"), faulty_bucket.front
    for generation in (0, None):
        front.rule = matching("POST", "multipart", "flip sent", times=2)
        data = random.Random(generation).randbytes(1000)
        folder.write("small", data, generation=generation)
        assert folder.read("small") == data
    assert front.hit() == 4 * ["flip sent"]


def test_a_listing_that_fails_on_a_page_goes_on_with_that_page(
    faulty_bucket: FaultyBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, front = faulty_bucket.server.folder("a"), faulty_bucket.front
    for number in range(5):
        folder.write(f"{number}/x", b"")
    monkeypatch.setattr(bucket, "PAGE", 2)
    began = len(front.log)
    front.rule = matching("GET", "pageToken=", "reset after", times=2)
    assert [blob.name for blob in folder.files()] == [f"{number}/x" for number in range(5)]
    assert folder.folders() == [str(number) for number in range(5)]
    assert sum("pageToken" not in seen.address for seen in front.log[began:]) == 2


@pytest.mark.parametrize("then", ["replaced", "removed"])
def test_what_is_asked_for_by_its_name_may_change_before_it_is_read(faulty_bucket: FaultyBucket, then: str) -> None:
    """Between the look and the reading; who named a generation is told, who named none gets what is there now."""
    folder = faulty_bucket.server.folder("a")
    looked_at = folder.write("x", b"before")
    changes = []

    def behind(method: str, path: str, data: bytes | None = None) -> None:
        request = urllib.request.Request(f"{faulty_bucket.server.back}/{path}", data, method=method)
        urllib.request.urlopen(request, timeout=10).close()

    def change(seen: Seen) -> str:
        if seen.media and not changes:
            changes.append(seen)
            behind("DELETE", "storage/v1/b/lab/o/a%2Fx")
            if then == "replaced":
                behind("POST", "upload/storage/v1/b/lab/o?uploadType=media&name=a/x", b"after")
        return ""

    faulty_bucket.front.rule = change
    if then == "replaced":
        assert folder.read("x") == b"after"
    else:
        with pytest.raises(FileNotFoundError):
            folder.read("x")
    assert changes
    with pytest.raises(ConflictError):
        folder.read(looked_at)
