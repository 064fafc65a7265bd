"""What this project replaces, as a program: `ImageDataGenerator` and `model.fit`, with the settings of the notebooks.

python -m tests.benchmarks.seed_script FOLDER  # holds train/DIAGNOSIS/*.jpg and validation/DIAGNOSIS/*.jpg

It does what they did, but that validation images aren't augmented, which is less work. `DATA_KNOWN` and `EPOCH_DONE`
are printed when that is so.
"""

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

SIZE_PX, BATCH = 256, 128
DATA_KNOWN, EPOCH_DONE = "the data is known", "the epoch is done"


def generators(folder: Path) -> tuple[Any, Any]:
    """Batches of both splits, read from their files and resized whenever they are asked for."""
    image = keras.src.legacy.preprocessing.image
    augmented = image.ImageDataGenerator(
        rescale=1 / 255,
        rotation_range=30,
        width_shift_range=0.15,
        height_shift_range=0.15,
        zoom_range=0.2,
        horizontal_flip=True,
        vertical_flip=True,
        brightness_range=(0.5, 1.5),
    )
    shape: dict[str, Any] = {"target_size": (SIZE_PX, SIZE_PX), "batch_size": BATCH}
    train = augmented.flow_from_directory(str(folder / "train"), **shape)
    validation = image.ImageDataGenerator(rescale=1 / 255).flow_from_directory(str(folder / "validation"), **shape)
    return train, validation


def network(classes: int) -> keras.Model:
    """The notebooks' CNN."""
    model = keras.Sequential([keras.layers.Input([SIZE_PX, SIZE_PX, 3])])
    for filters, kernel in ((32, 3), (64, 3), (128, 1), (256, 2)):
        model.add(keras.layers.Conv2D(filters, kernel, activation="relu"))
        model.add(keras.layers.MaxPooling2D(2))
    model.add(keras.layers.Flatten())
    for units in (512, 256):
        model.add(keras.layers.Dense(units, activation="relu"))
    model.add(keras.layers.Dense(classes, activation="softmax"))
    return model


def main() -> None:
    """One epoch, validation included."""
    train, validation = generators(Path(sys.argv[1]))
    print(DATA_KNOWN, flush=True)
    model = network(train.num_classes)
    model.compile(keras.optimizers.Adamax(1e-3), loss="categorical_crossentropy", metrics=["accuracy"])
    model.fit(train, validation_data=validation, epochs=1, verbose=0)
    print(EPOCH_DONE, flush=True)


if __name__ == "__main__":
    main()
