"""A pipeline whose stages wait for each other by the place they run in, without any process of ours."""

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from executors._lock import lock_or_warn
from executors._pipeline_directory import NOT_RUN, conclusion, read_spec, stage_run, stage_statuses, stage_table
from executors._script import run_directory_script
from executors._state import State, now, read_state, write_state
from executors.base import Executor, RefusedError
from executors.job import load_executor, read_job_record
from executors.runs import Run, ask_together, request_cancel_together
from neva_recipes.config import RunError, UserError
from neva_recipes.plan import Layout, Planner

if TYPE_CHECKING:
    from executors.job import Job

__all__ = ["PipelineExecutor"]

_ACTIVE = ("created", "queued", "running")


@dataclass(frozen=True, kw_only=True)
class PipelineExecutor(Executor):
    """Starts all stages of a pipeline at once, each to wait for those before it; `env` is that of their executor."""

    kind: ClassVar[str] = "pipeline"
    answer_seconds: ClassVar[float] = 5.0
    outlives_command: ClassVar[bool] = True

    def check(self, layout: Layout) -> None:
        """Accept every layout: each stage asks its own executor."""

    def job_environment(self, layout: Layout) -> dict[str, str]:
        """Return `env`."""
        return dict(self.env)

    def script(self, job: "Job") -> str:
        """Return shell text that starts what is not done of a written pipeline."""
        return run_directory_script(job, (sys.executable, "-P", "-m", "executors"))

    def start(self, job: "Job", *, lock: int, lifeline: int | None) -> None:
        """Start every stage that is not done; those that still wait or run are left as they are.

        Raises:
            RefusedError: The place does not take a stage; those that were started for this are cancelled.
            RunError: A stage cannot be started; the same.
        """
        state, spec = read_state(job.run_dir), read_spec(job.run_dir)
        runs = {stage.name: stage_run(job.run_dir, stage.name) for stage in spec.stages}
        ask_together(runs.values())
        states = {name: run.status().state for name, run in runs.items()}
        due = [stage for stage in spec.stages if states[stage.name] not in ("succeeded", "queued", "running")]
        started = [runs[stage.name] for stage in due]
        is_chain = any(stage.after for stage in spec.stages)
        if job.stages:
            self._start_written(job)
        elif len(due) > 1 and not is_chain and (executor := self._executor_of(started[0])).starts_together:
            self._start_together(started, executor, job.run_dir)
        else:
            for number, stage in enumerate(due):
                before = [runs[name] for name in stage.after if states[name] != "succeeded"]
                try:
                    runs[stage.name].resume(detach=True, executor=self._executor_of(runs[stage.name]), after=before)
                except UserError as error:
                    request_cancel_together(started[:number][::-1], force=True)
                    kind = RefusedError if isinstance(error, RefusedError) else RunError
                    raise kind(f"{stage.name}: {error}") from None
        _note(job.run_dir, [f"--- {run.name} submitted: {run.path}" for run in started])
        supervisor = {"directory": str(job.run_dir)}
        write_state(job.run_dir, dataclasses.replace(state, state="running", started=now(), supervisor=supervisor))

    def _executor_of(self, run: Run) -> Executor:
        return load_executor(read_job_record(run.path), {**os.environ, **self.env})

    def _start_written(self, job: "Job") -> None:
        """Start stages that have just been written, and are as they were planned, by one submission."""
        with contextlib.ExitStack() as locks:
            for stage in job.stages:
                locks.callback(os.close, _lock_of_new(stage))
            job.stages[0].executor.start_together(job.stages, job.run_dir)

    def _start_together(self, runs: Sequence[Run], executor: Executor, folder: Path) -> None:
        """Start runs that wait for nothing by one submission."""
        planner, asked = Planner(executor), set()

        def require_ready(job: "Job") -> None:
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
    def is_alive(cls, supervisor: Mapping[str, Any]) -> bool | None:
        """Return false: nothing of ours lives on, and `outcome` tells how the stages stand."""
        return False

    @classmethod
    def outcome(cls, run_dir: Path, supervisor: Mapping[str, Any]) -> State:
        """Return how the pipeline stands, from its stages; what has become of them is put into its log at the end."""
        stages = stage_statuses(run_dir, goes_on=True)
        active = [stage for stage in stages if stage.status.state in _ACTIVE and not stage.is_lost]
        if any(stage.status.state == "running" for stage in active):
            return State(state="running")
        if active:
            return State(state="queued", reason=f"{active[0].name}: {active[0].status.reason or 'waits'}")
        code, reason = conclusion(stages)
        with contextlib.suppress(OSError):
            _note(run_dir, stage_table(stages))
        if code == 0:
            return State(state="succeeded")
        if all(stage.state in ("succeeded", "cancelled", NOT_RUN) for stage in stages):
            return State(state="cancelled", reason=reason)
        return State(state="failed", exit_code=code, reason=reason)

    @classmethod
    def request_cancel(cls, run_dir: Path, supervisor: Mapping[str, Any], *, force: bool) -> None:
        """Cancel the stages that have not ended, the last ones first, so that none starts in between.

        Raises:
            RunError: One cannot be cancelled from here.
        """
        stages = reversed(stage_statuses(run_dir, goes_on=True))
        runs = [stage.run for stage in stages if stage.status.state in ("queued", "running")]
        refused = request_cancel_together(runs, force)
        for run in runs:
            if run.path in refused and not run.has_ended():
                raise refused[run.path]


def _note(run_dir: Path, lines: Iterable[str]) -> None:
    """Write lines into the log of a pipeline."""
    log_path = run_dir / "logs" / "joined.log"
    with log_path.open("a", encoding="utf-8", errors="surrogateescape") as log:
        log.writelines(f"{line}\n" for line in lines)


def _lock_of_new(job: "Job") -> int:
    """Return the lock of a stage that has just been written."""
    try:
        lock = lock_or_warn(job.run_dir)
    except OSError as error:
        raise RunError(f"{job.name}: cannot be started: {error}") from None
    if lock is None:
        raise RunError(f"{job.name}: is in use: somebody has started it by itself")
    return lock
