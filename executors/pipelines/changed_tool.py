"""Changes the fields of a stage that runs a tool."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from executors.job_record import read_needs
from executors.pipelines.tool_checks import checked_tool, used_recipe
from executors.pipelines.tool_stage import saved_tool, tool_text
from executors.warnings import PlanWarning
from neva_recipes.config import RecipeError, UserError, build, set_field, with_absolute_inputs
from neva_recipes.pipeline import Tool
from neva_recipes.plan import Planner

__all__ = ["ChangedTool", "changed_tool"]


@dataclass(frozen=True)
class ChangedTool:
    """A tool with other values in some fields.

    Attributes:
        text: The text of its tool.json.
        warnings: Its warnings.
    """

    text: str
    warnings: tuple[PlanWarning, ...]


def changed_tool(run_dir: Path, changes: Mapping[str, str]) -> ChangedTool:
    """Return the tool of a stage with other values in some fields, checked as at the launch; writes nothing.

    Args:
        run_dir: Directory of the stage.
        changes: Fields as command-line text, by name.

    Raises:
        RecipeError: There is no such field, it does not accept the value, or the named file cannot be used.
        RunError: The stage cannot be read, or is of an older version that did not keep its fields.
    """
    stage, work = run_dir.name, saved_tool(run_dir)
    try:
        for name, text in changes.items():
            set_field(work, name, text)
        work = with_absolute_inputs(work)
        tool: Tool = build(work, stage)
    except UserError as error:
        raise RecipeError(f"{stage}: {str(error).removeprefix(f'{stage}.')}") from None
    used = used_recipe(work, {})
    checked = checked_tool(tool, used, changes.keys(), Planner())
    for problem in (*(missing.line() for missing in checked.missing), *checked.problems):
        raise RecipeError(f"{stage}: {problem}")
    on_gpu = read_needs(run_dir)[1] if used is None else used.trainer.accelerator != "cpu"
    return ChangedTool(tool_text(tool, run_dir, checked.chosen, on_gpu=on_gpu), checked.warnings)
