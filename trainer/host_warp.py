"""The affine warp on CPUs: a kernel compiled by Numba when it is first called, several times as fast as XLA's.

    pixels = warped_on_host(images, matrices, gains, limit=1.0)          # NumPy
    pixels = sampled_on_host(images, matrices, gains, limit=1.0)         # the same in a TensorFlow graph

Each row is done in three passes, of which LLVM makes vector instructions: where the source points lie, then one load of
eight bytes for two neighbouring pixels above and one for two below, then the weighing. Sums and products are those of
`augment.warp`, in its order and without fusing, so that every processor gives the same bits.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numba
import numpy as np
import tensorflow as tf
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_ALIGNED_BYTES = 64  # what TensorFlow takes over without a copy
_CHANNELS, _FLOAT_BYTES, _LOAD_BYTES = 3, 4, 8
_AT_ONCE = 8  # images that a thread takes


# NaN can't come up, and without it minima and maxima are single instructions. Nothing here changes a result.
_kernel = partial(numba.njit, nogil=True, error_model="numpy", fastmath={"nnan", "ninf", "nsz"})


def sampled_on_host(images: Any, matrices: Any, gains: Any, *, limit: float) -> Any:
    """`warped_on_host` for tensors of static shape."""

    def warped(images: NDArray[np.uint8], matrices: Floats, gains: Floats) -> Floats:
        return warped_on_host(images, matrices, gains, limit=limit)

    # AutoGraph would rewrite what runs as plain Python. Stateless, or op determinism would allow one call at a time.
    plain = tf.autograph.experimental.do_not_convert(warped)
    pixels = tf.numpy_function(plain, [images, matrices, gains], tf.float32, stateful=False)
    return tf.ensure_shape(pixels, images.shape)


def warped_on_host(images: NDArray[np.uint8], matrices: Floats, gains: Floats, *, limit: float) -> Floats:
    """Each image at the source points of its matrix, bilinearly with nearest fill, times its gain, at most `limit`.

    Args:
        images: `[batch, size, size, 3] uint8`, contiguous; `size` is 2 or more.
        matrices: `[batch, 6] float32`, see `Draws.matrices`.
        gains: `[batch] float32`.
        limit: What larger values are cut to.

    Returns:
        `[batch, size, size, 3] float32`.
    """
    out = _aligned(images.shape)

    def warp(part: slice) -> None:
        arguments = images[part], matrices[part], gains[part], np.float32(limit), out[part]
        try:
            _warp_kept(*arguments)
        except OSError:  # a full disk is no reason not to train
            _warp_not_kept(*arguments)

    parts = [slice(start, start + _AT_ONCE) for start in range(0, len(images), _AT_ONCE)]
    list(_pool().map(warp, parts))  # what a thread raised is raised here
    return out


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="warp")


def _aligned(shape: tuple[int, ...]) -> Floats:
    size = int(np.prod(shape)) * _FLOAT_BYTES
    raw = np.empty(size + _ALIGNED_BYTES, np.uint8)
    first = -raw.ctypes.data % _ALIGNED_BYTES
    return raw[first : first + size].view(np.float32).reshape(shape)


def _warp(images: Any, matrices: Any, gains: Any, limit: Any, out: Any) -> None:
    batch, size = images.shape[:2]
    first, to_right, to_bottom = np.empty(size, np.int32), np.empty(size, np.float32), np.empty(size, np.float32)
    above, below = np.empty(size, np.uint64), np.empty(size, np.uint64)
    # A copy that stays in the processor's cache, as turned rows jump; and after its last pixel one may read on.
    image = np.zeros(_CHANNELS * size * size + _LOAD_BYTES, np.uint8)
    for number in range(batch):
        _copy(images[number].reshape(-1), image)
        a, b, c, d, e, f = matrices[number]
        for y in range(size):
            down = np.float32(y)
            _find(a, b * down, c, d, e * down, f, first, to_right, to_bottom)
            _load(image, first, above, below)
            row = out[number, y].reshape(-1)
            _weigh(above.view(np.uint32), below.view(np.uint32), to_right, to_bottom, gains[number], limit, row)


@_kernel()  # type: ignore[untyped-decorator]
def _copy(values: Any, to: Any) -> None:
    for i in range(values.size):
        to[i] = values[i]


@_kernel()  # type: ignore[untyped-decorator]
def _find(a: Any, by: Any, c: Any, d: Any, ey: Any, f: Any, first: Any, to_right: Any, to_bottom: Any) -> None:
    """For each pixel of a row: the byte where the upper left of its sources begins, and how far it is from there."""
    size = first.size
    zero, last, last_but_one = np.float32(0), np.float32(size - 1), np.int32(size - 2)
    for i in range(size):
        x = np.float32(np.int32(i))
        # Clamping the source point is nearest fill: outside the image the border pixel goes on.
        source_x = min(max((a * x + by) + c, zero), last)
        source_y = min(max((d * x + ey) + f, zero), last)
        # On the last column and row the pixel before takes the weight 0 and that one 1.
        left, top = min(np.int32(source_x), last_but_one), min(np.int32(source_y), last_but_one)
        to_right[i], to_bottom[i] = source_x - np.float32(left), source_y - np.float32(top)
        first[i] = (top * np.int32(size) + left) * np.int32(_CHANNELS)


@intrinsic  # type: ignore[untyped-decorator]
def _eight_bytes(context: Any, address: Any) -> Any:
    """The eight bytes at an address, which needn't be a multiple of eight: NumPy's arrays can't say so."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        loaded = builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))
        loaded.align = 1
        return loaded

    return types.uint64(types.uintp), generate


