"""All that `--dry-run` knows of a recipe, in whatever format it is then printed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import executors
from executors.disk import sharing_finding
from neva_recipes.config import Draft, Recipe
from neva_recipes.plan import Finding, Plan, plan

__all__ = ["Inspection", "inspect_recipe", "refusal"]


@dataclass(frozen=True)
class Inspection:
    """A recipe, its plan, and what would be started.

    Attributes:
        recipe: The inspected recipe, with the history of its fields.
        plan: Its plan.
        job: The job that would be started; `None` if there are errors or the executor cannot run it.
    """

    recipe: Draft[Recipe]
    plan: Plan
    job: executors.Job | None

    @cached_property
    def script(self) -> str | None:
        """Shell text that writes the run directory and starts the job; `None` without a job."""
        return None if self.job is None else self.job.script()

    @cached_property
    def command(self) -> tuple[str, str] | None:
        """The part of the script that people look for, with a title; `None` without a job."""
        return None if self.job is None else self.job.executor.in_short(self.job)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop a launch anywhere."""
        return tuple(finding for finding in self.plan.errors if not finding.is_of_here)

    @property
    def notes(self) -> tuple[Finding, ...]:
        """The findings that stop a launch only here: missing files and GPUs, and limits of the executor."""
        return tuple(finding for finding in self.plan.errors if finding.is_of_here)

    def by_kind(self) -> dict[str, tuple[Finding, ...]]:
        """Return all findings by their meaning here: `error`, `warning`, `note`."""
        return {"error": self.errors, "warning": self.plan.warnings, "note": self.notes + self.plan.notes}

    @property
    def refused_here(self) -> tuple[str, ...]:
        """The codes of the findings that are only notes, although a launch from this machine would be refused."""
        return tuple(dict.fromkeys(finding.code for finding in self.notes))


def refusal(codes: Sequence[str]) -> str:
    """Return the sentence that closes a dry run if a launch would be refused here for these findings."""
    return f"a launch from this machine would be refused: {', '.join(codes)}"


def inspect_recipe(
    recipe: Draft[Recipe],
    executor: executors.Executor | None = None,
    *,
    gpu: str | None = None,
    name: str | None = None,
    runs_dir: str | Path = "runs",
) -> Inspection:
    """Return what a recipe is and what it would start, without starting or writing anything.

    Args:
        recipe: The recipe to train.
        executor: The executor to run it; `None` means `LocalExecutor()`.
        gpu: Type of GPU to plan for, such as `h100-80g`; `None` means the executor's, or h100-80g if that is unknown.
        name: Name of the run; `None` means that of the recipe.
        runs_dir: Folder of the run directory.

    Raises:
        RecipeError: A field holds a wrong value, or the GPU type is unknown.
        RunError: The name cannot be used.
    """
    recipe, place = executors.settle(recipe, runs_dir), executor or executors.LocalExecutor()
    planned = plan(recipe, place, gpu=gpu, runs_dir=runs_dir)
    if space := executors.disk_finding([planned], Path(runs_dir).absolute(), is_planned=True):
        planned = replace(planned, findings=(*planned.findings, space))
    if unshared := sharing_finding([planned], Path(runs_dir).absolute()):
        planned = replace(planned, findings=(*planned.findings, unshared))
    inspection = Inspection(recipe, planned, None)
    if inspection.errors or any(finding.about == "executor" for finding in inspection.notes):
        return inspection
    return Inspection(recipe, planned, executors.job_of(recipe, planned, place, name=name, runs_dir=runs_dir))
