"""Prepares a further attempt at a run: takes its lock, and brings its directory into the state `created`."""

import os
import time
from pathlib import Path

from executors.base import Job
from executors.job_record import read_job_record
from executors.process.rank import trains
from executors.runs.going_back import set_all_aside, set_newer_aside
from executors.runs.standing import ENDED, POLL_SECONDS, Standing
from neva_recipes.config import RunError
from neva_recipes.plan.serialization import plan_to_json
from neva_recipes.run_directory import processes
from neva_recipes.run_directory.attempt import before, keep_before
from neva_recipes.run_directory.layout import FAILURE_FILE, JOB_FILE, LAUNCH_FILE, LOGS, PLAN_FILE, RECIPE_FILE
from neva_recipes.run_directory.lock import lock_or_warn
from neva_recipes.run_directory.names import earlier_recipe_name, earlier_recipes
from neva_recipes.run_directory.stages import run_title
from neva_recipes.run_directory.state import (
    State,
    clear_unfinished,
    reserve_space,
    seconds_so_far,
    write_atomically,
    write_state,
)
from neva_recipes.terminal import tell

__all__ = ["prepare", "require_free", "take_lock"]

_LOCK_PATIENCE_SECONDS = 30.0


def take_lock(run_dir: Path, standing: Standing) -> int:
    """Return the lock of a run directory; waits for a run that has just ended to release it.

    Raises:
        RunError: The run is in use, or the lock cannot be taken.
    """
    deadline = time.monotonic() + _LOCK_PATIENCE_SECONDS
    was_lost = standing.state().state == "lost"  # checked first, while a free lock can show this
    try:
        while (lock := lock_or_warn(run_dir)) is None and standing.has_ended() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    except OSError as error:
        raise RunError(f"run {run_title(run_dir)} cannot be resumed: {error}") from None
    state = standing.state()
    if lock is not None and (_is_free(state) or (was_lost and state.state == "created")):
        return lock
    if lock is not None:
        os.close(lock)
    raise _in_use(run_dir, state)


def require_free(run_dir: Path, standing: Standing) -> None:
    """Raise `RunError` if a run is in use and therefore cannot be started."""
    if not _is_free(state := standing.state()):
        raise _in_use(run_dir, state)


def _is_free(state: State) -> bool:
    return state.state in ENDED or not state.supervisor


def _in_use(run_dir: Path, state: State) -> RunError:
    owner = f" on {state.supervisor['hostname']}" if "hostname" in state.supervisor else ""
    return RunError(f"run {run_title(run_dir)} is in use: {state.state}{owner}; cancel it first")


def prepare(run_dir: Path, standing: Standing, job: Job, earlier: Path | None, *, anew: bool = False) -> None:
    """Bring a run directory into the state `created`, whatever the last attempt has left.

    Args:
        run_dir: The run directory, whose lock the caller holds.
        standing: The run's `Standing`.
        job: The job to start.
        earlier: Checkpoint to go on from; `None` for the newest.
        anew: Whether to go on from none.
    """
    is_again = before(run_dir).is_dir()
    if trains(job.argv):
        keep_before(run_dir)
    lines = set_all_aside(run_dir) if anew else [] if earlier is None else set_newer_aside(earlier)
    for line in lines:
        tell("note", line)
    _replace_recipe(run_dir, job, is_again)
    clear_unfinished(run_dir)
    (run_dir / LOGS).mkdir(exist_ok=True)
    (run_dir / FAILURE_FILE).unlink(missing_ok=True)
    write_atomically(run_dir / JOB_FILE, job.to_json())
    write_atomically(run_dir / LAUNCH_FILE, job.script(), mode=0o777)
    reserve_space(run_dir)
    state = standing.state()
    created = State(
        state="created",
        attempt=state.attempt + 1 if state.supervisor else 1,
        earlier_seconds=seconds_so_far(run_dir, state),
        supervisor=processes.identify(os.getpid()),
    )
    write_state(run_dir, created)


def _replace_recipe(run_dir: Path, job: Job, is_again: bool) -> None:
    if job.recipe_yaml is None or job.plan is None:
        return
    recipe_file, plan_file = run_dir / RECIPE_FILE, run_dir / PLAN_FILE
    # A recipe with which no attempt has trained is not kept.
    trained = before(run_dir) / recipe_file.name
    old = (trained if trained.is_file() else recipe_file).read_text(encoding="utf-8")
    if job.recipe_yaml != old or is_again:
        earlier = earlier_recipes(run_dir)
        # A process that was killed here may already have kept the old recipe.
        if job.recipe_yaml != old and (not earlier or earlier[-1].read_text(encoding="utf-8") != old):
            write_atomically(run_dir / earlier_recipe_name(len(earlier) + 1), old)
        plan_file.unlink(missing_ok=True)
        write_atomically(recipe_file, job.recipe_yaml)
    if not plan_file.exists() or read_job_record(run_dir)["executor"].get("gpu") != job.executor.gpu:
        write_atomically(plan_file, plan_to_json(job.plan))
