"""What the networks are called, and of those known from elsewhere, where their weights are. It takes no TensorFlow.

    OWN_MODELS, MODEL_NAMES
    is_backbone("MobileNetV2")                              # True: one of keras.applications
    check_weights_file("MobileNetV2", "weights.h5")         # raises RequestError
    weights_digest("weights.h5")                            # of what is in the file

The networks themselves are in `models.py`. Nothing here or there ever downloads anything.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.cli import RequestError, invalid_flag

LOGITS = "logits"  # the name of the layer whose answers the loss is computed from
RESIDUAL = (
    *("residual", "residual_batch", "residual_groups"),
    *("residual_team", "residual_batch_team"),
    *("residual_wide", "residual_large"),
)
OWN_MODELS = ("seed", "seed_pooled", *RESIDUAL, "convnext")
LEAST_PX = 32  # what any network can take
STORE = "https://storage.googleapis.com/tensorflow/keras-applications/"
ENDINGS = (".h5", ".hdf5")
KERNELS = "_weights_tf_dim_ordering_tf_kernels_notop.h5"


@dataclass(frozen=True, slots=True)
class Family:
    """Backbones that were published together, as the module of keras.applications that holds them.

    In `name` and in `file`, below `STORE` or a whole address, {} stands for what tells the family's members apart.
    """

    module: str
    name: str
    file: str
    members: tuple[str, ...] = ("",)
    least_px: int = LEAST_PX

    def names(self) -> tuple[str, ...]:
        return tuple(self.name.format(member) for member in self.members)


FAMILIES = (
    Family("convnext", "ConvNeXt{}", "convnext/convnext_{}_notop.h5", ("Tiny", "Small", "Base", "Large", "XLarge")),
    Family("densenet", "DenseNet{}", "densenet/densenet{}" + KERNELS, ("121", "169", "201")),
    Family(
        "efficientnet",
        "EfficientNetB{}",
        "https://storage.googleapis.com/keras-applications/efficientnetb{}_notop.h5",
        tuple("01234567"),
    ),
    Family(
        "efficientnet_v2",
        "EfficientNetV2{}",
        "efficientnet_v2/efficientnetv2-{}_notop.h5",
        ("B0", "B1", "B2", "B3", "S", "M", "L"),
    ),
    Family(
        "inception_resnet_v2", "InceptionResNetV2", "inception_resnet_v2/inception_resnet_v2" + KERNELS, least_px=75
    ),
    Family("inception_v3", "InceptionV3", "inception_v3/inception_v3" + KERNELS, least_px=75),
    Family("mobilenet", "MobileNet", "mobilenet/mobilenet_1_0_224_tf_no_top.h5"),
    Family(
        "mobilenet_v2",
        "MobileNetV2",
        "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
    ),
    Family(
        "mobilenet_v3",
        "MobileNetV3{}",
        "mobilenet_v3/weights_mobilenet_v3_{}_224_1.0_float_no_top_v2.h5",
        ("Small", "Large"),
    ),
    Family("nasnet", "NASNet{}", "nasnet/NASNet-{}-no-top.h5", ("Mobile", "Large")),
    Family("resnet", "ResNet{}", "resnet/resnet{}" + KERNELS, ("50", "101", "152")),
    Family("resnet_v2", "ResNet{}V2", "resnet/resnet{}v2" + KERNELS, ("50", "101", "152")),
    Family("vgg16", "VGG16", "vgg16/vgg16" + KERNELS),
    Family("vgg19", "VGG19", "vgg19/vgg19" + KERNELS),
    Family("xception", "Xception", "xception/xception" + KERNELS, least_px=71),
)
FAMILY_OF = {name: family for family in FAMILIES for name in family.names()}
MODEL_NAMES = (*OWN_MODELS, *FAMILY_OF)


def is_backbone(name: str) -> bool:
    """Whether the network is one of keras.applications, for which there are weights that were learnt on ImageNet."""
    return name in FAMILY_OF


def least_px(name: str) -> int:
    """The smallest image that the network can take, in pixels a side."""
    return FAMILY_OF[name].least_px if is_backbone(name) else LEAST_PX


def weights_url(name: str) -> str:
    """Where the backbone's official weights without its top are, for a person to download."""
    family = FAMILY_OF[name]
    member = family.members[family.names().index(name)]
    file = family.file.format(member.lower())
    return file if "://" in file else STORE + file


def check_weights_file(name: str, path: str | Path) -> None:
    """Whether the file may hold the backbone's weights, as far as can be told without TensorFlow.

    Raises `RequestError` if it isn't there, is no HDF5 file, was cut short, or has a name by which Keras won't know it.
    """
    import h5py  # type: ignore[import-untyped]  # only now: it takes a fifth of a second

    try:
        with h5py.File(path):
            pass
    except OSError as error:
        raise wrong_weights(name, path, _reason(Path(path), error)) from error
    if not str(path).endswith(ENDINGS):
        raise wrong_weights(name, path, f"the name of a file of weights ends with {' or '.join(ENDINGS)}")


def wrong_weights(name: str, path: str | Path, reason: str) -> RequestError:
    """What to say to a file that doesn't hold the backbone's weights."""
    return invalid_flag(
        "weights",
        expected=f"a file with the weights of {name} without its top, as Keras saves them (.h5 or .weights.h5)",
        received=str(path),
        fix=f"{reason}; download {weights_url(name)} on a machine with internet, and name the file here",
    )


def weights_digest(path: str) -> str:
    """SHA-256 of the file's content; empty for none."""
    if not path:
        return ""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(path: Path, error: OSError) -> str:
    if path.is_dir():
        return "that is a folder"
    if not path.exists():
        return "there is no such file"
    if "truncated" in str(error):
        return "that file was cut short on its way"
    return f"that file can't be read ({error.strerror})" if error.errno else "that is no HDF5 file"
