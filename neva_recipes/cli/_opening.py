"""Recipes by whatever a command line calls them: a name, a saved file, a run."""

from collections.abc import Mapping
from pathlib import Path

import fiddle as fdl

from neva_recipes.cli._arguments import UsageError, apply_overrides
from neva_recipes.config import Recipe, RecipeError, RunError, load_recipe, suggest
from neva_recipes.registry import NoSuchRecipe, RecipeEntry, find_recipe, list_recipes

__all__ = ["make_recipe", "open_recipe"]


def make_recipe(entry: RecipeEntry, overrides: Mapping[str, str]) -> fdl.Buildable[Recipe]:
    """Return what a recipe function makes, with overrides of its parameters and of fields.

    Raises:
        RecipeError: There is no such parameter or field, or it does not accept the value.
    """
    names = [parameter.name for parameter in entry.parameters]
    recipe = entry.make({key: value for key, value in overrides.items() if key in names})
    fields = {key: value for key, value in overrides.items() if key not in names}
    for key in fields:
        if "." not in key and (hint := suggest(key, names)):
            raise RecipeError(f"{key}: {entry.name} has no such parameter{hint}")
    apply_overrides(recipe, fields)
    return recipe


def open_recipe(
    word: str, overrides: Mapping[str, str], *, recipes: Path | None, runs_dir: Path
) -> fdl.Buildable[Recipe]:
    """Return the recipe that a word stands for: one by name, a saved one (.yaml), or that of a run.

    Args:
        word: What was typed; the name of a recipe goes before that of a run.
        overrides: What to change in it.
        recipes: A Python file of recipes.
        runs_dir: Folder of the runs.

    Raises:
        UsageError: There is nothing of that name.
        RecipeError: The recipe cannot be read, or does not accept an override.
    """
    if word.endswith((".yaml", ".yml")):
        saved = Path(word)
    else:
        try:
            entry = find_recipe(word, recipes)
        except NoSuchRecipe:
            saved = _run_directory(word, recipes, runs_dir) / "recipe.yaml"
        else:
            return make_recipe(entry, overrides)
    recipe = load_recipe(saved)
    apply_overrides(recipe, overrides)
    return recipe


def _run_directory(word: str, recipes: Path | None, runs_dir: Path) -> Path:
    from executors import find_run, list_runs

    try:
        return find_run(word, runs_dir).path
    except RunError:
        names = [entry.name for entry in list_recipes(recipes)] + [run.name for run in list_runs(runs_dir)]
        hint = suggest(word, names) or "; nemo-run list and nemo-run status show what there is"
        raise UsageError(f"{word}: no such recipe, saved recipe (.yaml) or run{hint}") from None
