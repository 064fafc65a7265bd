"""What is in an image, in JSON. Started in there as root, so that nothing is hidden from it:

docker run --user=0:0 --entrypoint=python IMAGE -c "$(cat tests/container/findings.py)"
"""

import json
import os
import shutil
import stat
import subprocess
import sysconfig
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

VOLATILE = {Path(path) for path in ("/proc", "/sys", "/dev", "/tmp", "/var/tmp", "/run/lock")}
TOOLS = ("cc", "gcc", "g++", "clang", "ld", "as", "make", "nvcc", "pip", "pip3", "conda", "uv")
CACHES = ("/root/.cache", "/var/cache/apt", "/var/lib/apt/lists", "/tmp", "/src")
UID = 65532
SITE = Path(sysconfig.get_path("purelib"))
CODE = (SITE, Path("/opt/project"))


def walk() -> Iterator[tuple[Path, os.stat_result]]:
    """Every file and folder of the image itself."""
    for parent, folders, files in os.walk("/"):
        folders[:] = [name for name in folders if Path(parent) / name not in VOLATILE]
        for name in (*folders, *files):
            path = Path(parent) / name
            status = path.lstat()
            if not stat.S_ISLNK(status.st_mode):
                yield path, status


def rights() -> dict[str, list[str]]:
    """Files that give whoever starts them other rights, and what the image's own user may change."""
    found: dict[str, list[str]] = {"set_id": [], "writable": []}
    for path, status in walk():
        if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_ISUID | stat.S_ISGID):
            found["set_id"].append(str(path))
        if status.st_mode & stat.S_IWOTH or UID in (status.st_uid, status.st_gid):
            found["writable"].append(str(path))
    return found


def bytecode() -> dict[str, object]:
    """Sources without bytecode, and bytecode without a source or for a second time."""
    sources = [file for folder in CODE for file in folder.rglob("*.py")]
    expected = {file.parent / "__pycache__" / f"{file.stem}.cpython-311.pyc" for file in sources}
    compiled = {file for folder in CODE for file in folder.rglob("*.pyc")}
    return {
        "sources": len(sources),
        "uncompiled": sorted(map(str, expected - compiled)),
        "stray_bytecode": sorted(map(str, compiled - expected)),
    }


def leftovers() -> dict[str, object]:
    """What was needed to build it."""
    pips = [python for python in ("/opt/venv/bin/python", "/usr/local/bin/python3") if has_pip(python)]
    caches = [file for cache in CACHES for file in Path(cache).rglob("*") if file.is_file() and file.stat().st_size]
    return {"tools": [name for name in TOOLS if shutil.which(name)] + pips, "cached": sorted(map(str, caches))}


def has_pip(python: str) -> bool:
    """Whether that interpreter can install anything."""
    return subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0


def packages() -> dict[str, object]:
    """What is installed, and what of it came without the terms it is given under."""
    found = list(distributions(path=[str(SITE)]))
    licences = [*SITE.rglob("*.dist-info/**/LICEN[CS]E*"), *SITE.rglob("*.dist-info/**/COPYING*")]
    return {"installed": {item.metadata["Name"]: item.version for item in found}, "licences": len(licences)}


print(json.dumps({**rights(), **bytecode(), **leftovers(), **packages()}))
