"""Runs pipelines and sweeps: `nemo-run llava.pipeline`, `nemo-run RECIPE ... --sweep`."""

import argparse
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from neva_recipes.cli.arguments import UsageError, apply_overrides
from neva_recipes.cli.commands.executors import split_executor_overrides, with_gpu
from neva_recipes.cli.commands.models.tools import tool_command
from neva_recipes.cli.dry_run import close, print_for_programs
from neva_recipes.cli.fields import describe_fields
from neva_recipes.cli.report.finish import finish, reference
from neva_recipes.cli.several import choices_of, split_lists
from neva_recipes.cli.words import hint_of
from neva_recipes.config import (
    Draft,
    Recipe,
    RecipeError,
    field_types,
    format_value,
    iterate_fields,
    replaced_values,
    suggest,
)
from neva_recipes.pipeline import Pipeline, Stage
from neva_recipes.registry import RecipeEntry
from neva_recipes.run_directory.exit_codes import EXIT_MISTAKE
from neva_recipes.secrets import mask, secret_values
from neva_recipes.sweep import grid, sweep
from neva_recipes.terminal import print_line, print_text, tell

if TYPE_CHECKING:
    from executors import Executor, PipelineJob, Run
    from neva_recipes.plan import Plan

__all__ = ["make_pipeline", "make_sweep", "pipeline_fields", "rerun_pipeline", "resume_pipeline", "start"]

_MOST_POINTS = 1000
"""Default size of a Slurm job array (MaxArraySize), and a few minutes of planning."""


_MOST_SHOWN = 12
"""The most points of a sweep that are listed as it starts."""


def make_pipeline(entry: RecipeEntry, overrides: Mapping[str, str]) -> Pipeline:
    """Return the pipeline of a pipeline function, with overrides of its parameters, its stages and all recipes.

    Raises:
        RecipeError: There is no such parameter, stage or field, or it does not accept the value.
    """
    of_parameters, fields = entry.split(overrides)
    pipeline = entry.make_pipeline(of_parameters)
    names = [parameter.name for parameter in entry.parameters]
    override_stages(pipeline, fields, entry.name, names)
    return pipeline


def override_stages(
    pipeline: Pipeline, fields: Mapping[str, str], title: str, parameters: Sequence[str] | None
) -> None:
    """Set fields of one stage, `STAGE.FIELD`, or of every recipe.

    Args:
        pipeline: The pipeline.
        fields: The fields to set.
        title: Name of the pipeline in messages.
        parameters: Names that could be set too, for messages; `None` if its recipes are made already.

    Raises:
        RecipeError: There is no such stage or field, or it does not accept the value.
        UsageError: A field for every recipe has a value of its own in each.
    """
    stages = {stage.name: stage for stage in pipeline.stages}
    own: list[tuple[Stage, str, str]] = []
    trained = [stage.name for stage in pipeline.stages if stage.trains]
    for key, text in fields.items():
        head, _, path = key.partition(".")
        if head in stages and path:
            own.append((stages[head], path, text))
        else:
            _require_field(title, key, text, [*stages], parameters)
            if trained and all(f"{name}.{key.removesuffix('+')}" in fields for name in trained):
                having = "have values of their own" if len(trained) > 1 else "has a value of its own"
                raise UsageError(
                    f"{key}={text} takes effect in no stage: {_listed(trained)} {having}; leave it out, or the values "
                    "of the stages"
                )
            for name in trained:
                _override(stages[name], key, text)
    # Overrides of one stage take precedence over those of all stages.
    for stage, path, text in own:
        _override(stage, path, text)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def make_sweep(name: str, overrides: Mapping[str, str], make: Callable[[Mapping[str, str]], Draft[Recipe]]) -> Pipeline:
    """Return the sweep over every combination of the values in comma-separated lists.

    Args:
        name: Name of the recipe.
        overrides: The overrides; those with several values vary.
        make: Returns the recipe with overrides of one value each.

    Raises:
        UsageError: No override has several values, there are too many points, or two are the same.
        RecipeError: A point is wrong; the message starts with its values.
    """
    choices = choices_of(overrides)
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
    points: list[tuple[dict[str, str], Draft[Recipe]]] = []
    seen: dict[str, str] = {}
    for settings in grid(varying):
        shown = ", ".join(f"{key}={value}" for key, value in settings.items())
        try:
            recipe = make({**first, **settings})
        except RecipeError as error:
            raise RecipeError(f"point {shown}: {error}") from None
        # 1e-3 and 0.001 are the same value of a field; for a parameter only the text is known.
        fields = {field.path: field.value for field in iterate_fields(recipe)}
        values = repr([fields.get(key, text) for key, text in settings.items()])
        if values in seen:
            raise UsageError(f"--sweep: {seen[values]} and {shown} are the same point")
        seen[values] = shown
        points.append((settings, recipe))
    return sweep(f"{name}.sweep", points)


