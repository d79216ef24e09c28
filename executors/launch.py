"""Makes a run of a recipe and an executor."""

import contextlib
import dataclasses
import os
import secrets
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from executors.base import Executor, Job, RefusedError
from executors.disk import require_space, tell_of_little_space
from executors.findings import require_here, require_possible
from executors.local import LocalExecutor
from executors.runs.foreground import require_foreground, start
from executors.runs.launches import NEW, sweep_launches
from executors.runs.paths import NEWEST
from executors.runs.run import Run
from executors.runs.standing import has_begun
from executors.settling import settle
from neva_recipes.config import (
    Draft,
    Recipe,
    RunError,
    local_path,
    recipe_to_yaml,
    replaced_values,
    with_absolute_inputs,
)
from neva_recipes.plan import Plan, plan
from neva_recipes.run_directory import processes
from neva_recipes.run_directory.layout import JOB_FILE, LAUNCH_FILE, LOCK_FILE, LOGS, joined_log
from neva_recipes.run_directory.lock import lock_or_warn
from neva_recipes.run_directory.names import LONGEST_NAME, name_problem
from neva_recipes.run_directory.removal import REMOVED
from neva_recipes.run_directory.state import UNDER_WAY, State, first_files, sync_tree
from neva_recipes.secrets import secret_in
from neva_recipes.terminal import tell

__all__ = ["check_name", "job_of", "plan_job", "run", "start_job", "write_run_directory"]


def plan_job(
    recipe: Draft[Recipe],
    executor: Executor | None = None,
    *,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    gpu: str | None = None,
) -> Job:
    """Return the job that would be started, with its plan and its missing inputs (`Job.missing`); writes nothing.

    Args:
        recipe: What to train.
        executor: Where; `None` means `LocalExecutor()`.
        name: Name of the run; `None` means the recipe's.
        runs_dir: Folder of the run directory, whose name is the run's name and the time.
        gpu: Type of GPU to plan for; `None` means the executor's. Memory errors are ignored if neither is set.

    Raises:
        RecipeError: The recipe is not valid, the executor cannot run the job, or the job needs too much GPU memory.
        RunError: The name cannot be used.
    """
    executor = executor or LocalExecutor()
    recipe = settle(recipe, runs_dir)
    planned = plan(recipe, executor, gpu=gpu, runs_dir=runs_dir)
    require_possible(planned)
    return job_of(recipe, planned, executor, name=name, runs_dir=runs_dir)


def job_of(
    recipe: Draft[Recipe],
    planned: Plan,
    executor: Executor,
    *,
    name: str | None = None,
    runs_dir: str | Path = "runs",
) -> Job:
    """Return the job of a planned recipe, whether or not its plan has errors; writes nothing.

    Args:
        recipe: What to train.
        planned: Its plan, which has a layout.
        executor: Where.
        name: Name of the run; `None` means the recipe's.
        runs_dir: Folder of the run directory, whose name is the run's name and the time.

    Raises:
        RunError: The name cannot be used.
    """
    assert planned.layout is not None  # only a plan with errors has no layout
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
        run_dir=local_path(runs_dir, "runs_dir").resolve() / f"{chosen}-{moment:%Y%m%d-%H%M%S}",
        recipe_yaml=recipe_to_yaml(with_absolute_inputs(recipe)),
        plan=planned,
        executor=executor,
        env=executor.job_environment(planned.layout),
        cwd=Path.cwd(),
        command_line=replaced_values(recipe),
    )


def start_job(
    job: Job,
    *,
    detach: bool = False,
    quiet: bool = False,
    check: bool = False,
    fill: Callable[[Path, Job], Job] | None = None,
) -> Run:
    """Write the run directory of a job and start it; removes the directory if the backend refuses the job.

    The warnings of its plan are first printed on standard error.

    Args:
        job: The job; if its directory exists, a number is appended to the name of the directory.
        detach: Return once the run has started instead of showing its log until it has ended.
        quiet: Print no warnings, and not how the run has ended.
        check: As for `run`.
        fill: Writes further files of the directory. Takes the folder to write to and the job with the folder's final
            path, and returns the completed job.

    Raises:
        KeyboardInterrupt: As for `run`.
        RunError: The directory cannot be written, or the job cannot be started; with `check`, as for `run`.
    """
    require_foreground(detach=detach, check=check)
    job.executor.require_ready(job)
    if job.plan is not None:
        require_space([job.plan], job.run_dir.parent)
        if not quiet:
            tell_of_little_space([job.plan], job.run_dir.parent)
    same_name = None if quiet else _under_way(job)
    try:
        placed, lock = _create_run_directory(job, fill)
    except OSError as error:
        where = error.filename or job.run_dir.parent
        if isinstance(error, FileExistsError):
            raise RunError(f"{where}: cannot write a run directory: is a file, expected a folder") from None
        raise RunError(f"{job.run_dir.parent}: cannot write a run directory: {error.strerror}: {where}") from None
    if same_name is not None:
        tell("note", f"{same_name}: the name {job.name} stands for the newer one now")
    try:
        start(placed, lock, detach=detach, quiet=quiet, check=check)
    except RefusedError:
        _remove(placed.run_dir)
        raise
    finally:
        os.close(lock)
    return Run(placed.run_dir)


