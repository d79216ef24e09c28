"""What of a plan keeps its recipe from being started."""

from collections.abc import Sequence

from neva_recipes.config import RecipeError
from neva_recipes.plan import Finding, Plan

__all__ = ["require_files", "require_possible"]


def require_possible(plan: Plan) -> None:
    """Raise `RecipeError` with the first error that holds wherever the recipe's files are.

    A GPU type that is only assumed stops nothing: the recipe may be for another one.
    """
    assumed = {"memory"} if plan.gpu_assumed else set()
    _require([finding for finding in plan.errors if finding.about not in {"files", *assumed}])


def require_files(plan: Plan) -> None:
    """Raise `RecipeError` with the first error about the files of the recipe."""
    _require([finding for finding in plan.errors if finding.about == "files"])


def _require(errors: Sequence[Finding]) -> None:
    if errors:
        more = f" (and {len(errors) - 1} more: --dry-run lists them)" if len(errors) > 1 else ""
        raise RecipeError(f"{errors[0].line()}{more}")
