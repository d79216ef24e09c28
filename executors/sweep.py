"""Sweeps: one recipe at many points, as a pipeline of stages that wait for nothing."""

import itertools
from collections.abc import Mapping, Sequence

import fiddle as fdl

from executors.pipeline import Pipeline, Stage
from neva_recipes.config import Recipe, RecipeError

__all__ = ["grid", "split_choices", "sweep"]


def split_choices(text: str) -> list[str]:
    """Return the values that a comma list stands for; commas inside brackets belong to a list, which is one value.

    `1e-5,2e-5` are two numbers, `[0.9,0.95],[0.9,0.99]` two lists, `[0.9,0.95]` one.
    """
    values, depth, start = [], 0, 0
    for position, character in enumerate(text):
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            values.append(text[start:position])
            start = position + 1
    return [*values, text[start:]]


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
