"""Finds and removes directories in a folder of runs that are no longer needed."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from executors.runs.finding import list_runs
from executors.runs.going_back import ASIDE
from executors.runs.launches import dead_launches
from executors.runs.references import References, owner_of
from executors.runs.run import Run
from neva_recipes.config import RunError, UserError, local_path
from neva_recipes.run_directory.layout import CHECKPOINTS, DATA_CACHE, STATE_FILE
from neva_recipes.run_directory.lock import NoLocksError, acquire_lock
from neva_recipes.run_directory.names import list_checkpoints
from neva_recipes.run_directory.removal import REMOVED, remove_directory
from neva_recipes.run_directory.stages import stage_directories
from neva_recipes.storage.best import best_checkpoint
from neva_recipes.storage.checkpoints import what_is_wrong

__all__ = ["Leftover", "find_leftovers", "remove_leftovers"]


@dataclass(frozen=True)
class Leftover:
    """A directory that can be removed.

    Attributes:
        path: The directory.
        what: Its kind, in two or three words.
        size: Bytes on the disk.
        run: The run it belongs to; `None` for a directory outside of a run.
        stands_in: For a checkpoint, the newer one that replaces it; `None` for other directories.
    """

    path: Path
    what: str
    size: int
    run: Run | None
    stands_in: Path | None = None


def find_leftovers(runs_dir: str | Path = "runs", older_than: timedelta | None = None) -> list[Leftover]:
    """Return the directories that can be removed; removes nothing.

    These are the hidden directories of killed launches and killed removals. With `older_than`, for runs that ended
    longer ago than that, also the data caches and all checkpoints but the newest intact one (whose large files are not
    read here) and the best by validation loss. Skips runs that have not ended, and runs that the recipe of another run
    of the folder names.

    Raises:
        RunError: The folder cannot be read.
    """
    runs = {run: _stages(run) for run in list_runs(runs_dir)}
    # A link in the folder can point to a stage.
    stages = {os.path.realpath(stage.path) for parts in runs.values() for stage in parts}
    runs = {run: parts for run, parts in runs.items() if os.path.realpath(run.path) not in stages}
    folder = local_path(runs_dir, "runs_dir").resolve()
    found = [_leftover(path, "launch cut short", None) for path in dead_launches(folder)]
    for run in (one for outer, stages in runs.items() for one in (outer, *stages)):
        for place in (run.path, run.path / CHECKPOINTS):
            found += [_leftover(path, "removal cut short", run) for path in sorted(place.glob(f"{REMOVED}*"))]
    if older_than is None:
        return found
    old = [one for run in runs if _ended_before(run, older_than) for one in (run, *runs[run])]
    spare = {run: parts for run in old if _ended_before(run, older_than) and (parts := list(_spare_parts(run)))}
    if not spare:
        return found
    references = References(run for outer in runs for run in (outer, *runs[outer]))
    return found + [part for run, parts in spare.items() if not references.is_needed(run) for part in parts]


def remove_leftovers(leftovers: Iterable[Leftover]) -> Iterator[tuple[Leftover, str | None]]:
    """Remove directories that `find_leftovers` has returned, in turn.

    Removes a checkpoint only if the one that replaces it is intact; reads all files of that one, once.

    Yields:
        Each directory, and why it was kept; `None` if it was removed.

    Raises:
        RunError: A directory cannot be removed.
    """
    damage: dict[Path, str | None] = {}
    for leftover in leftovers:
        try:
            with _locked(leftover.path if leftover.run is None else leftover.run.path) as free:
                run, stands_in = leftover.run, leftover.stands_in
                if not free or (run is not None and not all(one.has_ended() for one in _with_owner(run))):
                    yield leftover, "in use"
                    continue
                if stands_in is not None and stands_in not in damage:
                    damage[stands_in] = what_is_wrong(stands_in, with_shards=True)
                if stands_in is not None and damage[stands_in] is not None:
                    yield leftover, f"{stands_in.name} is damaged"
                    continue
                remove_directory(leftover.path)
        except OSError as error:
            raise RunError(f"{leftover.path}: cannot be removed: {error.strerror}") from None
        yield leftover, None


def _ended_before(run: Run, age: timedelta) -> bool:
    try:
        status = run.status()
    except UserError:
        return False
    if status.exit_code is None:
        return False
    # The end of a lost run is unknown.
    last = status.ended or datetime.fromtimestamp((run.path / STATE_FILE).stat().st_mtime).astimezone()
    return datetime.now().astimezone() - last > age


def _spare_parts(run: Run) -> Iterator[Leftover]:
    cache = run.path / DATA_CACHE
    if cache.is_dir():
        yield _leftover(cache, "data cache", run)
    newest: Path | None = None
    best = best_checkpoint(run.path)
    for path in reversed(list_checkpoints(run.path / CHECKPOINTS)):
        if newest is not None and best is not None and path == best[0]:
            continue  # training keeps it too, and the results of a run name it
        if newest is not None:
            yield _leftover(path, "checkpoint", run, newest)
        elif what_is_wrong(path, with_shards=False) is None:
            newest = path
    if newest is not None:
        for path in sorted((run.path / CHECKPOINTS).glob(f"{ASIDE}*")):
            yield _leftover(path, "checkpoint set aside", run, newest)


def _stages(run: Run) -> list[Run]:
    """Return the runs inside the directory of a pipeline."""
    return [Run(path) for path in stage_directories(run.path)]


def _with_owner(run: Run) -> list[Run]:
    return [run] if (owner := owner_of(run)) is None else [run, owner]


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Hold the lock of a directory and yield whether it was free; `True` on a file system without locks."""
    try:
        lock = acquire_lock(directory)
    except NoLocksError:
        yield True
        return
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _leftover(path: Path, what: str, run: Run | None, stands_in: Path | None = None) -> Leftover:
    size = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                size += (Path(folder) / name).lstat().st_blocks * 512
    return Leftover(path, what, size, run, stands_in)
