"""What the container image starts, as process 1: one of its programs, by name.

    python -m trainer.container                       # which programs there are
    python -m trainer.container trainer --organ=…     # python -m trainer --organ=…, in this very process

Process 1 ignores every signal it has no handler for. So SIGTERM ends it from the first moment, as it would end any
other process, until the program takes the signal for itself.
"""

import difflib
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from data_pipeline import cli

PROGRAMS = {
    "data_pipeline": ("data_pipeline", "turn image folders into sealed TFRecord datasets"),
    "data_pipeline.verify": ("data_pipeline.verify", "check a dataset against its seal, and for leaks"),
    "data_pipeline.folds": ("data_pipeline.folds", "cut a dataset into folds for cross-validation by group"),
    "data_pipeline.synthesize": ("data_pipeline.synthesize", "draw images to try it all with"),
    "trainer.preview": ("trainer.preview", "see what training will see"),
    "trainer.bench_input": ("trainer.bench_input", "see whether input or step holds training up, and what helps"),
    "trainer.models": ("trainer.models", "see what each network costs: parameters, operations, images a second"),
    "trainer": ("trainer", "train on a dataset, test, and write report and model"),
    "trainer.sweep": ("trainer.sweep", "search for settings: many runs, judged by validation"),
    "trainer.evaluate": ("trainer.evaluate", "test a model on another dataset"),
    "trainer.predict": ("trainer.predict", "predict the diagnosis of images"),
    "trainer.compare": ("trainer.compare", "compare runs, seeds, folds and numbers of training images"),
    "tensorboard": ("tensorboard.main", "plot runs: --logdir=runs --bind_all, with --publish=6006:6006 before IMAGE"),
}
USAGE = """Microscope images to sealed TFRecords to a trained, tested, servable classifier.

Usage: docker run --rm --volume "$PWD:/data" --user "$(id -u)" IMAGE PROGRAM [--FLAG=VALUE ...]

The folder you are in becomes /data, where programs start: paths are given as seen from there.

Programs:
{programs}

Examples, without `docker run` and its options:
  IMAGE data_pipeline --organ=cervix --images=images --tfrecords=tfrecords
  IMAGE trainer --organ=cervix --tfrecords=tfrecords --runs=runs --epochs=30
  IMAGE trainer.predict --model=runs/cervix/RUN --output=predictions.csv new_images

`IMAGE PROGRAM --help` explains a program and its flags. GPUs: build with VARIANT=gpu, and run with --gpus all.
"""


def main(argv: Sequence[str]) -> None:
    """Become the program that `argv[1]` names."""
    signal.signal(signal.SIGTERM, _end)
    if len(argv) < 2 or argv[1] in ("help", "--help", "-h"):
        sys.stdout.write(usage())
        return
    if argv[1] not in PROGRAMS:
        cli.say(_unknown(argv[1]))
        sys.exit(cli.EXIT_REQUEST)
    module, _ = PROGRAMS[argv[1]]
    sys.argv = [argv[1], *argv[2:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def usage() -> str:
    """What a container without arguments prints."""
    width = max(map(len, PROGRAMS))
    return USAGE.format(programs="\n".join(f"  {name:<{width}}  {purpose}" for name, (_, purpose) in PROGRAMS.items()))


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, PROGRAMS, n=1)
    fix = f"did you mean {close[0]}?" if close else "put one of them first, right after the image's name."
    return (
        f"Invalid program. Expected one of {', '.join(PROGRAMS)}. Received: {name!r}. To fix it: {fix}"
        " Without arguments the container explains each; --entrypoint=python starts anything else."
    )


def _end(signum: int, frame: object) -> NoReturn:
    os._exit(128 + signum)


if __name__ == "__main__":
    main(sys.argv)
