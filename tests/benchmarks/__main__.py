"""Measure what this project claims about speed and memory, and write RESULTS.md: `make bench`.

Usage: python -m tests.benchmarks [GROUP ...]

  GROUP  input, step, training, resume, predicting, conversion, memory or near; all of them by default. Sections of
         the others stay as they are.

A group is a module beside this one that prints its section as a program of its own, so that no group counts what
another has imported or left in memory. Exit codes: 0 done, 1 a group failed, 2 there is no such group.
"""

import argparse
import datetime
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from data_pipeline.parallel import available_cpus
from tests.conftest import REAL_IMAGES

RESULTS = Path(__file__).with_name("RESULTS.md")
GROUPS = ("input", "step", "training", "resume", "predicting", "conversion", "memory", "near")
PACKAGES = ("numpy", "pillow", "tensorflow", "keras", "tensorflow-datasets", "webdataset")
HEADING = "\n## "


def measure(group: str) -> str:
    """The group's section, without its heading. Raises `CalledProcessError`."""
    about, started = facts(), time.perf_counter()
    command = [sys.executable, "-m", f"{__package__}.{group}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return f"{about}, in {(time.perf_counter() - started) / 60:.1f} minutes.\n\n{done.stdout.strip()}\n"


def facts() -> str:
    """When and on what, and how busy that was with other work."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"Measured on {datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d} with {available_cpus()} CPUs "
        f"({_processor()}; load average {os.getloadavg()[0]:.1f} before it began), "
        f"Python {platform.python_version()}, {versions}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def read_sections(text: str) -> dict[str, str]:
    """The sections of RESULTS.md by the group's name."""
    parts = (part.partition("\n") for part in text.split(HEADING)[1:])
    return {name: body.strip() + "\n" for name, _, body in parts if name in GROUPS}


def results(sections: dict[str, str]) -> str:
    """RESULTS.md, in the order of the groups."""
    there = [group for group in GROUPS if group in sections]
    return "# Benchmarks\n\nWritten by `make bench`.\n" + "".join(
        f"{HEADING}{group}\n\n{sections[group]}" for group in there
    )


def main() -> int:
    """Run the groups one after another, and keep what each of them found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", metavar="GROUP", nargs="*", help=", ".join(GROUPS))
    groups = parser.parse_args().groups or list(GROUPS)
    if unknown := [group for group in groups if group not in GROUPS]:
        parser.error(f"Invalid group. Expected some of {', '.join(GROUPS)}. Received: {', '.join(unknown)}.")
    failed = []
    for group in groups:
        if group == "near" and not (REAL_IMAGES / "provenance.csv").exists():
            print(f"Skipping near: no real images at {REAL_IMAGES}, see $CYTOTRAIN_REAL_IMAGES", file=sys.stderr)
            continue
        print(f"Measuring {group}", file=sys.stderr, flush=True)
        try:
            section = measure(group)
        except subprocess.CalledProcessError as error:
            failed.append(f"{group} ended with code {error.returncode}: its section is left as it was.")
            continue
        sections = read_sections(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(results(sections | {group: section}))
        print(section, flush=True)
    for message in failed:
        print(message, file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
