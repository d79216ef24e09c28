"""Running pipelines and sweeps: `nemo-run llava.pipeline`, `nemo-run RECIPE ... --sweep`."""

import argparse
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import fiddle as fdl

from executors.pipeline import Pipeline, Stage
from executors.sweep import grid, split_choices, sweep
from neva_recipes.cli._arguments import UsageError, apply_overrides
from neva_recipes.cli._fields import describe_fields
from neva_recipes.cli._finish import finish, reference
from neva_recipes.cli._tools import tool_command
from neva_recipes.config import Recipe, RecipeError, field_types, format_value, iterate_fields, replaced_values, suggest
from neva_recipes.registry import RecipeEntry
from neva_recipes.secrets import mask, secret_values

if TYPE_CHECKING:
    from executors import Executor, PipelineJob, Run

__all__ = ["make_pipeline", "make_sweep", "pipeline_fields", "resume_pipeline", "start"]

_MOST_POINTS = 1000
"""What one job array of Slurm holds by default (MaxArraySize), and a few minutes of planning."""


def make_pipeline(entry: RecipeEntry, overrides: Mapping[str, str]) -> Pipeline:
    """Return what a pipeline function makes, with overrides of its parameters, of a stage's fields, and of all recipes.

    Raises:
        RecipeError: There is no such parameter, stage or field, or it does not accept the value.
    """
    names = [parameter.name for parameter in entry.parameters]
    pipeline = entry.make_pipeline({key: value for key, value in overrides.items() if key in names})
    stages = {stage.name: stage for stage in pipeline.stages}
    own: list[tuple[Stage, str, str]] = []
    for key, text in overrides.items():
        head, _, path = key.partition(".")
        if head in stages and path:
            own.append((stages[head], path, text))
        elif key not in names:
            _require_field(entry, key, [*names, *stages])
            for stage in pipeline.stages:
                if stage.trains:
                    _override(stage, key, text)
    # What is for one stage goes before what is for all.
    for stage, path, text in own:
        _override(stage, path, text)
    return pipeline


def make_sweep(
    name: str, overrides: Mapping[str, str], make: Callable[[Mapping[str, str]], fdl.Buildable[Recipe]]
) -> Pipeline:
    """Return the sweep over every combination of values in comma lists.

    Args:
        name: Name of the recipe.
        overrides: Overrides; those with several values vary.
        make: Returns the recipe with overrides of one value each.

    Raises:
        UsageError: No override has several values, there are too many points, or two are the same.
        RecipeError: A point is wrong; the text starts with its values.
    """
    choices = {key: split_choices(text) for key, text in overrides.items()}
    varying = {key: values for key, values in choices.items() if len(values) > 1}
    if not varying:
        raise UsageError(
            "--sweep: no field of the recipe has several values: write optim.lr=1e-5,2e-5 "
            "(what is executor.FIELD holds for all points)"
        )
    count = math.prod(map(len, varying.values()))
    if count > _MOST_POINTS:
        sizes = " x ".join(f"{len(values)} of {key}" for key, values in varying.items())
        raise UsageError(f"--sweep: {count} points ({sizes}): at most {_MOST_POINTS} are started at once")
    first = {key: values[0] for key, values in choices.items()}
    points: list[tuple[dict[str, str], fdl.Buildable[Recipe]]] = []
    seen: dict[str, str] = {}
    for settings in grid(varying):
        shown = ", ".join(f"{key}={value}" for key, value in settings.items())
        try:
            recipe = make({**first, **settings})
        except RecipeError as error:
            raise RecipeError(f"point {shown}: {error}") from None
        # 1e-3 and 0.001 are one value, of a field; of a parameter only the text is known.
        fields = {field.path: field.value for field in iterate_fields(recipe)}
        values = repr([fields.get(key, text) for key, text in settings.items()])
        if values in seen:
            raise UsageError(f"--sweep: {seen[values]} and {shown} are the same point")
        seen[values] = shown
        points.append((settings, recipe))
    return sweep(f"{name}.sweep", points)


def start(pipeline: Pipeline, executor: "Executor", arguments: argparse.Namespace) -> int:
    """Start a pipeline, or say what would be started, and return the exit code of the command."""
    from executors import plan_pipeline, start_pipeline

    if arguments.dry_run and arguments.format not in (None, "text"):
        raise UsageError(f"--format {arguments.format}: a pipeline is shown as text; its stages are recipes to look at")
    planned = plan_pipeline(
        pipeline,
        executor,
        name=arguments.name,
        runs_dir=arguments.runs_dir,
        parallel=arguments.parallel,
    )
    if arguments.dry_run:
        print(mask("\n".join(_outline(planned)), secret_values(os.environ)))
        print("note: --dry-run wrote and started nothing", file=sys.stderr)
        for problem in planned.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2 if planned.problems else 0
    return _finish(start_pipeline(planned, detach=arguments.detach), arguments.detach)


