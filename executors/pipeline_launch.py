"""From a pipeline and an executor to a run that starts the runs of its stages."""

import copy
import dataclasses
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import fiddle as fdl

from executors._pipeline_directory import PipelineSpec, StageSpec
from executors._pipeline_executor import PipelineExecutor
from executors._state import State
from executors.base import Executor
from executors.job import Job
from executors.launch import check_name, job_of, start_job, write_run_directory
from executors.local import LocalExecutor
from executors.pipeline import Pipeline, Stage, Tool
from executors.runs import Run
from neva_recipes.config import RecipeError, RunError, UserError, build, expand_path, path_is
from neva_recipes.plan import Finding, Plan, Planner
from neva_recipes.secrets import secret_in

__all__ = ["PipelineJob", "StagePlan", "plan_pipeline", "run_pipeline", "start_pipeline"]

_DRIVER = (sys.executable, "-P", "-m", "executors._pipeline_driver")
_TOOL = (sys.executable, "-P", "-m", "neva_model.tool")

_LONGEST_GRACE = 3600.0
_GRACE_OF_A_CLUSTER = 60.0
_MARGIN = 20.0


@dataclass(frozen=True)
class StagePlan:
    """A stage, looked at before anything runs.

    Attributes:
        stage: The stage.
        after: Names of the stages it waits for.
        plan: The plan of its recipe; none for a tool.
        problems: What keeps it from running, a line each.
    """

    stage: Stage
    after: tuple[str, ...]
    plan: Plan | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class PipelineJob:
    """A pipeline, made ready to be started.

    Attributes:
        job: What runs the pipeline itself.
        executor: Where its stages run.
        stages: The stages with their plans, each behind those it waits for.
    """

    job: Job
    executor: Executor
    stages: tuple[StagePlan, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """What keeps it from running, a line each; every line starts with the name of its stage."""
        return tuple(f"{_label(entry.stage)}: {line}" for entry in self.stages for line in entry.problems)

    def stage_jobs(self, directory: Path) -> tuple[Job, ...]:
        """Return the jobs of all stages.

        Args:
            directory: Absolute path of the pipeline.
        """
        outputs = _outputs([entry.stage for entry in self.stages], directory)
        return tuple(self._stage_job(entry, directory, outputs) for entry in self.stages)

    def _stage_job(self, entry: StagePlan, directory: Path, outputs: Mapping[str, str]) -> Job:
        work = _resolved(entry.stage, outputs)
        run_dir = directory / "stages" / entry.stage.name
        if entry.plan is not None:
            job = job_of(work, entry.plan, self.executor, name=entry.stage.name, runs_dir=directory)
            return dataclasses.replace(job, run_dir=run_dir)
        tool: Tool = build(work, entry.stage.name)
        argv = tool.argv(str(run_dir / tool.output))
        job = Job(
            name=entry.stage.name,
            created=self.job.created,
            run_dir=run_dir,
            executor=self.executor,
            argv=_TOOL,
            env={},
            cwd=Path.cwd(),
            inputs={"tool.json": json.dumps({"module": tool.module, "arguments": argv}, indent=2)},
        )
        return dataclasses.replace(job, env=self.executor.job_environment(job.layout))

    @property
    def starts_together(self) -> bool:
        """Whether all stages are started at once, as they are planned."""
        waits = any(entry.after for entry in self.stages)
        return isinstance(self.job.executor, PipelineExecutor) and self.executor.starts_together and not waits

    def write_stages(self, folder: Path, directory: Path, jobs: Sequence[Job] | None = None) -> None:
        """Write the run directory of every stage.

        Args:
            folder: Where.
            directory: Absolute path that the folder will have.
            jobs: The jobs of the stages in that directory, if they are known.
        """
        for job in self.stage_jobs(directory) if jobs is None else jobs:
            target = folder / "stages" / job.name
            target.mkdir(parents=True, exist_ok=True)
            if self.starts_together:
                write_run_directory(target, job, State(state="created"))
                continue
            # What only a start needs, such as plan.json, is written by it.
            files = job.inputs | {"job.json": job.to_json()}
            if job.recipe_yaml is not None:
                files["recipe.yaml"] = job.recipe_yaml
            for name, text in files.items():
                (target / name).write_text(text, encoding="utf-8", errors="surrogateescape")


def plan_pipeline(
    pipeline: Pipeline,
    executor: Executor | None = None,
    *,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    parallel: int | None = None,
) -> PipelineJob:
    """Return what would be started, with the plan of every stage; writes nothing.

    Args:
        pipeline: The stages.
        executor: Where they run; none means `LocalExecutor()`.
        name: Name of the directory; none means the pipeline's.
        runs_dir: Folder of the directory, which is called after the name and the time.
        parallel: How many stages may run at once. None means one, and on a cluster as many as it starts: it is told at
            once what waits for what, and no process stays here.

    Raises:
        RecipeError: A stage has a field of a wrong value; the text starts with the name of the stage.
        RunError: The name cannot be used.
    """
    executor = executor or LocalExecutor()
    chosen = pipeline.name if name is None else name
    check_name(chosen)
    if kind := secret_in(str(runs_dir)):
        raise RunError(f"runs_dir: holds {kind}, and paths of runs are shown everywhere: choose another one")
    if parallel is not None and parallel < 1:
        raise RunError(f"parallel={parallel}: expected at least 1")
    moment = datetime.now().astimezone()
    directory = Path(runs_dir).resolve() / f"{chosen}-{moment:%Y%m%d-%H%M%S}"
    outputs = _outputs(pipeline.stages, directory)
    planner = Planner(executor)
    stages = tuple(
        _plan_stage(stage, tuple(before.name for before in pipeline.after(stage)), outputs, planner)
        for stage in pipeline.stages
    )
    specs = tuple(StageSpec(entry.stage.name, entry.after, dict(entry.stage.settings)) for entry in stages)
    job = Job(
        name=chosen,
        created=moment.isoformat(),
        run_dir=directory,
        executor=_executor_of_pipeline(executor, parallel),
        argv=_DRIVER,
        env={},
        cwd=Path.cwd(),
        inputs={"pipeline.json": PipelineSpec(chosen, parallel or 1, specs).to_json()},
    )
    job = dataclasses.replace(job, env=job.executor.job_environment(job.layout))
    return PipelineJob(job, executor, stages)


def start_pipeline(planned: PipelineJob, *, detach: bool = False) -> Run:
    """Write the directory of a pipeline and start it.

    Args:
        planned: What to start.
        detach: Return once it runs instead of showing its log until it has ended.

    Raises:
        RecipeError: Something keeps a stage from running.
        RunError: The directory cannot be written, or the pipeline cannot be started.
    """
    if problems := planned.problems:
        more = f" (and {len(problems) - 1} more: --dry-run lists them)" if len(problems) > 1 else ""
        raise RecipeError(f"{problems[0]}{more}")
    jobs = planned.stage_jobs(planned.job.run_dir)
    _require_ready(planned.executor, jobs)

    def fill(folder: Path, placed: Job) -> Job:
        is_elsewhere = placed.run_dir != planned.job.run_dir
        found = planned.stage_jobs(placed.run_dir) if is_elsewhere else jobs
        planned.write_stages(folder, placed.run_dir, found)
        return dataclasses.replace(placed, stages=found) if planned.starts_together else placed

    return start_job(planned.job, detach=detach, fill=fill)


def _require_ready(executor: Executor, jobs: Sequence[Job]) -> None:
    """Raise `RunError` if the place cannot take the stages; one of each number of processes is asked for."""
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
) -> Run:
    """Check every stage of a pipeline, write its directory and start it.

    Args:
        pipeline: The stages.
        executor: Where they run; none means `LocalExecutor()`.
        runs_dir: Folder of the directory, which is called after the name and the time.
        name: Name of the directory; none means the pipeline's.
        parallel: How many stages may run at once. None means one, and on a cluster as many as it starts: it is told at
            once what waits for what, and no process stays here.
        detach: Return once it runs. Otherwise its log is printed until it has ended; Ctrl-C cancels it.

    Raises:
        RecipeError: A stage is not valid, lacks an input, or cannot be run there.
        RunError: The name cannot be used, the directory cannot be written, or the pipeline cannot be started.
    """
    return start_pipeline(
        plan_pipeline(pipeline, executor, name=name, runs_dir=runs_dir, parallel=parallel), detach=detach
    )


