"""A run in a bucket as its tests see it: machines that work on it, and what lies there.

machine = Machine(tmp_path / "here")
machine.publish(3)
lake = Lake(tmp_path)
lake.steps()
"""

from pathlib import Path

from tests.trainer.test_checkpoints import fill, new, weight
from tests.trainer.workers import until
from trainer.checkpoints import Progress
from trainer.published import Name, names_in, parse_pointer
from trainer.remote_run import RemoteRun
from trainer.sealed_state import read_whole
from trainer.uploader import Uploader

ADDRESS = "gs://lab/runs/gland/r"


STARTED: list["Machine"] = []


class Machine:
    """A process that works on the run, on a machine of its own."""

    def __init__(self, folder: Path, *, deadline_s: float = 100.0) -> None:
        self.run = RemoteRun(ADDRESS, folder / "r")
        self.run.fetch(lambda progress: {progress["best_step"]}, alone=True)
        if not (self.run.local / "config.json").exists():
            (self.run.local / "config.json").write_text("{}")
        self.checkpoints, self.model = new(self.run.local / "checkpoints")
        self.uploader = Uploader(self.run, deadline_s=deadline_s)
        self.uploader.begin()
        self.checkpoints.uploads = self.uploader
        STARTED.append(self)

    def save(self, step: int, *, best: int = 0) -> None:
        fill(self.model, step)
        self.checkpoints.save(Progress(step=step, best_step=best))

    def publish(self, step: int, *, best: int = 0) -> None:
        self.save(step, best=best)
        self.wait()

    def wait(self) -> None:
        until(lambda: self.uploader._idle, 20, "the upload")
        self.uploader.check()

    def restored(self) -> int:
        """The step that it goes on from; its weights are those that were saved then."""
        progress = self.checkpoints.restore_last() or Progress()
        assert progress.step == 0 or weight(self.model) == progress.step
        return progress.step


class Lake:
    """What is in the bucket, as files."""

    def __init__(self, root: Path) -> None:
        self.checkpoints = root / "buckets" / "lab" / "runs" / "gland" / "r" / "checkpoints"

    def steps(self) -> set[int]:
        return {name.step for name in self.names()}

    def names(self) -> list[Name]:
        """Newest first, those with a file."""
        return [name for name in names_in(self.checkpoints) if any((self.checkpoints / str(name)).iterdir())]

    def published(self) -> int:
        """The step that the pointer names, after a look at whether it is whole; -1 if there is none."""
        try:
            pointer = parse_pointer((self.checkpoints / "last.json").read_bytes())
        except FileNotFoundError:
            return -1
        assert pointer
        state = read_whole(self.checkpoints / str(pointer))
        best = state["progress"]["best_step"]
        assert best in (0, *self.steps())
        return pointer.step
