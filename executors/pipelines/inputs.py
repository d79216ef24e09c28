"""What the stages of a pipeline take from each other: what is not done yet, and what is older than its input."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from executors.base import Executor
from executors.pipelines.tool_stage import output_of_tool, saved_tool
from executors.runs.going_back import ASIDE, free_name
from executors.runs.run import Run
from neva_recipes.config import Draft, Recipe, iterate_fields, load_recipe
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.run_directory.stages import STAGES, TOOL_FILE, pipeline_of, stage_directory
from neva_recipes.terminal import tell

__all__ = ["input_stages", "resume_stage", "unfinished_inputs"]


def input_stages(run_dir: Path, recipe: Draft[Recipe] | None = None) -> list[str]:
    """Return the names of the stages whose output a stage takes.

    A checkpoint that it names itself is none of them: that stays what it is, however far its run goes.

    Args:
        run_dir: Run directory of the stage.
        recipe: Its recipe; `None` for what its directory says.

    Raises:
        RecipeError: Its recipe cannot be read.
        RunError: Its tool cannot be read.
    """
    pipeline = pipeline_of(run_dir)
    if pipeline is None:
        return []
    if recipe is None:
        is_tool = not (run_dir / RECIPE_FILE).is_file()
        work: Any = saved_tool(run_dir) if is_tool else load_recipe(run_dir / RECIPE_FILE)
    else:
        work = recipe
    names = (_output_of(pipeline, path) for field in iterate_fields(work) for path in _paths(field.value))
    return [name for name in dict.fromkeys(names) if name is not None and name != run_dir.name]


def _paths(value: object) -> Iterator[Path]:
    values = value if isinstance(value, list | tuple) else [value]
    yield from (Path(text) for text in values if isinstance(text, str) and text.startswith("/"))


def _output_of(pipeline: Path, path: Path) -> str | None:
    """Return the stage of a pipeline, which may have been moved, whose output a path is."""
    parts = path.parts
    for place in range(len(parts) - 2):
        if parts[place : place + 2] == (pipeline.name, STAGES):
            name, below = parts[place + 2], parts[place + 3 :]
            is_output = not below or (stage_directory(pipeline, name) / TOOL_FILE).is_file()
            return name if is_output else None
    return None


def unfinished_inputs(run_dir: Path, recipe: Draft[Recipe] | None = None) -> list[Run]:
    """Return the stages that must still be done before a stage has what it takes, in the order of doing them.

    Args:
        run_dir: Run directory of the stage.
        recipe: Its recipe; `None` for what its directory says.

    Raises:
        RecipeError: A recipe cannot be read.
        RunError: A file of a stage cannot be read.
    """
    found: dict[Path, Run] = {}
    for name in input_stages(run_dir, recipe):
        run = Run(run_dir.parent / name)
        if run.path.is_dir():
            found |= {before.path: before for before in unfinished_inputs(run.path)}
            if run.status().state != "succeeded":
                found[run.path] = run
    return list(found.values())


def resume_stage(
    run: Run, *, is_older: bool, executor: Executor | None = None, after: Sequence[Run] | None = None
) -> None:
    """Start a stage of a pipeline, and return once it runs; what it has made before is kept under another name.

    Args:
        run: The run of the stage.
        is_older: Whether it has succeeded with an input that is no longer the present one, so that it begins anew.
        executor: As for `Run.resume`.
        after: As for `Run.resume`.

    Raises:
        UserError: It cannot be started.
    """
    # A tool refuses to write what is there: the result of another input, or what it was stopped in.
    if not (run.path / RECIPE_FILE).is_file():
        _set_output_aside(run.path)
    run.resume(detach=True, quiet=True, executor=executor, after=after, anew=is_older)


def _set_output_aside(run_dir: Path) -> None:
    """Give what a tool has made another name, so that it can make it again."""
    output = output_of_tool(run_dir)
    if output.exists():
        aside = free_name(output.with_name(f"{ASIDE}{output.name}"))
        output.rename(aside)
        tell("note", f"set aside: {output.name} is {aside} now")
