"""What a run does with each checkpoint that it has saved: nothing, or bring it to a bucket as well.

    checkpoints = Checkpoints(folder, model, optimizer, identity, uploads=uploads)

`uploader.py` is the one that does something; `NoUploads` is for runs on a disk and for workers that don't write.
"""

from collections.abc import Collection
from typing import Protocol

from trainer.published import Name


class Uploads(Protocol):
    """What `Checkpoints` and `Saver` call, in the thread that trains: none of it may wait for a network."""

    def taken(self) -> Collection[Name]:
        """Names of checkpoints that must not be given again."""

    def saved(self, steps: Collection[int]) -> None:
        """A checkpoint has been published in the run's folder; those of `steps` have to stay with it."""

    def check(self) -> None:
        """Raises `FaultError` or `RequestError` if uploading has come to its end."""


class NoUploads:
    """For a run whose folder is where it belongs."""

    def taken(self) -> Collection[Name]:
        return ()

    def saved(self, steps: Collection[int]) -> None:
        pass

    def check(self) -> None:
        pass
