"""Pictures that keep a page small enough to be sent by mail.

jpeg = thumbnail(png)                                  # at most 256 px a side
"""

from io import BytesIO

from PIL import Image, UnidentifiedImageError

# As large as images are stored by default; one that is small already is shown as it is.
SIDE_PX, SMALL_BYTES = 256, 24_000
# The first that makes it small enough; noise takes the last, and loses nothing that anyone would see.
QUALITIES = (85, 70, 50, 30, 10)


def thumbnail(image: bytes) -> bytes:
    """`image`, the bytes of a PNG or JPEG file, as a JPEG of at most `SIDE_PX` a side. Equal bytes give equal bytes.

    Raises `ValueError` for anything else.
    """
    try:
        opened = Image.open(BytesIO(image), formats=("JPEG", "PNG"))
        if opened.format == "JPEG" and len(image) <= SMALL_BYTES:
            return image
        opened.draft("RGB", (SIDE_PX, SIDE_PX))
        picture = opened.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"Expected the bytes of a PNG or JPEG file. Received {image[:8]!r}….") from error
    picture.thumbnail((SIDE_PX, SIDE_PX))
    for quality in QUALITIES:
        out = BytesIO()
        picture.save(out, "JPEG", quality=quality, optimize=True)
        if out.tell() <= SMALL_BYTES:
            break
    return out.getvalue()
