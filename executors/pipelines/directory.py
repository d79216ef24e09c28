"""The directory of a pipeline: its stages, their run directories and their states.

NAME-TIME/
    pipeline.json   the stages and their order
    stages/STAGE/   the run directory of each
    job.json, state.json, logs/, ...   as in every run: the pipeline itself is a run, whose process starts the stages
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from executors.pipelines.order import StageEnd, older_stages
from executors.pipelines.spec import is_pipeline, read_spec
from executors.runs.asked import evaluation_lines
from executors.runs.results import Evaluation, read_above_guessing, read_evaluations
from executors.runs.run import Run
from executors.runs.standing import RunStatus
from executors.runs.together import ask_together
from executors.warnings import joined_warnings, saved_warnings
from neva_recipes.config import format_value, iterate_fields, load_recipe
from neva_recipes.run_directory.layout import RECIPE_FILE
from neva_recipes.run_directory.metrics import TRAIN_LOSS, VAL_LOSS, read_metrics
from neva_recipes.run_directory.stages import pipeline_of, stage_directory
from neva_recipes.table import table_lines

__all__ = [
    "NOT_RUN",
    "StageStatus",
    "conclusion",
    "present_settings",
    "run_warnings",
    "settings_of",
    "stage_label",
    "stage_run",
    "stage_statuses",
    "stage_table",
    "was_stopped",
]

_TOLD = 3
NOT_RUN = "not run"
"""State of a stage that will not be started, because a stage before it has not succeeded."""

_STOPPED_STATES = ("succeeded", "cancelled", NOT_RUN)
"""States of stages in a pipeline that was stopped and in which no stage has failed."""


@dataclass(frozen=True)
class StageStatus:
    """The state of a stage.

    Attributes:
        name: Its name.
        settings: In a sweep, the fields that vary, with their values.
        state: State of its run; `waiting` before the start, `not run` if it will not be started.
        run: Its run.
        status: Status of the run.
        loss: Last training loss; `None` if there is none.
        validation_loss: Last validation loss; `None` if there is none.
        evaluations: Results of an evaluation; empty before its end, and for a stage that trains.
        older_than: If it has succeeded, or has a checkpoint to go on from: a stage whose output it takes and that was
            not done when it ended, or has gone on since; `None` if there is none.
    """

    name: str
    settings: dict[str, str]
    state: str
    run: Run
    status: RunStatus
    loss: float | None
    validation_loss: float | None
    evaluations: tuple[Evaluation, ...] = ()
    older_than: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether it has succeeded, with what the stages before it have made since."""
        return self.state == "succeeded" and self.older_than is None

    @property
    def is_lost(self) -> bool:
        """Whether it has ended without success or will not be run, so that later stages cannot run."""
        return self.state in ("failed", "cancelled", "lost", NOT_RUN) or self.could_not_begin_anew

    @property
    def could_not_begin_anew(self) -> bool:
        """Whether it should have been begun anew and has failed before it trained, which leaves its old success."""
        return self.state == "succeeded" and self.older_than is not None and self.status.reason is not None


def run_warnings(run: Run) -> list[str]:
    """Return the warnings of a run's plan, one line each; for a pipeline, those of its stages.

    Raises:
        RunError: A file of the run cannot be read.
    """
    if not is_pipeline(run.path):
        return [warning.line for warning in saved_warnings(run.saved_plan())]
    stages = read_spec(run.path).stages
    by_stage = [(stage.name, saved_warnings(stage_run(run.path, stage.name).saved_plan())) for stage in stages]
    return list(joined_warnings(by_stage, is_sweep=any(stage.settings for stage in stages)))


def stage_run(run_dir: Path, name: str) -> Run:
    """Return the run of a stage."""
    return Run(stage_directory(run_dir, name))


def stage_statuses(run_dir: Path, goes_on: bool | None = None) -> list[StageStatus]:
    """Return the states of the stages, in their order.

    Args:
        run_dir: Directory of the pipeline.
        goes_on: Whether stages may still be started; `None` checks whether the pipeline has ended.

    Raises:
        RunError: A file of the directory cannot be read.
    """
    goes_on = not Run(run_dir).has_ended() if goes_on is None else goes_on
    found: dict[str, StageStatus] = {}
    specs = read_spec(run_dir).stages
    runs = [stage_run(run_dir, stage.name) for stage in specs]
    ask_together(runs)
    statuses = {run.name: run.status() for run in runs}
    ends = {name: StageEnd(status.state, status.ended) for name, status in statuses.items()}
    older = older_stages(run_dir, specs, ends)
    for stage, run in zip(specs, runs, strict=True):
        status = statuses[stage.name]
        state: str = status.state
        is_blocked = any(found[name].is_lost for name in stage.after)
        # A cluster removes jobs whose dependency has failed from its queue, and may no longer know them.
        if status.started is None and (state == "created" or (is_blocked and state in ("cancelled", "lost"))):
            state = NOT_RUN if is_blocked or not goes_on else "waiting"
        metrics = read_metrics(run.path)
        loss, validation_loss = (
            metrics[name].last.value if name in metrics else None for name in (TRAIN_LOSS, VAL_LOSS)
        )
        settings = present_settings(run, stage.settings)
        # The run of a trained model holds later evaluations of it too, which are not results of this stage.
        has_some = state == "succeeded" and not (run.path / RECIPE_FILE).exists()
        evaluations = tuple(read_evaluations(run.path)) if has_some else ()
        values = settings, state, run, status, loss, validation_loss, evaluations, older.get(stage.name)
        found[stage.name] = StageStatus(stage.name, *values)
    return list(found.values())


