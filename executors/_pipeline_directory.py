"""The directory of a pipeline: which stages it has, where their runs are, and how they stand.

NAME-TIME/
    pipeline.json   the stages and their order
    stages/STAGE/   the run directory of each
    job.json, state.json, logs/, ...   as of every run: the pipeline itself is one, whose process starts the others
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from executors._metrics import last_values
from executors._table import table_lines
from executors.runs import Run, RunStatus, ask_together
from neva_recipes.config import RunError, format_value, iterate_fields, load_recipe

__all__ = [
    "NOT_RUN",
    "PipelineSpec",
    "StageSpec",
    "StageStatus",
    "conclusion",
    "is_pipeline",
    "read_spec",
    "stage_run",
    "stage_statuses",
    "stage_table",
]

_SPEC = "pipeline.json"
_TOLD = 3
NOT_RUN = "not run"
"""State of a stage that will not be started, because of what has become of those before it."""

_LOSS, _VALIDATION_LOSS = "reduced_train_loss", "val_loss"


@dataclass(frozen=True)
class StageSpec:
    """A stage as pipeline.json holds it.

    Attributes:
        name: Its name.
        after: Names of the stages it waits for.
        settings: What tells it from its neighbours: in a sweep, the fields that vary.
    """

    name: str
    after: tuple[str, ...]
    settings: dict[str, str]


@dataclass(frozen=True)
class PipelineSpec:
    """Content of pipeline.json.

    Attributes:
        name: Name of the pipeline.
        parallel: Stages that may run at once.
        stages: The stages, each behind those it waits for.
    """

    name: str
    parallel: int
    stages: tuple[StageSpec, ...]

    def to_json(self) -> str:
        """Return the text of pipeline.json."""
        stages = [{"name": stage.name, "after": list(stage.after), "settings": stage.settings} for stage in self.stages]
        record = {"schema": 1, "name": self.name, "parallel": self.parallel, "stages": stages}
        return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class StageStatus:
    """How a stage stands.

    Attributes:
        name: Its name.
        settings: What tells it from its neighbours.
        state: That of its run; `waiting` before it has been started, `not run` if it will not be.
        run: Its run.
        status: How the run stands.
        loss: Last training loss; none if there is none.
        validation_loss: Last validation loss; none if there is none.
    """

    name: str
    settings: dict[str, str]
    state: str
    run: Run
    status: RunStatus
    loss: float | None
    validation_loss: float | None

    @property
    def is_lost(self) -> bool:
        """Whether it has ended without success, or will not be run, so that nothing after it can be."""
        return self.state in ("failed", "cancelled", "lost", NOT_RUN)


def is_pipeline(run_dir: Path) -> bool:
    """Return whether a run directory is that of a pipeline or a sweep."""
    return (run_dir / _SPEC).is_file()


def read_spec(run_dir: Path) -> PipelineSpec:
    """Return pipeline.json of a directory.

    Raises:
        RunError: It is missing or not what is written there.
    """
    path = run_dir / _SPEC
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record["schema"] != 1:
            raise ValueError(f"schema {record['schema']!r}, expected 1")
        stages = tuple(StageSpec(entry["name"], tuple(entry["after"]), entry["settings"]) for entry in record["stages"])
        return PipelineSpec(record["name"], record["parallel"], stages)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: cannot be read as the stages of a pipeline: {error}") from None


def stage_run(run_dir: Path, name: str) -> Run:
    """Return the run of a stage."""
    return Run(run_dir / "stages" / name)


def stage_statuses(run_dir: Path, goes_on: bool | None = None) -> list[StageStatus]:
    """Return how each stage stands, in their order.

    Args:
        run_dir: Directory of the pipeline.
        goes_on: Whether stages may still be started; none looks whether the pipeline has ended.

    Raises:
        RunError: A file of the directory cannot be read.
    """
    goes_on = not Run(run_dir).has_ended() if goes_on is None else goes_on
    found: dict[str, StageStatus] = {}
    specs = read_spec(run_dir).stages
    runs = [stage_run(run_dir, stage.name) for stage in specs]
    ask_together(runs)
    for stage, run in zip(specs, runs, strict=True):
        status = run.status()
        state: str = status.state
        is_blocked = any(found[name].is_lost for name in stage.after)
        # A cluster takes what cannot be run any more from its queue, and may have forgotten that since.
        if status.started is None and (state == "created" or (is_blocked and state in ("cancelled", "lost"))):
            state = NOT_RUN if is_blocked or not goes_on else "waiting"
        losses = last_values(run.path, (_LOSS, _VALIDATION_LOSS))
        loss, validation_loss = losses.get(_LOSS), losses.get(_VALIDATION_LOSS)
        settings = _present_settings(run, stage.settings)
        found[stage.name] = StageStatus(stage.name, settings, state, run, status, loss, validation_loss)
    return list(found.values())


def _present_settings(run: Run, settings: dict[str, str]) -> dict[str, str]:
    """Return what tells a stage from its neighbours, with the values that it has been resumed with."""
    earlier, *later = run.recipe_files()
    if not settings or not later:
        return settings
    before, after = (
        {field.path: field.value for field in iterate_fields(load_recipe(path))} for path in (earlier, later[-1])
    )
    changed = {name: format_value(after[name]) for name in settings if before.get(name) != after.get(name)}
    return settings | changed


def conclusion(stages: Sequence[StageStatus]) -> tuple[int, str | None]:
    """Return the exit code of a pipeline whose stages have ended, and what failed and was not run if it is not 0."""
    failed = [stage for stage in stages if stage.state not in ("succeeded", NOT_RUN)]
    skipped = [stage.name for stage in stages if stage.state == NOT_RUN]
    if not failed and not skipped:
        return 0, None
    parts = [": ".join(filter(None, [f"{stage.name} {stage.state}", stage.status.reason])) for stage in failed]
    parts = [*parts[:_TOLD], f"and {len(parts) - _TOLD} more"] if len(parts) > _TOLD else parts
    if skipped:
        parts.append(f"not run: {_few(skipped)}")
    codes = {stage.status.exit_code or 1 for stage in failed}
    return (codes.pop() if len(codes) == 1 else 1), "; ".join(parts)


def stage_table(stages: Sequence[StageStatus]) -> list[str]:
    """Return a table of stages as lines, and below it what those have met that have failed or wait."""
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
    lines = table_lines([head, *rows], 2, [stage.settings for stage in stages] if settings else ())
    # Jobs of a cluster wait for one thing, each in words of its own.
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
    if status.started is None:
        return "-"
    end = status.ended or datetime.now(status.started.tzinfo)
    return str(timedelta(seconds=max(0, round((end - status.started).total_seconds()))))
