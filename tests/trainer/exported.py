"""A network that needs no training to say something, and what it is asked: for tests of what is served."""

import io
from typing import Any

import keras
import numpy as np
from absl import flags
from PIL import Image

from trainer.models import LOGITS, build_model
from trainer.predict_request import Request, define_flags, request_of

CLASSES = ("blue", "green", "red")
THRESHOLD = 0.6


def telling_model(image_size: int, *, seed: int = 0) -> keras.Model:
    """Of images that differ it says different things, with a confidence from low to high."""
    keras.utils.set_random_seed(seed)
    model = build_model("seed_pooled", image_size=image_size, classes=len(CLASSES))
    layer = model.get_layer(LOGITS)
    kernel, bias = layer.get_weights()
    images = np.random.default_rng(seed).random((64, 1, 1, 3), np.float32) * np.ones([64, image_size, image_size, 1])
    logits = np.asarray(keras.Model(model.inputs[0], layer.output)(images.astype(np.float32)))
    scale = 1.5 / logits.std(axis=0)
    layer.set_weights([kernel * scale, bias - logits.mean(axis=0) * scale])
    return model


def asked(*arguments: object) -> Request:
    """A command line of `trainer.predict`, understood."""
    values = flags.FlagValues()
    define_flags(values)
    return request_of(values, list(values(["predict", "--model=m", *map(str, arguments)]))[1:])


def saved(picture: Image.Image, form: str, **how: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **how)
    return out.getvalue()


def photograph(size: int = 64, **how: Any) -> bytes:
    """A JPEG that ends in another colour than the grey which stands for missing data."""
    pixels = np.random.default_rng(7).integers(150, 250, (size, size, 3), np.uint8)
    return saved(Image.fromarray(pixels), "JPEG", quality=90, **how)
