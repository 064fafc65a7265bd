"""An encoded image of any size → the square of pixels that the network takes, inside the SavedModel.

pixels, last = decode_served(encoded, image_size=256)

Equal to the input pipeline's `decode_stored` bit for bit where that takes an image; and like conversion an image of any
size or colours is taken, turned as its EXIF data says, and laid on white where it is transparent.
"""

from typing import Any

import tensorflow as tf

from trainer.exif import orientation, upright


def decode_served(encoded: Any, *, image_size: int) -> tuple[Any, Any]:
    """`[] string` → `[image_size, image_size, 3] float32` in [0, 255], and the last pixel decoded, `[3] uint8`.

    The last pixel tells whether a JPEG may lack data: its decoder makes grey of what is missing.
    """
    pixels = tf.io.decode_image(encoded, expand_animations=False)
    coloured = tf.cond(tf.shape(pixels)[2] == 3, lambda: pixels, lambda: _in_colour(pixels, encoded))
    turned = upright(coloured, orientation(encoded))
    fits = tf.reduce_all(tf.shape(turned)[:2] == image_size)
    square = tf.cond(fits, lambda: tf.cast(turned, tf.float32), lambda: _resized(turned, image_size))
    return tf.ensure_shape(square, [image_size, image_size, 3]), tf.ensure_shape(coloured[-1, -1], [3])


def _in_colour(pixels: Any, encoded: Any) -> Any:
    """`[height, width, 1, 2 or 4] uint8` with three channels."""
    has_fourth = tf.shape(pixels)[2] % 2 == 0
    # The fourth byte of a BMP is no transparency, whatever is in it.
    is_bmp = tf.strings.substr(encoded, 0, 2) == b"BM"
    pixels = tf.cond(has_fourth & is_bmp, lambda: pixels[..., :3], lambda: pixels)
    opaque = tf.cond(has_fourth & ~is_bmp, lambda: _on_white(pixels), lambda: pixels)
    # A grey picture's one channel becomes three; a coloured one's three stay as they are.
    return tf.broadcast_to(opaque, tf.concat([tf.shape(opaque)[:2], [3]], axis=0))


def _on_white(pixels: Any) -> Any:
    share = tf.cast(pixels[..., -1:], tf.float32) / 255.0
    return tf.cast(tf.round(tf.cast(pixels[..., :-1], tf.float32) * share + 255.0 * (1.0 - share)), tf.uint8)


def _resized(pixels: Any, image_size: int) -> Any:
    """Bilinear with antialiasing, ignoring the aspect ratio, as conversion and the input pipeline do.

    Pixels of 8 bits go in as they are: of an image of 100 megapixels, floats would take 1.2 GB.
    """
    return tf.image.resize(pixels, [image_size, image_size], antialias=True)
