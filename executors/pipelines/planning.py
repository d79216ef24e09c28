"""Plans a pipeline: every stage of it, before anything runs."""

import dataclasses
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import fiddle as fdl

from executors.base import ONE_PROCESS, Executor, Job
from executors.findings import is_due
from executors.job_record import tool_needs
from executors.launch import check_name, job_of, write_run_directory
from executors.local import LocalExecutor
from executors.pipelines.directory import stage_label
from executors.pipelines.executor import PipelineExecutor
from executors.pipelines.spec import PipelineSpec, StageSpec
from executors.pipelines.tool_checks import checked_tool, used_recipe
from executors.pipelines.tool_stage import tool_text
from executors.settling import Settler
from executors.warnings import PlanWarning, joined_warnings, notes_of, stage_lines, warnings_of
from neva_recipes.config import (
    MODEL_INPUTS,
    Recipe,
    RecipeError,
    RunError,
    UserError,
    build,
    field_types,
    input_paths,
    local_path,
    owned,
    with_absolute_inputs,
)
from neva_recipes.pipeline import Pipeline, Stage, StageOutput, Tool, unmade_parts
from neva_recipes.plan import Finding, Layout, Plan, Planner
from neva_recipes.run_directory.layout import JOB_FILE, RECIPE_FILE
from neva_recipes.run_directory.stages import PIPELINE_FILE, TOOL_FILE, stage_directory
from neva_recipes.run_directory.state import State
from neva_recipes.secrets import secret_in

__all__ = ["PipelineJob", "StagePlan", "plan_pipeline"]

_DRIVER = (sys.executable, "-P", "-m", "executors.pipelines.driver")
_TOOL = (sys.executable, "-P", "-m", "neva_model.tool")

_LONGEST_GRACE = 3600.0
_GRACE_OF_A_CLUSTER = 60.0
_MARGIN = 20.0


@dataclass(frozen=True)
class StagePlan:
    """A stage that was checked before anything runs.

    Attributes:
        stage: The stage.
        after: Names of the stages it waits for.
        plan: The plan of its recipe; `None` for a tool.
        problems: Errors that prevent it from running anywhere, one line each.
        not_here: Errors that prevent only a start from here: missing files and GPUs, and limits of the executor.
        warnings: Its warnings.
        chosen: Fields of a tool that the user has left open, with what it takes in their place.
        used: The recipe of the model that a tool uses; `None` if unknown.
    """

    stage: Stage
    after: tuple[str, ...]
    plan: Plan | None
    problems: tuple[str, ...]
    not_here: tuple[Finding, ...] = ()
    warnings: tuple[PlanWarning, ...] = ()
    chosen: Mapping[str, str] = field(default_factory=dict)
    used: Recipe | None = None

    @property
    def layout(self) -> Layout | None:
        """Its nodes and processes, one of each for a tool; `None` if errors of its recipe leave them open."""
        return ONE_PROCESS if self.plan is None else self.plan.layout


