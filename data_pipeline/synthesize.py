"""Write a folder of synthetic salivary-gland smears, with slide ids and with the faults that real folders have.

Usage: python -m data_pipeline.synthesize --output=DIR

  DIR gets  ORGAN/DIAGNOSIS/SLIDE_TILE.png  such as  salivary_gland/warthin_tumor/SG-0012_003.png
  and       ORGAN.synthesis.json            settings, counts and every planted fault

Five diagnoses differ in cells, nuclei, arrangement and background; each slide has its own stain, light, focus and dirt,
so that colour gives nothing away. --organ only names the folder and the slides. The same flags give the same bytes,
whatever --workers is. Given again, the command finds its work done.

Planted unless --clean is given, beside the images that are counted, in places that depend on the seed:
  truncated       a PNG that ends half-way
  text            a Git LFS pointer named .png
  empty           a file of no bytes
  duplicate       3 exact copies under other names of the same diagnosis, the last under another slide's name
  reencoded       a BMP of the very pixels of a PNG
  label_conflict  2 byte-identical files under two diagnoses
  hidden          a .DS_Store

Exit codes: 0 done, 2 the request is wrong, anything else a fault.
"""

import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from absl import flags

from data_pipeline import cli
from data_pipeline.parallel import available_cpus, in_processes
from data_pipeline.storage import local_path, write_atomic
from data_pipeline.synthetic.cytology import DIAGNOSES, render_tile
from data_pipeline.synthetic.files import (
    PlantedFault,
    SynthesisConfig,
    Tile,
    encode,
    faulty_bytes,
    plan_faults,
    plan_tiles,
)

__all__ = ["DIAGNOSES", "PlantedFault", "SynthesisConfig", "SynthesisSummary", "render_tile", "synthesize"]

MIN_IMAGE_SIZE_PX: Final = 16
ORGAN_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisSummary:
    """What lies in `folder`: `images` different good ones of `slides` slides, and what was planted beside them."""

    folder: Path
    images: int
    slides: int
    diagnoses: tuple[str, ...]
    planted: tuple[PlantedFault, ...]

    @property
    def files(self) -> int:
        return self.images + len(self.planted)

    def planted_paths(self) -> dict[str, tuple[str, ...]]:
        """The planted files' paths by kind of fault."""
        kinds = dict.fromkeys(fault.kind for fault in self.planted)
        return {kind: tuple(fault.path for fault in self.planted if fault.kind == kind) for kind in kinds}


def synthesize(config: SynthesisConfig) -> SynthesisSummary:
    """Draw the images of `config`, or find that they are there. Raises `RequestError` where a person has to decide."""
    _check(config)
    tiles = plan_tiles(config)
    faults = [] if config.clean else plan_faults(config, tiles)
    summary = SynthesisSummary(
        folder=config.folder,
        images=len(tiles),
        slides=config.slides * len(DIAGNOSES),
        diagnoses=DIAGNOSES,
        planted=tuple(file.fault for file in faults),
    )
    if _is_done(config, {tile.path for tile in tiles} | {file.fault.path for file in faults}):
        _say(f"{config.organ}: up to date, nothing to do")
        return summary
    partial = config.output / f".{config.organ}.partial"
    _make_folders(partial)
    slides = [_Slide(partial, config, tiles[i : i + config.tiles]) for i in range(0, len(tiles), config.tiles)]
    drawn = in_processes(
        _draw,
        slides,
        count=len(slides),
        workers=config.workers,
        title="draw",
        unit="tile",
        size=lambda slide: len(slide.tiles),
        total=len(tiles),
    )
    for _ in drawn:
        pass
    for file in faults:
        (partial / file.fault.path).write_bytes(faulty_bytes(file, config))
    _publish(partial, config, summary)
    return summary


@dataclass(frozen=True, slots=True)
class _Slide:
    """The work of one task: the tiles to draw below `folder`."""

    folder: Path
    config: SynthesisConfig
    tiles: Sequence[Tile]


def _draw(slide: _Slide) -> None:
    for tile in slide.tiles:
        (slide.folder / tile.path).write_bytes(encode(tile, slide.config, "PNG"))


