"""What decides a dataset's bytes besides the images.

settings = Settings(image_size=128)
settings.stored_as  # what the stored form of an image depends on
"""

from dataclasses import asdict, dataclass
from typing import Any

from data_pipeline.images import Encoding


@dataclass(frozen=True)
class Settings:
    """The flags of conversion that a dataset remembers. How many processes or machines made it isn't one of them.

    `group_table_sha256` and `split_table_sha256` stand for the contents of the tables that flags name.
    """

    image_size: int = 256
    test_fraction: float = 0.15
    validation_fraction: float = 0.30
    folds: int = 0
    fold: int = 0
    group_by: str = "auto"
    group_table_sha256: str = ""
    near_duplicates: str = "link"
    split_csv: str = ""
    split_table_sha256: str = ""
    seed: int = 0
    encoding: Encoding = "jpeg"
    jpeg_quality: int = 95

    @property
    def stored_as(self) -> tuple[int, Encoding, int]:
        """What the stored form of an image depends on."""
        return self.image_size, self.encoding, self.jpeg_quality

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
