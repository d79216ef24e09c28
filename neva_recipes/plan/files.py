"""The files a recipe names: whether they are there, can be read, and fit the recipe."""

from neva_recipes.config import Recipe, missing_inputs
from neva_recipes.plan.findings import Finding

__all__ = ["check_files"]


def check_files(recipe: Recipe) -> list[Finding]:
    """Return what is wrong with the files a recipe names."""
    return [Finding("file-missing", "error", problem) for problem in missing_inputs(recipe)]
