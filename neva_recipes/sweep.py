"""Sweeps: one recipe at many points, as a pipeline of independent stages."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from neva_recipes.config import Draft, Recipe, RecipeError
from neva_recipes.pipeline import Pipeline, Stage

__all__ = ["grid", "split_choices", "sweep"]


_QUOTED = re.compile(r"""\s*(["'])(.*?)\1\s*(?:,|$)""")


def split_choices(text: str) -> list[str]:
    """Split a comma-separated list into its values.

    `1e-5,2e-5` are two numbers. Commas inside brackets belong to a list, which is one value: `[0.9,0.95],[0.9,0.99]`
    are two lists, `[0.9,0.95]` is one. Quotes around a value protect its commas: `"a,b.json",c.json` are two paths.
    White space around values is ignored, as in lists.
    """
    values: list[str] = []
    rest: str | None = text
    while rest is not None:
        value, rest = _first_choice(rest)
        values.append(value)
    return values


def _first_choice(text: str) -> tuple[str, str | None]:
    """Return the first value, and the text after its comma; `None` if there is no comma."""
    if quoted := _QUOTED.match(text):
        return quoted[2], text[quoted.end() :] if quoted[0].endswith(",") else None
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            return text[:position].strip(), text[position + 1 :]
    return text.strip(), None


def grid(choices: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """Return every combination of values; the value of the last name varies fastest."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def sweep(name: str, points: Iterable[tuple[Mapping[str, str], Draft[Recipe]]]) -> Pipeline:
    """Return a pipeline that runs each recipe independently of the others.

    Args:
        name: Name of the sweep.
        points: Settings of each point, for tables, and its recipe. Each recipe is copied when its point is reached: a
            generator may change one recipe between two points, but a list would hold the same recipe several times.

    Raises:
        RecipeError: There are no points, or the settings of a point differ from the values in its recipe.
    """
    stages = [Stage(str(number), recipe, settings) for number, (settings, recipe) in enumerate(points, start=1)]
    if not stages:
        raise RecipeError(f"sweep {name}: has no points")
    for stage in stages:
        for field, held in stage.changed_settings().items():
            raise RecipeError(
                f"sweep {name}: point {stage.name} says {field}={stage.settings[field]}, and its recipe holds {held}: "
                "give every point a recipe of its own, such as copy.deepcopy(recipe)"
            )
    width = len(str(len(stages)))
    return Pipeline(name, [replace(stage, name=f"{stage.name:0>{width}}") for stage in stages])
