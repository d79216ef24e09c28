"""Holds a stage that is started by itself to the order of its pipeline."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from neva_recipes.cli.report.finish import reference
from neva_recipes.config import Draft, Recipe, RunError
from neva_recipes.run_directory.stages import pipeline_of, run_title
from neva_recipes.run_directory.state import UNDER_WAY

if TYPE_CHECKING:
    from executors import Run

__all__ = ["first_resumed", "require_inputs"]


def first_resumed(unfinished: Sequence["Run"]) -> str:
    """Return the commands that finish stages, in their order."""
    return ", then ".join(f"nemo-run resume {reference(run)}" for run in unfinished)


def require_inputs(run: "Run", recipe: Draft[Recipe], go_on_from: str | None) -> None:
    """Check that a stage that is started by itself has what it takes from other stages, as they are now.

    Args:
        run: A run, which need not be a stage.
        recipe: The recipe that it is to be started with.
        go_on_from: The checkpoint that the user wants to go on from; `None` if none is named.

    Raises:
        RunError: It would begin with what another stage has not finished, or go on with what another one has left
            behind since.
    """
    from executors import Run
    from executors.pipelines.directory import stage_statuses
    from executors.pipelines.inputs import input_stages, unfinished_inputs

    if go_on_from is not None or not (inputs := input_stages(run.path, recipe)):
        return
    if run.newest_checkpoint() is None:
        if unfinished := unfinished_inputs(run.path, recipe):
            raise _unfinished(run, unfinished)
        return
    pipeline = pipeline_of(run.path)
    assert pipeline is not None  # only a stage takes what other stages make
    older_than = next(stage.older_than for stage in stage_statuses(pipeline) if stage.name == run.name)
    if older_than in inputs:
        raise RunError(
            f"run {run_title(run.path)} has begun with {older_than} as it was before that went on: "
            f"nemo-run resume {reference(Run(pipeline))} begins it anew; --from goes on from a checkpoint that it has"
        )


def _unfinished(run: "Run", unfinished: Sequence["Run"]) -> RunError:
    """Return the error for a stage that would begin with what is not done."""
    last = unfinished[-1]
    status, checkpoint = last.status(), last.newest_checkpoint()
    far = "" if status.step is None else f" at step {status.step}"
    todo = f"first {first_resumed(unfinished)}"
    if status.state in UNDER_WAY:
        todo = f"wait until it has ended, which nemo-run status {reference(last)} shows"
    meant = f", or name its newest checkpoint, {checkpoint}, in place of its run" if checkpoint is not None else ""
    return RunError(
        f"run {run_title(run.path)} begins with {last.name}, which is not done: {status.state}{far}; {todo}{meant}"
    )
