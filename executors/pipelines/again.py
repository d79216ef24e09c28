"""Reads a pipeline or sweep that has been run, to start it anew."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fiddle as fdl

from executors.base import Executor
from executors.job_record import executor_class, read_job_record
from executors.pipelines.directory import present_settings, stage_run
from executors.pipelines.executor import PipelineExecutor
from executors.pipelines.spec import StageSpec, read_spec
from executors.pipelines.tool_stage import saved_tool
from executors.runs.run import Run
from neva_recipes.config import iterate_fields, load_recipe
from neva_recipes.pipeline import Pipeline, Stage, StageOutput, Work
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.run_directory.stages import STAGES

__all__ = ["executor_of_stages", "parallel_of", "pipeline_again"]


def pipeline_again(run: Run) -> Pipeline:
    """Return a pipeline as it was last run; its stages take the outputs of its own stages, not of the old ones.

    Args:
        run: The run of the pipeline.

    Raises:
        RecipeError: The recipe of a stage cannot be read.
        RunError: The pipeline cannot be read, or is of an older version that did not keep the fields of its tools.
    """
    spec = read_spec(run.path)
    stages = {entry.name: _stage(run, entry) for entry in spec.stages}
    outputs = {_place(run, stage): stage.output for stage in stages.values()}
    for stage in stages.values():
        _take_new_outputs(stage, outputs)
    edges = [stages[before] >> stages[entry.name] for entry in spec.stages for before in entry.after]
    return Pipeline(spec.name, [*stages.values(), *edges])


def executor_of_stages(run: Run) -> Executor:
    """Return the executor of the stages of a pipeline; takes secret variables from the environment.

    Raises:
        RunError: The pipeline cannot be read, or one of those variables is not set.
    """
    return stage_run(run.path, read_spec(run.path).stages[0].name).executor()


def parallel_of(run: Run) -> int | None:
    """Return how many stages of a pipeline may run at once; `None` if the cluster decides.

    Raises:
        RunError: The pipeline cannot be read.
    """
    is_left_to_place = executor_class(read_job_record(run.path)) is PipelineExecutor
    return None if is_left_to_place else read_spec(run.path).parallel


def _stage(run: Run, spec: StageSpec) -> Stage:
    stage = stage_run(run.path, spec.name)
    recipe = stage.path / RECIPE_FILE
    work: Work = load_recipe(recipe) if recipe.is_file() else saved_tool(stage.path)
    return Stage(spec.name, work, present_settings(stage, spec.settings))


def _place(run: Run, stage: Stage) -> tuple[str, ...]:
    """Return the end of the path of a stage's output; only the end, because the runs may have been moved since."""
    kind: Any = fdl.get_callable(stage.work)
    return (run.name, STAGES, stage.name, *(() if stage.trains else Path(kind.output).parts))


def _take_new_outputs(stage: Stage, outputs: dict[tuple[str, ...], StageOutput]) -> None:
    """Replace the paths of old outputs in a new stage by the outputs of the new stages."""
    for field in list(iterate_fields(stage.work)):
        value = field.value
        items = value if isinstance(value, list) else [value]
        found = [_new_output(item, outputs) for item in items]
        taken = found if isinstance(value, list) else found[0]
        if taken != value:
            *groups, name = field.path.split(".")
            node: Any = stage.work
            for group in groups:
                node = getattr(node, group)
            setattr(node, name, taken)


def _new_output(value: object, outputs: Mapping[tuple[str, ...], StageOutput]) -> object:
    """Return the new output for the path of an old one, or of a file that a tool has made; any other value as it is.

    A checkpoint that was named of an old run stays that one.
    """
    if not isinstance(value, str) or not value.startswith("/"):
        return value
    parts = Path(value).parts
    for place, output in outputs.items():
        is_run = place[-2] == STAGES
        for end in range(len(parts), len(parts) - 1 if is_run else len(place) - 1, -1):
            if parts[max(0, end - len(place)) : end] == place:
                rest = "/".join(parts[end:])
                return output / rest if rest else output
    return value
