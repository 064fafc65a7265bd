"""What classical classifiers see of an image: its colours and texture, its mean colour, or its border. Pure.

    vectors = image_features(pixels)               # {"colour_texture": [368], "mean_colour": [3], "border": [244]}
    vectors = image_features(pixels, ("border",))

The vectors of images of any size are equally long. All is counted in histograms of 8-bit values, which Pillow makes
three times as fast as NumPy: of 256 × 256 pixels all three take 2.8 ms on one core, and not less on two threads.

* `colour_texture`: histograms and moments of R, G, B, of hue, saturation and value, and of luma and both chroma (M. J.
  Swain, D. H. Ballard, "Color Indexing", IJCV 7 (1991); M. Stricker, M. Orengo, "Similarity of Color Images", SPIE 2420
  (1995)); rotation-invariant uniform local binary patterns of luma and chroma at several scales, each of the image
  averaged over blocks (T. Ojala, M. Pietikäinen, T. Mäenpää, "Multiresolution Gray-Scale and Rotation Invariant Texture
  Classification with Local Binary Patterns", TPAMI 24 (2002)); and how steep luma is at those scales. Nothing in it
  says where in the image something is. Co-occurrence of grey levels (R. M. Haralick et al., 1973), binary patterns that
  aren't rotation-invariant and mean colours of rings around the centre were tried too: on cells of cervix and blood and
  on lung tissue none of them raised the accuracy.
* `mean_colour`: the means of R, G and B.
* `border`: colours along each side in a frame of a twentieth of that side. It never sees the rest of the image.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_PX = 256  # colour and texture are those of the image shrunk to this, if it is larger
SCALES = (1, 2, 4, 8)  # sides of the blocks that luma is averaged over, in pixels
CHROMA_SCALES = (2, 4)
BINS = 16
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BORDER_PART = 0.05  # of the side, on each side
BORDER_BINS = 8
SEGMENTS = 4  # of a side of the border, each with its own mean

Vector = NDArray[np.float32]
Histograms = NDArray[np.float64]

# The eight neighbours in a circle, as (down, right).
_RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
_VALUES = np.arange(256, dtype=np.float64)
_STEEPNESS_EDGES = np.array([0, 1, 2, 4, 8, 16, 32, 64])
_CENTRAL_CHROMA = slice(64, 192)  # stains aren't more colourful than this


def image_features(pixels: NDArray[np.uint8], names: Sequence[str] = ()) -> dict[str, Vector]:
    """The vectors of these names, by default of all in `FEATURES`, of an image `[height, width, 3] uint8`."""
    return {name: FEATURES[name](pixels) for name in names or FEATURES}


def colour_texture(pixels: NDArray[np.uint8]) -> Vector:
    """Colours and texture without regard to where they are: `[368] float32`."""
    picture = Image.fromarray(pixels)
    if max(picture.size) > MAX_PX:
        picture.thumbnail((MAX_PX, MAX_PX), Image.Resampling.BOX)
    return np.concatenate([_colours(picture), _texture(picture)]).astype(np.float32)


def mean_colour(pixels: NDArray[np.uint8]) -> Vector:
    """The means of R, G and B: `[3] float32`."""
    histograms = _channel_histograms(Image.fromarray(pixels))
    return np.asarray(histograms @ _VALUES / histograms.sum(axis=1), np.float32)


def border(pixels: NDArray[np.uint8]) -> Vector:
    """Colours along the four sides: `[244] float32`.

    For each side moments and histograms of R, G and B, their means in each of `SEGMENTS` parts, and how much they
    change along it: a scale bar, a frame or a caption shows in the latter.
    """
    sides = _sides(pixels)
    histograms = np.concatenate([_channel_histograms(Image.fromarray(np.ascontiguousarray(side))) for side in sides])
    parts = [_moments(histograms).ravel(), _binned(histograms, BORDER_BINS).ravel()]
    for side in sides:
        means = side.mean(axis=0)
        parts += [_segment_means(means).ravel(), np.abs(np.diff(means, axis=0)).sum(keepdims=True)[0] / len(means)]
    return np.concatenate(parts).astype(np.float32)


FEATURES: Mapping[str, Callable[[NDArray[np.uint8]], Vector]] = MappingProxyType(
    {"colour_texture": colour_texture, "mean_colour": mean_colour, "border": border}
)


def _colours(picture: Image.Image) -> NDArray[np.float64]:
    rgb = _channel_histograms(picture)
    # Pillow takes ten times as long for hue as for a histogram; an image of 64 × 64 pixels has hues enough.
    hsv = _channel_histograms(picture.reduce(4).convert("HSV"))
    ycc = _channel_histograms(picture.reduce(2).convert("YCbCr"))
    chroma = ycc[1:, _CENTRAL_CHROMA]
    fine = chroma.reshape(2, 2 * BINS, -1).sum(axis=2) / ycc[1:].sum(axis=1, keepdims=True)
    moments = _moments(np.concatenate([rgb, hsv[1:], ycc]))  # hue is an angle
    return np.concatenate([_binned(rgb, BINS).ravel(), _binned(hsv, BINS).ravel(), fine.ravel(), moments.ravel()])


def _texture(picture: Image.Image) -> NDArray[np.float64]:
    luma = picture.convert("L")
    scales = [np.asarray(luma.reduce(scale) if scale > 1 else luma) for scale in SCALES]
    chroma = [np.asarray(picture.reduce(scale).convert("YCbCr")) for scale in CHROMA_SCALES]
    planes = scales + [plane[..., channel] for plane in chroma for channel in (1, 2)]
    patterns = np.stack([_pattern_histogram(np.ascontiguousarray(plane)) for plane in planes])
    steepness = np.stack([_steepness_histogram(plane) for plane in scales])
    shares = np.add.reduceat(steepness, _STEEPNESS_EDGES, axis=1) / _count(steepness)
    return np.concatenate([(patterns / _count(patterns)).ravel(), shares.ravel(), _moments(steepness).ravel()])


def _pattern_histogram(plane: NDArray[np.uint8]) -> Histograms:
    """How often each rotation-invariant uniform pattern occurs in `[height, width] uint8`: `[10]`.

    The neighbours are the eight pixels around one, not points interpolated on a circle.
    """
    height, width = plane.shape
    if min(height, width) < 3:
        return np.zeros(10)
    centre = plane[1:-1, 1:-1]
    codes = np.zeros(centre.shape, np.uint8)
    for bit, (down, right) in enumerate(_RING):
        neighbour = plane[1 + down : height - 1 + down, 1 + right : width - 1 + right]
        codes |= (neighbour >= centre).view(np.uint8) << bit
    counts: Histograms = _histogram(codes) @ _UNIFORM
    return counts


def _uniform_patterns() -> NDArray[np.float64]:
    """Which of 10 patterns a code is, `[256, 10]` of 0 and 1: how many bits are set, or the last if they lie apart."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.eye(10)[np.where(changes <= 2, bits.sum(axis=1), 9)]


