"""What training images may be changed by, as flags and as frozen settings. TensorFlow isn't needed to know it.

    define_augment_flags()                      # in __main__
    check_augment_flags(flags.FLAGS)            # raises RequestError
    augmentation_of(config), mixing_of(config)  # for augment.py and mixing.py; config may be the flags themselves

What each change does, and where it is from, is said in `augment.py`, `pixel_changes.py` and `mixing.py`.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

from absl import flags

from data_pipeline.cli import invalid_flag

MAX_STRENGTH, MAX_BLUR_PX, MAX_ALPHA = 10.0, 16.0, 100.0
MAX_COLOUR = 0.9  # a channel that may vanish has no logarithm
_WIDEST_ZOOM = (0.1, 10.0)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far each change may go. `Augmentation.none()` changes nothing.

    `shift` and `cutout` are shares of the image's side, `stain` of the stains' strength, `colour` of each channel's
    light; `blur_px` is the largest σ.
    """

    rotation_degrees: float = 30.0
    shift: float = 0.15
    zoom: tuple[float, float] = (0.8, 1.2)
    flips: bool = True
    brightness: tuple[float, float] = (0.5, 1.5)
    quarter_turns: bool = False
    stain: float = 0.0
    blur_px: float = 0.0
    cutout: float = 0.0
    colour: float = 0.0

    @classmethod
    def none(cls) -> "Augmentation":
        return cls(rotation_degrees=0.0, shift=0.0, zoom=(1.0, 1.0), flips=False, brightness=(1.0, 1.0))

    def scaled(self, strength: float) -> "Augmentation":
        """Every range `strength` times as wide, by one number for all of them as in RandAugment (Cubuk et al. 2020).

        1 changes nothing, 0 leaves flips and quarter turns alone, which have no range.
        """
        low, high = _WIDEST_ZOOM
        return replace(
            self,
            rotation_degrees=min(self.rotation_degrees * strength, 180.0),
            shift=min(self.shift * strength, 1.0),
            zoom=(max(1 + (self.zoom[0] - 1) * strength, low), min(1 + (self.zoom[1] - 1) * strength, high)),
            brightness=(max(1 + (self.brightness[0] - 1) * strength, 0.0), 1 + (self.brightness[1] - 1) * strength),
            stain=min(self.stain * strength, 1.0),
            blur_px=self.blur_px * strength,
            cutout=min(self.cutout * strength, 1.0),
            colour=min(self.colour * strength, MAX_COLOUR),
        )


@dataclass(frozen=True, slots=True)
class Mixing:
    """The parameters α of the Beta(α, α) that shares are drawn from; 0 switches off. With both, each image gets one."""

    mixup: float = 0.0
    cutmix: float = 0.0

    @property
    def on(self) -> bool:
        return bool(self.mixup or self.cutmix)


@dataclass(frozen=True)
class AugmentFlags:
    """The flags and their defaults; `TrainConfig` has the same fields."""

    augment: bool = True
    augment_strength: float = 1.0
    rotation: float = 30.0
    shift: float = 0.15
    zoom: float = 0.2
    brightness: float = 0.5
    quarter_turns: bool = False
    colour: float = 0.0
    stain: float = 0.0
    blur: float = 0.0
    cutout: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0


def augmentation_of(config: Any) -> Augmentation:
    """What the flags, or a config with fields of their names, ask for."""
    how = Augmentation.none()
    if config.augment:
        how = Augmentation(
            rotation_degrees=config.rotation,
            shift=config.shift,
            zoom=(1 - config.zoom, 1 + config.zoom),
            brightness=(1 - config.brightness, 1 + config.brightness),
        )
    more = {name: getattr(config, name) for name in ("quarter_turns", "colour", "stain", "cutout")}
    return replace(how, blur_px=config.blur, **more).scaled(config.augment_strength)


def mixing_of(config: Any) -> Mixing:
    """What the flags, or a config with fields of their names, ask for."""
    return Mixing(mixup=config.mixup, cutmix=config.cutmix)


def define_augment_flags() -> None:
    """Declare the flags, with the defaults of `AugmentFlags`."""
    default = {field.name: field.default for field in fields(AugmentFlags)}
    flags.DEFINE_bool("augment", default["augment"], "Rotate, shift, zoom, flip and light training images at random.")
    flags.DEFINE_bool("quarter_turns", default["quarter_turns"], "Turn training images by 0°, 90°, 180° or 270° too.")
    for name, highest, text in (
        ("augment_strength", MAX_STRENGTH, "Makes the range of each change of training images so many times as wide."),
        ("rotation", 180.0, "Turn training images by up to so many degrees either way."),
        ("shift", 1.0, "Shift them by up to this share of the side."),
        ("zoom", 0.9, "Zoom them by up to this share, along each axis by itself."),
        ("brightness", 1.0, "Light them by up to this share more or less."),
        ("colour", MAX_COLOUR, "Light each of red, green and blue by up to this share more or less, such as 0.1."),
        ("stain", 1.0, "Jitter the strength of each stain by up to this share, such as 0.05."),
        ("blur", MAX_BLUR_PX, "Blur training images by a Gaussian of up to this σ in pixels, such as 1.5."),
        ("cutout", 1.0, "Cover a grey square of this share of the side, such as 0.3."),
        ("mixup", MAX_ALPHA, "Blend each training image with another one; the α of their shares, such as 0.2."),
        ("cutmix", MAX_ALPHA, "Put a box of another image into each training image; the α of its area, such as 1."),
    ):
        flags.DEFINE_float(name, default[name], text, lower_bound=0.0, upper_bound=highest)


def check_augment_flags(values: Any) -> None:
    """What the bounds of the flags don't see: NaN is neither too small nor too large. Raises `RequestError`."""
    for field in fields(AugmentFlags):
        value = getattr(values, field.name)
        if value != value:
            fix = f"leave it out, or try --{field.name}={field.default}"
            raise invalid_flag(field.name, expected="a number", received=value, fix=fix)