def stage_label(name: str, settings: Mapping[str, str]) -> str:
    """Return the name of a stage with its settings."""
    shown = ", ".join(f"{field}={value}" for field, value in settings.items())
    return f"{name} ({shown})" if shown else name


def settings_of(run: Run) -> dict[str, str]:
    """Return the settings of a run that is a point of a sweep; empty for other runs.

    Raises:
        RunError: A file of the sweep cannot be read.
    """
    owner = pipeline_of(run.path)
    stages = read_spec(owner).stages if owner is not None else ()
    return next((present_settings(run, stage.settings) for stage in stages if stage.name == run.name), {})


def present_settings(run: Run, settings: dict[str, str]) -> dict[str, str]:
    """Return the settings of a stage, with the values that it was last resumed with."""
    earlier, *later = run.recipe_files()
    if not settings or not later:
        return settings
    before, after = (
        {field.path: field.value for field in iterate_fields(load_recipe(path))} for path in (earlier, later[-1])
    )
    changed = {name: format_value(after[name]) for name in settings if before.get(name) != after.get(name)}
    return settings | changed


def conclusion(stages: Sequence[StageStatus]) -> tuple[int, str | None]:
    """Return the exit code of a pipeline whose stages have ended, and the reason if it is not 0."""
    failed = [stage for stage in stages if not stage.is_done and stage.state != NOT_RUN]
    skipped = [stage.name for stage in stages if stage.state == NOT_RUN]
    if not failed and not skipped:
        return 0, None
    parts = [": ".join(filter(None, [_ending(stage), stage.status.reason])) for stage in failed]
    parts = [*parts[:_TOLD], f"and {len(parts) - _TOLD} more"] if len(parts) > _TOLD else parts
    if skipped:
        parts.append(f"not run: {_few(skipped)}")
    codes = {stage.status.exit_code or 1 for stage in failed}
    return (codes.pop() if len(codes) == 1 else 1), "; ".join(parts)


def was_stopped(stages: Sequence[StageStatus]) -> bool:
    """Return whether no stage of a pipeline that has ended without success has failed."""
    return all(stage.state in _STOPPED_STATES and not stage.could_not_begin_anew for stage in stages)


def _ending(stage: StageStatus) -> str:
    return _age(stage) if stage.older_than is not None and stage.state == "succeeded" else f"{stage.name} {stage.state}"


def _age(stage: StageStatus) -> str:
    return f"{stage.name} is older than {stage.older_than}, whose output it takes"


def stage_table(stages: Sequence[StageStatus]) -> list[str]:
    """Return a table of stages, then results of evaluations and losses to worry about, then why stages fail or wait."""
    settings = [stage.settings for stage in stages if stage.settings]
    rows = [
        [
            stage.name,
            stage.state,
            "-" if stage.status.step is None else str(stage.status.step),
            "-" if stage.loss is None else f"{stage.loss:.4g}",
            "-" if stage.validation_loss is None else f"{stage.validation_loss:.4g}",
            _duration(stage.status),
        ]
        for stage in stages
    ]
    head = ["POINT" if settings else "STAGE", "STATE", "STEP", "LOSS", "VAL LOSS", "TIME"]
    lines = [*table_lines([head, *rows], 2, [stage.settings for stage in stages] if settings else ())]
    lines = [*lines, *(f"{stage.name}: {line}" for stage in stages for line in evaluation_lines(stage.evaluations))]
    worse: dict[str, list[str]] = {}
    for stage in stages:
        if stage.loss is not None and (above := read_above_guessing(stage.run.path, stage.run.metrics())) is not None:
            worse.setdefault(above.text, []).append(stage.name)
    lines += [f"warning: {_few(names)}: {text}" for text, names in worse.items()]
    lines += [f"warning: {_age(stage)}: a resume begins it anew" for stage in stages if stage.older_than is not None]
    # The reasons of queued jobs differ in text although they all wait for the cluster, so only a few are shown.
    quiet = [stage.name for stage in stages if stage.state == "queued"][_TOLD:]
    told: dict[str, list[str]] = {}
    for stage in stages:
        if stage.status.reason and stage.state != NOT_RUN and stage.name not in quiet:
            told.setdefault(stage.status.reason, []).append(stage.name)
    reasons = [f"{_few(names)}: {reason}" for reason, names in told.items()]
    return [*lines, *reasons, *([f"{len(quiet)} more {'are' if len(quiet) > 1 else 'is'} queued"] if quiet else [])]


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_TOLD])
    return f"{shown} and {len(names) - _TOLD} more" if len(names) > _TOLD else shown


def _duration(status: RunStatus) -> str:
    passed = status.duration()
    return "-" if passed is None else str(timedelta(seconds=round(passed.total_seconds())))