def _plan_stage(stage: Stage, after: tuple[str, ...], outputs: Mapping[str, str], planner: Planner) -> StagePlan:
    work = _resolved(stage, outputs)
    try:
        if stage.trains:
            planned = planner.plan(work)
            problems = tuple(finding.line() for finding in _errors(stage, planned))
            return StagePlan(stage, after, planned, problems)
    except UserError as error:
        raise RecipeError(f"{_label(stage)}: {error}") from None
    try:
        tool: Tool = build(work, stage.name)
    except UserError as error:
        return StagePlan(stage, after, None, (str(error).removeprefix(f"{stage.name}."),))
    return StagePlan(stage, after, None, tuple(_missing_files(stage, tool)))


def _errors(stage: Stage, planned: Plan) -> Iterator[Finding]:
    """Yield what keeps a recipe from running, but that what another stage will make is not there yet."""
    waits_for = {path for path, _ in stage.inputs()}
    for finding in planned.errors:
        is_due = finding.code == "file-missing" and waits_for.issuperset(finding.fields)
        if not is_due and not (finding.about == "memory" and planned.gpu_assumed):
            yield finding


def _missing_files(stage: Stage, tool: Tool) -> Iterator[str]:
    waits_for = {path for path, _ in stage.inputs()}
    for name in ("model", "data", "image_folder"):
        value = getattr(tool, name, None)
        if value is not None and name not in waits_for and not path_is(expand_path(value)):
            yield f"{name}={value}: no such file or folder"


