"""Makes a run of a pipeline and an executor; it starts the runs of the stages."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from executors.base import Executor, Job
from executors.disk import require_space, tell_of_little_space
from executors.launch import start_job
from executors.pipelines.planning import PipelineJob, plan_pipeline
from executors.runs.foreground import require_foreground
from executors.runs.run import Run
from executors.warnings import tell_warnings
from neva_recipes.config import RecipeError, RunError
from neva_recipes.pipeline import Pipeline

__all__ = ["run_pipeline", "start_pipeline"]


def start_pipeline(planned: PipelineJob, *, detach: bool = False, quiet: bool = False, check: bool = False) -> Run:
    """Print the warnings of a pipeline, write its directory and start it.

    Args:
        planned: The pipeline.
        detach: Return once it runs instead of showing its log until it has ended.
        quiet: Print no warnings, and not how the pipeline has ended.
        check: As for `run_pipeline`.

    Raises:
        KeyboardInterrupt: As for `run_pipeline`.
        RecipeError: A stage cannot run.
        RunError: The directory cannot be written, or the pipeline cannot be started; with `check`, as for
            `run_pipeline`.
    """
    require_foreground(detach=detach, check=check)
    if problems := planned.refusals:
        more = f" (and {len(problems) - 1} more: --dry-run lists them)" if len(problems) > 1 else ""
        raise RecipeError(f"{problems[0]}{more}")
    jobs = planned.stage_jobs(planned.job.run_dir)
    _require_ready(planned.executor, jobs)
    plans = [job.plan for job in jobs if job.plan is not None]
    require_space(plans, planned.job.run_dir.parent)
    if not quiet:
        tell_warnings(planned.warnings, planned.notes)
        tell_of_little_space(plans, planned.job.run_dir.parent)

    def fill(folder: Path, placed: Job) -> Job:
        is_elsewhere = placed.run_dir != planned.job.run_dir
        found = planned.stage_jobs(placed.run_dir) if is_elsewhere else jobs
        planned.write_stages(folder, placed.run_dir, found)
        return dataclasses.replace(placed, stages=found) if planned.starts_together else placed

    return start_job(planned.job, detach=detach, quiet=quiet, check=check, fill=fill)


def _require_ready(executor: Executor, jobs: Sequence[Job]) -> None:
    """Raise `RunError` if the executor cannot start the stages; checks one stage per layout."""
    shapes = {(job.layout.num_nodes, job.layout.processes_per_node): job for job in reversed(jobs)}
    for job in reversed(shapes.values()):
        try:
            executor.require_ready(job)
        except RunError as error:
            raise RunError(f"{job.name}: {error}") from None


def run_pipeline(
    pipeline: Pipeline,
    executor: Executor | None = None,
    runs_dir: str | Path = "runs",
    *,
    name: str | None = None,
    parallel: int | None = None,
    detach: bool = False,
    quiet: bool = False,
    check: bool = False,
) -> Run:
    """Check every stage of a pipeline, print the warnings, write its directory and start it.

    Args:
        pipeline: The stages.
        executor: Where they run; `None` means `LocalExecutor()`.
        runs_dir: Folder of the directory, whose name is the pipeline's name and the time.
        name: Name of the directory; `None` means the pipeline's.
        parallel: How many stages may run at once. `None` means one, but on a cluster as many as it starts: all stages
            are submitted at once with their dependencies, and no process stays on this machine.
        detach: Return once it runs. Otherwise print its log until it has ended; Ctrl-C stops it.
        quiet: Print no warnings, and not how the pipeline has ended.
        check: Raise `RunError` with the reason unless every stage has succeeded; not with `detach`.

    Raises:
        KeyboardInterrupt: Ctrl-C has stopped the pipeline, whose stages have saved their work and ended.
        RecipeError: A stage is not valid, lacks an input, or the executor cannot run it.
        RunError: The name cannot be used, the directory cannot be written, or the pipeline cannot be started; with
            `check`, it has not succeeded.
    """
    planned = plan_pipeline(pipeline, executor, name=name, runs_dir=runs_dir, parallel=parallel)
    return start_pipeline(planned, detach=detach, quiet=quiet, check=check)