def run(
    recipe: Draft[Recipe],
    executor: Executor | None = None,
    *,
    name: str | None = None,
    runs_dir: str | Path = "runs",
    detach: bool = False,
    quiet: bool = False,
    check: bool = False,
) -> Run:
    """Check a recipe, print the warnings of its plan, write its run directory and start it.

    Args:
        recipe: What to train.
        executor: Where; `None` means `LocalExecutor()`.
        name: Name of the run; `None` means the recipe's.
        runs_dir: Folder of the run directory, whose name is the run's name and the time.
        detach: Return once the run has started. Otherwise print its log until it has ended; Ctrl-C stops it.
        quiet: Print no warnings, and not how the run has ended.
        check: Raise `RunError` with the reason unless the run has succeeded; not with `detach`.

    Raises:
        KeyboardInterrupt: Ctrl-C has stopped the run, which has saved its work and ended.
        RecipeError: The recipe is not valid, lacks an input, or the executor cannot run it.
        RunError: The name cannot be used, the directory cannot be written, or the job cannot be started; with `check`,
            the run has not succeeded.
    """
    job = plan_job(recipe, executor, name=name, runs_dir=runs_dir)
    if job.plan is not None:
        require_here(job.plan)
    return start_job(job, detach=detach, quiet=quiet, check=check)


def check_name(name: str) -> None:
    """Raise `RunError` if a new run cannot have this name."""
    if kind := secret_in(name, os.environ):
        raise RunError(f"name: holds {kind}, and a run's name is shown everywhere: choose another one")
    if problem := name_problem(name):
        shown = repr(name) if len(name) <= LONGEST_NAME else f"{name[:30]!r}..."
        raise RunError(f"name={shown}: {problem}")
    if name == NEWEST:  # a run of this name would be found instead, and stopped, for good
        raise RunError(f"name={name!r}: commands take this word for the newest run: choose another name")


def write_run_directory(folder: Path, job: Job, state: State) -> None:
    """Write the initial files of a run directory into a folder that is still hidden.

    Nothing is synced: `sync_tree` does that for the whole folder before it is renamed.
    """
    (folder / LOGS).mkdir(exist_ok=True)
    _write(joined_log(folder), "")
    files = {**job.files, **first_files(state), JOB_FILE: job.to_json()}
    for name, text in files.items():
        _write(folder / name, text)
    _write(folder / LAUNCH_FILE, job.script(), mode=0o777)


def _write(path: Path, text: str, mode: int = 0o666) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def _under_way(job: Job) -> str | None:
    """Return the state of the newest earlier run of this name, as text; `None` if it has ended or there is none."""
    beginning = f"{job.name}-"
    with contextlib.suppress(OSError, RunError):
        paths = [path for path in job.run_dir.parent.iterdir() if path.name.startswith(beginning)]
        for path in sorted(paths, key=lambda path: path.name, reverse=True):
            run = Run(path)
            if _name_of(run) == job.name and has_begun(path):
                state = run.status().state
                return f"{run.name} is still {state}" if state in UNDER_WAY else None
    return None


def _name_of(run: Run) -> str | None:
    try:
        name: str = run.record()["name"]
    except RunError:  # no run, or a run whose job.json is damaged
        return None
    return name


def _create_run_directory(job: Job, fill: Callable[[Path, Job], Job] | None) -> tuple[Job, int]:
    """Write the directory under a hidden name and rename it, so that nobody sees it incomplete."""
    folder = job.run_dir.parent
    folder.mkdir(parents=True, exist_ok=True)
    sweep_launches(folder)
    hidden, lock = _hidden_directory(folder)
    try:
        number = 1
        while True:
            suffix = f"-{number}" if number > 1 else ""
            placed = dataclasses.replace(job, run_dir=folder / f"{job.run_dir.name}{suffix}")
            number += 1
            if placed.run_dir.exists():
                continue
            write_run_directory(hidden, placed, State(state="created", supervisor=processes.identify(os.getpid())))
            if fill is not None:
                placed = fill(hidden, placed)
            sync_tree(hidden)
            try:
                hidden.rename(placed.run_dir)
            except OSError:
                if placed.run_dir.exists():  # another launch has just created it
                    continue
                raise
            return placed, lock
    except BaseException:
        os.close(lock)
        shutil.rmtree(hidden, ignore_errors=True)
        raise


def _hidden_directory(folder: Path) -> tuple[Path, int]:
    """Return a new hidden directory and the descriptor of its lock."""
    while True:
        hidden = folder / f"{NEW}{secrets.token_hex(8)}"
        hidden.mkdir()
        try:
            lock = lock_or_warn(hidden)
        except FileNotFoundError:
            continue
        # Another launch may have removed the directory before it was locked, as the leftover of a killed launch.
        if lock is not None and (hidden / LOCK_FILE).exists():
            return hidden, lock
        if lock is not None:
            os.close(lock)


def _remove(run_dir: Path) -> None:
    """Remove a run directory; it is renamed first, so that `cleanup` finds whatever cannot be removed."""
    removed = run_dir.with_name(f"{REMOVED}{secrets.token_hex(8)}")
    with contextlib.suppress(OSError):
        run_dir.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)
