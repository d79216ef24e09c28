"""Show what a resume would do: `nemo-run resume RUN --dry-run`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from neva_recipes.cli.arguments import UsageError
from neva_recipes.cli.dry_run import close, show
from neva_recipes.config import Draft, Recipe
from neva_recipes.run_directory.stages import run_title
from neva_recipes.terminal import print_text, tell

if TYPE_CHECKING:
    from executors import Executor, Run

__all__ = ["show_resume", "show_stages"]

_STAND_IN = "run"


def show_resume(
    run: "Run", recipe: Draft[Recipe], executor: "Executor", go_on_from: str | None, typed: Sequence[str]
) -> int:
    """Print the recipe and checkpoint that a run would go on with, and return the exit code: 2 if it would not start.

    Args:
        run: The run.
        recipe: Its recipe, with the fields changed.
        executor: The executor of the resumed run.
        go_on_from: An earlier checkpoint; `None` means the newest.
        typed: The words that changed the fields.

    Raises:
        UserError: The run is in use, or the checkpoint cannot be used or does not allow such a recipe.
    """
    from neva_recipes.inspection import inspect_recipe
    from neva_recipes.plan.resuming import plan_going_on

    run.require_free()
    title = run_title(run.path)
    notes = run.resume_notes(recipe, go_on_from, typed)
    checkpoint = run.newest_checkpoint()
    # The run exists: what a new one may be called does not matter.
    inspection = inspect_recipe(recipe, executor, name=_STAND_IN, runs_dir=run.path.parent)
    plan, job = inspection.plan, inspection.job
    if checkpoint is not None:
        plan = plan_going_on(plan)
    if job is not None:
        job = dataclasses.replace(job, name=run.record()["name"], run_dir=run.path)
    if checkpoint is None:
        begin = f"{title} has no checkpoint: it would begin anew"
    elif go_on_from is None and (line := run.finished_line(recipe)) is not None:
        begin = line
    else:
        steps = "" if plan.recipe.trainer.max_steps is None else f" of {plan.recipe.trainer.max_steps} steps"
        begin = f"{title} would go on from {go_on_from or checkpoint.name}{steps}"
    return show(dataclasses.replace(inspection, plan=plan, job=job), "text", notes=[begin, *notes])


def show_stages(pipeline: "Run", overrides: Mapping[str, str]) -> int:
    """Print the states of the stages of a pipeline or the points of a sweep, and which of them a resume would start.

    Raises:
        UsageError: There are overrides; a dry run of the stage itself shows their effect.
        RecipeError: The recipe of a stage cannot be read.
        RunError: The pipeline is in use.
    """
    from executors import disk_finding
    from executors.pipelines.directory import stage_statuses, stage_table
    from executors.pipelines.resume import stage_plans, stage_refusals, stages_due
    from executors.warnings import stage_lines

    for field, text in overrides.items():
        raise UsageError(
            f"{field}={text}: --dry-run of a pipeline takes no changes: name a stage, {pipeline.name}/STAGE"
        )
    pipeline.require_free()
    stages = stage_statuses(pipeline.path)
    print_text("\n".join(stage_table(stages)))
    open_stages = [stage.name for stage in stages if not stage.is_done]
    tell("note", f"a resume would go on with {', '.join(open_stages)}" if open_stages else "all of it has succeeded")
    plans = list(stage_plans(stages_due(pipeline), None))
    refusals = stage_refusals(plans)
    codes = [finding.code for _, finding in refusals]
    points = len(stages) if any(stage.settings for stage in stages) else None
    lines = [*stage_lines([(name, finding.line()) for name, finding in refusals], points)]
    space = disk_finding([planned for _, planned in plans], pipeline.path, is_new=False)
    if space is not None and space.severity == "error":
        lines, codes = [*lines, space.line()], [*codes, space.code]
    for line in lines:
        tell("note", line)
    close(list(dict.fromkeys(codes)))
    return 0
