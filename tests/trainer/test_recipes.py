"""Recipes: whole flag files that teach, win over defaults, and lose to flags that are given."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from trainer.config import ENVIRONMENT, FOUND, TrainConfig
from trainer.recipe_files import FOLDER, RECIPES, SUFFIX, recipe_settings

DEFAULTS = {field.name: field.default for field in fields(TrainConfig)}
NEEDED = ["--organ=gland", "--tfrecords=/data/tfrecords", "--runs=/data/runs"]
# What `python -m trainer` makes of each command line of a list.
UNDERSTOOD = """
import json, sys
from dataclasses import asdict
from absl import flags
from trainer import train_flags
from trainer.recipe_files import apply_recipe
train_flags.define_flags()
for arguments in json.loads(sys.argv[1]):
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    flags.FLAGS(["trainer", *arguments])
    apply_recipe(flags.FLAGS)
    config = train_flags.config_from_flags(flags.FLAGS, "gland")
    found = [asdict(config), config.command(), config.run_name("data"), "tensorflow" in sys.modules]
    print(json.dumps(found, default=str))
"""


def understood(*command_lines: list[str]) -> list[list[Any]]:
    """Each command line's settings, the command its report gives, its run's name, and whether it took TensorFlow."""
    arguments = json.dumps([NEEDED + line for line in command_lines])
    done = subprocess.run([sys.executable, "-c", UNDERSTOOD, arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def text_of(name: str) -> str:
    return (FOLDER / f"{name}{SUFFIX}").read_text(encoding="utf-8")


def test_every_file_is_a_recipe_and_every_recipe_has_a_file() -> None:
    assert {path.name for path in FOLDER.glob(f"*{SUFFIX}")} == {f"{name}{SUFFIX}" for name in RECIPES}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_it_is_for_its_command_its_time_and_its_accuracy(name: str) -> None:
    header = text_of(name).partition("--")[0] + "".join(re.findall(r"^#.*$", text_of(name), re.MULTILINE))
    for words in (f"# {name}:", f"python -m trainer --recipe={name}", "2 CPU cores", "GPU", "Accuracy"):
        assert words in header, words


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_decides_all_that_is_learnt_and_nothing_of_the_machine(name: str) -> None:
    said = set(recipe_settings(name, DEFAULTS))
    elsewhere = {"organ", "seed", "patience", "monitor", "target_error", "clip_norm", "accumulate", *FOUND}
    fine_tuning = {"weights", "freeze_epochs", "fine_tune_rate"}
    missing = set(DEFAULTS) - said - ENVIRONMENT - elsewhere - fine_tuning - {"augment_strength"}
    assert not missing
    assert not said & (ENVIRONMENT | elsewhere)


def test_a_recipe_is_its_flag_file_and_given_flags_win_wherever_they_stand() -> None:
    for name in RECIPES:
        file = f"--flagfile={FOLDER / name}{SUFFIX}"
        by_name, by_file, before, after = understood(
            [f"--recipe={name}"], [file], ["--epochs=7", f"--recipe={name}"], [f"--recipe={name}", "--epochs=7"]
        )
        assert by_name[0] | {"recipe": ""} == by_file[0]
        assert by_name[2] == by_file[2]  # so that either goes on with the other's run
        assert before == after
        assert before[0] == by_name[0] | {"epochs": 7}
        assert not by_name[3]


def test_the_seed_recipe_is_what_is_done_without_one() -> None:
    by_recipe, plain = understood(["--recipe=seed", "--image_size=256"], ["--image_size=256"])
    assert by_recipe[0] | {"recipe": ""} == plain[0]


def test_the_command_of_a_report_names_the_recipe_and_what_differs() -> None:
    first, switched = understood(["--recipe=strong", "--epochs=7"], ["--recipe=strong", "--notta", "--noquarter_turns"])
    for settings, command, *_ in (first, switched):
        arguments = [word for word in shlex.split(command)[3:] if word not in NEEDED]
        ((again, *_),) = understood(arguments)
        assert again == settings
    assert "--recipe=strong" in first[1]
    assert "--epochs=7" in first[1]
    assert "--optimizer" not in first[1]


def test_a_recipe_that_is_not_there_is_refused() -> None:
    command = [sys.executable, "-m", "trainer", *NEEDED, "--recipe=best"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "recipe" in done.stderr
    assert "strong" in done.stderr
