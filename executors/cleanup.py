"""What folders of runs hold that nothing needs any more, and taking it away."""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from executors._finding import list_runs
from executors._lock import NoLocksError, acquire_lock
from executors._state import REMOVED
from executors.runs import Run
from neva_recipes.config import CheckpointError, RunError, UserError, load_recipe, recipe_to_plain
from neva_recipes.plan.checkpoints import find_checkpoint

__all__ = ["Leftover", "find_leftovers", "remove_leftover"]

_LAUNCH_AGE = timedelta(hours=1)
_STAGES = "stages"


@dataclass(frozen=True)
class Leftover:
    """A directory that can go.

    Attributes:
        path: The directory.
        what: What it is, in two or three words.
        size: Bytes on the disk.
        run: The run it belongs to; none for what is not in a run.
    """

    path: Path
    what: str
    size: int
    run: Run | None


def find_leftovers(runs_dir: str | Path = "runs", older_than: timedelta | None = None) -> list[Leftover]:
    """Return what can be removed; removes nothing.

    Directories of launches that were killed before they had a name, and what a removal that was killed has left. With
    `older_than` also, of runs that ended longer ago than that, data caches and all checkpoints but the newest whole
    one. A run that has not ended is left alone, and so is one that the recipe of another run of the folder names.

    Raises:
        RunError: The folder cannot be read.
    """
    runs = {run: _stages(run) for run in list_runs(runs_dir)}
    # A link in the folder can lead to one of them.
    stages = {os.path.realpath(stage.path) for parts in runs.values() for stage in parts}
    runs = {run: parts for run, parts in runs.items() if os.path.realpath(run.path) not in stages}
    found = [*_dead_launches(Path(runs_dir).resolve())]
    for run in (one for outer, stages in runs.items() for one in (outer, *stages)):
        for place in (run.path, run.path / "checkpoints"):
            found += [_leftover(path, "removal cut short", run) for path in sorted(place.glob(f"{REMOVED}*"))]
    if older_than is None:
        return found
    old = [one for run in runs if _ended_before(run, older_than) for one in (run, *runs[run])]
    spare = {run: parts for run in old if _ended_before(run, older_than) and (parts := list(_spare_parts(run)))}
    named = {run.path: _strings_of(run) for outer in runs for run in (outer, *runs[outer])} if spare else {}
    return found + [part for run, parts in spare.items() if not _is_needed(run, named) for part in parts]


def remove_leftover(leftover: Leftover) -> bool:
    """Remove a directory that `find_leftovers` has returned; return false if its run has been started again.

    Raises:
        RunError: It cannot be removed.
    """
    try:
        with _locked(leftover.path if leftover.run is None else leftover.run.path) as free:
            if not free or (leftover.run is not None and not all(run.has_ended() for run in _with_owner(leftover.run))):
                return False
            # Under another name first: half a checkpoint must not have the name of a whole one.
            path = leftover.path
            if not path.name.startswith(REMOVED):
                path = path.rename(path.with_name(f"{REMOVED}{path.name}"))
            shutil.rmtree(path)
    except FileNotFoundError:  # somebody else has removed it
        return True
    except OSError as error:
        raise RunError(f"{leftover.path}: cannot be removed: {error.strerror}") from None
    return True


def _dead_launches(folder: Path) -> Iterator[Leftover]:
    for path in sorted([*folder.glob(".new-*"), *folder.glob(f"{REMOVED}*")]):
        with contextlib.suppress(OSError):
            # A launch takes its lock a moment after it has made the directory.
            if path.is_dir() and time.time() - path.stat().st_mtime > _LAUNCH_AGE.total_seconds() and _is_free(path):
                yield _leftover(path, "launch cut short", None)


def _is_free(path: Path) -> bool:
    if not (path / ".lock").exists():  # asking for the lock would write it
        return True
    with _locked(path) as free:
        return free


def _ended_before(run: Run, age: timedelta) -> bool:
    try:
        status = run.status()
    except UserError:
        return False
    if status.exit_code is None:
        return False
    # Of a run that is lost nobody has seen the end.
    last = status.ended or datetime.fromtimestamp((run.path / "state.json").stat().st_mtime).astimezone()
    return datetime.now().astimezone() - last > age


def _spare_parts(run: Run) -> Iterator[Leftover]:
    cache = run.path / "data_cache"
    if cache.is_dir():
        yield _leftover(cache, "data cache", run)
    whole = False
    for path in sorted(run.path.glob("checkpoints/step-*"), reverse=True):
        if whole:
            yield _leftover(path, "checkpoint", run)
        else:
            with contextlib.suppress(CheckpointError):
                whole = find_checkpoint(path) == path


def _stages(run: Run) -> list[Run]:
    """Return the runs inside the directory of a pipeline."""
    return [Run(path.parent) for path in sorted(run.path.glob(f"{_STAGES}/*/job.json"))]


def _with_owner(run: Run) -> list[Run]:
    return [run, Run(run.path.parents[1])] if run.path.parent.name == _STAGES else [run]


def _strings_of(run: Run) -> set[str]:
    """Return every string in the recipe and the job of a run; of a file that cannot be read, its whole text."""
    texts: set[str] = set()
    for name, read in (("recipe.yaml", _recipe_of), ("job.json", Run.record)):
        try:
            texts.update(_strings(read(run)))
        except UserError:
            with contextlib.suppress(OSError):
                texts.add((run.path / name).read_text(encoding="utf-8", errors="replace"))
    return texts


def _recipe_of(run: Run) -> Any:
    return recipe_to_plain(load_recipe(run.path / "recipe.yaml"))


def _strings(node: object) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _strings(value)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value)


def _is_needed(run: Run, named: dict[Path, set[str]]) -> bool:
    """Return whether the recipe or the job of another run names a run, or the pipeline that it is a stage of."""
    # By name, wherever it stands: the same folder may be mounted, or linked to, elsewhere.
    for part in _with_owner(run):
        name = f"{part.path.parents[1].name}/{_STAGES}/{part.name}" if part.path.parent.name == _STAGES else part.name
        others = (texts for path, texts in named.items() if part.path not in (path, *path.parents))
        if any(name in text for texts in others for text in texts):
            return True
    return False


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Hold the lock of a directory; where there are no locks its age and its state must do."""
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


def _leftover(path: Path, what: str, run: Run | None) -> Leftover:
    size = 0
    for folder, _, files in os.walk(path):
        for name in files:
            with contextlib.suppress(OSError):
                size += (Path(folder) / name).lstat().st_blocks * 512
    return Leftover(path, what, size, run)
