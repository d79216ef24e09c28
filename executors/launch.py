"""From a recipe and an executor to a run."""

import contextlib
import dataclasses
import os
import secrets
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import fiddle as fdl

from executors import _process
from executors._checks import require_files, require_possible
from executors._foreground import start
from executors._lock import lock_or_warn
from executors._state import REMOVED, State, first_files, sync_tree
from executors.base import Executor, RefusedError
from executors.job import Job
from executors.local import LocalExecutor
from executors.runs import Run
from neva_recipes.config import Recipe, RunError, recipe_to_yaml, replaced_values, with_absolute_inputs
from neva_recipes.plan import Plan, plan
from neva_recipes.plan.checks import LONGEST_NAME, name_problem
from neva_recipes.secrets import secret_in

__all__ = ["check_name", "job_of", "plan_job", "run", "start_job", "write_run_directory"]


def plan_job(
    recipe: fdl.Buildable[Recipe],
    executor: Executor | None = None,
    *,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    gpu: str | None = None,
) -> Job:
    """Return what would be started, with its plan, and what it lacks (`Job.missing`); writes nothing.

    Args:
        recipe: What to train.
        executor: Where; none means `LocalExecutor()`.
        name: Name of the run; none means the recipe's.
        runs_dir: Folder of the run directory, which is called after the name and the time.
        gpu: Type of GPU to plan for; none means the executor's. Where neither names one, no memory error counts.

    Raises:
        RecipeError: The recipe is not valid, the executor cannot run such a job, or its GPUs cannot hold it.
        RunError: The name cannot be used.
    """
    executor = executor or LocalExecutor()
    planned = plan(recipe, executor, gpu=gpu)
    require_possible(planned)
    return job_of(recipe, planned, executor, name=name, runs_dir=runs_dir)


def job_of(
    recipe: fdl.Buildable[Recipe],
    planned: Plan,
    executor: Executor,
    *,
    name: str | None = None,
    runs_dir: str | Path = "runs",
) -> Job:
    """Return what a planned recipe would be started as, whether or not its plan has errors; writes nothing.

    Args:
        recipe: What to train.
        planned: Its plan, which has a layout.
        executor: Where.
        name: Name of the run; none means the recipe's.
        runs_dir: Folder of the run directory, which is called after the name and the time.

    Raises:
        RunError: The name cannot be used.
    """
    assert planned.layout is not None  # where there is no layout there are errors
    chosen = planned.recipe.name if name is None else name
    check_name(chosen)
    if kind := secret_in(str(runs_dir)):
        raise RunError(f"runs_dir: holds {kind}, and paths of runs are shown everywhere: choose another one")
    if "\0" in str(runs_dir):
        raise RunError(f"runs_dir={str(runs_dir)!r}: a path cannot hold the character NUL")
    moment = datetime.now().astimezone()
    return Job(
        name=chosen,
        created=moment.isoformat(),
        run_dir=Path(runs_dir).resolve() / f"{chosen}-{moment:%Y%m%d-%H%M%S}",
        recipe_yaml=recipe_to_yaml(with_absolute_inputs(recipe)),
        plan=planned,
        executor=executor,
        env=executor.job_environment(planned.layout),
        cwd=Path.cwd(),
        command_line=replaced_values(recipe),
    )


def start_job(job: Job, *, detach: bool = False, fill: Callable[[Path, Job], Job] | None = None) -> Run:
    """Write the run directory of a job and start it; where the place refuses the job, nothing of it is left.

    Args:
        job: What to start; where its directory is taken, a number is put behind its name.
        detach: Return once it runs instead of showing its log until it has ended.
        fill: Writes what else belongs into the directory, given the folder to write and the job with the path that the
            folder will have, and returns the job with what is known of it then.

    Raises:
        RunError: The directory cannot be written, or the job cannot be started.
    """
    job.executor.require_ready(job)
    try:
        placed, lock = _create_run_directory(job, fill)
    except OSError as error:
        where = error.filename or job.run_dir.parent
        raise RunError(f"{job.run_dir.parent}: cannot write a run directory: {error.strerror}: {where}") from None
    try:
        start(placed, lock, detach=detach)
    except RefusedError:
        _remove(placed.run_dir)
        raise
    finally:
        os.close(lock)
    return Run(placed.run_dir)


def run(
    recipe: fdl.Buildable[Recipe],
    executor: Executor | None = None,
    *,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    detach: bool = False,
) -> Run:
    """Check a recipe, write its run directory and start it.

    Args:
        recipe: What to train.
        executor: Where; none means `LocalExecutor()`.
        name: Name of the run; none means the recipe's.
        runs_dir: Folder of the run directory, which is called after the name and the time.
        detach: Return once it runs. Otherwise its log is printed until it has ended; Ctrl-C cancels it.

    Raises:
        RecipeError: The recipe is not valid, lacks an input, or cannot be run there.
        RunError: The name cannot be used, the directory cannot be written, or the job cannot be started.
    """
    job = plan_job(recipe, executor, name=name, runs_dir=runs_dir)
    if job.plan is not None:
        require_files(job.plan)
    return start_job(job, detach=detach)


def check_name(name: str) -> None:
    """Raise `RunError` if a run cannot be called that."""
    if kind := secret_in(name, os.environ):
        raise RunError(f"name: holds {kind}, and a run's name is shown everywhere: choose another one")
    if problem := name_problem(name):
        shown = repr(name) if len(name) <= LONGEST_NAME else f"{name[:30]!r}..."
        raise RunError(f"name={shown}: {problem}")


def write_run_directory(folder: Path, job: Job, state: State) -> None:
    """Write all that a run directory holds before its first start into a folder that nobody sees yet.

    Nothing is synced: `sync_tree` does that for all that is written before the folder gets its name.
    """
    (folder / "logs").mkdir(exist_ok=True)
    files = {**job.files, "logs/joined.log": "", **first_files(state), "job.json": job.to_json()}
    for name, text in files.items():
        _write(folder / name, text)
    _write(folder / "launch.sh", job.script(), mode=0o777)


def _write(path: Path, text: str, mode: int = 0o666) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def _create_run_directory(job: Job, fill: Callable[[Path, Job], Job] | None) -> tuple[Job, int]:
    """Write the directory under a hidden name and rename it, so that it is whole as soon as it can be seen."""
    folder = job.run_dir.parent
    folder.mkdir(parents=True, exist_ok=True)
    hidden = folder / f".new-{secrets.token_hex(8)}"
    hidden.mkdir()
    lock = None
    try:
        lock = lock_or_warn(hidden)
        assert lock is not None  # nobody else knows the directory
        number = 1
        while True:
            suffix = f"-{number}" if number > 1 else ""
            placed = dataclasses.replace(job, run_dir=folder / f"{job.run_dir.name}{suffix}")
            number += 1
            if placed.run_dir.exists():
                continue
            write_run_directory(hidden, placed, State(state="created", supervisor=_process.identify(os.getpid())))
            if fill is not None:
                placed = fill(hidden, placed)
            sync_tree(hidden)
            try:
                hidden.rename(placed.run_dir)
            except OSError:
                if placed.run_dir.exists():  # taken by another launch in this moment
                    continue
                raise
            return placed, lock
    except BaseException:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def _remove(run_dir: Path) -> None:
    """Take a run directory away; what cannot be removed has no name of a run, and `cleanup` finds it."""
    removed = run_dir.with_name(f"{REMOVED}{secrets.token_hex(8)}")
    with contextlib.suppress(OSError):
        run_dir.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)
