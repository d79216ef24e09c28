"""Holds a stage that is started by itself to the order of its pipeline."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from neva_recipes.cli.report.finish import reference
from neva_recipes.config import Draft, Recipe, RunError
from neva_recipes.run_directory.stages import run_title
from neva_recipes.run_directory.state import UNDER_WAY

if TYPE_CHECKING:
    from executors import Run

__all__ = ["first_resumed", "require_inputs"]


def first_resumed(unfinished: Sequence["Run"]) -> str:
    """Return the commands that finish stages, in their order."""
    return ", then ".join(f"nemo-run resume {reference(run)}" for run in unfinished)


def require_inputs(run: "Run", recipe: Draft[Recipe]) -> None:
    """Check that a stage that is started by itself does not begin with what another one has not finished.

    One with a checkpoint of its own has begun.

    Args:
        run: A run, which need not be a stage.
        recipe: The recipe that it is to be started with.

    Raises:
        RunError: It would.
    """
    from executors.pipelines.inputs import unfinished_inputs

    if run.newest_checkpoint() is not None or not (unfinished := unfinished_inputs(run.path, recipe)):
        return
    last = unfinished[-1]
    status, checkpoint = last.status(), last.newest_checkpoint()
    far = "" if status.step is None else f" at step {status.step}"
    todo = f"first {first_resumed(unfinished)}"
    if status.state in UNDER_WAY:
        todo = f"wait until it has ended, which nemo-run status {reference(last)} shows"
    meant = f", or name its newest checkpoint, {checkpoint}, in place of its run" if checkpoint is not None else ""
    raise RunError(
        f"run {run_title(run.path)} begins with {last.name}, which is not done: {status.state}{far}; {todo}{meant}"
    )
