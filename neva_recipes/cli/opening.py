"""Opens recipes by whatever the command line names: a recipe, a saved file, a run."""

import argparse
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from neva_recipes.cli._chosen import choose_run
from neva_recipes.cli.arguments import UsageError, apply_overrides
from neva_recipes.cli.foreign import foreign_configuration
from neva_recipes.cli.report.finish import reference
from neva_recipes.cli.words import FIELD_WORDS
from neva_recipes.config import Draft, Recipe, RecipeError, RunError, UserError, lay_over, load_recipe, suggest
from neva_recipes.registry import NoSuchRecipe, RecipeEntry, find_pipeline, find_recipe, list_recipes
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.terminal import tell

__all__ = ["is_run", "make_recipe", "named_parameters", "open_recipe", "saved_recipe", "tell_of_namesakes"]


def make_recipe(entry: RecipeEntry, overrides: Mapping[str, str], configs: Iterable[Path] = ()) -> Draft[Recipe]:
    """Return the recipe of a recipe function, with overrides of its parameters and of fields.

    Args:
        entry: The recipe.
        overrides: The overrides of the command line, which take precedence over those in files.
        configs: YAML files that override fields of the recipe; later files take precedence.

    Raises:
        RecipeError: There is no such parameter or field, or it does not accept the value.
    """
    of_parameters, fields = entry.split(overrides)
    recipe = entry.make(of_parameters)
    names = [parameter.name for parameter in entry.parameters]
    for key in fields:
        if "." not in key and (hint := suggest(key, names)):
            raise RecipeError(f"{key}: {entry.name} has no such parameter{hint}")
    _lay_over(recipe, configs, names)
    apply_overrides(recipe, fields)
    return recipe


def saved_recipe(path: Path, overrides: Mapping[str, str], configs: Iterable[Path] = ()) -> Draft[Recipe]:
    """Return the recipe in a file, with the overrides of other files and of the command line.

    Raises:
        RecipeError: A file cannot be read, or the recipe does not accept an override.
    """
    try:
        recipe = load_recipe(path)
    except RecipeError:
        if (refusal := foreign_configuration(path)) is not None:
            raise RecipeError(refusal) from None
        raise
    _lay_over(recipe, configs)
    apply_overrides(recipe, overrides)
    return recipe


def _lay_over(recipe: Draft[Recipe], configs: Iterable[Path], parameters: Iterable[str] = ()) -> None:
    elsewhere = {name: f"no such field (did you mean {field}?)" for name, field in FIELD_WORDS.items()}
    elsewhere |= {name: f"is a parameter of the recipe: add {name}=VALUE to the command line" for name in parameters}
    elsewhere["executor"] = "is not a field of a recipe: fields of executors belong into a profile (nemo-run executors)"
    for path in configs:
        lay_over(recipe, path, elsewhere)


def open_recipe(
    word: str,
    overrides: Mapping[str, str],
    *,
    recipes: Sequence[Path],
    runs_dir: Path,
    configs: Iterable[Path] = (),
) -> Draft[Recipe]:
    """Return the recipe that a word names: a recipe by name, a saved one (.yaml), or that of a run.

    References to other runs and files are replaced by what they stand for.

    Args:
        word: The word typed; the name of a recipe takes precedence over that of a run.
        overrides: The fields to change.
        recipes: Python files with recipes.
        runs_dir: Folder of the runs.
        configs: YAML files that override fields of the recipe.

    Raises:
        UsageError: Nothing has this name.
        RecipeError: The recipe cannot be read, or does not accept an override.
    """
    from executors import settle

    if word.endswith((".yaml", ".yml")):
        saved = Path(word)
    else:
        try:
            entry = find_recipe(word, recipes)
        except NoSuchRecipe:
            saved = _run_directory(word, recipes, runs_dir) / RECIPE_FILE
        else:
            return settle(make_recipe(entry, overrides, configs), runs_dir)
    return settle(saved_recipe(saved, overrides, configs), runs_dir)


def named_parameters(arguments: argparse.Namespace) -> list[str]:
    """Return the parameters of the recipes and pipelines that a command line names.

    Args:
        arguments: The parsed arguments: `words`, and `recipes`, files with recipes.
    """
    names: dict[str, None] = {}
    for word in arguments.words:
        with contextlib.suppress(UserError):  # another kind of word; its errors are reported elsewhere
            entry = find_pipeline(word, arguments.recipes) or find_recipe(word, arguments.recipes)
            names |= dict.fromkeys(parameter.name for parameter in entry.parameters)
    return list(names)


def is_run(word: str, recipes: Sequence[Path]) -> bool:
    """Return whether a word can only name a run, since it is no saved recipe and no recipe has this name."""
    if word.endswith((".yaml", ".yml")):
        return False
    try:
        find_recipe(word, recipes)
    except NoSuchRecipe:
        return True
    return False


def tell_of_namesakes(words: Iterable[str], *, recipes: Sequence[Path], runs_dir: Path) -> None:
    """Print a note for each word that is the name of a recipe and of a run: that `open_recipe` takes the recipe."""
    from executors import find_run

    for word in dict.fromkeys(words):
        if word.endswith((".yaml", ".yml")) or is_run(word, recipes):
            continue
        with contextlib.suppress(RunError):  # no run has this name, or there are no runs
            named = reference(find_run(word, runs_dir))
            tell("note", f"{word} is a recipe and the name of a run: the recipe is taken; {named} names the run")


def _run_directory(word: str, recipes: Sequence[Path], runs_dir: Path) -> Path:
    from executors import list_runs, require_single

    try:
        run = choose_run(word, runs_dir)
    except RunError:
        names = [entry.name for entry in list_recipes(recipes)] + [run.name for run in list_runs(runs_dir)]
        hint = suggest(word, names) or "; nemo-run list and nemo-run status show what there is"
        raise UsageError(f"{word}: no such recipe, saved recipe (.yaml) or run{hint}") from None
    require_single(run.path, word)
    return run.path
