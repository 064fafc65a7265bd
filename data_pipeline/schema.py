"""One record of a dataset, and how it lies on disk: a `tf.train.Example` in a TFRecord frame.

    frame = frame_record(encode_example(Record(image=..., label=0, id="a/b.png", group="a", width=9, height=9)))

Pure bytes in, bytes out, and no TensorFlow: the message classes are built from descriptors of the same wire
format (tensorflow/core/example/*.proto), in a private pool so that they can live beside TensorFlow's own. That
saves each conversion process the seconds and the 400 MB that importing TensorFlow costs. Serialisation is
deterministic, which plain `SerializeToString()` on a map field isn't.

Frame format: uint64 length, uint32 masked CRC32C of the length, data, uint32 masked CRC32C of the data, all little
endian (tensorflow/core/lib/io/record_writer.h).
"""

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

LENGTH_BYTES = 8
HEADER_BYTES = LENGTH_BYTES + 4
FRAME_BYTES = HEADER_BYTES + 4
_CRC_MASK_DELTA = 0xA282EAD8
_LENGTH, _CRC = struct.Struct("<Q"), struct.Struct("<I")
# Tags of a message's first, second and third field, each a run of bytes whose length follows: number << 3 | 2.
_FIRST, _SECOND, _THIRD = b"\x0a", b"\x12", b"\x1a"


class CorruptRecord(Exception):
    """Bytes that can't be vouched for: a checksum or a length that doesn't match."""


