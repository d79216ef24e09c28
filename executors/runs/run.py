"""Runs, each a directory with what was started, its state, and its logs."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from executors.base import Executor, Job
from executors.disk import require_space, tell_of_little_space
from executors.job_record import executor_class, load_executor, read_job_record
from executors.pipelines.order import require_inputs
from executors.process.log_lines import read_log
from executors.runs.again import finished_length, job_again
from executors.runs.attempt import prepare, require_free, take_lock
from executors.runs.foreground import require_foreground, start
from executors.runs.going_back import find_earlier
from executors.runs.results import Curves, Results, read_results
from executors.runs.standing import POLL_SECONDS, RunStatus, Standing
from executors.settling import with_named_runs
from neva_recipes.config import (
    CheckpointError,
    Draft,
    PlainTable,
    Recipe,
    RunError,
    build,
    load_recipe,
    with_absolute_inputs,
)
from neva_recipes.plan import Planner
from neva_recipes.plan.resuming import changed_data, notes_on
from neva_recipes.plan.serialization import PLAN_SCHEMA
from neva_recipes.run_directory.layout import CHECKPOINTS, PLAN_FILE, RECIPE_FILE
from neva_recipes.run_directory.metrics import Curve, read_metrics, trained_steps
from neva_recipes.run_directory.names import earlier_recipes, list_checkpoints, listed_step
from neva_recipes.run_directory.stages import pipeline_of, run_title
from neva_recipes.run_directory.state import read_json, seconds_so_far
from neva_recipes.terminal import tell

__all__ = ["Run"]


class Run:
    """One run, given by its directory; works from any process on the machine.

    Args:
        path: Path of the run directory; the attribute of this name is absolute.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._standing = Standing(self.path)

    def __repr__(self) -> str:
        state = self._standing.state_here()
        return f"Run({str(self.path)!r}{f', {state.state}' if state is not None else ''})"

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.path.name

    def status(self) -> RunStatus:
        """Return the present status of the run.

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
            step=trained_steps(self.path),
            attempt=state.attempt,
            earlier=timedelta(seconds=state.earlier_seconds),
            passed=timedelta(seconds=seconds_so_far(self.path, state)) if state.has_no_end else None,
        )

    def record(self) -> PlainTable:
        """Return the content of job.json: the command, the executor and the code version.

        Raises:
            RunError: It cannot be read.
        """
        return read_job_record(self.path)

    def executor(self) -> Executor:
        """Return the executor it was started with; takes secret variables from the environment.

        Raises:
            RunError: job.json cannot be read, or a secret variable is not set.
        """
        return load_executor(self.record(), os.environ)

    def saved_plan(self) -> PlainTable | None:
        """Return the content of plan.json, in the form of `neva_recipes.plan.serialization`; `None` if it is missing.

        Raises:
            RunError: It cannot be read, or has another form.
        """
        path = self.path / PLAN_FILE
        try:
            saved: PlainTable = read_json(path)
            if saved["schema"] != PLAN_SCHEMA:
                raise ValueError(f"schema {saved['schema']!r}, expected {PLAN_SCHEMA}")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: cannot be read as the plan of a run: {error}") from None
        return saved

    def recipe_files(self) -> list[Path]:
        """Return the recipes of the run, oldest first: recipe.1.yaml, ... were replaced when it was resumed."""
        return [*earlier_recipes(self.path), self.path / RECIPE_FILE]

    def newest_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint, the result of a run that has succeeded; `None` before the first."""
        return next(reversed(list_checkpoints(self.path / CHECKPOINTS)), None)

    def metrics(self) -> dict[str, Curve]:
        """Return the logged metrics by name, each a curve of steps and values; empty before the first logged step.

        A name that does not exist is a `KeyError` with the nearest that do.
        """
        return Curves(read_metrics(self.path))

    def results(self) -> Results:
        """Return the results so far: losses, speed and time with their planned values, and evaluations.

        Raises:
            RunError: job.json cannot be read.
        """
        plan = None
        with contextlib.suppress(RunError):
            plan = self.saved_plan()
        return read_results(self.path, self.status(), plan)

    def has_ended(self) -> bool:
        """Return whether the run has ended or is lost.

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
        """Return the lines of the joined log or of one rank's log, without newlines.

        Args:
            follow: Wait for more until the run has ended.
            rank: The rank; `None` for the joined log.
            since: Leave out lines printed before this time; up to ten seconds more may be included.
            tail: Begin with the last `tail` lines.
            fold: Merge equal lines of several ranks into one, such as `[0-63] text`. The lines of each rank stay in
                order.

        Raises:
            RunError: There is no such rank, the times of the lines are unknown, or job.json cannot be read.
        """

        def goes_on() -> bool:
            return follow and not self.has_ended()

        return read_log(self.path, goes_on, POLL_SECONDS, rank=rank, since=since, tail=tail, fold=fold)

    def cancel(self, force: bool = False, *, save: bool = False) -> None:
        """Stop the run, and return when all its processes have ended.

        Args:
            force: Give the ranks no time to end by themselves.
            save: Let the ranks save a checkpoint after the current step and then end: `status` has the exit code 75,
                or 0 if that step was the last. Stages of a pipeline that have nothing to save are cancelled.

        Raises:
            RunError: The run is not running or cannot be reached from here; with `save`, the run trains nothing, its
                executor cannot ask it, or `force` is set too.
        """
        if force and save:
            raise RunError("cancel: with force the ranks are killed and cannot save: leave out one of the two")
        if save:
            self._standing.request_stop()
        else:
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

    def resume_notes(
        self, recipe: Draft[Recipe] | None = None, go_on_from: str | None = None, typed: Sequence[str] = ()
    ) -> list[str]:
        """Return lines about what would change if the run went on with a recipe.

        Args:
            recipe: The changed recipe; `None` for that of the run directory.
            go_on_from: As for `resume`.
            typed: The words that changed the recipe, if any were typed; a command that is advised has them.

        Raises:
            UserError: The recipe is not valid or does not fit the checkpoint, or the checkpoint cannot be used.
        """
        checkpoint = self.newest_checkpoint() if go_on_from is None else find_earlier(self.path, go_on_from)
        if checkpoint is None:
            return []
        own: Recipe = build(with_absolute_inputs(load_recipe(self.path / RECIPE_FILE)))
        wanted = own if recipe is None else build(with_absolute_inputs(self._with_named_runs(recipe)))
        notes = self._notes_on(checkpoint, wanted, typed)
        with contextlib.suppress(RunError, OSError):
            notes += changed_data(self.saved_plan(), own, wanted, (self.path / PLAN_FILE).stat().st_mtime)
        return notes

    def _notes_on(self, checkpoint: Path, recipe: Recipe, typed: Sequence[str] = ()) -> list[str]:
        """Return what `notes_on` returns; raises "in use" if the checkpoint fails because the run is in use."""
        try:
            return notes_on(checkpoint, recipe, typed, has_succeeded=self._standing.state().state == "succeeded")
        except CheckpointError:
            os.close(take_lock(self.path, self._standing))  # raises if the run is in use
            raise

    def finished_line(self, recipe: Draft[Recipe] | None = None) -> str | None:
        """Return a line which says that the run has succeeded and that a recipe leaves it nothing to train, or `None`.

        Args:
            recipe: As for `resume`.

        Raises:
            UserError: As for `resume_notes`.
        """
        checkpoint = self.newest_checkpoint()
        if checkpoint is None or self._standing.state().state != "succeeded":
            return None
        wanted = load_recipe(self.path / RECIPE_FILE) if recipe is None else self._with_named_runs(recipe)
        if (length := finished_length(build(with_absolute_inputs(wanted)), listed_step(checkpoint))) is None:
            return None
        if self.resume_notes(recipe) and not length.is_certain:  # refuses one that differs, unless in its passes
            return None
        return f"run {run_title(self.path)} is finished: {length.done}; to train longer, set {length.longer}"

    def resume(
        self,
        recipe: Draft[Recipe] | None = None,
        detach: bool = False,
        *,
        quiet: bool = False,
        executor: Executor | None = None,
        after: "Sequence[Run] | None" = None,
        go_on_from: str | None = None,
        anew: bool = False,
        notes: Sequence[str] = (),
        check: bool = False,
    ) -> bool:
        """Start the run again in the same directory; the worker goes on from the newest complete checkpoint.

        A run that is finished is not started: a note says so, and `False` is returned.

        Args:
            recipe: A changed recipe, which becomes recipe.yaml, while the old one is kept as recipe.N.yaml; `None` for
                that of the run directory. Names of runs in it become paths, as in `settle`.
            detach: Return once it runs instead of showing its log until it has ended.
            quiet: Do not print the warnings of its plan, and not how the run has ended.
            executor: The new executor; `None` for that of the last start.
            after: Runs that must succeed first, for an executor with dependencies between jobs; files beside the run
                directory need not exist yet.
            go_on_from: An earlier checkpoint, such as `step-4`; newer ones are set aside.
            anew: Begin from the start, even if it is finished; all checkpoints are set aside.
            notes: Lines to print just before the start, such as those of `resume_notes`.
            check: Raise `RunError` with the reason unless the run has succeeded; not with `detach`.

        Raises:
            KeyboardInterrupt: Ctrl-C has stopped the run, which has saved its work and ended.
            RecipeError: The recipe is not valid, or lacks an input.
            RunError: It is in use or cannot be started, has no such checkpoint, is a stage for which others must go on
                first, or has not succeeded, with `check`.
        """
        require_foreground(detach=detach, check=check)
        if go_on_from is None and not anew and self._is_finished(recipe, in_order=after is not None):
            return False
        with self.prepared(recipe, executor=executor, after=after, go_on_from=go_on_from, anew=anew) as (job, lock):
            if job.plan is not None and not quiet:
                there = len(list_checkpoints(self.path / CHECKPOINTS))
                tell_of_little_space([job.plan], self.path, there=there, is_new=False)
            for line in notes:
                tell("note", line)
            waiting = job.executor.after([run.supervisor() for run in after or ()])
            # The dependency is not stored, because the next start has another one or none.
            job = dataclasses.replace(job, executor=waiting or job.executor)
            start(job, lock, detach=detach, quiet=quiet, check=check)
        return True

    def _is_finished(self, recipe: Draft[Recipe] | None, *, in_order: bool) -> bool:
        """Return whether the run is finished, and say so; a stage that is started by itself must have its inputs.

        Args:
            recipe: As for `resume`.
            in_order: Whether it is started together with the stages before it.
        """
        if not in_order:
            require_inputs(self.path, None if recipe is None else self._with_named_runs(recipe))
        line = self.finished_line(recipe)
        if line is not None:
            tell("note", line)
        return line is not None

    @contextlib.contextmanager
    def prepared(
        self,
        recipe: Draft[Recipe] | None = None,
        *,
        executor: Executor | None = None,
        after: "Sequence[Run] | None" = None,
        planner: Planner | None = None,
        require_ready: Callable[[Job], None] | None = None,
        go_on_from: str | None = None,
        anew: bool = False,
    ) -> Iterator[tuple[Job, int]]:
        """Prepare the run to be started and hold its lock: yields its job and the descriptor of the lock.

        Raises as `resume` does.

        Args:
            recipe: As for `resume`.
            executor: As for `resume`.
            after: As for `resume`.
            planner: Planner shared with other runs that are started together; `None` for a new one.
            require_ready: Raises `RunError` if the job cannot be started; `None` for the executor's `require_ready`.
            go_on_from: As for `resume`.
            anew: As for `resume`.
        """
        recipe = None if recipe is None else self._with_named_runs(recipe)
        earlier = None if go_on_from is None else find_earlier(self.path, go_on_from)
        due = None if after is None else self.path.parent
        checkpoint = None if anew else earlier or self.newest_checkpoint()
        job, wanted = job_again(self.path, recipe, executor, due, planner, goes_on=checkpoint is not None)
        if checkpoint is not None and wanted is not None:
            self._notes_on(checkpoint, wanted)
        (require_ready or job.executor.require_ready)(job)
        if job.plan is not None:
            require_space([job.plan], self.path, is_new=False)
        lock = take_lock(self.path, self._standing)
        try:
            try:
                prepare(self.path, self._standing, job, earlier, anew=anew)
            except OSError as error:
                raise RunError(f"run {run_title(self.path)} cannot be resumed: {error}") from None
            yield job, lock
        finally:
            os.close(lock)

    def place(self) -> str | None:
        """Return what identifies it in the backend where it was last started; `None` for nothing.

        Raises:
            RunError: job.json cannot be read.
        """
        return executor_class(self.record()).place(self.supervisor())

    def supervisor(self) -> PlainTable:
        """Return the entry `supervisor` of state.json, by which the executor identifies the run."""
        return self._standing.state().supervisor

    def _with_named_runs(self, recipe: Draft[Recipe]) -> Draft[Recipe]:
        return with_named_runs(recipe, (pipeline_of(self.path) or self.path).parent)

    def require_free(self) -> None:
        """Raise `RunError` if the run is in use and therefore cannot be started."""
        require_free(self.path, self._standing)
