"""Unfinished runs that a recipe or command names as the source of a trained model."""

import shlex
from pathlib import Path
from typing import NamedTuple

from neva_recipes.config import CheckpointError, Recipe, RecipeError
from neva_recipes.plan.cost.schedule import run_steps
from neva_recipes.plan.origins.checkpoints import find_checkpoint, is_checkpoint, read_saved_recipe
from neva_recipes.run_directory.names import step_of
from neva_recipes.run_directory.stages import run_title
from neva_recipes.run_directory.standing import run_standing

__all__ = ["UnfinishedRun", "unfinished_note", "unfinished_run"]

_ENDED = {"cancelled": "was cancelled", "failed": "failed", "lost": "is lost"}


class UnfinishedRun(NamedTuple):
    """A run whose newest checkpoint is not the end of its training.

    Attributes:
        message: The state of the run.
        advice: How to finish it.
        goes_on: Whether it may soon have a newer checkpoint.
        checkpoint: Its newest checkpoint; naming this path means exactly this one.
    """

    message: str
    advice: str
    goes_on: bool
    checkpoint: Path


def unfinished_run(path: Path, checkpoint: Path, saved: Recipe) -> UnfinishedRun | None:
    """Return the state of a run that has not finished; `None` if it has, or if `path` is a checkpoint itself.

    A run that stopped early, because its validation loss no longer improved, has finished.

    Args:
        path: The path that the user named.
        checkpoint: The checkpoint that it stands for.
        saved: The recipe of that checkpoint.
    """
    standing = None if is_checkpoint(path) else run_standing(path)
    if standing is None or standing.state == "succeeded":
        return None
    step, steps = step_of(checkpoint), run_steps(saved, None)
    if step is not None and steps is not None and step >= steps:
        return None
    newest = f"its newest checkpoint is of step {step}" + ("" if steps is None else f" of {steps}")
    run = shlex.quote(str(path))
    if standing.state in _ENDED:
        why = f" ({standing.reason})" if standing.state == "lost" else ""
        message, advice = f"{_ENDED[standing.state]}{why}", f"nemo-run resume {run} goes on with it first"
        return UnfinishedRun(f"run {run_title(path)} {message}: {newest}", advice, False, checkpoint)
    advice = f"wait until it has ended, which nemo-run status {run} shows"
    return UnfinishedRun(f"run {run_title(path)} has not ended: {newest}", advice, True, checkpoint)


def unfinished_note(path: Path) -> str | None:
    """Return a line about an unfinished run whose model is to be used now; `None` if there is nothing to say."""
    try:
        checkpoint = find_checkpoint(path)
        found = unfinished_run(path, checkpoint, read_saved_recipe(checkpoint))
    except (CheckpointError, RecipeError):
        return None  # opening the run reports the problem
    if found is None:
        return None
    return f"{found.message}; the newest is taken" if found.goes_on else f"{found.message}, which is taken"
