"""Whether a layout that a command is given divides a model."""

from neva_recipes.config import Recipe, RecipeError
from neva_recipes.plan import check_recipe

__all__ = ["require_layout"]


def require_layout(recipe: Recipe) -> None:
    """Check the layout of a recipe by the rules of the plan.

    Args:
        recipe: The recipe with the layout that `--tp` and `--pp` name.

    Raises:
        RecipeError: It does not divide the model.
    """
    parallel = recipe.parallel
    for finding in check_recipe(recipe):
        if finding.severity == "error" and any(path.startswith("parallel.") for path in finding.fields):
            sizes = f"--tp={parallel.tensor_model_parallel_size} --pp={parallel.pipeline_model_parallel_size}"
            raise RecipeError(f"{sizes}: {finding.message}")