def resume_pipeline(run: "Run", overrides: Mapping[str, str], *, detached: bool) -> int:
    """Go on with a pipeline at the first stages that are not done, and return the exit code of the command.

    Args:
        run: The run of the pipeline.
        overrides: Fields to change; there can be none.
        detached: Return once it runs.
    """
    if overrides:
        from executors._pipeline_directory import read_spec

        field, text = next(iter(overrides.items()))
        names = [stage.name for stage in read_spec(run.path).stages]
        stage, _, path = field.partition(".")
        if stage not in names:  # it may be meant for every stage
            stage, path = "STAGE", field
        if (command := tool_command(run.path / "stages" / stage)) is not None:
            raise UsageError(
                f"{field}={text}: a pipeline goes on as it was started, and {stage} has no recipe to change: "
                f"with other arguments it is a command of its own: {command}"
            )
        raise UsageError(
            f"{field}={text}: a pipeline goes on as it was started: change a stage by itself, "
            f"nemo-run resume {reference(run, stage)} {path or 'FIELD'}={shlex.quote(text)}, "
            f"then go on: nemo-run resume {reference(run)}"
        )
    run.resume(detach=detached)
    return _finish(run, detached)


def _finish(run: "Run", detached: bool) -> int:
    """Say how a pipeline stands, and what goes on with one that has failed; return the exit code of the command."""
    code = finish(run, detached)
    if not detached and run.status().state in ("failed", "lost"):
        print(f"nemo-run resume {reference(run)} goes on with what is not done", file=sys.stderr)
    return code


def pipeline_fields(pipeline: Pipeline) -> list[str]:
    """Return a line for every field of every stage, as the help shows it."""
    lines = []
    for stage in pipeline.stages:
        after = _after(tuple(before.name for before in pipeline.after(stage)))
        lines += ["", f"stage {stage.name}{after}:", *describe_fields(stage.work)]
    return lines


def _override(stage: Stage, path: str, text: str) -> None:
    try:
        apply_overrides(stage.work, {path: text})
    except RecipeError as error:
        raise RecipeError(f"{stage.name}: {error}") from None


def _require_field(entry: RecipeEntry, key: str, names: list[str]) -> None:
    """Raise `RecipeError` if a key for all recipes begins with what is no group of a recipe."""
    head, dot, _ = key.partition(".")
    if head not in field_types(Recipe):
        kind = "stage" if dot else "parameter"
        hint = suggest(head, names) or f"; expected one of {', '.join(names)}"
        raise RecipeError(f"{key}: {entry.name} has no {kind} {head}{hint}")


def _outline(planned: "PipelineJob") -> list[str]:
    """Return what would run, as lines: of a pipeline each stage with its inputs, of a sweep a line for each point."""
    if any(entry.stage.settings for entry in planned.stages):
        sizes = [entry.plan.layout.world_size for entry in planned.stages if entry.plan and entry.plan.layout]
        each = f", {_processes(sizes)} each" if sizes else ""  # where there is no layout there are errors
        return [f"{planned.job.name}: {len(planned.stages)} points{each}", *_points(planned)]
    lines = [f"{planned.job.name}: {len(planned.stages)} stages"]
    for entry in planned.stages:
        lines += ["", f"{entry.stage.name}{_after(entry.after)}"]
        if entry.plan is not None and entry.plan.layout is not None:
            recipe, layout = entry.plan.recipe, entry.plan.layout
            processes = _processes([layout.world_size])
            length = f"{recipe.trainer.max_steps} steps" if recipe.trainer.max_steps else "steps by epochs"
            lines.append(f"  trains {recipe.name}: {processes}, {length}")
        changed = {path for path, _ in entry.stage.inputs()} | set(replaced_values(entry.stage.work))
        if not entry.stage.trains:
            lines.append(f"  runs {fdl.get_callable(entry.stage.work).__name__.lower()}")
            changed |= {field.path for field in iterate_fields(entry.stage.work) if field.value is not None}
        values = {field.path: field.value for field in iterate_fields(entry.stage.work)}
        lines += [f"  {path}={format_value(values[path])}" for path in values if path in changed]
    return lines


def _processes(sizes: Sequence[int]) -> str:
    """Return how many processes something has, or the points of a sweep have."""
    least, most = min(sizes), max(sizes)
    if most == 1:
        return "1 process"
    return f"{most} processes" if least == most else f"{least} to {most} processes"


def _points(planned: "PipelineJob") -> Iterator[str]:
    from executors._table import table_lines

    settings = [entry.stage.settings for entry in planned.stages]
    return table_lines([["POINT"], *([entry.stage.name] for entry in planned.stages)], 1, settings)


def _after(names: tuple[str, ...]) -> str:
    return f", after {' and '.join(names)}" if names else ""
