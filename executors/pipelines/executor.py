"""Runs a pipeline through the dependencies between jobs of a cluster, without a process of its own."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from executors.base import Executor, Job, RefusedError, SupervisorEntry
from executors.job_record import load_executor, read_job_record
from executors.pipelines.directory import (
    StageStatus,
    conclusion,
    stage_label,
    stage_run,
    stage_statuses,
    stage_table,
    was_stopped,
)
from executors.pipelines.spec import read_spec
from executors.pipelines.stage_start import resume_stage
from executors.process.rank import trains
from executors.runs.run import Run
from executors.runs.together import ask_together, request_cancel_together, request_stop_together
from executors.script import run_directory_script
from neva_recipes.config import RunError, UserError, config_dataclass
from neva_recipes.plan import Layout, Planner
from neva_recipes.run_directory.exit_codes import EXIT_STOPPED
from neva_recipes.run_directory.layout import joined_log
from neva_recipes.run_directory.lock import lock_or_warn
from neva_recipes.run_directory.stages import run_title
from neva_recipes.run_directory.state import ACTIVE, UNDER_WAY, State, now, read_state, write_state
from neva_recipes.terminal import one_line

__all__ = ["PipelineExecutor"]


@config_dataclass
class PipelineExecutor(Executor):
    """Starts all stages of a pipeline at once, each to wait for those before it; `env` is that of their executor."""

    kind: ClassVar[str] = "pipeline"
    answer_seconds: ClassVar[float] = 5.0
    outlives_command: ClassVar[bool] = True
    takes_stop: ClassVar[bool] = True

    def check(self, layout: Layout) -> None:
        """Accept every layout: each stage asks its own executor."""

    def job_environment(self, layout: Layout) -> dict[str, str]:
        """Return `env`."""
        return dict(self.env)

    def script(self, job: Job) -> str:
        """Return a shell script that starts the stages of a written pipeline that are not done."""
        return run_directory_script(job, (sys.executable, "-P", "-m", "executors"))

    def start(self, job: Job, *, lock: int, lifeline: int | None) -> None:
        """Start every stage that has not succeeded and does not wait or run.

        Raises:
            RefusedError: The backend refuses a stage; the stages started by this call are cancelled.
            RunError: A stage cannot be started; the stages started by this call are cancelled.
        """
        state, spec = read_state(job.run_dir), read_spec(job.run_dir)
        runs = {stage.name: stage_run(job.run_dir, stage.name) for stage in spec.stages}
        ask_together(runs.values())
        states = {name: run.status().state for name, run in runs.items()}
        is_chain = any(stage.after for stage in spec.stages)
        statuses = stage_statuses(job.run_dir, goes_on=True) if is_chain and not job.stages else []
        older = {stage.name for stage in statuses if stage.older_than is not None}
        done = {name for name, known in states.items() if known == "succeeded" and name not in older}
        due = [stage for stage in spec.stages if stage.name not in done and states[stage.name] not in UNDER_WAY]
        started = [runs[stage.name] for stage in due]
        if job.stages:
            self._start_written(job)
        elif len(due) > 1 and not is_chain and (executor := self._executor_of(started[0])).starts_together:
            self._start_together(started, executor, job.run_dir)
        else:
            for number, stage in enumerate(due):
                run, before = runs[stage.name], [runs[name] for name in stage.after if name not in done]
                try:
                    # Its warnings were shown when the pipeline was started.
                    resume_stage(run, executor=self._executor_of(run), after=before, is_older=stage.name in older)
                except UserError as error:
                    request_cancel_together(started[:number][::-1], force=True)
                    kind = RefusedError if isinstance(error, RefusedError) else RunError
                    raise kind(f"{stage.name}: {error}") from None
        settings = {stage.name: stage.settings for stage in due}
        _note(
            job.run_dir,
            [one_line(f"--- {stage_label(run.name, settings[run.name])} submitted: {run.path}") for run in started],
        )
        supervisor = {"directory": str(job.run_dir)}
        write_state(job.run_dir, dataclasses.replace(state, state="running", started=now(), supervisor=supervisor))

    def _executor_of(self, run: Run) -> Executor:
        return load_executor(read_job_record(run.path), {**os.environ, **self.env})

    def _start_written(self, job: Job) -> None:
        """Start stages that have just been written, as they were planned, with one submission."""
        with contextlib.ExitStack() as locks:
            for stage in job.stages:
                locks.callback(os.close, _lock_of_new(stage))
            job.stages[0].executor.start_together(job.stages, job.run_dir)

    def _start_together(self, runs: Sequence[Run], executor: Executor, folder: Path) -> None:
        """Start runs that have no dependencies with one submission."""
        planner, asked = Planner(executor), set()

        def require_ready(job: Job) -> None:
            shape = job.layout.num_nodes, job.layout.processes_per_node
            if shape not in asked:
                executor.require_ready(job)
                asked.add(shape)

        with contextlib.ExitStack() as locks:
            jobs = []
            for run in runs:
                prepared = run.prepared(executor=executor, planner=planner, require_ready=require_ready)
                try:
                    jobs.append(locks.enter_context(prepared)[0])
                except UserError as error:
                    raise RunError(f"{run.name}: {error}") from None
            executor.start_together(jobs, folder)

    @classmethod
    def is_alive(cls, supervisor: SupervisorEntry) -> bool | None:
        """Return `False`, because the pipeline has no process; `outcome` returns its state."""
        return False

    @classmethod
    def outcome(cls, run_dir: Path, supervisor: SupervisorEntry) -> State:
        """Return the state of the pipeline from those of its stages; at the end, writes their table to its log."""
        stages = stage_statuses(run_dir, goes_on=True)
        active = [stage for stage in stages if stage.status.state in ACTIVE and not stage.is_lost]
        if any(stage.status.state == "running" for stage in active):
            return State(state="running")
        if active:
            return State(state="queued", reason=f"{active[0].name}: {active[0].status.reason or 'waits'}")
        code, reason = conclusion(stages)
        with contextlib.suppress(OSError):
            _note(run_dir, stage_table(stages))
        if code == 0:
            return State(state="succeeded")
        if was_stopped(stages):
            is_stopped = any(stage.status.exit_code == EXIT_STOPPED for stage in stages)
            return State(state="cancelled", exit_code=EXIT_STOPPED if is_stopped else None, reason=reason)
        return State(state="failed", exit_code=code, reason=reason)

    @classmethod
    def request_cancel(cls, run_dir: Path, supervisor: SupervisorEntry, *, force: bool) -> None:
        """Cancel the stages that have not ended, the last ones first, so that none starts in between.

        Raises:
            RunError: A stage cannot be cancelled from here.
        """
        runs = [stage.run for stage in _under_way(run_dir)]
        _raise_unless_ended(runs, request_cancel_together(runs, force))

    @classmethod
    def request_stop(cls, run_dir: Path, supervisor: SupervisorEntry) -> None:
        """Ask the running stages that train to save and end; first cancel all others.

        Raises:
            RunError: A stage cannot be reached from here.
        """
        saving: list[Run] = []
        rest: list[Run] = []
        for stage in _under_way(run_dir):
            is_saving = stage.status.state == "running" and trains(stage.run.record()["argv"])
            (saving if is_saving else rest).append(stage.run)
        refused = request_cancel_together(rest) | request_stop_together(saving)
        _raise_unless_ended([*rest, *saving], refused)


def _under_way(run_dir: Path) -> list[StageStatus]:
    """Return the stages that are queued or running, the last one first."""
    stages = reversed(stage_statuses(run_dir, goes_on=True))
    return [stage for stage in stages if stage.status.state in UNDER_WAY]


def _raise_unless_ended(runs: Sequence[Run], refused: Mapping[Path, RunError]) -> None:
    for run in runs:
        if run.path in refused and not run.has_ended():
            raise refused[run.path]


def _note(run_dir: Path, lines: Iterable[str]) -> None:
    """Append lines to the log of a pipeline."""
    log_path = joined_log(run_dir)
    with log_path.open("a", encoding="utf-8", errors="surrogateescape") as log:
        log.writelines(f"{line}\n" for line in lines)


def _lock_of_new(job: Job) -> int:
    """Return the lock of a stage that has just been written."""
    try:
        lock = lock_or_warn(job.run_dir)
    except OSError as error:
        raise RunError(f"run {run_title(job.run_dir)} cannot be started: {error}") from None
    if lock is None:
        raise RunError(f"run {run_title(job.run_dir)} is in use: somebody has started it by itself")
    return lock
