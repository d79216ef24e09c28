"""From a recipe and an executor to a run."""

from pathlib import Path

import fiddle as fdl

from executors.base import Executor
from executors.job import Job
from executors.runs import Run
from neva_recipes.config import Recipe

__all__ = ["plan_job", "run", "start_job"]


def plan_job(
    recipe: fdl.Buildable[Recipe],
    executor: Executor | None = None,
    *,
    name: str | None = None,
    runs_dir: str | Path = "runs",
) -> Job:
    """Return what would be started; writes nothing."""
    raise NotImplementedError


def start_job(job: Job, *, detach: bool = False) -> Run:
    """Write the run directory of a job and start it."""
    raise NotImplementedError


def run(
    recipe: fdl.Buildable[Recipe],
    executor: Executor | None = None,
    *,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    detach: bool = False,
) -> Run:
    """Check a recipe, write its run directory and start it; unless detached, show its log until it has ended."""
    return start_job(plan_job(recipe, executor, name=name, runs_dir=runs_dir), detach=detach)
