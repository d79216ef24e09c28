"""The rules between the fields of a recipe. Each is a function that yields what it finds; docs/checks.md lists them."""

from collections.abc import Sequence
from functools import partial

from neva_recipes.config import Recipe, RecipeError
from neva_recipes.plan.checks._rules import Found, Rule, found, run_rules, with_values
from neva_recipes.plan.checks.adapters import adapter_rules
from neva_recipes.plan.checks.checkpoint import checkpoint_rules
from neva_recipes.plan.checks.data import data_rules
from neva_recipes.plan.checks.model import model_rules
from neva_recipes.plan.checks.names import name_rules
from neva_recipes.plan.checks.parallel import division_rules, parallel_rules
from neva_recipes.plan.checks.pipeline import pipeline_rules
from neva_recipes.plan.checks.precision import gpu_rules, precision_rules
from neva_recipes.plan.checks.recompute import recompute_rules
from neva_recipes.plan.checks.rope import rope_rules
from neva_recipes.plan.checks.training import schedule_rules, training_rules
from neva_recipes.plan.checks.vision import vision_rules
from neva_recipes.plan.checks.waste import waste_rules
from neva_recipes.plan.cost.gpus import Gpu
from neva_recipes.plan.findings import Finding

__all__ = [
    "Found",
    "Rule",
    "check_division",
    "check_recipe",
    "check_schedule",
    "found",
    "is_valid",
    "require_valid",
    "rules_for",
    "run_rules",
    "with_values",
]

_RULES: tuple[Rule, ...] = (
    *model_rules,
    *rope_rules,
    *vision_rules,
    *adapter_rules,
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


def check_recipe(recipe: Recipe, gpu: Gpu | None = None, others: Sequence[Rule] = ()) -> list[Finding]:
    """Return everything that is wrong with a recipe by itself, wherever it runs; errors first.

    Args:
        recipe: A built recipe, whose fields each hold a value of the right type and range.
        gpu: The type of GPU it will run on; `None` if unknown.
        others: Rules that are checked later; no remedy may break one of them.
    """
    findings = run_rules(rules_for(gpu), recipe, others)
    return sorted(findings, key=lambda finding: finding.severity != "error")


def is_valid(recipe: Recipe, gpu: Gpu | None = None) -> bool:
    """Return whether `check_recipe` would find no error. It looks for no remedies, which take most of the time."""
    everything = (each for rule in rules_for(gpu) for each in rule(recipe))
    return not any(each.finding.severity == "error" for each in everything)


def rules_for(gpu: Gpu | None) -> tuple[Rule, ...]:
    """Return every rule between the fields of a recipe, and the rules of the GPU type if it is known."""
    return _RULES if gpu is None else (*_RULES, *(partial(rule, gpu=gpu) for rule in gpu_rules))


def check_division(recipe: Recipe) -> list[Finding]:
    """Return why the processes, layers and batches of a recipe cannot be divided; all errors."""
    return run_rules(division_rules, recipe)


def check_schedule(recipe: Recipe, steps: int | None) -> list[Finding]:
    """Return what is wrong with the learning rates of a run whose steps its passes over the data decide.

    Args:
        recipe: A recipe without errors of its own.
        steps: Steps of the run; `None` if unknown.
    """
    if steps is None or recipe.trainer.max_steps is not None:
        return []
    return run_rules([partial(rule, steps=steps) for rule in schedule_rules], recipe, rules_for(None))


def require_valid(recipe: Recipe) -> None:
    """Raise `RecipeError` with the first error of `check_recipe`, if there is one."""
    errors = [finding for finding in check_recipe(recipe) if finding.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more: --dry-run lists them)" if len(errors) > 1 else ""
        raise RecipeError(f"{errors[0].line()}{more}")
