"""What of a plan keeps its recipe from being started."""

from collections.abc import Sequence
from pathlib import Path

from neva_recipes.config import RecipeError
from neva_recipes.plan import Finding, Plan

__all__ = ["require_files", "require_possible"]


def require_possible(plan: Plan) -> None:
    """Raise `RecipeError` with the first error that holds wherever the recipe's files are.

    A GPU type that is only assumed stops nothing: the recipe may be for another one.
    """
    assumed = {"memory"} if plan.gpu_assumed else set()
    _require([finding for finding in plan.errors if finding.about not in {"files", *assumed}])


def require_files(plan: Plan, but_in: Path | None = None) -> None:
    """Raise `RecipeError` with the first error about the files of the recipe.

    Args:
        plan: The plan of the recipe.
        but_in: Folder whose files are still to be made, so that nothing is known of them.
    """
    _require([finding for finding in plan.errors if finding.about == "files" and not _is_due(finding, but_in)])


def _is_due(finding: Finding, folder: Path | None) -> bool:
    names = [value for value in finding.fields.values() if isinstance(value, str)]
    return folder is not None and any(Path(name).is_relative_to(folder) for name in names)


def _require(errors: Sequence[Finding]) -> None:
    if errors:
        more = f" (and {len(errors) - 1} more: --dry-run lists them)" if len(errors) > 1 else ""
        raise RecipeError(f"{errors[0].line()}{more}")
