"""The orientation that a camera notes in a JPEG, read with TensorFlow's own operations: it travels in a SavedModel.

    turn = orientation(encoded)             # 1 … 8; 1 is upright, and what anything but a JPEG with EXIF data is
    pixels = upright(pixels, turn)

TensorFlow's decoder ignores the note, Pillow and browsers follow it. What is looked at are the segments before the
image data (ISO/IEC 10918-1, annex B) and there the first directory of the EXIF segment (TIFF 6.0, section 2), in either
byte order. A note that is damaged counts as none. One that is in XMP data alone isn't found.
"""

from typing import Any

import tensorflow as tf

ORIENTATION = 0x0112
MARKER, FIRST_APP, LAST_APP, EXIF_APP, COMMENT = 0xFF, 0xE0, 0xEF, 0xE1, 0xFE
EXIF = b"Exif\x00\x00"
JFIF, JFIF_BYTES = b"\xff\xe0\x00\x10", 18  # how the usual JFIF segment begins, and its length
HEAD = 10  # bytes of a segment: marker, length, and the six that say what it holds
ENTRY = 12  # bytes of a directory's entry


def orientation(encoded: Any) -> Any:
    """`encoded` is one file, `[] string`; `[] int32`."""
    # The shortest JPEG there is holds more than this; a head read past the end of a file would be an error.
    is_jpeg = (tf.strings.length(encoded) > 64) & (tf.strings.substr(encoded, 0, 3) == b"\xff\xd8\xff")
    return tf.cond(is_jpeg, lambda: _of_jpeg(encoded), lambda: tf.constant(1))


def upright(pixels: Any, turn: Any) -> Any:
    """`[height, width, channels]` as `turn` says it is to be seen."""

    def turned() -> Any:
        sideways = tf.cond(turn >= 5, lambda: tf.transpose(pixels, [1, 0, 2]), lambda: pixels)
        mirrored = tf.reduce_any(turn == [2, 3, 6, 7])
        reversed_ = tf.reduce_any(turn == [3, 4, 7, 8])
        return tf.reverse(sideways, tf.boolean_mask([0, 1], tf.stack([reversed_, mirrored])))

    return tf.cond(turn > 1, turned, lambda: pixels)


def _of_jpeg(encoded: Any) -> Any:
    """That of most files is known at once: nothing but a JFIF segment stands before the image's tables."""
    kinds = tf.cast(tf.io.decode_raw(tf.strings.substr(encoded, 3, JFIF_BYTES + 1), tf.uint8), tf.int32)
    bare_jfif = (tf.strings.substr(encoded, 2, 4) == JFIF) & ~_is_an_applications(kinds[JFIF_BYTES])
    bare = ~_is_an_applications(kinds[0]) | bare_jfif
    return tf.cond(bare, lambda: tf.constant(1), lambda: _of_segments(encoded))


def _is_an_applications(kind: Any) -> Any:
    return ((kind >= FIRST_APP) & (kind <= LAST_APP)) | (kind == COMMENT)


def _of_segments(encoded: Any) -> Any:
    """Walk from segment to segment, as long as they are comments or an application's."""

    def goes_on(position: Any, head: Any) -> Any:
        return (head[0] == MARKER) & _is_an_applications(head[1]) & ~_is_exif(encoded, position, head[1])

    def following(position: Any, head: Any) -> Any:
        after = position + 2 + tf.maximum(_number(head[2:4], little=False), 2)
        return after, _bytes(encoded, after, HEAD)

    first = tf.constant(2)
    position, head = tf.while_loop(goes_on, following, [first, _bytes(encoded, first, HEAD)])
    found = (head[0] == MARKER) & _is_exif(encoded, position, head[1])
    return tf.cond(found, lambda: _of_exif(encoded, position + HEAD), lambda: tf.constant(1))


def _is_exif(encoded: Any, position: Any, kind: Any) -> Any:
    inside = position + HEAD <= tf.strings.length(encoded)
    start = tf.where(inside, position + HEAD - len(EXIF), 0)
    return (kind == EXIF_APP) & inside & (tf.strings.substr(encoded, start, len(EXIF)) == EXIF)


def _of_exif(encoded: Any, start: Any) -> Any:
    """`start` is where the TIFF header of the EXIF data is: places are counted from there."""
    header = _bytes(encoded, start, 8)
    little = header[0] == ord("I")
    directory = start + tf.maximum(_number(header[4:8], little=little), 0)
    count = _number(_bytes(encoded, directory, 2), little=little)
    entries = tf.reshape(_bytes(encoded, directory + 2, ENTRY * count), [-1, ENTRY])
    tags, values = _number(entries[:, :2], little=little), _number(entries[:, 8:10], little=little)
    noted = tf.boolean_mask(values, tags == ORIENTATION)
    value = tf.concat([noted, [1]], axis=0)[0]
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _bytes(encoded: Any, start: Any, count: Any) -> Any:
    """`[count] int32`; zeros where the file has ended."""
    length = tf.strings.length(encoded)
    found = tf.io.decode_raw(tf.strings.substr(encoded, tf.clip_by_value(start, 0, length), count), tf.uint8)
    found = tf.concat([tf.cast(found, tf.int32), tf.zeros([count - tf.size(found)], tf.int32)], axis=0)
    return tf.reshape(found, [count])


def _number(digits: Any, *, little: Any) -> Any:
    """`[…, n] int32` of bytes as a number, the last byte the lowest or, if `little`, the highest."""
    total = tf.zeros_like(digits[..., 0])
    other = total
    for place in range(digits.shape[-1]):
        total = total * 256 + digits[..., place]
        other = other * 256 + digits[..., digits.shape[-1] - 1 - place]
    return tf.where(little, other, total)
