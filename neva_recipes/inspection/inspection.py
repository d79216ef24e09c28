"""Everything `--dry-run` knows of a recipe, however it is then written down."""

from dataclasses import dataclass
from pathlib import Path

import fiddle as fdl

import executors
from neva_recipes.config import Recipe
from neva_recipes.plan import Finding, Plan, plan

__all__ = ["Inspection", "inspect_recipe"]

_NOT_HERE = ("file-missing", "file-not-set")
"""Codes of findings that say where the recipe was looked at, not what is wrong with it."""


@dataclass(frozen=True)
class Inspection:
    """A recipe, its plan, and what would be started.

    Attributes:
        recipe: The recipe, with the history of its fields.
        plan: Its plan.
        script: Shell text that starts it; none where there are errors or the executor cannot run it.
    """

    recipe: fdl.Buildable[Recipe]
    plan: Plan
    script: str | None

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What stops a launch wherever it is tried."""
        return tuple(finding for finding in self.plan.errors if not _is_note(finding))

    @property
    def notes(self) -> tuple[Finding, ...]:
        """What stops a launch on this machine alone: files that are not here, and what the executor cannot do."""
        return tuple(filter(_is_note, self.plan.errors))

    def by_kind(self) -> dict[str, tuple[Finding, ...]]:
        """Return all findings by what they mean here: `error`, `warning`, `note`."""
        warnings = tuple(finding for finding in self.plan.findings if finding.severity == "warning")
        return {"error": self.errors, "warning": warnings, "note": self.notes}


def _is_note(finding: Finding) -> bool:
    return finding.code in _NOT_HERE or finding.about == "executor"


def inspect_recipe(
    recipe: fdl.Buildable[Recipe],
    executor: executors.Executor | None = None,
    *,
    gpu: str | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
) -> Inspection:
    """Return what a recipe is and what it would start; starts and writes nothing.

    Args:
        recipe: What to train.
        executor: Where; none means `LocalExecutor()`.
        gpu: Type of GPU to plan for, such as `h100-80g`; none means the executor's, or that one if it does not know.
        name: Name of the run; none means the recipe's.
        runs_dir: Folder of the run directory.

    Raises:
        RecipeError: A field holds a wrong value, or there is no such GPU type.
        RunError: The name cannot be used.
    """
    place = executor or executors.LocalExecutor()
    planned = plan(recipe, place, gpu=gpu)
    inspection = Inspection(recipe, planned, None)
    if inspection.errors or any(finding.about == "executor" for finding in inspection.notes):
        return inspection
    script = executors.job_of(recipe, planned, place, name=name, runs_dir=runs_dir).script()
    return Inspection(recipe, planned, script)