def start(pipeline: Pipeline, executor: "Executor", arguments: argparse.Namespace, *, typed: str) -> int:
    """Start a pipeline, or show what would be started, and return the exit code of the command.

    Args:
        pipeline: The pipeline or sweep.
        executor: Where its stages run.
        arguments: Arguments of the command.
        typed: The command that was typed, for the page.
    """
    from executors import plan_pipeline

    if arguments.script and any(stage.settings for stage in pipeline.stages):
        raise UsageError("--script: a sweep has none; each of its points has one: nemo-run RECIPE --dry-run --script")
    forms = ("text",) if any(stage.settings for stage in pipeline.stages) else ("text", "html")
    if arguments.format is not None and arguments.format not in forms:
        what, part = ("a pipeline", "stages") if "html" in forms else ("a sweep", "points")
        raise UsageError(
            f"--format {arguments.format}: {what} is shown as {' or '.join(forms)}; its {part} are recipes to look at"
        )
    for line in split_lists(pipeline.stages):
        tell("note", line)
    planned = plan_pipeline(
        pipeline,
        executor,
        name=arguments.name,
        runs_dir=arguments.runs_dir,
        parallel=arguments.parallel,
    )
    if arguments.script:
        return _show_scripts(planned)
    if arguments.format == "html":
        from neva_recipes.inspection.pipeline_page import pipeline_to_html

        print_for_programs(pipeline_to_html(planned, typed=typed))
        return _dry_run(planned)
    return _start(planned, arguments)


def rerun_pipeline(run: "Run", overrides: Mapping[str, str], arguments: argparse.Namespace) -> int:
    """Start a pipeline or a sweep again as it was last run, and return the exit code of the command.

    Args:
        run: The run of the pipeline.
        overrides: Fields to change: `STAGE.FIELD`, fields of every recipe, and fields of the executor.
        arguments: Arguments of the command: `dry_run`, `name`, `detach`, `quiet`, `gpu`.
    """
    from executors import plan_pipeline
    from executors.pipelines.again import executor_of_stages, parallel_of, pipeline_again
    from executors.registry import changed_executor

    if (executor := overrides.get("executor")) is not None:
        raise UsageError(f"executor={executor}: a pipeline is run again where it ran: start it from its recipes there")
    fields, of_executor = split_executor_overrides(overrides)
    of_executor = with_gpu(of_executor, arguments.gpu)
    pipeline = pipeline_again(run)
    override_stages(pipeline, fields, pipeline.name, None)
    place = executor_of_stages(run)
    planned = plan_pipeline(
        pipeline,
        changed_executor(place, of_executor) if of_executor else place,
        name=arguments.name,
        runs_dir=run.path.parent,
        parallel=parallel_of(run),
    )
    return _start(planned, arguments)


def _start(planned: "PipelineJob", arguments: argparse.Namespace) -> int:
    from executors import start_pipeline

    if arguments.dry_run:
        print_text(mask("\n".join(_outline(planned)), secret_values(os.environ)))
        return _dry_run(planned)
    if _is_sweep(planned) and not planned.not_here + planned.problems:
        for line in _start_lines(planned):
            print_line(mask(line, secret_values(os.environ)), sys.stderr)
    return _finish(start_pipeline(planned, detach=arguments.detach, quiet=arguments.quiet), arguments.detach)