def _check(config: SynthesisConfig) -> None:
    if not ORGAN_NAME.fullmatch(config.organ):
        raise cli.invalid_flag(
            "organ", expected="words joined by _", received=config.organ, fix="for example --organ=salivary_gland"
        )
    least = {"slides": 1, "tiles": 1, "image_size": MIN_IMAGE_SIZE_PX, "seed": 0, "workers": 1}
    for name, minimum in least.items():
        if getattr(config, name) < minimum:
            expected, fix = f"an integer of at least {minimum}", f"for example --{name}={minimum}"
            raise cli.invalid_flag(name, expected=expected, received=getattr(config, name), fix=fix)


def _is_done(config: SynthesisConfig, expected: set[str]) -> bool:
    """Is the folder the one that `config` makes? Raises `RequestError` if it is anything but that or empty."""
    folder = config.folder
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not folder.is_dir() or not config.record.exists():
        raise cli.RequestError(f"{folder} exists and wasn't made by this program. To fix it: name another --output.")
    try:
        before = json.loads(config.record.read_text(encoding="utf-8"))["settings"]
        differences = [
            f"--{name} was {before[name]!r} and is {value!r}"
            for name, value in config.settings().items()
            if before[name] != value
        ]
    except (ValueError, KeyError, TypeError):
        differences = [f"{config.record} is damaged"]
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    if not differences and there != expected:
        differences = [f"{len(expected - there)} files are missing and {len(there - expected)} are foreign"]
    if differences:
        raise cli.RequestError(
            f"{folder} isn't what this command would make: {'; '.join(differences)}. "
            "To fix it: name another --output, or move the folder away."
        )
    return True


def _make_folders(partial: Path) -> None:
    try:
        if partial.exists():
            shutil.rmtree(partial)
        for diagnosis in DIAGNOSES:
            (partial / diagnosis).mkdir(parents=True)
    except OSError as error:
        fix = f"name a folder that this user may write to ({error})"
        raise cli.invalid_flag("output", expected="a writable folder", received=str(partial.parent), fix=fix) from error


def _publish(partial: Path, config: SynthesisConfig, summary: SynthesisSummary) -> None:
    """Write the record, then give the folder its name: where both are, the folder is whole."""
    counts = {"images": summary.images, "slides": summary.slides, "files": summary.files}
    record = {"settings": config.settings(), "counts": counts, "planted": [asdict(fault) for fault in summary.planted]}
    write_atomic(config.record, (json.dumps(record, indent=1) + "\n").encode())
    partial.replace(config.folder)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def define_flags() -> None:
    """Declare this program's flags. Their defaults are those of `SynthesisConfig`."""
    default = SynthesisConfig(output=Path())
    flags.DEFINE_string("output", None, "Folder that gets ORGAN/DIAGNOSIS/SLIDE_TILE.png.", required=True)
    flags.DEFINE_string("organ", default.organ, "Name of the organ's folder.")
    flags.DEFINE_integer("slides", default.slides, "Slides per diagnosis.")
    flags.DEFINE_integer("tiles", default.tiles, "Tiles per slide.")
    flags.DEFINE_integer("image_size", default.image_size, "Width and height in pixels.")
    flags.DEFINE_integer("seed", default.seed, "Chooses other slides.")
    flags.DEFINE_bool("clean", default.clean, "Plant no faults.")
    flags.DEFINE_integer("workers", available_cpus(), "How many processes draw at once.")


def main(argv: Sequence[str]) -> None:
    """Draw what the command line asks for."""
    if len(argv) > 1:
        raise cli.RequestError(f"Unexpected argument {argv[1]!r}. To fix it: flags begin with --, see --help.")
    names = [field.name for field in fields(SynthesisConfig) if field.name != "output"]
    values = {name: flags.FLAGS[name].value for name in names}
    config = SynthesisConfig(output=local_path("output", flags.FLAGS.output), **values)
    summary = synthesize(config)
    print(
        f"Images: {summary.folder} ({summary.images} images of {summary.slides} slides, {len(DIAGNOSES)} diagnoses; "
        f"{len(summary.planted)} planted files, listed in {config.record})",
        flush=True,
    )


if __name__ == "__main__":
    define_flags()
    cli.run(main)
