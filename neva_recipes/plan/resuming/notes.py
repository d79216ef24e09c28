"""The notes shown before a run goes on with a changed recipe."""

import contextlib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from neva_recipes.config import CheckpointError, PlainTable, Recipe, RecipeError, format_value
from neva_recipes.plan.cost.schedule import learning_rate, run_steps
from neva_recipes.plan.origins.checkpoints import read_saved_recipe
from neva_recipes.plan.resuming.changes import FieldChange, changed_fields, require_resumable, words_for
from neva_recipes.plan.resuming.data import drawn_anew, trained_validation
from neva_recipes.run_directory.names import INFORMATION_FILE, list_checkpoints, listed_step
from neva_recipes.storage.checkpoints import read_record, require_files

__all__ = ["notes_on", "resume_notes"]

_LENGTH = ("trainer.max_steps", "trainer.max_epochs")
_SHAPE = (
    "optim.lr",
    "optim.min_lr",
    "optim.lr_decay_style",
    "optim.lr_decay_steps",
    "optim.warmup_steps",
    "optim.warmup_ratio",
)
_SAME = 1e-9
"""Relative difference up to which two learning rates are the same."""


def notes_on(checkpoint: Path, recipe: Recipe, typed: Sequence[str] = (), *, has_succeeded: bool = False) -> list[str]:
    """Return lines about what changes when a recipe goes on from a checkpoint.

    Args:
        checkpoint: The checkpoint.
        recipe: The recipe that will go on from it.
        typed: The words that changed the recipe, if any were typed.
        has_succeeded: Whether the run of the checkpoint has finished its training.

    Raises:
        CheckpointError: The checkpoint is damaged (tensors are not checked), or does not allow such a recipe. Or the
            changed recipe has no step left, and the run has succeeded or would succeed only because its length was
            changed: its recipe would then describe a training that never happened.
        RecipeError: The recipe in the checkpoint cannot be read.
    """
    saved, told = _read_for(checkpoint, recipe, typed)
    steps = run_steps(recipe, None)
    changes = changed_fields(saved, recipe) if steps is not None and told["step"] >= steps else []
    # A run that failed in its last validation may go on with a change that mends it, but not with a shorter length.
    if steps is not None and changes and (has_succeeded or any(change.path in _LENGTH for change in changes)):
        changed = ", ".join(change.path for change in changes)
        other_way = _other_way(checkpoint, recipe, changes, typed, steps)
        raise CheckpointError(
            f"{changed}: changed, but nothing is left to train: {told['step']} steps are done, and "
            f"trainer.max_steps={steps} asks for no more: set it higher, or {other_way}"
        )
    lines = resume_notes(saved, recipe, step=told["step"], metrics=told["metrics"])
    return [*lines, *trained_validation(saved, recipe)]


def _read_for(checkpoint: Path, recipe: Recipe, typed: Sequence[str]) -> tuple[Recipe, PlainTable]:
    """Return the recipe and the record of a checkpoint that a recipe can go on from; raises as `notes_on` does."""
    require_files(checkpoint)
    told = read_record(checkpoint)
    if missing := [name for name in ("step", "consumed_samples", "metrics") if name not in told]:
        raise CheckpointError(f"{checkpoint / INFORMATION_FILE}: does not hold {', '.join(missing)}: not a run's own")
    saved = read_saved_recipe(checkpoint)
    require_resumable(checkpoint, saved, recipe, told["consumed_samples"], told.get("vocabulary_digest"), typed)
    return saved, told


def _other_way(
    checkpoint: Path, recipe: Recipe, changes: Sequence[FieldChange], typed: Sequence[str], steps: int
) -> str:
    """Return how to train with a changed recipe for which nothing is left: from before a checkpoint, or anew.

    Args:
        checkpoint: The checkpoint.
        recipe: The changed recipe.
        changes: What has changed in it.
        typed: The words that changed it, if any were typed.
        steps: The steps of the changed recipe.
    """
    run = shlex.quote(str(checkpoint.parents[1]))
    if any(change.is_group for change in changes):  # no value on the command line makes a group
        return "start a new run with yours"
    settings = words_for(changes, typed)
    found = list_checkpoints(checkpoint.parent)
    before = found[: found.index(checkpoint)] if checkpoint in found else []
    for earlier in reversed([each for each in before if listed_step(each) < steps]):
        with contextlib.suppress(CheckpointError, RecipeError):
            _read_for(earlier, recipe, typed)
            command = f"nemo-run resume {run} --from step-{listed_step(earlier)} {settings}"
            return f"go on from an earlier checkpoint: {command}"
    return f"start a new run: nemo-run rerun {run} {settings}"


def resume_notes(
    saved: Recipe, recipe: Recipe, *, step: int, metrics: Mapping[str, float], num_samples: int | None = None
) -> list[str]:
    """Return lines about what changes and what does not, and about a jump of the learning rate.

    Args:
        saved: The recipe of the checkpoint.
        recipe: The recipe that goes on from it.
        step: Step of the checkpoint.
        metrics: The metrics logged at that step.
        num_samples: Samples of one pass over the training file; `None` if unknown.
    """
    changes = changed_fields(saved, recipe)
    lines = [*(_line(change) for change in changes), *drawn_anew(saved, recipe)]
    jump = _jump(saved, recipe, changes, step, metrics.get("lr"), num_samples)
    return [*lines, jump] if jump else lines


def _line(change: FieldChange) -> str:
    old, new = format_value(change.old), format_value(change.new)
    if change.effect.kind == "without effect":
        return f"{change.path}={new} has no effect on a run that goes on: {change.effect.why} (it was {old})"
    return f"changed: {change.path}={new} (it was {old})"


def _jump(
    saved: Recipe,
    recipe: Recipe,
    changes: list[FieldChange],
    step: int,
    last: float | None,
    num_samples: int | None,
) -> str | None:
    before, steps = run_steps(saved, num_samples), run_steps(recipe, num_samples)
    if before is None or steps is None or step >= steps:
        return None
    expected, new = learning_rate(step, saved.optim, before), learning_rate(step, recipe.optim, steps)
    if abs(new - expected) <= _SAME * max(new, expected):
        return None
    was = f"{last:.3g} at step {step}, " if last is not None else f"would be {expected:.3g}, and is "
    line = f"learning rate: {was}{new:.3g} at step {step + 1}"
    causes = [change.path for change in changes if change.path in (*_LENGTH, *_SHAPE)]
    lengths = [each for each in causes if each in _LENGTH]
    has_own_length = (saved.optim.lr_decay_steps, recipe.optim.lr_decay_steps) != (None, None)
    if not lengths or before == steps or has_own_length:
        return line
    others = [f"{each} has changed" for each in causes if each in _SHAPE]
    length = f"the schedule has the length of the run, {steps} steps instead of {before}"
    kept = "one" if not others else "length"
    end = _end_of_schedule(recipe, before) if before < steps else ""
    return f"{line}: {', and '.join([*others, length])}; optim.lr_decay_steps={before} keeps the old {kept}{end}"


def _end_of_schedule(recipe: Recipe, steps: int) -> str:
    """Return what the learning rate is after a schedule of some steps."""
    optim = recipe.optim
    if optim.lr_decay_style == "constant":
        return ""
    if optim.min_lr > 0:
        return f", optim.min_lr={optim.min_lr:g} from step {steps} on"
    nothing = f"zero from step {steps} on, where nothing is trained without a rate such as"
    return f", but {nothing} optim.min_lr={optim.lr / 10:g}"