def _show_scripts(planned: "PipelineJob") -> int:
    """Print what is started for each stage, below a comment with its name, and return the exit code of the command."""
    from neva_recipes.inspection.stages import after_text

    jobs = () if planned.problems else planned.stage_jobs(planned.job.run_dir)
    for entry, job in zip(planned.stages, jobs, strict=False):
        title, text = job.executor.in_short(job)
        heading = f"# {entry.stage.name}{after_text(entry.after)}: {title}"
        print_for_programs(f"{heading}\n{text.rstrip()}\n", "surrogateescape")  # paths keep their bytes
    return _dry_run(planned)


def _dry_run(planned: "PipelineJob") -> int:
    """Print what stands below the outline or the page of a pipeline, and return the exit code of the command."""
    from executors import disk_finding
    from executors.disk import sharing_finding

    sys.stdout.flush()
    told = {"note": planned.notes + planned.not_here, "warning": planned.warnings, "error": planned.problems}
    refused = planned.refused_here
    plans = [entry.plan for entry in planned.stages if entry.plan is not None]
    if space := disk_finding(plans, planned.job.run_dir.parent, is_planned=True):
        is_full = space.severity == "error"
        told["note" if is_full else "warning"] += (space.line(),)
        refused += (space.code,) if is_full else ()
    if unshared := sharing_finding(plans, planned.job.run_dir.parent):
        told[unshared.severity] += (unshared.line(),)
    for kind, lines in told.items():
        for line in lines:
            tell(kind, line)
    close(refused)
    return EXIT_MISTAKE if planned.problems else 0


def resume_pipeline(run: "Run", overrides: Mapping[str, str], *, arguments: argparse.Namespace) -> int:
    """Go on with a pipeline at the first stages that are not done, and return the exit code of the command.

    Args:
        run: The run of the pipeline.
        overrides: Fields to change, `STAGE.FIELD`; only of stages that are not done and do not train.
        arguments: Arguments of the command: `detach`, `quiet`, `gpu`.
    """
    import executors
    from executors.pipelines.directory import stage_run, stage_statuses
    from executors.pipelines.order import first_resumed, unfinished_inputs

    changes: dict[str, dict[str, str]] = {}
    stages = stage_statuses(run.path) if overrides else []
    names, done = [stage.name for stage in stages], [stage.name for stage in stages if stage.is_done]
    for field, text in overrides.items():
        stage, _, path = field.partition(".")
        if stage not in names:  # the field may be meant for every stage
            stage, path = "STAGE", field
        if (command := tool_command(stage_run(run.path, stage).path)) is not None:
            if stage in done:
                raise UsageError(
                    f"{field}={text}: {stage} has succeeded and is not run again: "
                    f"with other arguments it is a command of its own: {command}"
                )
            changes.setdefault(stage, {})[path] = text
            continue
        waits_for = unfinished_inputs(stage_run(run.path, stage).path) if stage in names else []
        first = f"first {first_resumed(waits_for)}, then " if waits_for else ""
        raise UsageError(
            f"{field}={text}: a pipeline goes on as it was started: {first}change a stage by itself, "
            f"nemo-run resume {reference(run, stage)} {path or 'FIELD'}={shlex.quote(text)}, "
            f"then go on: nemo-run resume {reference(run)}"
        )
    flags = {"detach": arguments.detach, "quiet": arguments.quiet, "gpu": arguments.gpu}
    executors.resume_pipeline(run, changes=changes, **flags)
    return _finish(run, arguments.detach)


def _finish(run: "Run", detached: bool) -> int:
    """Print the state of a pipeline, and how to resume one that has failed; return the exit code of the command."""
    code = finish(run, detached)
    if not detached and run.status().state in ("failed", "lost"):
        print_line(f"nemo-run resume {reference(run)} goes on with what is not done", sys.stderr)
    return code


def pipeline_fields(pipeline: Pipeline) -> list[str]:
    """Return a line for every field of every stage, as the help shows it."""
    from neva_recipes.inspection.stages import after_text

    lines = []
    for stage in pipeline.stages:
        after = after_text(tuple(before.name for before in pipeline.after(stage)))
        lines += ["", f"stage {stage.name}{after}:", *describe_fields(stage.work)]
    return lines