def _outputs(stages: Iterable[Stage], directory: Path) -> dict[str, str]:
    """Return where each stage puts what it makes: the run of a recipe is its own directory."""
    found = {}
    for stage in stages:
        run_dir = directory / "stages" / stage.name
        kind: Any = fdl.get_callable(stage.work)
        found[stage.name] = str(run_dir if stage.trains else run_dir / kind.output)
    return found


def _resolved(stage: Stage, outputs: Mapping[str, str]) -> Any:
    """Return what a stage does with paths in the fields that take what other stages make."""
    inputs = list(stage.inputs())
    if stage.trains and not inputs:
        return stage.work
    work: Any = copy.deepcopy(stage.work)
    for path, output in inputs:
        *groups, name = path.split(".")
        node = work
        for group in groups:
            node = getattr(node, group)
        setattr(node, name, outputs[output.stage])
    if not stage.trains:
        for name in ("data", "image_folder", "model"):
            value = work.__arguments__.get(name)
            if isinstance(value, str) and path_is(expand_path(value)):
                setattr(work, name, str(expand_path(value).absolute()))
    return work


def _label(stage: Stage) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in stage.settings.items())
    return f"{stage.name} ({settings})" if settings else stage.name


def _executor_of_pipeline(executor: Executor, parallel: int | None) -> Executor:
    if parallel is None and executor.after([]) is not None:
        return PipelineExecutor(env=executor.env)
    return LocalExecutor(env=executor.env, grace_seconds=_grace_seconds(executor))


def _grace_seconds(executor: Executor) -> float:
    """Return how long the process of the pipeline has to end its stages."""
    grace = executor.grace_seconds if isinstance(executor, LocalExecutor) else _GRACE_OF_A_CLUSTER
    return min(_LONGEST_GRACE, grace + _MARGIN)
