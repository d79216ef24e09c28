"""Starts a stage of a pipeline again, anew if its input is no longer the one it was made of."""

from collections.abc import Sequence
from pathlib import Path

from executors.base import Executor
from executors.pipelines.tool_stage import output_of_tool
from executors.runs.going_back import ASIDE, free_name
from executors.runs.run import Run
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.terminal import tell

__all__ = ["resume_stage"]


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
