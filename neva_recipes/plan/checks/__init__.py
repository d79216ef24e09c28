"""Every rule between the fields of a recipe, each a function that yields what it finds."""

from collections.abc import Callable, Iterator

from neva_recipes.config import Recipe, RecipeError
from neva_recipes.plan.checks.model import model_rules
from neva_recipes.plan.checks.parallel import division_rules, parallel_rules
from neva_recipes.plan.checks.precision import precision_rules
from neva_recipes.plan.checks.training import training_rules
from neva_recipes.plan.findings import Finding

__all__ = ["check_recipe", "require_valid"]

Rule = Callable[[Recipe], Iterator[Finding]]

_RULES: tuple[Rule, ...] = (*model_rules, *division_rules, *parallel_rules, *precision_rules, *training_rules)


def check_recipe(recipe: Recipe) -> list[Finding]:
    """Return everything that is wrong with a recipe by itself, wherever it runs; errors first.

    Args:
        recipe: A built recipe: its fields hold values of the right types, each for itself in range.
    """
    findings = [finding for rule in _RULES for finding in rule(recipe)]
    return sorted(findings, key=lambda finding: finding.severity != "error")


def require_valid(recipe: Recipe) -> None:
    """Raise `RecipeError` with the first error of `check_recipe`, if there is one."""
    errors = [finding for finding in check_recipe(recipe) if finding.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more: --dry-run lists them)" if len(errors) > 1 else ""
        raise RecipeError(f"{errors[0].line()}{more}")
