"""Records are written as TensorFlow would write them, and damage to them is noticed."""

import struct

import google_crc32c
import pytest
import tensorflow as tf
from hypothesis import example, given
from hypothesis import strategies as st

from data_pipeline.schema import (
    FRAME_BYTES,
    CorruptRecord,
    Record,
    decode_example,
    encode_example,
    frame_record,
    unframe_record,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
SIZES = st.one_of(st.integers(0, 300), st.sampled_from([2**14 - 1, 2**14, 2**21 - 40, 2**21, 3_000_000]))
RECORDS = st.builds(
    Record,
    image=st.one_of(
        st.binary(max_size=64), SIZES.map(lambda size: bytes(range(256)) * (size // 256) + bytes(size % 256))
    ),
    label=st.one_of(st.integers(0, 300), INT64),
    id=st.one_of(st.text(), st.text().map(lambda text: text * 200)),
    group=st.text(),
    width=INT64,
    height=st.one_of(st.sampled_from([0, 127, 128, 16383, 16384, -1, 2**63 - 1, -(2**63)]), INT64),
)
PLAIN = Record(image=b"", label=0, id="", group="", width=0, height=0)


def by_protobuf(record: Record) -> tf.train.Example:
    numbers = {"label": record.label, "width": record.width, "height": record.height}
    strings = {"image": record.image, "id": record.id.encode(), "group": record.group.encode()}
    feature = {name: tf.train.Feature(int64_list=tf.train.Int64List(value=[value])) for name, value in numbers.items()}
    feature |= {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in strings.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature))


@example(PLAIN)
@given(RECORDS)
def test_a_record_is_encoded_byte_for_byte_as_protobuf_encodes_it(record: Record) -> None:
    assert encode_example(record) == by_protobuf(record).SerializeToString(deterministic=True)


@given(RECORDS)
def test_tensorflow_parses_what_is_encoded(record: Record) -> None:
    assert tf.train.Example.FromString(encode_example(record)) == by_protobuf(record)


@given(RECORDS)
def test_decoding_undoes_encoding(record: Record) -> None:
    assert decode_example(encode_example(record)) == record


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_a_number_that_does_not_fit_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        encode_example(Record(image=b"", label=number, id="", group="", width=0, height=0))


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_tensorflow_reads_the_frames(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("frames") / "some.tfrecord"
    path.write_bytes(b"".join(map(frame_record, contents)))
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(path))] == contents


@given(st.binary(max_size=300), st.data())
def test_a_flipped_bit_anywhere_in_a_frame_is_noticed(content: bytes, data: st.DataObject) -> None:
    frame = bytearray(frame_record(content))
    assert len(frame) == len(content) + FRAME_BYTES
    assert unframe_record(bytes(frame), 0, len(frame)) == content
    bit = data.draw(st.integers(0, 8 * len(frame) - 1))
    frame[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptRecord):
        unframe_record(bytes(frame), 0, len(frame))


def test_the_checksum_is_masked_as_the_format_says() -> None:
    crc = google_crc32c.value(b"abc")
    (stored,) = struct.unpack("<I", frame_record(b"abc")[-4:])
    assert stored == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
