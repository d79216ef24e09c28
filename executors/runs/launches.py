"""Finds and removes hidden directories that killed launches and removals have left in a folder of runs."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from neva_recipes.run_directory.layout import LOCK_FILE
from neva_recipes.run_directory.lock import NoLocksError, acquire_lock
from neva_recipes.run_directory.removal import REMOVED, remove_directory

__all__ = ["NEW", "dead_launches", "sweep_launches"]

NEW = ".new-"
"""Prefix in the name of a run directory that is being written."""

_UNLOCKED_AGE_SECONDS = 3600.0
"""On file systems without locks, a hidden directory older than this is considered left over."""


def dead_launches(folder: Path) -> Iterator[Path]:
    """Yield the directories in a folder of runs that a killed launch has left; changes nothing."""
    for path in _hidden(folder):
        with contextlib.suppress(OSError):
            # Requesting a lock would create its file, and a launch takes its lock shortly after it has made the
            # directory.
            is_old = time.time() - path.stat().st_mtime > _UNLOCKED_AGE_SECONDS
            if not (path / LOCK_FILE).exists():
                if is_old:
                    yield path
                continue
            try:
                lock = acquire_lock(path)
            except NoLocksError:
                if is_old:
                    yield path
                continue
            if lock is not None:
                os.close(lock)
                yield path


def sweep_launches(folder: Path) -> None:
    """Remove the directories that killed launches have left in a folder of runs.

    A free lock shows that a launch is dead; without locks, its age does. Skips directories that cannot be removed.
    """
    for path in _hidden(folder):
        with contextlib.suppress(OSError):
            try:
                lock = acquire_lock(path)
            except NoLocksError:
                if time.time() - path.stat().st_mtime <= _UNLOCKED_AGE_SECONDS:
                    continue
                lock = None
            else:
                if lock is None:
                    continue
            try:
                remove_directory(path)
            finally:
                if lock is not None:
                    os.close(lock)


def _hidden(folder: Path) -> list[Path]:
    return sorted(path for beginning in (NEW, REMOVED) for path in folder.glob(f"{beginning}*") if path.is_dir())