_UNIFORM = _uniform_patterns()


def _steepness_histogram(plane: NDArray[np.uint8]) -> Histograms:
    """The mean of the differences down and across, as grey levels over two pixels: `[256]` counts."""
    if min(plane.shape) < 3:
        return np.zeros(256)
    down = _apart(plane[2:, 1:-1], plane[:-2, 1:-1])
    across = _apart(plane[1:-1, 2:], plane[1:-1, :-2])
    return _histogram((down >> 1) + (across >> 1))


def _apart(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.uint8]:
    apart: NDArray[np.uint8] = np.maximum(a, b) - np.minimum(a, b)
    return apart


def _sides(pixels: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """The frame as four strips `[depth, length, 3]` of the upper, lower, left and right side; corners are in two."""
    height, width = pixels.shape[:2]
    rows, columns = (max(1, round(BORDER_PART * side)) for side in (height, width))
    across = pixels.transpose(1, 0, 2)
    return [pixels[:rows], pixels[-rows:], across[:columns], across[-columns:]]


def _segment_means(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over `SEGMENTS` equal parts of `[length, 3]`; of fewer pixels than parts some count twice."""
    edges = np.linspace(0, len(means), SEGMENTS + 1).astype(int)
    return np.stack([means[low : max(high, low + 1)].mean(axis=0) for low, high in pairwise(edges)])


def _moments(histograms: Histograms) -> NDArray[np.float64]:
    """Mean, deviation, cube root of the third moment, and `QUANTILES`: `[n, 256]` counts → `[n, 8]`."""
    shares = histograms / _count(histograms)
    mean = shares @ _VALUES
    apart = _VALUES - mean[:, None]
    deviation = np.sqrt((shares * apart**2).sum(axis=1))
    skew = np.cbrt((shares * apart**3).sum(axis=1))
    reached = np.cumsum(shares, axis=1)
    quantiles = [(reached < part).sum(axis=1) for part in QUANTILES]
    return np.stack([mean, deviation, skew, *quantiles], axis=1)


def _binned(histograms: Histograms, bins: int) -> NDArray[np.float64]:
    """Shares in so many equal bins: `[n, 256]` counts → `[n, bins]`."""
    shares: NDArray[np.float64] = histograms.reshape(len(histograms), bins, -1).sum(axis=2) / _count(histograms)
    return shares


def _count(histograms: Histograms) -> NDArray[np.float64]:
    counts: NDArray[np.float64] = np.maximum(histograms.sum(axis=1, keepdims=True), 1)
    return counts


def _channel_histograms(picture: Image.Image) -> Histograms:
    """`[channels, 256]` counts."""
    return np.array(picture.histogram(), np.float64).reshape(-1, 256)


def _histogram(plane: NDArray[np.uint8]) -> Histograms:
    return np.array(Image.fromarray(plane).histogram(), np.float64)
