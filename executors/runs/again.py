"""Makes the job to start again in an existing run directory."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from executors.base import Executor, Job
from executors.findings import require_here, require_possible
from executors.job_record import load_executor, read_job_record, read_needs
from executors.process.rank import trains
from neva_recipes.config import (
    Draft,
    Recipe,
    build,
    how_many,
    load_recipe,
    recipe_to_yaml,
    replaced_values,
    with_absolute_inputs,
)
from neva_recipes.plan import Planner
from neva_recipes.plan.cost.schedule import run_steps
from neva_recipes.plan.resuming import plan_going_on
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.run_directory.stages import pipeline_of

__all__ = ["FinishedLength", "finished_length", "job_again"]


class FinishedLength(NamedTuple):
    """The length of a run that leaves nothing to train.

    Attributes:
        done: What has been trained, in words.
        longer: The setting of a run of twice the length.
        is_certain: Whether it follows from the recipe alone; otherwise the data decides too.
    """

    done: str
    longer: str
    is_certain: bool


def finished_length(recipe: Recipe, step: int) -> FinishedLength | None:
    """Return the length of a recipe if the steps that a run has trained are all of it; `None` otherwise.

    Args:
        recipe: The recipe.
        step: Steps that a run which has succeeded has trained.
    """
    steps, trainer = run_steps(recipe, None), recipe.trainer
    if steps is not None:
        if step < steps:
            return None
        return FinishedLength(f"{step} of {steps} steps are done", f"trainer.max_steps={2 * step}", is_certain=True)
    if trainer.early_stopping_patience is not None:
        return None
    epochs = trainer.max_epochs or 1
    passes = f"{how_many(epochs, 'pass', 'passes')} over the data, {step} steps, {'is' if epochs == 1 else 'are'} done"
    return FinishedLength(passes, f"trainer.max_epochs={2 * epochs}", is_certain=False)


def job_again(
    run_dir: Path,
    changed: Draft[Recipe] | None,
    executor: Executor | None,
    due: Path | None,
    planner: Planner | None,
    *,
    goes_on: bool,
) -> tuple[Job, Recipe | None]:
    """Return the job of a run directory, with a new recipe and executor if they are given; writes nothing.

    Args:
        run_dir: The run directory.
        changed: The new recipe; `None` for that of the run directory.
        executor: The new executor; `None` for that of the last start.
        due: Folder whose files do not exist yet; errors about them are ignored.
        planner: Planner to use; `None` for a new one.
        goes_on: Whether the run starts from a checkpoint of its own.

    Returns:
        The job, and its recipe with absolute paths; `None` for a program without a recipe.

    Raises:
        RecipeError: The recipe is not valid, lacks an input, or the executor cannot run it.
        RunError: A file of the run cannot be read, or a secret variable is not set.
    """
    record = read_job_record(run_dir)
    executor = executor or load_executor(record, os.environ)
    job = _recorded(run_dir, record, executor)
    recipe_file = run_dir / RECIPE_FILE
    if not recipe_file.exists() and not trains(job.argv):
        return dataclasses.replace(job, env=executor.job_environment(job.layout)), None
    old = load_recipe(recipe_file)
    recipe = old if changed is None else changed
    planned = (planner or Planner(executor, runs_dir=(pipeline_of(run_dir) or run_dir).parent)).plan(recipe)
    planned = plan_going_on(planned) if goes_on else planned
    require_possible(planned)
    absolute = with_absolute_inputs(recipe)
    wanted = build(absolute)
    require_here(planned, due)
    assert planned.layout is not None  # only a plan with errors has no layout
    text, new = recipe_file.read_text(encoding="utf-8"), recipe_to_yaml(absolute)
    job = dataclasses.replace(
        job,
        recipe_yaml=new if changed is not None and new != recipe_to_yaml(old) else text,
        plan=planned,
        env=executor.job_environment(planned.layout),
        command_line={**job.command_line, **({} if changed is None else replaced_values(changed))},
    )
    return job, wanted


def _recorded(run_dir: Path, record: Mapping[str, Any], executor: Executor) -> Job:
    """Return the job that job.json tells of, without its recipe and environment."""
    reads, on_gpu = read_needs(run_dir)
    return Job(
        name=record["name"],
        created=record["created"],
        run_dir=run_dir,
        executor=executor,
        argv=tuple(record["argv"]),
        env={},
        cwd=Path(record["cwd"]),
        command_line=record.get("command_line", {}),
        reads=reads,
        on_gpu=on_gpu,
    )
