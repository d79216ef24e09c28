"""Every rule between the fields of a recipe, each a function that yields what it finds; docs/checks.md lists them."""

from functools import partial

from neva_recipes.config import Recipe, RecipeError
from neva_recipes.plan.checks._rules import Rule, run_rules, with_values
from neva_recipes.plan.checks.checkpoint import checkpoint_rules
from neva_recipes.plan.checks.data import data_rules
from neva_recipes.plan.checks.model import model_rules
from neva_recipes.plan.checks.names import LONGEST_NAME, name_problem, name_rules
from neva_recipes.plan.checks.parallel import division_rules, parallel_rules
from neva_recipes.plan.checks.pipeline import pipeline_rules
from neva_recipes.plan.checks.precision import gpu_rules, precision_rules
from neva_recipes.plan.checks.recompute import recompute_rules
from neva_recipes.plan.checks.training import training_rules
from neva_recipes.plan.checks.vision import vision_rules
from neva_recipes.plan.checks.waste import waste_rules
from neva_recipes.plan.findings import Finding
from neva_recipes.plan.gpus import Gpu

__all__ = [
    "LONGEST_NAME",
    "check_division",
    "check_recipe",
    "is_valid",
    "name_problem",
    "require_valid",
    "with_values",
]

_RULES: tuple[Rule, ...] = (
    *model_rules,
    *vision_rules,
    *data_rules,
    *parallel_rules,
    *division_rules,
    *pipeline_rules,
    *recompute_rules,
    *precision_rules,
    *training_rules,
    *checkpoint_rules,
    *name_rules,
    *waste_rules,
)


def check_recipe(recipe: Recipe, gpu: Gpu | None = None) -> list[Finding]:
    """Return everything that is wrong with a recipe by itself, wherever it runs; errors first.

    Args:
        recipe: A built recipe: its fields hold values of the right types, each for itself in range.
        gpu: The type of GPU it will run on; none if that is not known.
    """
    findings = run_rules(_rules_for(gpu), recipe)
    return sorted(findings, key=lambda finding: finding.severity != "error")


def is_valid(recipe: Recipe, gpu: Gpu | None = None) -> bool:
    """Return whether `check_recipe` finds no error, without looking for remedies, which takes most of its time."""
    everything = (each for rule in _rules_for(gpu) for each in rule(recipe))
    return not any(each.finding.severity == "error" for each in everything)


def _rules_for(gpu: Gpu | None) -> tuple[Rule, ...]:
    return _RULES if gpu is None else (*_RULES, *(partial(rule, gpu=gpu) for rule in gpu_rules))


def check_division(recipe: Recipe) -> list[Finding]:
    """Return why the processes, layers and batches of a recipe cannot be divided; all errors."""
    return run_rules(division_rules, recipe)


def require_valid(recipe: Recipe) -> None:
    """Raise `RecipeError` with the first error of `check_recipe`, if there is one."""
    errors = [finding for finding in check_recipe(recipe) if finding.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more: --dry-run lists them)" if len(errors) > 1 else ""
        raise RecipeError(f"{errors[0].line()}{more}")
