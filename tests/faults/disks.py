"""A disk of a few megabytes that can be filled, and programs that may do no more than the files' modes allow."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGE_BYTES = 4096  # by which the space of a tmpfs is given away


class Disk:
    """A tmpfs mounted at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, spare_pages: int) -> None:
        """Leave no more than these pages free."""
        space = os.statvfs(self.folder)
        taken = space.f_bavail * space.f_frsize - spare_pages * PAGE_BYTES
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, taken)

    def free(self) -> None:
        self._filler.unlink()

    def remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(self.folder)], check=True)


@contextmanager
def mounted(folder: Path, size_mb: int = 32) -> Iterator[Disk]:
    """Skips the test where mounting isn't permitted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no `mount` here")
    if done.returncode:
        pytest.skip(f"mounting a small disk isn't permitted here: {done.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def without_privileges(command: list[str]) -> "subprocess.CompletedProcess[str]":
    """Run `command` so that even root is bound by the files' modes. Skips where that can't be arranged."""
    if os.geteuid() == 0:
        drop = ["setpriv", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"]
        try:
            allowed = subprocess.run([*drop, sys.executable, "-c", ""], capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no `setpriv` here")
        if allowed.returncode:
            pytest.skip("giving up root's privileges isn't permitted here")
        command = [*drop, *command]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
