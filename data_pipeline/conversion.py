"""What to convert and how: one organ's images, the flags, and which part of the work is this process's.

conversion = Conversion(organ="cervix", source=source, tfrecords=Path("tfrecords"), settings=settings, rule=rule)
conversion.chunks, conversion.key
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from data_pipeline.grouping import Rule
from data_pipeline.inspect_stage import ChunkTask, plan_chunks
from data_pipeline.settings import Settings
from data_pipeline.sources import Source, SourceFile

if TYPE_CHECKING:  # importing it takes as long as all the rest, which local conversions would do for nothing
    from data_pipeline.bucket import BucketFolder

STAGES = ("inspect", "plan", "write", "seal")
PLAN_VERSION = 1  # raise it when the same files and flags give another plan
Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """Which part of the work is this process's: worker `number`, from 0, of `of`."""

    number: int = 0
    of: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the worker that plans and seals."""
        return self.number == 0

    def take(self, everything: Sequence[Item]) -> list[Item]:
        """Every `of`-th, so that the shares are alike wherever the large files lie."""
        return list(everything[self.number :: self.of])


@dataclass(frozen=True)
class Conversion:
    """`stages` is one of `STAGES`, or all of them; `given` maps ids to splits; `workers` counts processes of ours.

    `patience_s` is how long worker 0 waits for others without a sign of life before it does their work itself.
    `bucket` is the folder that gets the datasets if it isn't `tfrecords`, which then is a scratch folder.
    """

    organ: str
    source: Source
    tfrecords: Path
    settings: Settings
    rule: Rule
    given: Mapping[str, str] | None = None
    overwrite: bool = False
    workers: int = 1
    stages: tuple[str, ...] = STAGES
    share: Share = Share()
    patience_s: float = 120.0
    bucket: "BucketFolder | None" = None

    @property
    def target(self) -> Path:
        return self.tfrecords / self.organ

    @property
    def place(self) -> "Path | BucketFolder":
        """Where the dataset is in the end."""
        return self.bucket / self.organ if self.bucket else self.target

    @property
    def work(self) -> Path:
        """Where the stages keep what they have finished, for each other and for the next run."""
        return self.tfrecords / f".{self.organ}.partial"

    @property
    def waits(self) -> bool:
        """Whether to wait for what other workers make. A stage that was asked for by itself never does."""
        return self.stages == STAGES and self.share.of > 1

    @cached_property
    def files(self) -> list[SourceFile]:
        return self.source.files()

    @cached_property
    def chunks(self) -> list[ChunkTask]:
        return plan_chunks(self.source, self.files, self.settings)

    @cached_property
    def key(self) -> str:
        """Stands for everything a plan is made of."""
        made_of = [PLAN_VERSION, self.organ, self.settings.to_json(), self.source.diagnoses()]
        return hashlib.sha256(json.dumps([made_of, [chunk.name for chunk in self.chunks]]).encode()).hexdigest()