@dataclass(frozen=True)
class PipelineJob:
    """A pipeline that is ready to be started.

    Attributes:
        job: The job of the pipeline itself.
        executor: The executor of its stages.
        stages: The stages with their plans, each after the stages it waits for.
    """

    job: Job
    executor: Executor
    stages: tuple[StagePlan, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """Errors that prevent it from running anywhere, one line each with its stage, or its number of points."""
        return self._lines((entry.stage, line) for entry in self.stages for line in entry.problems)

    @property
    def not_here(self) -> tuple[str, ...]:
        """Errors that prevent only a start from here, in the form of `problems`; those about this machine first."""
        return self._not_here(about_machine=True) + self._not_here(about_machine=False)

    @property
    def refusals(self) -> tuple[str, ...]:
        """All errors, in the form of `problems`; those about this machine first: nothing helps without a GPU."""
        return self._not_here(about_machine=True) + self.problems + self._not_here(about_machine=False)

    def _not_here(self, *, about_machine: bool) -> tuple[str, ...]:
        found = [(entry.stage, error) for entry in self.stages for error in entry.not_here]
        return self._lines(
            (stage, error.line(_typed(stage))) for stage, error in found if (error.about == "machine") == about_machine
        )

    def _lines(self, found: Iterable[tuple[Stage, str]]) -> tuple[str, ...]:
        points = len(self.stages) if self._is_sweep else None
        return tuple(stage_lines(((_label(stage), line) for stage, line in found), points))

    @property
    def _is_sweep(self) -> bool:
        return any(entry.stage.settings for entry in self.stages)

    @property
    def refused_here(self) -> tuple[str, ...]:
        """The codes of the errors in `not_here`, each once."""
        return tuple(dict.fromkeys(error.code for entry in self.stages for error in entry.not_here))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Its warnings, one line each, with the stages or the number of points that they concern."""
        by_stage = [(entry.stage.name, entry.warnings) for entry in self.stages]
        return tuple(joined_warnings(by_stage, is_sweep=self._is_sweep))

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing of its plans, in the form of `warnings`."""
        by_stage = [(entry.stage.name, notes_of(entry.plan)) for entry in self.stages]
        return tuple(joined_warnings(by_stage, is_sweep=self._is_sweep))

    def stage_jobs(self, directory: Path) -> tuple[Job, ...]:
        """Return the jobs of all stages.

        Args:
            directory: Absolute path of the pipeline.
        """
        outputs = _outputs([entry.stage for entry in self.stages], directory)
        return tuple(self._stage_job(entry, directory, outputs) for entry in self.stages)

    def _stage_job(self, entry: StagePlan, directory: Path, outputs: Mapping[str, str]) -> Job:
        work = _resolved(entry.stage, outputs)
        run_dir = stage_directory(directory, entry.stage.name)
        executor = self.executor.of_later_stage() if entry.after else self.executor
        if entry.plan is not None:
            job = job_of(work, entry.plan, executor, name=entry.stage.name, runs_dir=directory)
            return dataclasses.replace(job, run_dir=run_dir, reads=self._made_for(entry, outputs))
        tool: Tool = build(work, entry.stage.name)
        text = tool_text(tool, run_dir, entry.chosen, on_gpu=self._is_on_gpu(entry))
        job = Job(
            name=entry.stage.name,
            created=self.job.created,
            run_dir=run_dir,
            executor=executor,
            argv=_TOOL,
            env={},
            cwd=Path.cwd(),
            inputs={TOOL_FILE: text},
            on_gpu=self._is_on_gpu(entry),
        )
        reads = (*tool_needs(json.loads(text))[0], *self._made_for(entry, outputs))
        return dataclasses.replace(job, env=executor.job_environment(job.layout), reads=reads)

    def _is_on_gpu(self, entry: StagePlan) -> bool:
        """Return whether a tool uses a GPU: as its model did in training, or if unknown, as the other stages do."""
        kind: Any = fdl.get_callable(entry.stage.work)
        if not kind.can_use_gpu:
            return False
        recipes = [other.plan.recipe for other in self.stages if other.plan is not None]
        return any(recipe.trainer.accelerator != "cpu" for recipe in (recipes if entry.used is None else [entry.used]))

    def _made_for(self, entry: StagePlan, outputs: Mapping[str, str]) -> tuple[Path, ...]:
        """Return the outputs of other stages that a stage reads, and what is read with the models among them."""
        stages = {other.stage.name: other for other in self.stages}
        found: list[Path] = []
        for _, output in entry.stage.inputs():
            found.append(Path(outputs[output.stage]))
            if (before := stages[output.stage]).plan is not None:
                found += [
                    *input_paths(_resolved(before.stage, outputs), MODEL_INPUTS),
                    *self._made_for(before, outputs),
                ]
        return tuple(dict.fromkeys(found))

    @property
    def starts_together(self) -> bool:
        """Whether all stages are started together, directly as they are planned."""
        waits = any(entry.after for entry in self.stages)
        return isinstance(self.job.executor, PipelineExecutor) and self.executor.starts_together and not waits

    def write_stages(self, folder: Path, directory: Path, jobs: Sequence[Job] | None = None) -> None:
        """Write the run directory of every stage.

        Args:
            folder: Folder to write to.
            directory: Absolute path that the folder will have.
            jobs: The jobs of the stages in that directory, if already made.
        """
        for job in self.stage_jobs(directory) if jobs is None else jobs:
            target = stage_directory(folder, job.name)
            target.mkdir(parents=True, exist_ok=True)
            if self.starts_together:
                write_run_directory(target, job, State(state="created"))
                continue
            # The start of a stage writes the other files, such as plan.json.
            files = job.inputs | {JOB_FILE: job.to_json()}
            if job.recipe_yaml is not None:
                files[RECIPE_FILE] = job.recipe_yaml
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
    """Return the job that would be started, with the plan of every stage; writes nothing.

    Args:
        pipeline: The stages.
        executor: Where they run; `None` means `LocalExecutor()`.
        name: Name of the directory; `None` means the pipeline's.
        runs_dir: Folder of the directory, whose name is the pipeline's name and the time.
        parallel: How many stages may run at once. `None` means one, but on a cluster as many as it starts: all stages
            are submitted at once with their dependencies, and no process stays on this machine.

    Raises:
        RecipeError: A field of a stage has a wrong value; the message starts with the name of the stage.
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
    directory = local_path(runs_dir, "runs_dir").resolve() / f"{chosen}-{moment:%Y%m%d-%H%M%S}"
    planner = Planner(executor, runs_dir=runs_dir)
    stages = tuple(_told_apart(_plan_stages(pipeline, directory, planner, Settler(runs_dir))))
    specs = tuple(StageSpec(entry.stage.name, entry.after, dict(entry.stage.settings)) for entry in stages)
    job = Job(
        name=chosen,
        created=moment.isoformat(),
        run_dir=directory,
        executor=_executor_of_pipeline(executor, parallel),
        argv=_DRIVER,
        env={},
        cwd=Path.cwd(),
        inputs={PIPELINE_FILE: PipelineSpec(chosen, parallel or 1, specs).to_json()},
    )
    job = dataclasses.replace(job, env=job.executor.job_environment(job.layout))
    return PipelineJob(job, executor, stages)


def _plan_stages(pipeline: Pipeline, directory: Path, planner: Planner, settler: Settler) -> list[StagePlan]:
    """Return the plan of each stage, which may use what the stages before it make.

    Raises:
        RecipeError: A field of a stage has a wrong value; the message starts with the name of the stage.
    """
    outputs = _outputs(pipeline.stages, directory)
    planned: list[StagePlan] = []
    exported: dict[str, Recipe] = {}
    for stage in pipeline.stages:
        made = {entry.stage.name: entry.plan.recipe for entry in planned if entry.plan is not None}
        settled = _settled(stage.as_it_stands(), settler, made)
        after = tuple(before.name for before in pipeline.after(stage))
        used = used_recipe(settled.work, made | exported)
        entry = _plan_stage(settled, after, outputs, planner, used)
        if entry.plan is not None:
            planner.expect(outputs[stage.name], entry.plan.recipe)
        elif used is not None:
            exported[stage.name] = used
        planned.append(dataclasses.replace(entry, problems=(*entry.problems, *unmade_parts(settled, pipeline))))
    return planned


def _settled(stage: Stage, settler: Settler, made: Mapping[str, Recipe]) -> Stage:
    try:
        return dataclasses.replace(stage, work=settler.settle(stage.work, made))
    except UserError as error:
        raise RecipeError(f"{_label(stage)}: {error}") from None


def _plan_stage(
    stage: Stage, after: tuple[str, ...], outputs: Mapping[str, str], planner: Planner, used: Recipe | None
) -> StagePlan:
    work = _resolved(stage, outputs)
    try:
        if stage.trains:
            planned = planner.plan(work)
            errors = tuple(_errors(planned, outputs.values()))
            problems = tuple(error.line(_typed(stage)) for error in errors if not error.is_of_here)
            not_here = tuple(error for error in errors if error.is_of_here)
            return StagePlan(stage, after, planned, problems, not_here, tuple(warnings_of(planned)))
    except UserError as error:
        raise RecipeError(f"{_label(stage)}: {error}") from None
    try:
        tool: Tool = build(work, stage.name)
    except UserError as error:
        return StagePlan(stage, after, None, (str(error).removeprefix(f"{stage.name}."),))
    checked = checked_tool(tool, used, field_types(fdl.get_callable(stage.work)), planner)
    missing = tuple(finding for finding in checked.missing if not is_due(finding, outputs.values()))
    return StagePlan(stage, after, None, checked.problems, missing, checked.warnings, checked.chosen, used)


def _told_apart(stages: Iterable[StagePlan]) -> Iterator[StagePlan]:
    """Yield the stages; adds a problem to each point of a sweep whose recipe equals that of an earlier point."""
    seen: dict[str, str] = {}
    for entry in stages:
        if entry.plan is None or not entry.stage.settings:
            yield entry
            continue
        known = seen.setdefault(repr(entry.plan.recipe), _label(entry.stage))
        same = () if known == _label(entry.stage) else (f"trains what {known} trains, for their recipes are equal",)
        yield dataclasses.replace(entry, problems=(*entry.problems, *same))


def _errors(planned: Plan, made: Collection[str]) -> Iterator[Finding]:
    """Yield the errors of a recipe, without those about files that another stage will have made, or an assumed GPU.

    A tokenizer may come along from a run whose own is such a file.
    """
    for finding in planned.errors:
        will_be_there = finding.code == "file-missing" and is_due(finding, made)
        is_assumed = finding.about == "memory" and planned.gpu_assumed
        if not will_be_there and not is_assumed:
            yield finding


def _outputs(stages: Iterable[Stage], directory: Path) -> dict[str, str]:
    """Return the path of each stage's output, by name; for a stage that trains it is the run directory."""
    found = {}
    for stage in stages:
        run_dir = stage_directory(directory, stage.name)
        kind: Any = fdl.get_callable(stage.work)
        found[stage.name] = str(run_dir if stage.trains else run_dir / kind.output)
    return found


def _resolved(stage: Stage, outputs: Mapping[str, str]) -> Any:
    """Return the work of a stage with paths in place of the outputs of other stages."""
    work: Any = owned(stage.work)
    for path in {path for path, _ in stage.inputs()}:
        *groups, name = path.split(".")
        node = work
        for group in groups:
            node = getattr(node, group)
        setattr(node, name, _with_paths(getattr(node, name), outputs))
    return work if stage.trains else with_absolute_inputs(work)


def _with_paths(value: Any, outputs: Mapping[str, str]) -> Any:
    """Return the value of a field with paths in place of outputs, which may be items of a list."""
    if isinstance(value, list):
        return [_with_paths(item, outputs) for item in value]
    return value.in_folder(outputs[value.stage]) if isinstance(value, StageOutput) else value


def _label(stage: Stage) -> str:
    return stage_label(stage.name, stage.settings)


def _typed(stage: Stage) -> str:
    """Return the prefix of a stage's fields on the command line; empty for a point of a sweep."""
    return "" if stage.settings else stage.name


def _executor_of_pipeline(executor: Executor, parallel: int | None) -> Executor:
    if parallel is None and executor.after([]) is not None:
        return PipelineExecutor(env=executor.env)
    return LocalExecutor(env=executor.env, grace_seconds=_grace_seconds(executor))


def _grace_seconds(executor: Executor) -> float:
    """Return how many seconds the process of the pipeline has to end its stages."""
    grace = executor.grace_seconds if isinstance(executor, LocalExecutor) else _GRACE_OF_A_CLUSTER
    return min(_LONGEST_GRACE, grace + _MARGIN)