class Buffer(Protocol):
    """A readable run of bytes such as `bytes` or `mmap.mmap`."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: slice, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Record:
    """One training example as stored. `width` and `height` are those of the original file, in pixels."""

    image: bytes
    label: int
    id: str
    group: str
    width: int
    height: int


def _example_class() -> Any:
    """`tf.train.Example`, rebuilt from its wire format in a pool of our own."""
    proto = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto

    def message(name: str, *fields: tuple[str, int, int, int, str | None]) -> Any:
        definition = proto.message_type.add(name=name)
        for field_name, number, label, kind, type_name in fields:
            definition.field.add(name=field_name, number=number, label=label, type=kind, type_name=type_name)
        return definition

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    message("BytesList", ("value", 1, many, field.TYPE_BYTES, None))
    message("FloatList", ("value", 1, many, field.TYPE_FLOAT, None))
    message("Int64List", ("value", 1, many, field.TYPE_INT64, None))
    feature = message(
        "Feature",
        ("bytes_list", 1, one, field.TYPE_MESSAGE, ".tensorflow.BytesList"),
        ("float_list", 2, one, field.TYPE_MESSAGE, ".tensorflow.FloatList"),
        ("int64_list", 3, one, field.TYPE_MESSAGE, ".tensorflow.Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for alternative in feature.field:
        alternative.oneof_index = 0
    entry_type = ".tensorflow.Features.FeatureEntry"
    features = message("Features", ("feature", 1, many, field.TYPE_MESSAGE, entry_type))
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=one, type=field.TYPE_STRING)
    entry.field.add(name="value", number=2, label=one, type=field.TYPE_MESSAGE, type_name=".tensorflow.Feature")
    message("Example", ("features", 1, one, field.TYPE_MESSAGE, ".tensorflow.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(proto)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


_Example = _example_class()


def encode_example(record: Record) -> bytes:
    """Serialise `record`; equal records give equal bytes in every process.

    The bytes are those of `tf.train.Example.SerializeToString(deterministic=True)`: map entries in the order of their
    keys. Put together by hand (https://protobuf.dev/programming-guides/encoding), in a third of the time. Raises
    `ValueError` for a number that doesn't fit into 64 bits.
    """
    group, id = record.group.encode(), record.id.encode()
    parts = (
        _before_bytes("group", len(group)),
        group,
        _int64_feature("height", record.height),
        _before_bytes("id", len(id)),
        id,
        _before_bytes("image", len(record.image)),
        record.image,
        _int64_feature("label", record.label),
        _int64_feature("width", record.width),
    )
    return b"".join((_before(_FIRST, sum(map(len, parts))), *parts))


# The same lengths, labels, widths and heights come again and again.
@lru_cache(maxsize=1 << 14)
def _before_bytes(key: str, size: int) -> bytes:
    """What stands before the value in a map entry of `key`: a `Feature` with a `BytesList` of one, so long, value."""
    before = b""
    for tag in (_FIRST, _FIRST):  # value of the list, list of the feature
        before = _before(tag, len(before) + size) + before
    return _before_feature(key, len(before) + size) + before


@lru_cache(maxsize=1 << 14)
def _int64_feature(key: str, value: int) -> bytes:
    """A map entry of `key`: a `Feature` with a packed `Int64List` of one value."""
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{value} doesn't fit into 64 bits")
    packed = _varint(value % (1 << 64))  # a negative number as its two's complement
    values = _before(_FIRST, len(packed)) + packed
    feature = _before(_THIRD, len(values)) + values
    return _before_feature(key, len(feature)) + feature


def _before_feature(key: str, size: int) -> bytes:
    """What stands before a `Feature` of `size` bytes as the value of a map entry, which is a message itself."""
    before = _before(_FIRST, len(key)) + key.encode() + _before(_SECOND, size)
    return _before(_FIRST, len(before) + size) + before


def _before(tag: bytes, size: int) -> bytes:
    """What stands before a field of `size` bytes."""
    return tag + _varint(size)


def _varint(value: int) -> bytes:
    """A number of 0 … 2⁶⁴-1, seven bits a byte, the lowest first; all but the last byte have the highest bit set."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def decode_example(data: bytes) -> Record:
    """The inverse of `encode_example`. Raises `CorruptRecord` if a feature is missing."""
    try:
        feature = _Example.FromString(data).features.feature
        return Record(
            image=feature["image"].bytes_list.value[0],
            label=feature["label"].int64_list.value[0],
            id=feature["id"].bytes_list.value[0].decode(),
            group=feature["group"].bytes_list.value[0].decode(),
            width=feature["width"].int64_list.value[0],
            height=feature["height"].int64_list.value[0],
        )
    except Exception as error:  # protobuf's DecodeError, IndexError, UnicodeDecodeError: all mean the same here
        raise CorruptRecord(f"not a record of this project: {error!r}") from error


def masked_crc32c(data: bytes) -> int:
    """CRC32C, rotated and offset as TFRecord wants it, so that a checksum of checksums stays meaningful."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + _CRC_MASK_DELTA) & 0xFFFFFFFF


def frame_record(data: bytes) -> bytes:
    """`data` as one TFRecord frame, `len(data) + FRAME_BYTES` long."""
    length = _LENGTH.pack(len(data))
    return b"".join((length, _CRC.pack(masked_crc32c(length)), data, _CRC.pack(masked_crc32c(data))))


def unframe_record(buffer: Buffer, start: int, end: int) -> bytes:
    """The data of the frame that lies at `buffer[start:end]`.

    Raises `CorruptRecord` if the frame isn't exactly that long or a checksum doesn't match.
    """
    header = buffer[start : start + HEADER_BYTES]
    if end - start < FRAME_BYTES or len(header) < HEADER_BYTES or end > len(buffer):
        raise CorruptRecord(f"the file ends inside the record at byte {start}")
    length, crc_of_length = struct.unpack("<QI", header)
    if masked_crc32c(header[:LENGTH_BYTES]) != crc_of_length or length != end - start - FRAME_BYTES:
        raise CorruptRecord(f"the length at byte {start} is damaged")
    data = buffer[start + HEADER_BYTES : end - 4]
    (crc_of_data,) = struct.unpack("<I", buffer[end - 4 : end])
    if masked_crc32c(data) != crc_of_data:
        raise CorruptRecord(f"the checksum of the record at byte {start} doesn't match")
    return data
