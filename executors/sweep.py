"""Sweeps: one recipe at many points, as a pipeline of stages that wait for nothing."""

import itertools
import re
from collections.abc import Mapping, Sequence

import fiddle as fdl

from executors.pipeline import Pipeline, Stage
from neva_recipes.config import Recipe, RecipeError

__all__ = ["grid", "split_choices", "sweep"]


_QUOTED = re.compile(r"""(["'])(.*?)\1(?:,|$)""")


def split_choices(text: str) -> list[str]:
    """Return the values that a comma list stands for.

    `1e-5,2e-5` are two numbers. Commas inside brackets belong to a list, which is one value: `[0.9,0.95],[0.9,0.99]`
    are two lists, `[0.9,0.95]` is one. A value in quotes is what stands between them: `"a,b.json",c.json` are two
    paths.
    """
    values: list[str] = []
    rest: str | None = text
    while rest is not None:
        value, rest = _first_choice(rest)
        values.append(value)
    return values


def _first_choice(text: str) -> tuple[str, str | None]:
    """Return the first value, and what stands behind its comma if it has one."""
    if quoted := _QUOTED.match(text):
        return quoted[2], text[quoted.end() :] if quoted[0].endswith(",") else None
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            return text[:position], text[position + 1 :]
    return text, None


def grid(choices: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Return every combination of values, that of the last name varying fastest."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def sweep(name: str, points: Sequence[tuple[Mapping[str, str], fdl.Buildable[Recipe]]]) -> Pipeline:
    """Return a pipeline that runs each of some recipes, whatever becomes of the others.

    Args:
        name: Name of the sweep.
        points: What is special about each recipe, for tables, and the recipe.

    Raises:
        RecipeError: There is no point.
    """
    if not points:
        raise RecipeError(f"sweep {name}: has no points")
    width = len(str(len(points)))
    return Pipeline(
        name,
        [Stage(f"{number:0{width}}", recipe, settings) for number, (settings, recipe) in enumerate(points, start=1)],
    )