@_kernel()  # type: ignore[untyped-decorator]
def _load(image: Any, first: Any, above: Any, below: Any) -> None:
    """Two neighbouring pixels above and two below, six of the eight bytes each; the lowest byte is the first."""
    upper = np.int64(image.ctypes.data)
    lower = upper + np.int64(_CHANNELS * first.size)
    for i in range(first.size):
        above[i] = _eight_bytes(np.uint64(upper + first[i]))
        below[i] = _eight_bytes(np.uint64(lower + first[i]))


@_kernel()  # type: ignore[untyped-decorator]
def _weigh(above: Any, below: Any, to_right: Any, to_bottom: Any, gain: Any, limit: Any, row: Any) -> None:
    """The halves of what `_load` gave, as uint32, to the row's channels."""
    one, byte = np.float32(1), np.uint32(255)
    for i in range(to_right.size):
        right, bottom = to_right[i], to_bottom[i]
        left, top = one - right, one - bottom
        up, up_more = np.uint32(above[2 * i]), np.uint32(above[2 * i + 1])
        low, low_more = np.uint32(below[2 * i]), np.uint32(below[2 * i + 1])
        over = _channel(up & byte) * left + _channel(up >> np.uint32(24)) * right
        under = _channel(low & byte) * left + _channel(low >> np.uint32(24)) * right
        row[3 * i] = min((over * top + under * bottom) * gain, limit)
        over = _channel(up >> np.uint32(8) & byte) * left + _channel(up_more & byte) * right
        under = _channel(low >> np.uint32(8) & byte) * left + _channel(low_more & byte) * right
        row[3 * i + 1] = min((over * top + under * bottom) * gain, limit)
        over = _channel(up >> np.uint32(16) & byte) * left + _channel(up_more >> np.uint32(8) & byte) * right
        under = _channel(low >> np.uint32(16) & byte) * left + _channel(low_more >> np.uint32(8) & byte) * right
        row[3 * i + 2] = min((over * top + under * bottom) * gain, limit)


@_kernel()  # type: ignore[untyped-decorator]
def _channel(value: Any) -> Any:
    return np.float32(np.int32(value))  # there is no vector instruction for unsigned numbers before AVX-512


def _keeping(function: Any) -> Any:
    """Compiled when it is first called, and the machine code kept beside this file or in the user's cache."""
    try:
        return _kernel(cache=True)(function)
    except RuntimeError:  # there is no folder to keep it in
        return _kernel()(function)


_warp_kept, _warp_not_kept = _keeping(_warp), _kernel()(_warp)
