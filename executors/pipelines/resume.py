"""Resumes a pipeline or sweep at the stages that are not done."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from executors.disk import require_space, tell_of_little_space
from executors.findings import refused_here
from executors.job_record import read_job_record
from executors.pipelines.changed_tool import ChangedTool, changed_tool
from executors.pipelines.directory import StageStatus, stage_run, stage_statuses
from executors.pipelines.spec import read_spec
from executors.runs.foreground import require_foreground
from executors.runs.run import Run
from executors.warnings import joined_warnings, tell_warnings, warnings_of
from neva_recipes.config import RecipeError, RunError, UserError, load_recipe
from neva_recipes.plan import Finding, Plan, Planner
from neva_recipes.plan.cost.gpus import find_gpu
from neva_recipes.plan.resuming import plan_going_on
from neva_recipes.plan.serialization import plan_to_json
from neva_recipes.run_directory.layout import CHECKPOINTS, JOB_FILE, PLAN_FILE, RECIPE_FILE
from neva_recipes.run_directory.names import list_checkpoints
from neva_recipes.run_directory.stages import TOOL_FILE, run_title
from neva_recipes.run_directory.state import UNDER_WAY, write_atomically

__all__ = ["resume_pipeline", "stage_plans", "stage_refusals", "stages_due"]


def resume_pipeline(
    run: Run,
    *,
    changes: Mapping[str, Mapping[str, str]] | None = None,
    detach: bool = False,
    quiet: bool = False,
    gpu: str | None = None,
    check: bool = False,
) -> None:
    """Start a pipeline again, and wait for stages that still run.

    Stages that have succeeded are not repeated, unless what they take from another one is no longer the same.

    Args:
        run: The run of the pipeline.
        changes: New values of fields of tool stages as command-line text, by stage and field name; they are kept.
        detach: Return once it runs. Otherwise print its log until it has ended.
        quiet: Do not print the warnings of the remaining stages, and not how the pipeline has ended.
        gpu: New type of the GPUs of the remaining stages; `None` keeps the present one.
        check: As for `run_pipeline`.

    Raises:
        KeyboardInterrupt: As for `run_pipeline`.
        RecipeError: A recipe or a change is not valid, or a recipe cannot be started here.
        RunError: The pipeline is in use, cannot be started or, with `check`, has not succeeded; or a stage to be
            changed is in use or has succeeded.
    """
    require_foreground(detach=detach, check=check)
    if (changes or gpu is not None) and not run.has_ended():
        use = f"run {run_title(run.path)} is in use"
        raise RunError(f"{use}, so nothing of it can be changed: wait for its end, or cancel it first")
    stages = stage_statuses(run.path, goes_on=True)
    changed = _changed_tools(stages, changes or {})
    find_gpu(gpu)
    due = _due(stages)
    plans = list(stage_plans(due, gpu))
    for name, finding in stage_refusals(plans):
        raise RecipeError(f"{name}: {finding.line()}")
    require_space([planned for _, planned in plans], run.path, is_new=False)
    for name, tool in changed.items():
        write_atomically(stage_run(run.path, name).path / TOOL_FILE, tool.text)
    if gpu is not None:
        for entry in due:
            _set_gpu(entry.run, gpu)
        for entry, planned in plans:
            write_atomically(entry.run.path / PLAN_FILE, plan_to_json(planned))
    if not quiet:
        _tell(run, plans, changed)
    run.resume(detach=detach, quiet=quiet, check=check)


def _changed_tools(stages: Iterable[StageStatus], changes: Mapping[str, Mapping[str, str]]) -> dict[str, ChangedTool]:
    changed = {}
    by_name = {stage.name: stage for stage in stages}
    for name, fields in changes.items():
        stage = by_name[name]
        if stage.is_done:
            raise RunError(f"{name}: has succeeded and is not run again, so nothing of it can be changed")
        if stage.state in UNDER_WAY:
            raise RunError(f"{name}: is {stage.state}, so nothing of it can be changed before it has ended")
        changed[name] = changed_tool(stage.run.path, fields)
    return changed


def _tell(run: Run, plans: Sequence[tuple[StageStatus, Plan]], changed: Mapping[str, ChangedTool]) -> None:
    """Print the warnings of the stages that will be started, and whether the disk has room for what they keep."""
    is_sweep = any(stage.settings for stage in read_spec(run.path).stages)
    by_stage = [(stage.name, warnings_of(planned)) for stage, planned in plans]
    by_stage += [(name, list(tool.warnings)) for name, tool in changed.items()]
    tell_warnings(joined_warnings(by_stage, is_sweep=is_sweep))
    there = sum(len(list_checkpoints(stage.run.path / CHECKPOINTS)) for stage, _ in plans)
    tell_of_little_space([planned for _, planned in plans], run.path, there=there, is_new=False)


def _set_gpu(run: Run, gpu: str) -> None:
    record = read_job_record(run.path)
    record["executor"]["gpu"] = gpu
    write_atomically(run.path / JOB_FILE, json.dumps(record, indent=2) + "\n")


def stages_due(run: Run) -> list[StageStatus]:
    """Return the stages that a resume would start, in their order."""
    return _due(stage_statuses(run.path, goes_on=True))


def _due(stages: Iterable[StageStatus]) -> list[StageStatus]:
    return [stage for stage in stages if not stage.is_done and stage.state not in UNDER_WAY]


def stage_refusals(plans: Iterable[tuple[StageStatus, Plan]]) -> list[tuple[str, Finding]]:
    """Return the errors for which stages cannot be resumed here, with their names; those about this machine first.

    Files that other stages of the pipeline will make may be missing.
    """
    found = [(stage.name, error) for stage, planned in plans for error in refused_here(planned, stage.run.path.parent)]
    return sorted(found, key=lambda entry: entry[1].about != "machine")


def stage_plans(stages: list[StageStatus], gpu: str | None) -> Iterator[tuple[StageStatus, Plan]]:
    """Yield the present plan of each stage that trains.

    Args:
        stages: The stages of a pipeline, in their order.
        gpu: Type of GPU to plan for; `None` means the executor's.

    Raises:
        UserError: A recipe cannot be read.
    """
    planner: Planner | None = None
    for stage in stages:
        recipe = stage.run.path / RECIPE_FILE
        if recipe.is_file():
            planner = planner or Planner(stage.run.executor(), gpu=gpu)  # all stages have the same executor
            try:
                planned = planner.plan(load_recipe(recipe))
                if stage.older_than is None and stage.run.newest_checkpoint() is not None:
                    planned = plan_going_on(planned)
                planner.expect(str(stage.run.path), planned.recipe)  # later stages use its model
            except UserError as error:
                raise RecipeError(f"{stage.name}: {error}") from None
            yield stage, planned