def _override(stage: Stage, path: str, text: str) -> None:
    try:
        apply_overrides(stage.work, {path: text})
    except RecipeError as error:
        raise RecipeError(f"{stage.name}: {error}") from None


def _require_field(pipeline: str, key: str, text: str, stages: Sequence[str], parameters: Sequence[str] | None) -> None:
    """Raise `RecipeError` if a key for all recipes does not begin with a group of a recipe."""
    head, dot, _ = key.partition(".")
    if head not in field_types(Recipe):
        if parameters is None and not dot:
            raise RecipeError(
                f"{key}: a pipeline that is run again takes STAGE.FIELD and fields of all recipes, no parameters: "
                f"start {pipeline} anew to change one"
            )
        kind, names = ("stage" if dot else "parameter"), [*(parameters or ()), *stages]
        hint = hint_of(key, text) or suggest(head, names) or f"; expected one of {', '.join(names)}"
        raise RecipeError(f"{key}: {pipeline} has no {kind} {head}{hint}")


def _outline(planned: "PipelineJob") -> list[str]:
    """Return what would run, as lines: the stages of a pipeline with their inputs, or the points of a sweep."""
    from neva_recipes.inspection.stages import after_text, stage_in_short

    if _is_sweep(planned):
        return [*_sweep_lines(planned), *_figures([entry.plan for entry in planned.stages if entry.plan is not None])]
    lines = [f"{planned.job.name}: {len(planned.stages)} stages"]
    for entry in planned.stages:
        lines += ["", f"{entry.stage.name}{after_text(entry.after)}"]
        lines.append(f"  {stage_in_short(entry)}")
        asked = "" if entry.layout is None else planned.executor.asks_for(entry.layout)
        lines += [f"  job     {asked}"] if asked else []
        if entry.plan is not None and entry.plan.layout is not None:
            lines += _figures([entry.plan])
        changed = {path for path, _ in entry.stage.inputs()} | set(replaced_values(entry.stage.work))
        if not entry.stage.trains:
            changed |= {field.path for field in iterate_fields(entry.stage.work) if field.value is not None}
        values = {field.path: field.value for field in iterate_fields(entry.stage.work)} | dict(entry.chosen)
        lines += [f"  {path}={format_value(values[path])}" for path in values if path in changed | entry.chosen.keys()]
    return lines


def _figures(plans: "Sequence[Plan]") -> Iterator[str]:
    """Yield memory, time and cost of a recipe or of the points of a sweep, one line each."""
    from neva_recipes.inspection.figures import facts_in_short

    return (f"  {label:<7} {value}" for label, value in facts_in_short(plans))


def _is_sweep(planned: "PipelineJob") -> bool:
    return any(entry.stage.settings for entry in planned.stages)


def _sweep_lines(planned: "PipelineJob", most: int | None = None) -> Iterator[str]:
    """Yield a title for a sweep, and a line for each point.

    Args:
        planned: The sweep.
        most: Number of points to show; `None` means all.
    """
    from neva_recipes.inspection.stages import process_count
    from neva_recipes.table import table_lines

    sizes = [entry.plan.layout.world_size for entry in planned.stages if entry.plan and entry.plan.layout]
    each = f", {process_count(sizes)} each" if sizes else ""  # without a layout there are errors
    yield f"{planned.job.name}: {len(planned.stages)} points{each}"
    shown = planned.stages[:most]
    settings = [entry.stage.settings for entry in shown]
    yield from table_lines([["POINT"], *([entry.stage.name] for entry in shown)], 1, settings)
    if left := len(planned.stages) - len(shown):
        yield f"... and {left} more"


def _start_lines(planned: "PipelineJob") -> Iterator[str]:
    """Yield what a sweep says as it starts, since a user may not have seen its points before."""
    return _sweep_lines(planned, None if len(planned.stages) <= _MOST_SHOWN else _MOST_SHOWN - 1)
