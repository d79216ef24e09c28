"""Whether a run that is long or costly saves something before its end."""

from collections.abc import Iterator
from functools import partial

from neva_recipes.config import Recipe
from neva_recipes.plan.checks import Found, found, rules_for, run_rules
from neva_recipes.plan.findings import Finding, warning

__all__ = ["check_saving"]

_MOST_STEPS, _MOST_HOURS = 1000, 1.0
"""A run that is shorter by both may well save at its end only: there is little to lose."""

_EVERY = "checkpoint.every_n_train_steps"
_MINUTES = "checkpoint.train_time_interval_minutes"


def check_saving(recipe: Recipe, steps: int | None, hours: float | None) -> list[Finding]:
    """Return that a recipe saves nothing before the end of a long run.

    Args:
        recipe: A recipe without errors of its own.
        steps: Steps of the run; `None` if unknown.
        hours: Time of the run on its GPUs; `None` if unknown.
    """
    if steps is None or steps < 2:  # a single step has no way on which to save
        return []
    if steps < _MOST_STEPS and (hours is None or hours < _MOST_HOURS):
        return []
    return run_rules((partial(_saving, steps=steps),), recipe, rules_for(None))


def _saving(recipe: Recipe, steps: int) -> Iterator[Found]:
    checkpoint, interval = recipe.checkpoint, recipe.trainer.val_check_interval
    saves_on_the_way = checkpoint.train_time_interval_minutes is not None or (
        checkpoint.every_n_train_steps is not None and checkpoint.every_n_train_steps < steps
    )
    keeps_nothing = checkpoint.save_top_k == 0 and not checkpoint.save_last  # `nothing-kept` reports it
    validates = recipe.data.validation_data_path is not None and interval is not None and interval < steps
    if saves_on_the_way or keeps_nothing or (checkpoint.keeps_best and validates):
        return
    length = "trainer.max_epochs" if recipe.trainer.max_steps is None else "trainer.max_steps"
    message = f"nothing is saved before the end, after {steps:,} steps: a failure on the way loses all of them"
    often = [{_EVERY: max(1, steps // 10)}]
    if checkpoint.monitor == "val_loss":  # what is saved apart from validations cannot be ranked
        often = [{_EVERY: interval}] if interval is not None and interval < steps else []
    yield found(warning("saved-at-end-only", message, recipe, _EVERY, length), often, [{_MINUTES: 30.0}])
