"""Runs: a directory that says what was started, how it stands, and what it printed."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import fiddle as fdl

from executors import _process, _standing
from executors._checks import require_files, require_possible
from executors._folding import FOLDING_SECONDS, LineFolder
from executors._foreground import start
from executors._lock import lock_or_warn
from executors._logs import LogReader, position_of_tail, position_of_time
from executors._metrics import last_step
from executors._standing import ENDED, POLL_SECONDS, Standing
from executors._state import State, clear_unfinished, read_json, reserve_space, write_atomically, write_state
from executors.base import Executor
from executors.job import WORKER_ARGV, Job, executor_class, load_executor, read_job_record
from neva_recipes.config import (
    Recipe,
    RunError,
    load_recipe,
    recipe_to_yaml,
    replaced_values,
    with_absolute_inputs,
)
from neva_recipes.plan import Planner
from neva_recipes.plan.serialization import PLAN_SCHEMA, plan_to_json

__all__ = ["Run", "RunState", "RunStatus", "ask_together", "cancel_together", "request_cancel_together"]

RunState = Literal["created", "queued", "running", "succeeded", "failed", "cancelled", "lost"]

_LOCK_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class RunStatus:
    """How a run stands.

    Attributes:
        state: created, queued (waiting for resources), running, succeeded, failed, cancelled, or lost (its supervisor
            is gone without a final state).
        exit_code: The run's exit code; none until it has ended. 130 when cancelled, 75 if it was asked to save its work
            first, 1 when lost.
        reason: One line on why it failed, was cancelled or lost, or what it waits for; none otherwise.
        started: When its processes were last started.
        ended: When they had ended.
        step: Last optimizer step in its metrics; none before the first.
        attempt: 1 for the first start, one more for each time it was resumed.
    """

    state: RunState
    exit_code: int | None
    reason: str | None
    started: datetime | None
    ended: datetime | None
    step: int | None
    attempt: int


class Run:
    """One run, by its directory; works from any process on the machine.

    Args:
        path: Absolute path of the run directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._standing = Standing(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.path.name

    def status(self) -> RunStatus:
        """Return how the run stands now.

        Raises:
            RunError: job.json cannot be read.
        """
        state = self._standing.state()
        name: Any = state.state
        return RunStatus(
            state=name,
            exit_code=state.exit_code,
            reason=state.reason,
            started=datetime.fromisoformat(state.started).astimezone() if state.started else None,
            ended=datetime.fromisoformat(state.ended).astimezone() if state.ended else None,
            step=last_step(self.path),
            attempt=state.attempt,
        )

    def record(self) -> dict[str, Any]:
        """Return job.json: what was started where, by which code.

        Raises:
            RunError: It cannot be read.
        """
        return read_job_record(self.path)

    def executor(self) -> Executor:
        """Return the executor it was started with; values of secret variables are taken from the environment.

        Raises:
            RunError: job.json cannot be read, or one of those variables is not set.
        """
        return load_executor(self.record(), os.environ)

    def saved_plan(self) -> dict[str, Any] | None:
        """Return plan.json, in the form of `neva_recipes.plan.serialization`; none where there is none.

        Raises:
            RunError: It cannot be read, or is of another form.
        """
        path = self.path / "plan.json"
        try:
            saved: dict[str, Any] = read_json(path)
            if saved["schema"] != PLAN_SCHEMA:
                raise ValueError(f"schema {saved['schema']!r}, expected {PLAN_SCHEMA}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: cannot be read as the plan of a run: {error}") from None
        return saved

    def recipe_files(self) -> list[Path]:
        """Return the recipes it has had, oldest first: recipe.1.yaml, ... before it was resumed with another."""
        earlier: list[Path] = []
        while (path := self._earlier_recipe(len(earlier) + 1)).exists():
            earlier.append(path)
        return [*earlier, self.path / "recipe.yaml"]

    def newest_checkpoint(self) -> Path | None:
        """Return its newest complete checkpoint, which is its result once it has succeeded; none before the first."""
        # A checkpoint gets this name when it is whole; names sort by step.
        return max((path for path in self.path.glob("checkpoints/step-*") if path.is_dir()), default=None)

    def has_ended(self) -> bool:
        """Return whether nothing of the run is left to wait for.

        Raises:
            RunError: job.json cannot be read.
        """
        return self._standing.has_ended()

    def logs(
        self,
        follow: bool = False,
        rank: int | None = None,
        *,
        since: datetime | None = None,
        tail: int | None = None,
        fold: bool = False,
    ) -> Iterator[str]:
        """Return the lines of the joined log, or of one rank's, without their ends.

        Args:
            follow: Wait for more until the run has ended.
            rank: Whose log; none for the joined one.
            since: Leave out what was printed before, give or take ten seconds.
            tail: Begin with the last so many lines.
            fold: Make one line, such as `[0-63] text`, of those that ranks print alike. The lines of each rank stay in
                their order.

        Raises:
            RunError: There is no such rank, the times of the lines are not known, or job.json cannot be read.
        """
        size = read_job_record(self.path)["world_size"]
        if rank is not None and not 0 <= rank < size:
            raise RunError(f"run {self.name} has no rank {rank}: expected 0 to {size - 1}")
        log = self.path / "logs" / ("joined.log" if rank is None else f"rank-{rank}.log")
        start = 0
        if since is not None and log.exists() and log.stat().st_size:
            found = position_of_time(log, since.timestamp())
            if found is None:
                instead = "the last N lines" if rank is not None else "one rank's lines, or for the last N"
                raise RunError(f"{log}: the times of its lines were not kept: ask for {instead} instead")
            start = found
        if tail is not None:
            start = max(start, position_of_tail(log, tail))
        folder = LineFolder(size) if fold and rank is None and size > 1 else None
        return self._lines(LogReader(log, start), follow, folder)

    def cancel(self, force: bool = False) -> None:
        """Stop the run, and return when all its processes have ended.

        Args:
            force: Give the ranks no time to end by themselves.

        Raises:
            RunError: It is not running, or cannot be reached from here.
        """
        self.request_cancel(force)
        self.wait()

    def request_cancel(self, force: bool = False) -> None:
        """Ask the run to stop, and return at once.

        Args:
            force: Give the ranks no time to end by themselves.

        Raises:
            RunError: It is not running, or cannot be reached from here.
        """
        self._standing.request_cancel(force)

    def wait(self) -> int:
        """Return the exit code of the run once it has ended.

        Raises:
            RunError: job.json cannot be read.
        """
        while (code := self._standing.state().exit_code) is None:
            time.sleep(POLL_SECONDS)
        return code

    def resume(
        self,
        recipe: fdl.Buildable[Recipe] | None = None,
        detach: bool = False,
        *,
        executor: Executor | None = None,
        after: "Sequence[Run] | None" = None,
    ) -> None:
        """Start the run again in the same directory; its worker goes on from the newest complete checkpoint.

        Args:
            recipe: A changed recipe, which becomes recipe.yaml, the old one being kept as recipe.N.yaml; none for the
                recipe as it lies there.
            detach: Return once it runs instead of showing its log until it has ended.
            executor: Where, from here on; none for the executor it had.
            after: Runs that must succeed before, for an executor that can wait for them; what is beside the run is not
                asked for before it starts.

        Raises:
            RecipeError: The recipe is not valid, or lacks an input.
            RunError: The run is in use, or cannot be started.
        """
        with self.prepared(recipe, executor=executor, after=after) as (job, lock):
            waiting = job.executor.after([run.supervisor() for run in after or ()])
            # What it waits for is written nowhere: the next start waits for something else, or nothing.
            start(dataclasses.replace(job, executor=waiting or job.executor), lock, detach=detach)

    @contextlib.contextmanager
    def prepared(
        self,
        recipe: fdl.Buildable[Recipe] | None = None,
        *,
        executor: Executor | None = None,
        after: "Sequence[Run] | None" = None,
        planner: Planner | None = None,
        require_ready: Callable[[Job], None] | None = None,
    ) -> Iterator[tuple[Job, int]]:
        """Hold the lock of the run, ready to be started: yields its job, and the descriptor of the lock.

        Errors are those of `resume`.

        Args:
            recipe: As for `resume`.
            executor: As for `resume`.
            after: As for `resume`.
            planner: Plans it among others that are started with it; none plans it by itself.
            require_ready: Raises `RunError` if the place cannot take the job; none asks the executor.
        """
        job = self._job_again(recipe, executor, None if after is None else self.path.parent, planner)
        (require_ready or job.executor.require_ready)(job)
        lock = self._take_lock()
        try:
            try:
                self._prepare(job)
            except OSError as error:
                raise RunError(f"run {self.name} cannot be resumed: {error}") from None
            yield job, lock
        finally:
            os.close(lock)

    def place(self) -> str | None:
        """Return what people find it by in the place where it was started last; none if there is nothing to say.

        Raises:
            RunError: job.json cannot be read.
        """
        return executor_class(self.record()).place(self.supervisor())

    def supervisor(self) -> dict[str, Any]:
        """Return what the executor knows the run by, as it stands in state.json."""
        return self._standing.state().supervisor

    def _job_again(
        self,
        changed: fdl.Buildable[Recipe] | None,
        executor: Executor | None,
        due: Path | None,
        planner: Planner | None,
    ) -> Job:
        """Return the job of the directory, with another recipe and executor if they are given.

        Args:
            changed: The other recipe.
            executor: The other executor.
            due: Folder whose files are still to be made.
            planner: Plans it; none plans it by itself.
        """
        record = read_job_record(self.path)
        executor = executor or load_executor(record, os.environ)
        job = Job(
            name=record["name"],
            created=record["created"],
            run_dir=self.path,
            executor=executor,
            argv=tuple(record["argv"]),
            env={},
            cwd=Path(record["cwd"]),
            command_line=record.get("command_line", {}),
        )
        recipe_file = self.path / "recipe.yaml"
        if not recipe_file.exists() and job.argv != WORKER_ARGV:  # a program without a recipe
            return dataclasses.replace(job, env=executor.job_environment(job.layout))
        old = load_recipe(recipe_file)
        planned = (planner or Planner(executor)).plan(old if changed is None else changed)
        require_possible(planned)
        require_files(planned, due)
        assert planned.layout is not None  # where there is no layout there are errors
        text = recipe_file.read_text(encoding="utf-8")
        if changed is not None:
            new = recipe_to_yaml(with_absolute_inputs(changed))
            text = text if new == recipe_to_yaml(old) else new
        return dataclasses.replace(
            job,
            recipe_yaml=text,
            plan=planned,
            env=executor.job_environment(planned.layout),
            command_line={**job.command_line, **({} if changed is None else replaced_values(changed))},
        )

    def _take_lock(self) -> int:
        """Return the lock of the directory; a run that has just ended is given the time to let go of it."""
        deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
        was_lost = self._standing.state().state == "lost"  # which a free lock can show, and cannot once it is ours
        try:
            while (lock := lock_or_warn(self.path)) is None and self.has_ended() and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        except OSError as error:
            raise RunError(f"run {self.name} cannot be resumed: {error}") from None
        state = self._standing.state()
        is_free = state.state in ENDED or not state.supervisor or (was_lost and state.state == "created")
        if lock is not None and is_free:
            return lock
        if lock is not None:
            os.close(lock)
        owner = f" on {state.supervisor['hostname']}" if "hostname" in state.supervisor else ""
        raise RunError(f"run {self.name} is in use: {state.state}{owner}; cancel it first")

    def _prepare(self, job: Job) -> None:
        """Bring the directory into the state `created`, whatever the last attempt has left."""
        self._replace_recipe(job)
        clear_unfinished(self.path)
        (self.path / "logs").mkdir(exist_ok=True)
        (self.path / "failure.json").unlink(missing_ok=True)
        write_atomically(self.path / "job.json", job.to_json())
        write_atomically(self.path / "launch.sh", job.script(), mode=0o777)
        reserve_space(self.path)
        state = self._standing.state()
        attempt = state.attempt + 1 if state.supervisor else 1
        write_state(self.path, State(state="created", attempt=attempt, supervisor=_process.identify(os.getpid())))

    def _replace_recipe(self, job: Job) -> None:
        if job.recipe_yaml is None or job.plan is None:
            return
        recipe_file, plan_file = self.path / "recipe.yaml", self.path / "plan.json"
        old = recipe_file.read_text(encoding="utf-8")
        if job.recipe_yaml != old:
            *earlier, _ = self.recipe_files()
            # One that was killed here may have kept the old recipe already.
            if not earlier or earlier[-1].read_text(encoding="utf-8") != old:
                write_atomically(self._earlier_recipe(len(earlier) + 1), old)
            plan_file.unlink(missing_ok=True)
            write_atomically(recipe_file, job.recipe_yaml)
        if not plan_file.exists():
            write_atomically(plan_file, plan_to_json(job.plan))

    def _earlier_recipe(self, number: int) -> Path:
        return self.path / f"recipe.{number}.yaml"

    def _lines(self, reader: LogReader, follow: bool, folder: LineFolder | None) -> Iterator[str]:
        # The state is read first: what it calls final has written all its lines.
        while follow and not self.has_ended():
            yield from _new_lines(reader, folder)
            # Ranks do not print the same line in the same moment.
            time.sleep(POLL_SECONDS if folder is None else FOLDING_SECONDS)
        yield from _new_lines(reader, folder)
        rest = reader.read_rest()
        yield from rest if folder is None else [*folder.feed(rest), *folder.flush()]


def _new_lines(reader: LogReader, folder: LineFolder | None) -> Iterator[str]:
    for batch in reader.batches():
        yield from batch if folder is None else folder.feed(batch)
    if folder is not None:
        yield from folder.flush()


def ask_together(runs: Iterable[Run]) -> None:
    """Ask the places of runs how they stand, once each place that can tell of many; `status` then goes by that."""
    _standing.ask_together(run._standing for run in runs)


def cancel_together(runs: Sequence[Run], force: bool = False) -> Iterator[tuple[Run, RunError | None]]:
    """Stop runs, those of one place by as few requests as it takes.

    Each is yielded, in their order, when all its processes have ended. Those that cannot be stopped come at the end,
    with the reason of each.

    Args:
        runs: The runs.
        force: Give the ranks no time to end by themselves.
    """
    refused = request_cancel_together(runs, force)
    left = [run for run in runs if run.path not in refused]
    while left:
        ask_together(left)
        while left and left[0].has_ended():
            yield left.pop(0), None
        time.sleep(POLL_SECONDS if left else 0)
    yield from ((run, refused[run.path]) for run in runs if run.path in refused)


def request_cancel_together(runs: Sequence[Run], force: bool = False) -> dict[Path, RunError]:
    """Ask runs to stop, and return at once: with why it cannot be asked, by run directory, where it cannot."""
    return _standing.request_cancel_together([run._standing for run in runs], force)
