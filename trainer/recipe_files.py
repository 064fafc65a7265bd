"""Recipes by name: flag files in `trainer/recipes/`, each a whole way of training that was chosen by evidence.

    define_recipe_flag()                # in __main__
    apply_recipe(flags.FLAGS)           # in main, before flags are read
    recipe_settings("strong", defaults) # {"model": "residual", "epochs": 100, ...}

`--recipe=strong` is `--flagfile=trainer/recipes/strong.flags`, but for one thing: a flag that is given, before or after
it or in a flag file, wins over the recipe's.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from absl import flags

FOLDER = Path(__file__).parent / "recipes"
SUFFIX = ".flags"
RECIPES = ("seed", "fast", "strong", "gpu")


def define_recipe_flag() -> None:
    """Declare `--recipe`."""
    flags.DEFINE_enum(
        "recipe",
        "",
        ["", *RECIPES],
        "Settings chosen by evidence, see trainer/recipes: the notebooks' (seed), the best within ten minutes (fast) "
        "or an hour (strong) on two CPU cores, or for a GPU (gpu). Flags that are given win over them.",
    )


def apply_recipe(values: flags.FlagValues, *, only: Collection[str] | None = None) -> None:
    """Set what the recipe that is asked for says and the command line doesn't, of all flags or of `only` these."""
    for name, text in _entries(values.recipe) if values.recipe else ():
        if (only is None or name in only) and not values[name].present:
            values[name].parse(text)
            values[name].using_default_value = False


def recipe_settings(name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What a recipe sets, each of the type of its default. `{}` for no recipe."""
    entries = _entries(name) if name else []
    return {
        key: text == "true" if isinstance(defaults[key], bool) else type(defaults[key])(text) for key, text in entries
    }


def _entries(name: str) -> list[tuple[str, str]]:
    """The flags of a recipe's file and their values."""
    lines = (FOLDER / f"{name}{SUFFIX}").read_text(encoding="utf-8").splitlines()
    flags_set = [line.strip().removeprefix("--") for line in lines if line.strip().startswith("--")]
    pairs = [line.partition("=") for line in flags_set]
    return [(key, value) if equals else _switch(key) for key, equals, value in pairs]


def _switch(name: str) -> tuple[str, str]:
    """`--name` or `--noname`."""
    return (name.removeprefix("no"), "false") if name.startswith("no") else (name, "true")
